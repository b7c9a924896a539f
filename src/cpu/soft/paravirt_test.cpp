// KVM's paravirtual clock as a guest reads it, for TSCs of any frequency; what happens to it at INIT, after a
// snapshot, and without a clock of the VM. The rest is in tests/guests/kvm.asm.
#include "cpu/soft/paravirt.h"

#include <array>
#include <cstdlib>
#include <cstring>
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
    static constexpr BlockCacheBounds kBounds = BlockCacheBounds::for_code_cache(kMiB);
    std::array<BlockCache, 2> blocks_{BlockCache(kBounds), BlockCache(kBounds)};
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

// --- end of interrupt, against an APIC that does as it is told

class ToldApic final : public CpuInterrupts {
public:
    Events take_events() override { return {}; }
    [[nodiscard]] bool interrupt_pending() override { return false; }
    std::optional<u8> acknowledge() override { return std::nullopt; }
    [[nodiscard]] u8 cr8() override { return 0; }
    void set_cr8(u8 /*value*/) override {}
    MsrResult read_msr(u32 /*index*/, u64& /*value*/) override { return MsrResult::NotMine; }
    MsrResult write_msr(u32 /*index*/, u64 /*value*/) override { return MsrResult::NotMine; }
    [[nodiscard]] bool owns_page(u64 page) const override { return page == own_page; }
    u32 read_register(u32 /*offset*/) override { return 0; }
    void write_register(u32 /*offset*/, u32 /*value*/) override { ++writes; }
    [[nodiscard]] u32 apic_id() const override { return 0; }
    [[nodiscard]] bool is_bootstrap() const override { return true; }
    [[nodiscard]] bool globally_enabled() const override { return true; }
    void set_tsc_offset(s64 /*offset*/) override {}
    void init_reset() override {}
    [[nodiscard]] bool eoi_can_wait(u8 /*vector*/) override { return alone; }
    [[nodiscard]] bool requested() override { return more; }
    void end_of_interrupt() override { ++ends; }

    u64 own_page = 0xfee00000;
    bool alone = true, more = false;
    unsigned ends = 0, writes = 0;
};

class ParavirtEoiTest : public ParavirtTest {
protected:
    static constexpr u64 kWord = kPage + 0x40;
    ParavirtEoiTest() {
        c_.interrupts = &apic_;
        EXPECT_TRUE(write_paravirt_msr(c_, kPvEoi, kWord | 1));
    }
    void put(u32 value) { std::memcpy(ram_ + kWord, &value, 4); }
    ToldApic apic_;
};

TEST_F(ParavirtEoiTest, TheApicLearnsOfAnEndThatTheGuestHasMarked) {
    put(0xfffffffe);
    offer_paravirt_eoi(c_, 0x50);
    EXPECT_EQ(read<u32>(kWord), 0xffffffffu) << "only the lowest bit is ours";
    poll_paravirt_eoi(c_);
    EXPECT_EQ(apic_.ends, 0u) << "not yet";
    EXPECT_TRUE(c_.paravirt_eoi_offered);
    put(0xfffffffe);
    poll_paravirt_eoi(c_);
    EXPECT_EQ(apic_.ends, 1u);
    EXPECT_FALSE(c_.paravirt_eoi_offered);
}

TEST_F(ParavirtEoiTest, AnOfferIsTakenBackWhenAnotherInterruptIsRequested) {
    offer_paravirt_eoi(c_, 0x50);
    apic_.more = true;
    poll_paravirt_eoi(c_);
    EXPECT_EQ(read<u32>(kWord), 0u) << "the guest writes EOI, and the APIC delivers the next";
    EXPECT_FALSE(c_.paravirt_eoi_offered);
    EXPECT_EQ(apic_.ends, 0u);
}

TEST_F(ParavirtEoiTest, NothingIsOfferedForWhatTheApicMustHearOf) {
    apic_.alone = false;
    offer_paravirt_eoi(c_, 0x50);
    EXPECT_EQ(read<u32>(kWord), 0u);
    EXPECT_FALSE(c_.paravirt_eoi_offered);
}

TEST_F(ParavirtEoiTest, TheOfferEndsWhenTheGuestUsesTheApic) {
    offer_paravirt_eoi(c_, 0x50);
    end_paravirt_eoi(c_);
    EXPECT_EQ(read<u32>(kWord), 0u);
    EXPECT_EQ(apic_.ends, 0u) << "the guest's own EOI follows";
    offer_paravirt_eoi(c_, 0x50);
    put(0);
    end_paravirt_eoi(c_);
    EXPECT_EQ(apic_.ends, 1u);
}

TEST_F(ParavirtEoiTest, AWordUnderTheApicsPageIsNoRam) {
    apic_.own_page = kPage;
    offer_paravirt_eoi(c_, 0x50);
    EXPECT_FALSE(c_.paravirt_eoi_offered);
    EXPECT_EQ(read<u32>(kWord), 0u);
    EXPECT_EQ(apic_.writes, 0u);
    apic_.own_page = ~u64{0};
    offer_paravirt_eoi(c_, 0x50);
    apic_.own_page = kPage;  // moved over it meanwhile
    poll_paravirt_eoi(c_);
    EXPECT_EQ(apic_.ends, 0u);
    EXPECT_EQ(apic_.writes, 0u);
}

// [LINUX-KVM msr] kvm_steal_time: steal 0, version 8, flags 12, preempted 16.
TEST_F(ParavirtEoiTest, AGuestFromKvmLearnsThatItsCpusAreNotPreempted) {
    constexpr u64 kStealPage = 0x5040;
    const std::array<u8, 20> page{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 3, 18, 19, 20};
    std::memcpy(ram_ + kStealPage, page.data(), page.size());
    x86::State state;
    export_state(c_, state);
    state.msr.kvm_steal_time = kStealPage | 1;
    import_state(c_, state);
    EXPECT_TRUE(c_.paravirt_clock_stale) << "done before the guest goes on";
    refresh_paravirt_clock(c_);
    std::array<u8, 20> expected = page;
    expected[16] = 0;
    EXPECT_EQ(std::memcmp(ram_ + kStealPage, expected.data(), expected.size()), 0);
}

// A guest that used them under KVM turns them off when it restarts; others are not offered them.
TEST_F(ParavirtEoiTest, WhatKvmOffersIsThereForGuestsThatBroughtItAlong) {
    constexpr u32 kAsyncPf = 0x4b564d02, kStealTime = 0x4b564d03, kPollControl = 0x4b564d05,
                  kVector = 0x4b564d06;
    u64 value = 0;
    for (const u32 index : {kAsyncPf, kStealTime, kPollControl, kVector}) {
        EXPECT_FALSE(read_paravirt_msr(c_, index, value)) << index;
        EXPECT_FALSE(write_paravirt_msr(c_, index, 1)) << index;
    }
    x86::State state;
    export_state(c_, state);
    state.msr.kvm_async_pf = 0x4009;
    state.msr.kvm_async_pf_vector = 0xf3;
    state.msr.kvm_steal_time = 0x5001;
    state.msr.kvm_poll_control = 0;
    import_state(c_, state);
    EXPECT_TRUE(read_paravirt_msr(c_, kStealTime, value));
    EXPECT_EQ(value, 0x5001u);
    for (const u32 index : {kStealTime, kAsyncPf, kVector})
        EXPECT_TRUE(write_paravirt_msr(c_, index, 0)) << index;
    EXPECT_TRUE(write_paravirt_msr(c_, kPollControl, 1));
    EXPECT_FALSE(read_paravirt_msr(c_, kStealTime, value));
    EXPECT_FALSE(read_paravirt_msr(c_, kPollControl, value));
    EXPECT_EQ(c_.msr.kvm_async_pf_vector, 0u);
}

TEST_F(ParavirtEoiTest, AnOfferIsPartOfTheState) {
    offer_paravirt_eoi(c_, 0x50);
    x86::State state;
    export_state(c_, state);
    EXPECT_TRUE(state.paravirt_eoi_offered);
    c_.paravirt_eoi_offered = false;
    import_state(c_, state);
    EXPECT_TRUE(c_.paravirt_eoi_offered);
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
