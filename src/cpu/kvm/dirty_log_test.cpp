// What KVM's dirty log says of guests that write known pages.
#include "cpu/kvm/dirty_log.h"

#include <array>
#include <cstdlib>
#include <gtest/gtest.h>
#include <set>

#include "cpu/kvm/kernel_vm.h"
#include "cpu/kvm/testing/test_vm.h"
#include "cpu/kvm/vcpu_state.h"
#include "cpu/soft/testing/test_machine.h"

namespace tessera::kvm {
namespace {

using Pages = std::set<u64>;  // numbers

constexpr u64 kPage = 4096;
constexpr u32 kTestEntries = 1024;

class KvmDirtyLogTest : public testing::TestWithParam<DirtyLogKind> {
protected:
    void SetUp() override {
        std::string why;
        if (!Host::open()) GTEST_SKIP() << Host::open().error().message;
        prepared() = Prepared{.kind = GetParam(), .log = nullptr};
        vm_ = TestVm::create(TestVm::Chips::None, why, prepare);
        if (vm_ == nullptr && why.find("no dirty rings") != std::string::npos) GTEST_SKIP() << why;
        ASSERT_NE(vm_, nullptr) << why;
        log_ = std::move(prepared().log);
        ASSERT_TRUE(log_->add_vcpu(vm_->vcpu.get()));
        auto access = VcpuState::create(vm_->host, vm_->vcpu.get());
        ASSERT_TRUE(access);
        access_ = std::make_unique<VcpuState>(*std::move(access));
    }

    // Executes in flat 32-bit mode: a byte of each of `count` pages from `first` on.
    void write_pages(u64 first, u64 count) {
        constexpr u64 kCode = 0x1000;
        constexpr std::array<u8, 11> kProgram{0xfe, 0x00,                    // inc byte [eax]
                                              0x05, 0x00, 0x10, 0x00, 0x00,  // add eax, 0x1000
                                              0x49,                          // dec ecx
                                              0x75, 0xf6,                    // jnz to the first
                                              0xf4};                         // hlt
        vm_->put(kCode, kProgram);
        x86::State state = soft::TestMachine().protected_mode_state();
        state.rip = kCode;
        state.gpr[x86::Rax] = first * kPage;
        state.gpr[x86::Rcx] = count;
        const Status written = access_->write(state);
        ASSERT_TRUE(written) << written.error().message;
        for (;;) {
            ASSERT_EQ(ioctl(vm_->vcpu.get(), KVM_RUN, 0), 0);
            if (vm_->run->exit_reason == KVM_EXIT_HLT) return;
            ASSERT_EQ(vm_->run->exit_reason, u32{KVM_EXIT_DIRTY_RING_FULL});
            ++rings_full_;
            ASSERT_TRUE(log_->make_room(0));
        }
    }
    [[nodiscard]] Pages take() {
        Pages pages;
        const Status taken = log_->take([&](u64 base, std::span<const u64> words) {
            for (u64 page = 0; page < words.size() * 64; ++page)
                if ((words[page / 64] >> page % 64 & 1) != 0) pages.insert(base / kPage + page);
        });
        EXPECT_TRUE(taken) << taken.error().message;
        return pages;
    }
    static Pages range(u64 first, u64 count) {
        Pages pages;
        for (u64 page = first; page < first + count; ++page) pages.insert(page);
        return pages;
    }

    std::unique_ptr<TestVm> vm_;
    std::unique_ptr<DirtyLog> log_;
    std::unique_ptr<VcpuState> access_;
    unsigned rings_full_ = 0;

private:
    struct Prepared {
        DirtyLogKind kind = DirtyLogKind::Bitmap;
        std::unique_ptr<DirtyLog> log;
    };
    static Prepared& prepared() {
        static Prepared instance;
        return instance;
    }
    // Rings come before vCPUs.
    static Status prepare(const TestVm& vm) {
        auto log =
            DirtyLog::create(vm.host, vm.vm.get(), prepared().kind, std::array{vm.region()}, kTestEntries);
        if (!log) return std::unexpected(log.error());
        prepared().log = *std::move(log);
        return {};
    }
};

TEST_P(KvmDirtyLogTest, TellsThePagesThatWereWritten) {
    ASSERT_TRUE(log_->start());
    EXPECT_EQ(take(), Pages{});
    write_pages(0x100, 5);
    write_pages(0x3ff, 1);
    Pages expected = range(0x100, 5);
    expected.insert(0x3ff);
    EXPECT_EQ(take(), expected);
    EXPECT_EQ(take(), Pages{}) << "told once";
}

TEST_P(KvmDirtyLogTest, TellsAPageAgainWhenItIsWrittenAgain) {
    ASSERT_TRUE(log_->start());
    write_pages(0x40, 3);
    write_pages(0x41, 1);
    EXPECT_EQ(take(), range(0x40, 3));
    write_pages(0x42, 2);
    EXPECT_EQ(take(), range(0x42, 2));
}

TEST_P(KvmDirtyLogTest, CountsFromTheStart) {
    write_pages(0x80, 4);
    ASSERT_TRUE(log_->start());
    write_pages(0x81, 1);
    EXPECT_EQ(take(), range(0x81, 1));
    write_pages(0x90, 2);
    ASSERT_TRUE(log_->stop());
    write_pages(0x98, 2);
    ASSERT_TRUE(log_->start());
    EXPECT_EQ(take(), Pages{});
    write_pages(0x99, 2);
    EXPECT_EQ(take(), range(0x99, 2));
}

TEST_P(KvmDirtyLogTest, TakingFromALogThatIsOffIsAnError) {
    EXPECT_FALSE(log_->take([](u64, std::span<const u64>) {}));
    EXPECT_TRUE(log_->stop());
    EXPECT_TRUE(log_->make_room(0));
}

// More pages than a ring may hold when its vCPU enters the guest: it is emptied on the way, and nothing is
// lost.
TEST_P(KvmDirtyLogTest, LosesNothingWhenMuchIsWritten) {
    ASSERT_TRUE(log_->start());
    write_pages(2, 1020);
    write_pages(2, 1);
    EXPECT_EQ(take(), range(2, 1020));
    EXPECT_EQ(rings_full_ > 0, GetParam() == DirtyLogKind::Ring);
    write_pages(2, 1020);
    EXPECT_EQ(take(), range(2, 1020));
}

// Else its vCPU would come out of the guest for ever.
TEST_P(KvmDirtyLogTest, ARingThatIsFullAgainWithNothingToTakeIsAnError) {
    ASSERT_TRUE(log_->start());
    EXPECT_TRUE(log_->make_room(0));
    write_pages(0x40, 1);
    EXPECT_TRUE(log_->make_room(0));
    const Status again = log_->make_room(0);
    EXPECT_EQ(again.has_value(), GetParam() == DirtyLogKind::Bitmap);
    if (!again) EXPECT_EQ(again.error().code, Errc::HostFailure);
    EXPECT_EQ(take(), range(0x40, 1)) << "what was emptied on the way is told";
}

INSTANTIATE_TEST_SUITE_P(Ways, KvmDirtyLogTest, testing::Values(DirtyLogKind::Bitmap, DirtyLogKind::Ring),
                         [](const auto& info) {
                             return info.param == DirtyLogKind::Ring ? "Ring" : "Bitmap";
                         });

// A machine's memory: its ROM cannot be written, and stays as it is.
TEST(KvmDirtyLogOfAMachineTest, RomHasNoLog) {
    auto host = Host::open();
    if (!host) GTEST_SKIP() << host.error().message;
    constexpr u64 kRam = 64 * kPage, kRom = 4 * kPage, kRomBase = 0xf0000;
    const std::unique_ptr<std::byte, decltype(&std::free)> bytes(
        static_cast<std::byte*>(std::aligned_alloc(kPage, kRam + kRom)), &std::free);
    MemoryMap memory;
    ASSERT_TRUE(memory.add("rom", RegionKind::Rom, kRomBase, std::span(bytes.get() + kRam, kRom)));
    ASSERT_TRUE(memory.add("ram", RegionKind::Ram, 0, std::span(bytes.get(), kRam)));
    const auto slots = memory_slots(memory);
    ASSERT_EQ(slots.size(), 2u);
    EXPECT_EQ(slots[0].guest_phys_addr, 0u) << "the largest first, as the map has them";
    EXPECT_EQ(slots[0].flags, 0u);
    EXPECT_EQ(slots[1].slot, 1u);
    EXPECT_EQ(slots[1].flags, u32{KVM_MEM_READONLY});

    const auto vm = KernelVm::create(*host, Irqchip::Kernel, memory);
    ASSERT_TRUE(vm) << vm.error().message;
    const auto log = DirtyLog::create(*host, vm->fd(), DirtyLogKind::Bitmap, slots);
    ASSERT_TRUE(log) << log.error().message;
    const Status started = (*log)->start();
    ASSERT_TRUE(started) << started.error().message;
    unsigned visits = 0;
    EXPECT_TRUE((*log)->take([&](u64, std::span<const u64>) { ++visits; }));
    EXPECT_EQ(visits, 0u);
}

TEST(KvmDirtyRingTest, SizesThatAreNoneAreRefused) {
    auto host = Host::open();
    if (!host) GTEST_SKIP() << host.error().message;
    const File vm(ioctl(host->device(), KVM_CREATE_VM, 0));
    ASSERT_TRUE(vm.is_open());
    for (const u32 entries : {0u, 1u, 1000u, 1u << 30}) {
        const auto log = DirtyLog::create(*host, vm.get(), DirtyLogKind::Ring, {}, entries);
        ASSERT_FALSE(log) << entries;
        EXPECT_EQ(log.error().code, Errc::Unsupported);
    }
}

}  // namespace
}  // namespace tessera::kvm
