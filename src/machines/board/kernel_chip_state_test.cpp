#include "machines/board/kernel_chip_state.h"

#include <cstring>
#include <ctime>
#include <gtest/gtest.h>
#include <memory>
#include <string>

#include "cpu/kvm/testing/chip_vm.h"
#include "devices/ioapic/ioapic_rig.h"
#include "devices/lapic/lapic_rig.h"
#include "devices/pic8259/pic8259_rig.h"
#include "devices/pit8254/pit8254_rig.h"

namespace tessera {
namespace {

using kvm::ChipVm;
using testing_rig::SeededChoices;

constexpr u64 kSeeds = 200;
constexpr unsigned kPokes = 120;

template <typename Rig>
std::unique_ptr<Rig> poked(u64 seed) {
    auto rig = std::make_unique<Rig>();
    SeededChoices choices(seed);
    for (unsigned i = 0; i < kPokes; ++i) (void)rig->poke(choices);
    return rig;
}

// Null with a skipped test where this host has no KVM.
std::unique_ptr<ChipVm> kernel_chips() {
    std::string why;
    auto vm = ChipVm::create(kvm::KernelIrqchip::Kind::Kernel, 1, why);
    [&] {
        if (vm == nullptr) GTEST_SKIP() << why;
    }();
    return vm;
}

KernelMoment moment(u64 guest_ns) {
    timespec now{};
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return {.guest_ns = guest_ns, .kernel_ns = now.tv_sec * 1'000'000'000 + now.tv_nsec};
}

template <typename T>
T noise(SeededChoices& choices) {
    T filled{};
    auto* bytes = reinterpret_cast<u8*>(&filled);
    for (std::size_t i = 0; i < sizeof filled; ++i) bytes[i] = static_cast<u8>(choices.bits());
    return filled;
}

// --- Local APIC

using lapic::Lapic;
using lapic::LapicRig;

constexpr u64 kExtd = 1 << 10;
constexpr unsigned kShifts[8] = {1, 2, 3, 4, 5, 6, 7, 0};  // of bits 3, 1, 0 [SDM 3A Figure 11-10]

u64 count_left(const Lapic::Saved& s, u64 now_ns) {
    const unsigned code = (s.timer.divide & 3U) | (s.timer.divide >> 1 & 4U);
    const u64 gone = (now_ns - s.timer.start_ns) >> kShifts[code];
    return s.timer.count > gone ? s.timer.count - gone : 0;
}

void expect_same(const Lapic::Saved& a, const Lapic::Saved& b) {
    EXPECT_EQ(a.registers.apic_base, b.registers.apic_base);
    EXPECT_EQ(a.registers.tpr, b.registers.tpr);
    if ((a.registers.apic_base & kExtd) == 0) EXPECT_EQ(a.registers.ldr, b.registers.ldr);
    EXPECT_EQ(a.registers.dfr, b.registers.dfr);
    EXPECT_EQ(a.registers.svr, b.registers.svr);
    EXPECT_EQ(a.registers.isr, b.registers.isr);
    EXPECT_EQ(a.registers.tmr, b.registers.tmr);
    EXPECT_EQ(a.registers.irr, b.registers.irr);
    EXPECT_EQ(a.registers.esr, b.registers.esr);
    EXPECT_EQ(a.registers.icr, b.registers.icr);
    EXPECT_EQ(a.registers.lvt, b.registers.lvt);
    EXPECT_EQ(a.registers.pins, b.registers.pins);
    EXPECT_EQ(a.timer.mode, b.timer.mode);
    EXPECT_EQ(a.timer.divide, b.timer.divide);
    EXPECT_EQ(a.timer.deadline, b.timer.deadline);
    EXPECT_EQ(a.timer.tsc_offset, b.timer.tsc_offset);
}

AroundLocalApic around(const Lapic::Saved& saved, u64 now_ns) {
    return {.now_ns = now_ns, .pins = saved.registers.pins, .tsc_offset = saved.timer.tsc_offset};
}

TEST(KernelChipStateTest, LocalApicIsTheSameAfterBothConversions) {
    for (u64 seed = 0; seed < kSeeds; ++seed) {
        SCOPED_TRACE(seed);
        const auto rig = poked<LapicRig>(seed);
        const Lapic::Saved before = rig->device.saved();
        const u64 now = rig->clock.now_ns();
        const Lapic::Saved after = from_kernel(to_kernel(before, 0, now), around(before, now));
        expect_same(before, after);
        EXPECT_EQ(count_left(after, now), count_left(before, now));
        if (after.timer.count != 0) EXPECT_EQ(after.timer.initial, before.timer.initial);
        EXPECT_TRUE(rig->device.restore(after));
    }
}

TEST(KernelChipStateTest, LocalApicIsTheSameAfterAStayInTheKernel) {
    const auto vm = kernel_chips();
    if (vm == nullptr) return;
    const int cpu = vm->cpus[0].file.get();
    unsigned deadlines = 0;
    for (u64 seed = 0; seed < kSeeds; ++seed) {
        SCOPED_TRACE(seed);
        const auto rig = poked<LapicRig>(seed);
        Lapic::Saved before = rig->device.saved();
        // This host's physical addresses may be shorter than the rig's, and guests leave the page where it
        // is.
        before.registers.apic_base = 0xfee0'0000 | (before.registers.apic_base & 0xfff);
        const u64 now = rig->clock.now_ns();
        KernelLocalApic given = to_kernel(before, 0, now);
        ASSERT_TRUE(kvm::write_vcpu_msr(cpu, 0x1b, given.apic_base));
        ASSERT_TRUE(kvm::write_local_apic(cpu, given.page));
        if (given.tsc_deadline != 0) {
            ++deadlines;
            ASSERT_TRUE(kvm::write_vcpu_msr(cpu, 0x6e0, given.tsc_deadline));
        }
        const auto page = kvm::read_local_apic(cpu);
        const auto base = kvm::read_vcpu_msr(cpu, 0x1b);
        const auto deadline = kvm::read_vcpu_msr(cpu, 0x6e0);
        ASSERT_TRUE(page && base && deadline);
        const Lapic::Saved after =
            from_kernel({.page = *page, .apic_base = *base, .tsc_deadline = *deadline}, around(before, now));
        expect_same(before, after);
        // It runs there.
        EXPECT_LE(after.timer.count, count_left(before, now));
        if (before.timer.count != 0) EXPECT_EQ(after.timer.initial, before.timer.initial);
        if (before.timer.count == 0) EXPECT_EQ(after.timer.count, 0U);
        EXPECT_TRUE(rig->device.restore(after));
    }
    EXPECT_GT(deadlines, 0U);
}

// [SDM 3A 11.5.4] One-shot: one interrupt.
TEST(KernelChipStateTest, ATimerThatHasRunOutDoesNotRunInTheKernel) {
    LapicRig rig;
    rig.device.write_register(0xf0, 0x1ff);
    rig.device.write_register(0x320, 0x61);
    rig.device.write_register(0x380, 1000);
    rig.clock.advance(5000);
    const KernelLocalApic kernel = to_kernel(rig.device.saved(), 0, rig.clock.now_ns());
    u32 initial = 1;
    std::memcpy(&initial, &kernel.page.regs[0x380], sizeof initial);
    EXPECT_EQ(initial, 0U);
    EXPECT_NE(static_cast<u8>(kernel.page.regs[0x230]) & 1 << 1, 0) << "vector 61h is requested";
}

TEST(KernelChipStateTest, AnInterruptInTheInboxComesAlong) {
    LapicRig rig;
    rig.device.write_register(0xf0, 0x1ff);
    rig.fabric.deliver({.destination = 0, .vector = 0x47});
    const KernelLocalApic kernel = to_kernel(rig.device.saved(), 0, 0);
    EXPECT_NE(static_cast<u8>(kernel.page.regs[0x220]) & 1 << 7, 0);
}

TEST(KernelChipStateTest, WhateverTheKernelHoldsIsALocalApicOfOurs) {
    SeededChoices choices(1);
    for (unsigned i = 0; i < 500; ++i) {
        LapicRig rig;
        const KernelLocalApic kernel{.page = noise<kvm_lapic_state>(choices),
                                     .apic_base = choices.coin() ? 0xfee0'0d00 : 0xfee0'0900,
                                     .tsc_deadline = choices.bits()};
        EXPECT_TRUE(rig.device.restore(from_kernel(kernel, {.now_ns = choices.below(1 << 20)})));
    }
}

// --- I/O APIC

using ioapic::IoApicRig;

// As guests program it: each pin's polarity that of its wire.
void use_right_polarity(IoApicRig& rig) {
    constexpr u32 kActiveLow = 0x00f0'0000;
    auto state = rig.device.state();
    for (unsigned pin = 0; pin < 24; ++pin)
        state.table[pin].set(ioapic::Redirection::ActiveLow, (kActiveLow >> pin & 1) != 0);
    ASSERT_TRUE(rig.device.restore(state));
    for (unsigned pin = 0; pin < 24; ++pin) rig.device.set_level(pin, (state.levels >> pin & 1) != 0);
}

void expect_same(const ioapic::IoApic::State& a, const ioapic::IoApic::State& b) {
    EXPECT_EQ(a.id, b.id);
    EXPECT_EQ(a.select, b.select);
    EXPECT_EQ(a.levels, b.levels);
    EXPECT_EQ(a.table, b.table);
}

TEST(KernelChipStateTest, IoApicIsTheSameAfterBothConversions) {
    for (u64 seed = 0; seed < kSeeds; ++seed) {
        SCOPED_TRACE(seed);
        const auto rig = poked<IoApicRig>(seed);
        const auto before = rig->device.state();
        expect_same(from_kernel(to_kernel(before), before.levels), before);
    }
}

TEST(KernelChipStateTest, IoApicIsTheSameAfterAStayInTheKernelAndSendsNothing) {
    const auto vm = kernel_chips();
    if (vm == nullptr) return;
    for (u64 seed = 0; seed < kSeeds; ++seed) {
        SCOPED_TRACE(seed);
        const auto rig = poked<IoApicRig>(seed);
        use_right_polarity(*rig);
        const auto before = rig->device.state();
        ASSERT_TRUE(vm->chips.set_io_apic(to_kernel(before)));
        const auto kernel = vm->chips.io_apic();
        ASSERT_TRUE(kernel);
        expect_same(from_kernel(*kernel, before.levels), before);
    }
    const auto page = kvm::read_local_apic(vm->cpus[0].file.get());
    ASSERT_TRUE(page);
    for (unsigned offset = 0x200; offset < 0x280; ++offset) EXPECT_EQ(page->regs[offset], 0) << offset;
}

TEST(KernelChipStateTest, WhateverTheKernelHoldsIsAnIoApicOfOurs) {
    SeededChoices choices(2);
    for (unsigned i = 0; i < 500; ++i) {
        IoApicRig rig;
        EXPECT_TRUE(rig.device.restore(
            from_kernel(noise<kvm_ioapic_state>(choices), static_cast<u32>(choices.bits()))));
    }
}

// --- 8259A pair

using pic8259::Pic8259Pair;
using pic8259::PicRig;

// What KVM has no place for, made what a PC has.
pic8259::Chip::State pc_chip(pic8259::Chip::State s, u8 icw3) {
    const bool ic4 = (s.icw1.raw() & 1) != 0;
    s.icw1 = Flags<pic8259::Icw1>(static_cast<u8>(ic4 ? 1 : 0));
    s.icw2 &= 0xf8;
    s.icw3 = icw3;
    s.icw4 = Flags<pic8259::Icw4>(static_cast<u8>((s.icw4.raw() & 0x12) | (ic4 ? 1 : 0)));
    return s;
}

void expect_same(const pic8259::Chip::State& a, const pic8259::Chip::State& b) {
    EXPECT_EQ(a.step, b.step);
    EXPECT_EQ(a.icw1, b.icw1);
    EXPECT_EQ(a.icw2, b.icw2);
    EXPECT_EQ(a.icw3, b.icw3);
    EXPECT_EQ(a.icw4, b.icw4);
    EXPECT_EQ(a.imr, b.imr);
    EXPECT_EQ(a.isr, b.isr);
    EXPECT_EQ(a.latched & ~a.level_inputs, b.latched & ~b.level_inputs);
    EXPECT_EQ(a.lowest, b.lowest);
    EXPECT_EQ(a.special_mask, b.special_mask);
    EXPECT_EQ(a.rotate_in_aeoi, b.rotate_in_aeoi);
    EXPECT_EQ(a.read_isr, b.read_isr);
    EXPECT_EQ(a.poll, b.poll);
    EXPECT_EQ(a.level_inputs, b.level_inputs);
}

void expect_same(const Pic8259Pair::State& a, const Pic8259Pair::State& b) {
    expect_same(a.master, b.master);
    expect_same(a.slave, b.slave);
    EXPECT_EQ(a.lines, b.lines);
    EXPECT_EQ(a.cascade, b.cascade);
}

// A pair that was poked, then brought to what PCs are: the cascade's edge is one that has come.
Pic8259Pair::State pc_pair(u64 seed) {
    const auto rig = poked<PicRig>(seed);
    auto state = rig->device.state();
    state.master = pc_chip(state.master, 4);
    state.slave = pc_chip(state.slave, 2);
    pic8259::Chip slave;
    slave.restore(state.slave);
    state.cascade = slave.interrupt_output(static_cast<u8>(state.lines >> 8)) ? 1 : 0;
    state.master.latched &= static_cast<u8>(~4);
    if (state.cascade != 0) state.master.latched |= 4;
    return state;
}

TEST(KernelChipStateTest, PicIsTheSameAfterBothConversions) {
    for (u64 seed = 0; seed < kSeeds; ++seed) {
        SCOPED_TRACE(seed);
        const auto before = pc_pair(seed);
        const auto after = from_kernel(to_kernel(before), before.lines);
        expect_same(after, before);
        PicRig rig;
        EXPECT_TRUE(rig.device.restore(after));
    }
}

TEST(KernelChipStateTest, PicIsTheSameAfterAStayInTheKernel) {
    const auto vm = kernel_chips();
    if (vm == nullptr) return;
    for (u64 seed = 0; seed < kSeeds; ++seed) {
        SCOPED_TRACE(seed);
        const auto before = pc_pair(seed);
        const KernelPic given = to_kernel(before);
        ASSERT_TRUE(vm->chips.set_pic(false, given.master));
        ASSERT_TRUE(vm->chips.set_pic(true, given.slave));
        const auto master = vm->chips.pic(false);
        const auto slave = vm->chips.pic(true);
        ASSERT_TRUE(master && slave);
        expect_same(from_kernel({.master = *master, .slave = *slave}, before.lines), before);
    }
}

TEST(KernelChipStateTest, WhateverTheKernelHoldsIsAPicOfOurs) {
    SeededChoices choices(3);
    for (unsigned i = 0; i < 500; ++i) {
        PicRig rig;
        EXPECT_TRUE(
            rig.device.restore(from_kernel(noise<KernelPic>(choices), static_cast<u16>(choices.bits()))));
    }
}

// --- 8254

using pit8254::Counter;
using pit8254::PitRig;

void expect_same(const Counter::State& a, const Counter::State& b) {
    EXPECT_EQ(a.mode, b.mode);
    EXPECT_EQ(a.access, b.access);
    EXPECT_EQ(a.bcd, b.bcd);
    EXPECT_EQ(a.gate, b.gate);
    EXPECT_EQ(a.phase, b.phase);
    EXPECT_EQ(a.null_count, b.null_count);
    EXPECT_EQ(a.write_high_next, b.write_high_next);
    EXPECT_EQ(a.read_high_next, b.read_high_next);
    EXPECT_EQ(a.count_latched, b.count_latched);
    EXPECT_EQ(a.status_latched, b.status_latched);
    EXPECT_EQ(a.latched_status, b.latched_status);
    EXPECT_EQ(a.low_byte, b.low_byte);
    EXPECT_EQ(a.latched_count, b.latched_count);
    EXPECT_EQ(a.count, b.count);
    EXPECT_EQ(a.length, b.length);
    EXPECT_EQ(a.held, b.held);
    EXPECT_EQ(a.base, b.base);
    EXPECT_EQ(a.load_at, b.load_at);
}

TEST(KernelChipStateTest, PitGoesOnAfterAStayInTheKernel) {
    const auto vm = kernel_chips();
    if (vm == nullptr) return;
    for (u64 seed = 0; seed < kSeeds; ++seed) {
        SCOPED_TRACE(seed);
        const auto rig = poked<PitRig>(seed);
        rig->device.catch_up();
        const auto before = rig->device.state();
        const KernelMoment now = moment(rig->clock.now_ns());
        ASSERT_TRUE(vm->chips.set_pit(to_kernel(before, now, HpetLegacy::Off)));
        const auto given = vm->chips.pit();
        ASSERT_TRUE(given);
        const KernelPitStay stay{.before = before, .given = *given, .since_ns = now.kernel_ns};
        const auto kernel = vm->chips.pit();
        ASSERT_TRUE(kernel);
        const auto after = from_kernel(*kernel, now, &stay);
        for (unsigned i = 0; i < 3; ++i) {
            Counter looked_at;  // which loads the count that waits
            looked_at.restore(before.counters[i]);
            (void)looked_at.output(pit8254::Pit8254::tick_at(now.guest_ns));
            expect_same(after.counters[i], looked_at.state());
        }
        EXPECT_EQ(after.port61, before.port61 & 3);
        EXPECT_EQ(after.counters[0].rose, 0);
        EXPECT_TRUE(rig->device.restore(after));
    }
}

TEST(KernelChipStateTest, WhateverTheKernelHoldsIsAPitOfOurs) {
    SeededChoices choices(4);
    for (unsigned i = 0; i < 500; ++i) {
        PitRig rig;
        EXPECT_TRUE(rig.device.restore(from_kernel(
            noise<kvm_pit_state2>(choices),
            {.guest_ns = choices.bits() >> 8, .kernel_ns = static_cast<s64>(choices.bits() >> 2)}, nullptr)));
    }
}

// A period of 1193 ticks, about 1 ms; the kernel begins a period when it is given one.
TEST(KernelChipStateTest, AKernelsTickThatFellBehindIsMadeUpFor) {
    constexpr u64 kPeriodNs = 999'847;
    PitRig rig;
    const auto out = [&rig](u64 offset, u8 value) {
        const std::array data{std::byte{value}};
        (void)rig.device.counter_ports().write(offset, data);
    };
    out(3, 0x34);
    out(0, 1193 & 0xff);
    out(0, 1193 >> 8);
    rig.clock.advance(10 * kPeriodNs + 600'000);  // 0.6 of a period
    rig.device.catch_up();
    const auto before = rig.device.state();
    const KernelMoment in{.guest_ns = rig.clock.now_ns(), .kernel_ns = 5'000'000'000};
    const kvm_pit_state2 given = to_kernel(before, in, HpetLegacy::Off);
    const KernelPitStay stay{.before = before, .given = given, .since_ns = in.kernel_ns};
    const auto after = [&](u64 ns) {
        return from_kernel(
            given, {.guest_ns = in.guest_ns + ns, .kernel_ns = in.kernel_ns + static_cast<s64>(ns)}, &stay);
    };
    EXPECT_EQ(after(300'000).counters[0].rose, 0) << "neither has risen";
    EXPECT_EQ(after(500'000).counters[0].rose, 1) << "ours at 0.4, the kernel's not";
    EXPECT_EQ(after(1'200'000).counters[0].rose, 0) << "each once";
    EXPECT_EQ(after(1'500'000).counters[0].rose, 1);
    for (const u64 ns : {300'000U, 1'500'000U})
        EXPECT_EQ(after(ns).counters[0].base, before.counters[0].base) << "the grid stays";
    // What is owed is shown as soon as it is ours again.
    rig.clock.advance(500'000);
    PitRig next;
    next.clock.advance(rig.clock.now_ns());
    ASSERT_TRUE(next.device.restore(after(500'000)));
    next.wires.edges.clear();
    next.clock.advance(1);
    ASSERT_FALSE(next.wires.edges.empty());
    EXPECT_TRUE(next.wires.edges.back().high);
}

TEST(KernelChipStateTest, OneThatCountsOnceGoesToTheKernelWithWhatIsLeft) {
    PitRig rig;
    const auto out = [&rig](u64 offset, u8 value) {
        const std::array data{std::byte{value}};
        (void)rig.device.counter_ports().write(offset, data);
    };
    out(3, 0x30);  // mode 0
    out(0, 10'000 & 0xff);
    out(0, 10'000 >> 8);
    rig.clock.advance(5'000'000);  // 5965 ticks
    const auto before = rig.device.state();
    const kvm_pit_state2 given =
        to_kernel(before, {.guest_ns = rig.clock.now_ns(), .kernel_ns = 0}, HpetLegacy::On);
    EXPECT_NEAR(given.channels[0].count, 10'000 - 5965, 2);
    EXPECT_EQ(given.flags, KVM_PIT_FLAGS_HPET_LEGACY);
}

}  // namespace
}  // namespace tessera
