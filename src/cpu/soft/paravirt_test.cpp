// KVM's paravirtual clock as a guest reads it, for TSCs of any frequency; what happens to it at INIT, after a
// snapshot, and without a clock of the VM. The rest is in tests/guests/kvm.asm.
#include "cpu/soft/paravirt.h"

#include <cstdlib>
#include <gtest/gtest.h>

#include "base/fake_clock.h"
#include "cpu/soft/blocks.h"
#include "cpu/soft/soft_system.h"
#include "cpu/soft/system.h"

namespace tessera::soft {
namespace {

constexpr u32 kWallClock = 0x4b564d00, kSystemTime = 0x4b564d01, kPvEoi = 0x4b564d04;

class SetTsc final : public TscSource {
public:
    [[nodiscard]] u64 ticks() const override { return now; }
    [[nodiscard]] u64 hz() const override { return frequency; }
    u64 now = 0, frequency = 1'000'000'000;
};

class ParavirtTest : public ::testing::Test {
protected:
    static constexpr u64 kRam = 64 * 1024, kPage = 0x3000;

    explicit ParavirtTest(bool with_clock = true)
        : system_(CpuWorld{memory_, ports_, mmio_, tsc_, nullptr, nullptr, with_clock ? &clock_ : nullptr},
                  SoftCpuConfig{.cpus = 2}) {
        (void)memory_.add("ram", RegionKind::Ram, 0, std::span(ram_, kRam));
        std::memset(ram_, 0, kRam);
        for (unsigned i = 0; i < 2; ++i) {
            system_.vcpu(i).interrupts = &interrupts_;
            system_.vcpu(i).blocks = &blocks_[i];
            import_state(system_.vcpu(i), x86::reset_state());
        }
    }
    ~ParavirtTest() override { std::free(ram_); }

    template <typename T>
    T read(u64 at) {
        T value{};
        std::memcpy(&value, ram_ + at, sizeof(T));
        return value;
    }
    // [LINUX-KVM msr] what a guest makes of the page and its TSC.
    u64 guest_time(const Vcpu& c, u64 page) {
        u64 time = tsc_.now + static_cast<u64>(c.msr.tsc_offset) - read<u64>(page + 8);
        const auto shift = read<s8>(page + 28);
        time = shift >= 0 ? time << shift : time >> -shift;
        return static_cast<u64>((static_cast<u128>(time) * read<u32>(page + 24)) >> 32) +
               read<u64>(page + 16);
    }

    std::byte* ram_ = static_cast<std::byte*>(std::aligned_alloc(kPageSize, kRam));
    FakeClock clock_;
    SetTsc tsc_;
    MemoryMap memory_;
    IoBus ports_, mmio_;
    NoInterrupts interrupts_;
    std::array<BlockCache, 2> blocks_;
    SoftSystem system_;
    Vcpu& c_ = system_.vcpu(0);
};

TEST_F(ParavirtTest, TimeRunsAsTheTscDoesAtAnyFrequency) {
    for (const u64 hz : {1'000'000ULL, 24'000'000ULL, 999'999'999ULL, 1'000'000'000ULL, 1'000'000'001ULL,
                         2'445'430'000ULL, 5'000'000'000ULL, 100'000'000'000ULL}) {
        tsc_.frequency = hz;
        tsc_.now = hz / 3;
        ASSERT_TRUE(write_paravirt_msr(c_, kSystemTime, kPage | 1));
        EXPECT_EQ(read<u32>(kPage) % 2, 0u);
        EXPECT_EQ(read<u8>(kPage + 29), 1) << "stable";
        for (const u64 seconds : {0, 1, 3600, 1'000'000}) {
            tsc_.now = hz * seconds + hz / 7;
            const double expected = 1e9 * static_cast<double>(seconds) + 1e9 / 7;
            EXPECT_NEAR(static_cast<double>(guest_time(c_, kPage)), expected, 1e-9 * expected + 2000)
                << hz << " Hz, " << seconds << " s";
        }
        // Linux takes the frequency from here.
        const auto shift = read<s8>(kPage + 28);
        u64 khz = (u64{1'000'000} << 32) / read<u32>(kPage + 24);
        khz = shift < 0 ? khz << -shift : khz >> shift;
        EXPECT_NEAR(static_cast<double>(khz), static_cast<double>(hz) / 1000,
                    1 + static_cast<double>(hz) / 1e9);
    }
}

TEST_F(ParavirtTest, AllCpusHaveTheSameTimeWhateverTheirTscs) {
    Vcpu& other = system_.vcpu(1);
    tsc_.frequency = 2'445'430'000;
    tsc_.now = 123'456'789'012;
    c_.msr.tsc_offset = -777'000'000'000;
    other.msr.tsc_offset = 55;
    ASSERT_TRUE(write_paravirt_msr(c_, kSystemTime, kPage | 1));
    tsc_.now += 1'000'000'007;
    ASSERT_TRUE(write_paravirt_msr(other, kSystemTime, (kPage + 0x40) | 1));
    for (unsigned i = 0; i < 1000; ++i) {
        tsc_.now += 7'919'919;
        EXPECT_EQ(guest_time(c_, kPage), guest_time(other, kPage + 0x40));
    }
}

TEST_F(ParavirtTest, TheTimeOfDayIsWallClockPlusSystemTime) {
    tsc_.frequency = 2'000'000'000;
    tsc_.now = 9'000'000'000;
    clock_.wall_base_ns = 1'700'000'000'123'456'789;
    ASSERT_TRUE(write_paravirt_msr(c_, kWallClock, kPage + 0x80));
    ASSERT_TRUE(write_paravirt_msr(c_, kSystemTime, kPage | 1));
    EXPECT_EQ(read<u32>(kPage + 0x80) % 2, 0u);
    EXPECT_NE(read<u32>(kPage + 0x80), 0u);
    const u64 wall =
        read<u32>(kPage + 0x84) * u64{1'000'000'000} + read<u32>(kPage + 0x88) + guest_time(c_, kPage);
    EXPECT_NEAR(static_cast<double>(wall - clock_.wall_base_ns), 0.0, 10.0);
}

TEST_F(ParavirtTest, TheVersionMovesOnFromWhateverItWas) {
    for (const u32 before : {0u, 1u, 6u, 7u, ~0u, ~1u}) {
        std::memcpy(ram_ + kPage, &before, 4);
        ASSERT_TRUE(write_paravirt_msr(c_, kSystemTime, kPage | 1));
        EXPECT_EQ(read<u32>(kPage) % 2, 0u);
        EXPECT_NE(read<u32>(kPage), before);
    }
}

TEST_F(ParavirtTest, ALoadedStateBringsThePageUpToDate) {
    ASSERT_TRUE(write_paravirt_msr(c_, kSystemTime, kPage | 1));
    x86::State state;
    export_state(c_, state);
    EXPECT_EQ(state.msr.kvm_system_time, kPage | 1);
    state.msr.tsc_offset = 1000;
    std::memset(ram_, 0, kRam);
    import_state(c_, state);
    EXPECT_EQ(read<u32>(kPage), 0u) << "the caller may not have put memory in place yet";
    service_events(c_);
    EXPECT_EQ(read<u64>(kPage + 8), 1000u);
    EXPECT_NE(read<u32>(kPage + 24), 0u);
}

TEST_F(ParavirtTest, InitForgetsTheGuestsAddresses) {
    ASSERT_TRUE(write_paravirt_msr(c_, kSystemTime, kPage | 1));
    ASSERT_TRUE(write_paravirt_msr(c_, kPvEoi, (kPage + 0x100) | 1));
    x86::State state;
    export_state(c_, state);
    state = x86::init_state(state);
    EXPECT_EQ(state.msr.kvm_system_time, 0u);
    EXPECT_EQ(state.msr.kvm_pv_eoi, 0u);
}

class ParavirtWithoutClockTest : public ParavirtTest {
protected:
    ParavirtWithoutClockTest() : ParavirtTest(false) {}
};

TEST_F(ParavirtWithoutClockTest, TheClocksMsrsAreNotThere) {
    u64 value = 0;
    EXPECT_FALSE(write_paravirt_msr(c_, kWallClock, kPage));
    EXPECT_FALSE(write_paravirt_msr(c_, kSystemTime, kPage | 1));
    EXPECT_FALSE(read_paravirt_msr(c_, kSystemTime, value));
    EXPECT_TRUE(write_paravirt_msr(c_, kPvEoi, kPage | 1));
    EXPECT_EQ(read<u32>(kPage), 0u);
}

}  // namespace
}  // namespace tessera::soft
