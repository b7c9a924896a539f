#include "machines/board/interrupt_wiring.h"

#include <array>
#include <gtest/gtest.h>
#include <utility>
#include <vector>

#include "base/fake_clock.h"
#include "machines/board/pci_part.h"

namespace tessera {
namespace {

class RecordingSink final : public IrqSink {
public:
    void set_level(unsigned pin, bool high) override { changes.emplace_back(pin, high); }
    std::vector<std::pair<unsigned, bool>> changes;
};

using Changes = std::vector<std::pair<unsigned, bool>>;

TEST(IsaInterruptsTest, ReachBothControllersAndTheTimerIsPinTwoOfTheIoApic) {
    RecordingSink pic;
    RecordingSink io_apic;
    IsaInterrupts isa(pic, io_apic);
    isa.set_level(4, true);
    isa.set_level(0, true);
    isa.set_level(0, false);
    EXPECT_EQ(pic.changes, (Changes{{4, true}, {0, true}, {0, false}}));
    EXPECT_EQ(io_apic.changes, (Changes{{4, true}, {2, true}, {2, false}}));
}

TEST(WiredOrTest, AnInputIsHighWhileEitherSideDrivesIt) {
    RecordingSink pic;
    WiredOr inputs(pic);
    inputs.first().set_level(10, true);
    inputs.second().set_level(10, true);
    inputs.first().set_level(10, false);
    inputs.second().set_level(10, false);
    inputs.second().set_level(32, true);
    EXPECT_EQ(pic.changes, (Changes{{10, true}, {10, true}, {10, true}, {10, false}}));
}

TEST(LegacyTimersTest, TheHpetDrivesTheOldTimersInterruptsWhileSelected) {
    RecordingSink isa;
    LegacyTimers timers(isa);
    timers.hpet().set_level(0, true);
    EXPECT_TRUE(isa.changes.empty()) << "not connected";
    timers.old_timers().set_level(8, true);
    EXPECT_EQ(isa.changes, (Changes{{8, true}}));
    isa.changes.clear();
    timers.select().set_level(0, true);
    EXPECT_EQ(isa.changes, (Changes{{0, true}, {8, false}})) << "the levels of those connected now";
    isa.changes.clear();
    timers.old_timers().set_level(0, true);
    timers.hpet().set_level(0, false);
    EXPECT_EQ(isa.changes, (Changes{{0, false}}));
    isa.changes.clear();
    timers.select().set_level(0, false);
    EXPECT_EQ(isa.changes, (Changes{{0, true}, {8, true}}));
}

// The tables tell how the board is wired.
TEST(InterruptWiringTest, TablesAndWiresAgree) {
    for (unsigned device = 0; device < 32; ++device)
        for (unsigned pin = 0; pin < 4; ++pin)
            EXPECT_EQ(boot::pci_interrupt_line(device, pin), pci::interrupt_line_of(device, pin));
    static_assert(boot::kPciInterruptLines == pci::kInterruptLines);
    static_assert(boot::kPciFirstPin == pci::PirqRouter::kFirstIoApicPin);
    static_assert(boot::kEcamSize == pci::Ecam::kSize);
}

class NoMachine final : public MachineEvents {
public:
    void request_reset(ResetSource /*source*/) override {}
    void request_power_off() override {}
};

TEST(RtcAlarmTest, ARisingClockInterruptIsAnAlarmToo) {
    constexpr u64 kPm1Status = 0;
    constexpr u16 kRtcStatus = 1 << 10;  // [ACPI 6.5 4.8.3.1.1]
    FakeClock clock;
    NoMachine machine;
    acpi_pm::AcpiPm pm({}, IrqLine::detached(), machine, clock, clock);
    RecordingSink isa;
    RtcAlarm wire(isa, pm);
    const auto status = [&] {
        std::array<std::byte, 2> data{};
        EXPECT_EQ(pm.read(kPm1Status, data), IoStatus::Ok);
        return std::to_integer<unsigned>(data[0]) | std::to_integer<unsigned>(data[1]) << 8;
    };
    EXPECT_EQ(status() & kRtcStatus, 0U);
    wire.set_level(8, true);
    EXPECT_EQ(status() & kRtcStatus, kRtcStatus);
    wire.set_level(8, false);
    EXPECT_EQ(isa.changes, (Changes{{8, true}, {8, false}}));
}

class NoFabric final : public ApicFabric {
public:
    void deliver(const ApicMessage& /*message*/) override {}
};

TEST(ApicToBoardTest, ThereIsNoVectorWithoutARequest) {
    NoFabric fabric;
    NullLock lock;
    ioapic::IoApic io_apic({}, fabric);
    pic8259::Pic8259Pair pic(IrqLine::detached());
    ApicToBoard board(io_apic, pic, lock);
    EXPECT_EQ(board.acknowledge_interrupt(), std::nullopt);
    // ICW1 to ICW4: vectors from 20h, AEOI off; then everything unmasked.
    const auto out = [&](u64 offset, u8 value) {
        const std::array<std::byte, 1> data{std::byte{value}};
        EXPECT_EQ(pic.master_ports().write(offset, data), IoStatus::Ok);
    };
    out(0, 0x11);
    out(1, 0x20);
    out(1, 0x04);
    out(1, 0x01);
    out(1, 0x00);
    pic.set_level(3, true);
    EXPECT_EQ(board.acknowledge_interrupt(), 0x23);
    EXPECT_EQ(board.acknowledge_interrupt(), std::nullopt);
}

}  // namespace
}  // namespace tessera
