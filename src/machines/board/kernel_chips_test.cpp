#include "machines/board/kernel_chips.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <ctime>
#include <gtest/gtest.h>
#include <memory>
#include <string>
#include <thread>

#include "base/fake_clock.h"
#include "cpu/kvm/testing/chip_vm.h"
#include "devices/lapic/lapic_fabric.h"
#include "machines/board/split_routes.h"
#include "vm/host_timers.h"

namespace tessera {
namespace {

using kvm::ChipVm;
using kvm::KernelIrqchip;

// --- Messages

ApicMessage to(u32 destination, u8 vector) {
    return {.destination = destination, .vector = vector};
}

// [SDM 3A 11.11.1], [SDM 3A 11.11.2]; bits 31:8 of the destination are in the upper half of the address.
TEST(KernelWiringTest, AMessageIsTheMsiThatWouldSendIt) {
    EXPECT_EQ(kernel_message(to(3, 0x41)), (kvm::Msi{.address = 0xfee0'3000, .data = 0x41}));
    EXPECT_EQ(kernel_message(to(0x1234, 0x41)),
              (kvm::Msi{.address = u64{0x1200} << 32 | 0xfee3'4000, .data = 0x41}));
    ApicMessage message = to(0x0c, 0x90);
    message.destination_mode = DestinationMode::Logical;
    message.delivery_mode = DeliveryMode::LowestPriority;
    message.trigger = TriggerMode::Level;
    EXPECT_EQ(kernel_message(message), (kvm::Msi{.address = 0xfee0'c004, .data = 0xc190}));
    EXPECT_EQ(kernel_message(to(ApicMessage::kBroadcast, 0x20)),
              (kvm::Msi{.address = 0xfeef'f000, .data = 0x20}));
}

TEST(KernelWiringTest, WhatTheKernelsLocalApicsHaveNoUseForIsNotSent) {
    for (const DeliveryMode mode : {DeliveryMode::Smi, DeliveryMode::Reserved, DeliveryMode::ExtInt}) {
        ApicMessage message = to(0, 0x41);
        message.delivery_mode = mode;
        EXPECT_FALSE(kernel_message(message));
    }
    ApicMessage nmi = to(0, 0);
    nmi.delivery_mode = DeliveryMode::Nmi;
    EXPECT_EQ(kernel_message(nmi), (kvm::Msi{.address = 0xfee0'0000, .data = 0x400}));
}

struct CountingSink final : IrqSink {
    void set_level(unsigned pin, bool high) override {
        ++calls;
        last_pin = pin;
        last_high = high;
    }
    unsigned calls = 0;
    unsigned last_pin = 99;
    bool last_high = false;
};

TEST(KernelWiringTest, SwitchedPinsGoToOneSideAndRememberTheLevels) {
    CountingSink ours;
    CountingSink kernel;
    SwitchedPins pins(ours);
    pins.set_level(3, true);
    pins.use_kernel(&kernel);
    pins.set_level(5, true);
    pins.set_level(3, false);
    EXPECT_EQ(ours.calls, 1U);
    EXPECT_EQ(kernel.calls, 2U);
    EXPECT_EQ(pins.levels(), u32{1} << 5);
    pins.use_kernel(nullptr);
    pins.set_level(7, true);
    EXPECT_EQ(ours.last_pin, 7U);
    EXPECT_EQ(pins.levels(), u32{1} << 5 | u32{1} << 7);
}

TEST(KernelWiringTest, EveryInputButTheCascadeHasANumber) {
    std::array<unsigned, 40> seen{};
    for (const kvm::InputRoute& route : kernel_input_routes()) {
        ASSERT_LT(route.gsi, seen.size());
        ++seen[route.gsi];
    }
    for (unsigned gsi = 0; gsi < seen.size(); ++gsi) {
        const unsigned inputs = gsi == 0 ? 2 : gsi == 2 ? 0 : 1;  // the 8254's goes to both controllers
        EXPECT_EQ(seen[gsi], inputs) << gsi;
    }
}

// --- A board's chips with the kernel's behind them. Time is the host's.

class RealClock final : public Clock {
public:
    [[nodiscard]] u64 now_ns() const override { return monotonic() - start_; }
    [[nodiscard]] u64 wall_ns() const override { return now_ns(); }

private:
    static u64 monotonic() {
        timespec t{};
        (void)clock_gettime(CLOCK_MONOTONIC, &t);
        return static_cast<u64>(t.tv_sec) * 1'000'000'000 + static_cast<u64>(t.tv_nsec);
    }
    u64 start_ = monotonic() - 1'000'000'000;
};

// What the vCPU's counter shows.
class VcpuTsc final : public TscSource {
public:
    explicit VcpuTsc(int vcpu) : vcpu_(vcpu) {}
    [[nodiscard]] u64 ticks() const override { return kvm::read_vcpu_msr(vcpu_, 0x10).value_or(0); }
    [[nodiscard]] u64 hz() const override {
        return static_cast<u64>(std::max(ioctl(vcpu_, KVM_GET_TSC_KHZ, 0), 1)) * 1000;
    }

private:
    int vcpu_;
};

struct Bench {
    explicit Bench(std::unique_ptr<ChipVm> its_vm) : vm(std::move(its_vm)) {
        std::vector<int> fds;
        OwnChips ours{.clock = clock,
                      .lock = lock,
                      .local_apics = {},
                      .io_apic = io_apic,
                      .pic = pic,
                      .pit = pit,
                      .timers = timers,
                      .pic_pins = pic_pins,
                      .io_apic_pins = io_apic_pins,
                      .fabric = fabric,
                      .io_apic_page = io_apic_page};
        fds.reserve(vm->cpus.size());
        apics.reserve(vm->cpus.size());
        ours.local_apics.reserve(vm->cpus.size());
        for (unsigned i = 0; i < vm->cpus.size(); ++i) {
            apics.push_back(std::make_unique<lapic::Lapic>(
                lapic::Lapic::Config{.apic_id = i, .bootstrap = i == 0}, clock, tsc, queue, own_fabric));
            own_fabric.add(*apics.back());
            ours.local_apics.push_back(apics.back().get());
            fds.push_back(vm->cpus[i].file.get());
            apics.back()->write_register(0xf0, 0x1ff);  // enabled
        }
        auto made = KernelChips::create(vm->chips, fds, ours);
        EXPECT_TRUE(made) << made.error().message;
        chips = *std::move(made);
    }

    void enter() {
        const auto status = chips->enter(KernelChips::Start::Running);
        ASSERT_TRUE(status) << status.error().message;
        ASSERT_TRUE(chips->in_kernel());
    }
    void leave() {
        const std::vector<s64> offsets(apics.size(), 0);
        const auto status = chips->leave(offsets);
        ASSERT_TRUE(status) << status.error().message;
        ASSERT_FALSE(chips->in_kernel());
    }
    bool requested(unsigned cpu, u8 vector) { return apics[cpu]->saved().registers.irr.has(vector); }
    void write_io_apic(u8 index, u32 value) {
        const std::array select{std::byte{index}};
        (void)io_apic.write(0, select);
        (void)io_apic.write(0x10, std::as_bytes(std::span(&value, 1)));
    }
    void out(IoDevice& ports, u64 offset, u8 value) {
        const std::array data{std::byte{value}};
        (void)ports.write(offset, data);
    }

    std::unique_ptr<ChipVm> vm;
    RealClock clock;
    VcpuTsc tsc{vm->cpus[0].file.get()};
    FakeClock queue;  // holds the timers; nothing fires by itself
    MutexLock lock;
    lapic::LapicFabric own_fabric;
    SwitchedFabric fabric{own_fabric};
    ioapic::IoApic io_apic{{.id = 1}, fabric};
    pic8259::Pic8259Pair pic{IrqLine(own_fabric.lint_pins(), 0)};
    SplitRoutes io_apic_page{io_apic};
    SwitchedPins pic_pins{pic};
    SwitchedPins io_apic_pins{io_apic};
    IsaInterrupts isa{pic_pins, io_apic_pins};
    LegacyTimers timers{isa};
    pit8254::Pit8254 pit{clock, queue, IrqLine(timers.old_timers(), 0)};
    std::vector<std::unique_ptr<lapic::Lapic>> apics;
    std::unique_ptr<KernelChips> chips;
};

class KernelChipsTest : public testing::TestWithParam<KernelIrqchip::Kind> {
protected:
    // Null: the test is to end.
    std::unique_ptr<Bench> make(KernelIrqchip::Kind kind, unsigned cpus = 1) {
        std::string why;
        auto vm = ChipVm::create(kind, cpus, why);
        if (vm == nullptr) {
            skip(why);
            return nullptr;
        }
        return std::make_unique<Bench>(std::move(vm));
    }
    static void skip(const std::string& why) { GTEST_SKIP() << why; }
};

TEST_P(KernelChipsTest, MessagesLandOnTheRightSideAndComeAlong) {
    const auto bench = make(GetParam(), 2);
    if (bench == nullptr) return;
    bench->fabric.deliver(to(1, 0x41));
    bench->enter();
    bench->fabric.deliver(to(1, 0x42));
    EXPECT_FALSE(bench->requested(1, 0x42)) << "ours are silent";
    bench->leave();
    bench->fabric.deliver(to(1, 0x43));
    for (const u8 vector : std::array<u8, 3>{0x41, 0x42, 0x43})
        EXPECT_TRUE(bench->requested(1, vector)) << int{vector};
    EXPECT_EQ(bench->apics[0]->saved().registers.irr.highest(), -1);
}

// Devices' workers do not ask where the chips are just now.
TEST_P(KernelChipsTest, NoMessageIsLostWhileTheChipsMove) {
    const auto bench = make(GetParam());
    if (bench == nullptr) return;
    std::atomic<bool> done = false;
    std::thread worker([&] {
        for (unsigned vector = 0x20; vector < 0x100; ++vector) {
            bench->fabric.deliver(to(0, static_cast<u8>(vector)));
            std::this_thread::yield();
        }
        done = true;
    });
    unsigned rounds = 0;
    while (!done || rounds < 5) {
        bench->enter();
        bench->leave();
        ++rounds;
    }
    worker.join();
    for (unsigned vector = 0x20; vector < 0x100; ++vector)
        EXPECT_TRUE(bench->requested(0, static_cast<u8>(vector))) << vector << " of " << rounds << " rounds";
}

TEST_P(KernelChipsTest, ATimerThatRunsOutThereHasInterruptedOnce) {
    const auto bench = make(GetParam());
    if (bench == nullptr) return;
    lapic::Lapic& apic = *bench->apics[0];
    apic.write_register(0x3e0, 0x0b);
    apic.write_register(0x320, 0x61);
    apic.write_register(0x380, 2'000'000);
    bench->enter();
    const u64 end = bench->clock.now_ns() + 5'000'000;
    while (bench->clock.now_ns() < end) std::this_thread::yield();
    bench->leave();
    EXPECT_TRUE(bench->requested(0, 0x61));
    EXPECT_EQ(apic.read_register(0x390), 0U);
    // Taken and ended; another journey does not bring it back.
    EXPECT_EQ(apic.acknowledge(), 0x61);
    apic.end_of_interrupt();
    bench->enter();
    bench->leave();
    EXPECT_FALSE(bench->requested(0, 0x61));
}

TEST_P(KernelChipsTest, ADeadlineThatPassesThereIsReached) {
    const auto bench = make(GetParam());
    if (bench == nullptr) return;
    lapic::Lapic& apic = *bench->apics[0];
    apic.write_register(0x320, 0x40062);  // TSC deadline
    const u64 deadline = bench->tsc.ticks() + bench->tsc.hz() / 500;
    EXPECT_EQ(apic.write_msr(0x6e0, deadline), MsrResult::Ok);
    bench->enter();
    while (bench->tsc.ticks() < deadline) std::this_thread::yield();
    bench->leave();
    EXPECT_TRUE(bench->requested(0, 0x62));
    u64 left = 1;
    EXPECT_EQ(apic.read_msr(0x6e0, left), MsrResult::Ok);
    EXPECT_EQ(left, 0U);
}

TEST_P(KernelChipsTest, ADeadlineFarAwayIsStillThere) {
    const auto bench = make(GetParam());
    if (bench == nullptr) return;
    lapic::Lapic& apic = *bench->apics[0];
    apic.write_register(0x320, 0x40062);
    const u64 deadline = bench->tsc.ticks() + bench->tsc.hz() * 1000;
    EXPECT_EQ(apic.write_msr(0x6e0, deadline), MsrResult::Ok);
    bench->enter();
    bench->leave();
    u64 left = 0;
    EXPECT_EQ(apic.read_msr(0x6e0, left), MsrResult::Ok);
    EXPECT_EQ(left, deadline);
    EXPECT_FALSE(bench->requested(0, 0x62));
}

INSTANTIATE_TEST_SUITE_P(Irqchips, KernelChipsTest,
                         testing::Values(KernelIrqchip::Kind::Kernel, KernelIrqchip::Kind::Split),
                         [](const auto& kind) {
                             return kind.param == KernelIrqchip::Kind::Kernel ? "Kernel" : "Split";
                         });

using KernelBoardTest = KernelChipsTest;
using SplitBoardTest = KernelChipsTest;

// KVM_CAP_SPLIT_IRQCHIP: the end of an interrupt leaves the guest if a route names its vector; the route is
// there when the guest's write to the I/O APIC ends. The kernel refuses a second route of the same kind for a
// number, and takes the same table again.
TEST_F(SplitBoardTest, LevelTriggeredEntriesAreRoutes) {
    const auto bench = make(KernelIrqchip::Kind::Split);
    if (bench == nullptr) return;
    const auto write = [&bench](u8 index, u32 value) {
        const std::array select{std::byte{index}};
        EXPECT_EQ(bench->io_apic_page.write(0, select), IoStatus::Ok);
        EXPECT_EQ(bench->io_apic_page.write(0x10, std::as_bytes(std::span(&value, 1))), IoStatus::Ok);
    };
    bench->enter();
    write(0x10 + 2 * 20, 0x0000'8050);
    {
        const LockGuard guard(bench->lock);
        bench->io_apic_pins.set_level(20, true);  // by our I/O APIC to the kernel's local APIC
    }
    const auto apic = kvm::read_local_apic(bench->vm->cpus[0].file.get());
    ASSERT_TRUE(apic);
    EXPECT_NE(static_cast<u8>(apic->regs[0x222]) & 1, 0) << "IRR: vector 50h is bit 16 of its third word";
}

// [82093AA 3.2.4] Sent while it requests and is not in service.
TEST_F(KernelBoardTest, ALevelThatRisesThereIsInServiceHereAndIsSentAgainAfterItsEnd) {
    const auto bench = make(KernelIrqchip::Kind::Kernel);
    if (bench == nullptr) return;
    bench->write_io_apic(0x10 + 2 * 20, 0x0000'8050);  // pin 20: level, vector 50h, CPU 0
    bench->enter();
    {
        const LockGuard guard(bench->lock);
        bench->io_apic_pins.set_level(20, true);
    }
    bench->leave();
    EXPECT_TRUE(bench->requested(0, 0x50));
    const auto state = bench->io_apic.state();
    EXPECT_TRUE(state.table[20].has(ioapic::Redirection::RemoteIrr));
    EXPECT_EQ(state.levels, u32{1} << 20);
    EXPECT_EQ(bench->apics[0]->acknowledge(), 0x50);
    bench->enter();
    bench->leave();
    EXPECT_FALSE(bench->requested(0, 0x50)) << "in service, not requested twice";
    EXPECT_TRUE(bench->apics[0]->saved().registers.isr.has(0x50));
    bench->io_apic.end_of_interrupt(0x50);
    EXPECT_TRUE(bench->requested(0, 0x50)) << "the wire is still high";
}

TEST_F(KernelBoardTest, AnEdgeIsDeliveredOnceThoughItsWireStaysHigh) {
    const auto bench = make(KernelIrqchip::Kind::Kernel);
    if (bench == nullptr) return;
    bench->write_io_apic(0x10 + 2 * 4, 0x34);  // pin 4: edge
    bench->io_apic_pins.set_level(4, true);
    EXPECT_EQ(bench->apics[0]->acknowledge(), 0x34);
    bench->apics[0]->end_of_interrupt();
    bench->enter();
    bench->leave();
    EXPECT_FALSE(bench->requested(0, 0x34));
    bench->enter();
    bench->io_apic_pins.set_level(4, false);
    bench->io_apic_pins.set_level(4, true);
    bench->leave();
    EXPECT_TRUE(bench->requested(0, 0x34));
}

void initialise_pic(Bench& bench) {
    for (IoDevice* ports : {&bench.pic.master_ports(), &bench.pic.slave_ports()}) {
        const bool master = ports == &bench.pic.master_ports();
        bench.out(*ports, 0, 0x11);
        bench.out(*ports, 1, master ? 0x20 : 0x28);
        bench.out(*ports, 1, master ? 4 : 2);
        bench.out(*ports, 1, 1);
        bench.out(*ports, 1, 0);
    }
}

TEST_F(KernelBoardTest, ARequestOfTheSlavePicComesAlong) {
    const auto bench = make(KernelIrqchip::Kind::Kernel);
    if (bench == nullptr) return;
    initialise_pic(*bench);
    bench->enter();
    bench->pic_pins.set_level(12, true);
    bench->leave();
    ASSERT_TRUE(bench->pic.requests());
    EXPECT_EQ(bench->apics[0]->saved().registers.pins & 1, 1) << "LINT0 is INTR";
    EXPECT_EQ(bench->pic.acknowledge(), 0x2c);
    bench->enter();
    bench->leave();
    EXPECT_FALSE(bench->pic.requests());
}

// The kernel's 8254 interrupts through its own wires.
TEST_F(KernelBoardTest, ATickOfTheKernelsTimerIsRequestedHere) {
    const auto bench = make(KernelIrqchip::Kind::Kernel);
    if (bench == nullptr) return;
    initialise_pic(*bench);
    bench->write_io_apic(0x10 + 2 * 2, 0x30);  // pin 2: edge
    IoDevice& ports = bench->pit.counter_ports();
    bench->out(ports, 3, 0x34);  // mode 2, 1193 ticks: 1 ms
    bench->out(ports, 0, 1193 & 0xff);
    bench->out(ports, 0, 1193 >> 8);
    bench->enter();
    // The kernel's timer has a thread of its own.
    const u64 end = bench->clock.now_ns() + 10'000'000'000;
    while (bench->clock.now_ns() < end && (bench->vm->chips.pic(false)->irr & 1) == 0)
        std::this_thread::yield();
    bench->leave();
    ASSERT_TRUE(bench->pic.requests());
    EXPECT_EQ(bench->pic.acknowledge(), 0x20);
    EXPECT_TRUE(bench->requested(0, 0x30));
    EXPECT_EQ(bench->pit.state().counters[0].length, 1193U);
}

// At power-on nothing counts.
TEST_F(KernelBoardTest, AfterPowerOnTheKernelsTimerIsSilent) {
    const auto bench = make(KernelIrqchip::Kind::Kernel);
    if (bench == nullptr) return;
    ASSERT_TRUE(bench->chips->enter(KernelChips::Start::PowerOn));
    const auto pit = bench->vm->chips.pit();
    ASSERT_TRUE(pit);
    EXPECT_EQ(pit->channels[0].mode, 0xff);
    bench->leave();
    EXPECT_EQ(bench->pit.state().counters[0].phase, static_cast<u8>(pit8254::Counter::Phase::Idle));
}

TEST_F(KernelBoardTest, AnNmiOnItsWayIsSentAgain) {
    const auto bench = make(KernelIrqchip::Kind::Kernel);
    if (bench == nullptr) return;
    ApicMessage nmi = to(0, 0);
    nmi.delivery_mode = DeliveryMode::Nmi;
    bench->fabric.deliver(nmi);
    bench->enter();
    kvm_vcpu_events events{};
    ASSERT_EQ(ioctl(bench->vm->cpus[0].file.get(), KVM_GET_VCPU_EVENTS, &events), 0);
    EXPECT_EQ(events.nmi.pending, 1);
}

}  // namespace
}  // namespace tessera
