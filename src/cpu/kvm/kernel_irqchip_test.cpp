#include "cpu/kvm/kernel_irqchip.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <thread>

#include "cpu/kvm/doorbells.h"
#include "cpu/kvm/testing/chip_vm.h"

namespace tessera::kvm {
namespace {

using Kind = KernelIrqchip::Kind;

class KernelIrqchipTest : public testing::Test {
protected:
    // Null: the test is to end.
    ChipVm* make(Kind kind, unsigned cpus = 1) {
        std::string why;
        vm_ = ChipVm::create(kind, cpus, why);
        if (vm_ == nullptr) skip(why);
        return vm_.get();
    }
    static void skip(const std::string& why) { GTEST_SKIP() << why; }

    // [SDM 3A Table 11-1]
    static u32 reg(const kvm_lapic_state& state, unsigned offset) {
        u32 value = 0;
        std::memcpy(&value, &state.regs[offset], sizeof value);
        return value;
    }
    static void set_reg(kvm_lapic_state& state, unsigned offset, u32 value) {
        std::memcpy(&state.regs[offset], &value, sizeof value);
    }
    u32 local_apic(unsigned cpu, unsigned offset) {
        const auto state = read_local_apic(vm_->cpus[cpu].file.get());
        EXPECT_TRUE(state) << state.error().message;
        return state ? reg(*state, offset) : 0;
    }
    // Software enabled, as a guest does first.
    void enable_local_apic(unsigned cpu) {
        auto state = read_local_apic(vm_->cpus[cpu].file.get());
        ASSERT_TRUE(state);
        set_reg(*state, 0xf0, 0x1ff);
        ASSERT_TRUE(write_local_apic(vm_->cpus[cpu].file.get(), *state));
    }

    std::unique_ptr<ChipVm> vm_;
};

TEST_F(KernelIrqchipTest, AnErrorNamesTheCall) {
    const auto none = KernelIrqchip::create(-1, Kind::Kernel);
    ASSERT_FALSE(none);
    EXPECT_EQ(none.error().message, "KVM_CREATE_IRQCHIP: Bad file descriptor");
    const auto split = KernelIrqchip::create(-1, Kind::Split);
    ASSERT_FALSE(split);
    EXPECT_EQ(split.error().message, "KVM_CAP_SPLIT_IRQCHIP: Bad file descriptor");
    EXPECT_EQ(read_local_apic(-1).error().message, "KVM_GET_LAPIC: Bad file descriptor");
}

TEST_F(KernelIrqchipTest, AMessageSetsIrrOfWhomItNames) {
    ChipVm* vm = make(Kind::Kernel, 2);
    if (vm == nullptr) return;
    enable_local_apic(0);
    enable_local_apic(1);
    // [SDM 3A 11.11] Destination 1, fixed, edge, vector 45h.
    ASSERT_TRUE(vm->chips.send({.address = 0xfee0'1000, .data = 0x45}));
    EXPECT_EQ(local_apic(0, 0x220), 0U);
    EXPECT_EQ(local_apic(1, 0x220), u32{1} << (0x45 % 32));
    // Nobody has this one: lost, and no failure of the host's.
    EXPECT_TRUE(vm->chips.send({.address = 0xfee0'7000, .data = 0x45}));
}

TEST_F(KernelIrqchipTest, ALevelReachesTheInputsItsRouteNames) {
    ChipVm* vm = make(Kind::Kernel);
    if (vm == nullptr) return;
    const InputRoute inputs[] = {{.gsi = 5, .input = {.chip = KVM_IRQCHIP_PIC_MASTER, .pin = 5}},
                                 {.gsi = 12, .input = {.chip = KVM_IRQCHIP_PIC_SLAVE, .pin = 4}},
                                 {.gsi = 20, .input = {.chip = KVM_IRQCHIP_IOAPIC, .pin = 4}}};
    ASSERT_TRUE(vm->chips.set_routes(inputs, {}));
    for (const u32 gsi : {5U, 12U, 20U}) ASSERT_TRUE(vm->chips.set_level(gsi, true));
    const auto master = vm->chips.pic(false);
    const auto slave = vm->chips.pic(true);
    const auto io_apic = vm->chips.io_apic();
    ASSERT_TRUE(master && slave && io_apic);
    EXPECT_NE(master->irr & 1 << 5, 0);
    EXPECT_NE(slave->irr & 1 << 4, 0);
    EXPECT_EQ(io_apic->irr, u32{1} << 4);
    ASSERT_TRUE(vm->chips.set_level(20, false));
    EXPECT_EQ(vm->chips.io_apic()->irr, 0U);
}

TEST_F(KernelIrqchipTest, AnEventSendsTheMessageOfItsRoute) {
    ChipVm* vm = make(Kind::Split);
    if (vm == nullptr) return;
    enable_local_apic(0);
    const MessageRoute messages[] = {{.gsi = 40, .message = {.address = 0xfee0'0000, .data = 0x51}}};
    ASSERT_TRUE(vm->chips.set_routes({}, messages));
    const File event(eventfd(0, EFD_CLOEXEC));
    ASSERT_TRUE(vm->chips.add_irqfd(event.get(), 40));
    constexpr u64 kOnce = 1;
    ASSERT_EQ(write(event.get(), &kOnce, sizeof kOnce), static_cast<ssize_t>(sizeof kOnce));
    for (int i = 0; i < 1000 && local_apic(0, 0x220) == 0; ++i) std::this_thread::yield();
    EXPECT_EQ(local_apic(0, 0x220), u32{1} << (0x51 % 32));
    EXPECT_TRUE(vm->chips.remove_irqfd(event.get(), 40));
}

// The guest's end of the interrupt takes the level back, and an event tells of it.
TEST_F(KernelIrqchipTest, AnEndedLevelIsTakenBackAndTold) {
    ChipVm* vm = make(Kind::Kernel);
    if (vm == nullptr) return;
    const InputRoute inputs[] = {{.gsi = 4, .input = {.chip = KVM_IRQCHIP_PIC_MASTER, .pin = 4}}};
    ASSERT_TRUE(vm->chips.set_routes(inputs, {}));
    auto pic = vm->chips.pic(false);
    ASSERT_TRUE(pic);
    pic->elcr = 1 << 4;
    ASSERT_TRUE(vm->chips.set_pic(false, *pic));
    const File event(eventfd(0, EFD_CLOEXEC));
    const File ended(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    ASSERT_TRUE(vm->chips.add_irqfd(event.get(), 4, ended.get()));
    constexpr u64 kOnce = 1;
    ASSERT_EQ(write(event.get(), &kOnce, sizeof kOnce), static_cast<ssize_t>(sizeof kOnce));
    const auto requested = [&] { return (vm->chips.pic(false)->irr & 1 << 4) != 0; };
    for (int i = 0; i < 1000 && !requested(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    ASSERT_TRUE(requested());
    u64 told = 0;
    EXPECT_LT(read(ended.get(), &told, sizeof told), 0) << "it has not ended";

    // [8259A OCW2] Specific end of interrupt 4: mov al, 64h; out 20h, al; out 80h, al.
    constexpr std::array<u8, 6> kCode = {0xb0, 0x64, 0xe6, 0x20, 0xe6, 0x80};
    constexpr u64 kStart = 0x1000;
    std::ranges::copy(kCode, vm->memory().subspan(kStart).begin());
    const ChipVm::Cpu& cpu = vm->cpus[0];
    kvm_sregs sregs{};
    ASSERT_EQ(ioctl(cpu.file.get(), KVM_GET_SREGS, &sregs), 0);
    sregs.cs.base = 0;
    sregs.cs.selector = 0;
    ASSERT_EQ(ioctl(cpu.file.get(), KVM_SET_SREGS, &sregs), 0);
    kvm_regs regs{};
    regs.rip = kStart;
    regs.rflags = 2;
    ASSERT_EQ(ioctl(cpu.file.get(), KVM_SET_REGS, &regs), 0);
    ASSERT_EQ(ioctl(cpu.file.get(), KVM_RUN, 0), 0);
    ASSERT_EQ(cpu.run->exit_reason, u32{KVM_EXIT_IO});
    EXPECT_EQ(cpu.run->io.port, 0x80);
    EXPECT_EQ(read(ended.get(), &told, sizeof told), static_cast<ssize_t>(sizeof told));
    EXPECT_FALSE(requested());
    EXPECT_TRUE(vm->chips.remove_irqfd(event.get(), 4));
}

TEST_F(KernelIrqchipTest, ADoorbellIsHungUpAndTakenDown) {
    ChipVm* vm = make(Kind::Split);
    if (vm == nullptr) return;
    const File event(eventfd(0, EFD_CLOEXEC));
    KernelDoorbells doorbells(vm->vm.get());
    const Doorbell bell{.address = 0xfebf'0000, .width = 4, .value = 1};
    ASSERT_TRUE(doorbells.hang(bell, event.get()));
    EXPECT_FALSE(doorbells.hang(bell, event.get())) << "the same place twice";
    EXPECT_TRUE(doorbells.hang({.address = 0xfebf'0000, .width = 4, .value = 2}, event.get()));
    doorbells.take_down(bell, event.get());
    EXPECT_TRUE(doorbells.hang(bell, event.get()));
}

TEST_F(KernelIrqchipTest, SoManyDoorbellsHangAndNoMore) {
    ChipVm* vm = make(Kind::Split);
    if (vm == nullptr) return;
    const File event(eventfd(0, EFD_CLOEXEC));
    KernelDoorbells doorbells(vm->vm.get());
    const auto bell = [](unsigned n) { return Doorbell{.address = 0xfeb0'0000 + u64{4} * n, .width = 2}; };
    for (unsigned n = 0; n < KernelDoorbells::kMost; ++n) ASSERT_TRUE(doorbells.hang(bell(n), event.get()));
    EXPECT_FALSE(doorbells.hang(bell(KernelDoorbells::kMost), event.get()));
    doorbells.take_down(bell(7), event.get());
    doorbells.take_down(bell(7), event.get());  // in vain: makes no room
    EXPECT_TRUE(doorbells.hang(bell(KernelDoorbells::kMost), event.get()));
    EXPECT_FALSE(doorbells.hang(bell(7), event.get()));
}

// The one thing about a local APIC that KVM_GET_LAPIC does not tell.
TEST_F(KernelIrqchipTest, ATimerThatRanOutIsTakenIntoIrrWithoutRunningTheGuest) {
    ChipVm* vm = make(Kind::Kernel);
    if (vm == nullptr) return;
    const ChipVm::Cpu& cpu = vm->cpus[0];
    auto state = read_local_apic(cpu.file.get());
    ASSERT_TRUE(state);
    set_reg(*state, 0xf0, 0x1ff);
    set_reg(*state, 0x320, 0x61);  // one-shot
    set_reg(*state, 0x3e0, 0x0b);  // by 1
    set_reg(*state, 0x380, 10'000);
    set_reg(*state, 0x390, 10'000);
    ASSERT_TRUE(write_local_apic(cpu.file.get(), *state));
    for (int i = 0; i < 1'000'000 && local_apic(0, 0x390) != 0; ++i) std::this_thread::yield();
    ASSERT_EQ(local_apic(0, 0x390), 0U);
    cpu.run->immediate_exit = 1;  // as a thread that was told to stop leaves it
    kvm_regs before{};
    ASSERT_EQ(ioctl(cpu.file.get(), KVM_GET_REGS, &before), 0);
    // The expiry that makes the count zero reaches KVM's timer a little later.
    for (int i = 0; i < 1000 && local_apic(0, 0x230) == 0; ++i) {
        const auto taken = take_timer_interrupts(cpu.file.get(), *cpu.run);
        ASSERT_TRUE(taken) << taken.error().message;
    }
    EXPECT_EQ(local_apic(0, 0x230), u32{1} << (0x61 % 32));
    EXPECT_EQ(cpu.run->immediate_exit, 1);
    kvm_regs after{};
    ASSERT_EQ(ioctl(cpu.file.get(), KVM_GET_REGS, &after), 0);
    EXPECT_EQ(std::memcmp(&before, &after, sizeof before), 0) << "the guest has run";
}

}  // namespace
}  // namespace tessera::kvm
