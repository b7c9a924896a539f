#include "devices/pic8259/pic8259.h"

#include <array>
#include <gtest/gtest.h>
#include <vector>

#include "devices/pic8259/pic8259_rig.h"
#include "devices/testing/device_suite.h"

TESSERA_JOIN_DEVICE_SUITE(Pic8259, tessera::pic8259::PicRig);

namespace tessera::pic8259 {
namespace {

// Command bytes written out, as a second reader of the data sheet.
constexpr u8 kEoi = 0x20, kReadIrr = 0x0a, kReadIsr = 0x0b, kPoll = 0x0c;

class Pic8259Test : public testing::Test {
protected:
    Pic8259Test() { initialise(0x11, 0x01); }

    void initialise(u8 icw1, u8 master_icw4, u8 slave_icw4 = 0x01) {
        out(pic.master_ports(), 0, icw1);
        out(pic.master_ports(), 1, 0x20);
        out(pic.master_ports(), 1, 0x04);
        out(pic.master_ports(), 1, master_icw4);
        out(pic.slave_ports(), 0, icw1);
        out(pic.slave_ports(), 1, 0x28);
        out(pic.slave_ports(), 1, 0x02);
        out(pic.slave_ports(), 1, slave_icw4);
        wires.edges.clear();
    }
    void TearDown() override { EXPECT_EQ(refused, 0u) << "an access of the helpers was refused"; }
    u8 in(IoDevice& ports, u64 offset) {
        std::array<std::byte, 1> data{std::byte{0xff}};
        refused |= static_cast<unsigned>(ports.read(offset, data));
        return std::to_integer<u8>(data[0]);
    }
    void out(IoDevice& ports, u64 offset, u8 value) {
        const std::array<std::byte, 1> data{std::byte{value}};
        refused |= static_cast<unsigned>(ports.write(offset, data));
    }
    void command(u8 value) { out(pic.master_ports(), 0, value); }
    void slave_command(u8 value) { out(pic.slave_ports(), 0, value); }
    u8 master_isr() {
        command(kReadIsr);
        return in(pic.master_ports(), 0);
    }
    u8 slave_isr() {
        slave_command(kReadIsr);
        return in(pic.slave_ports(), 0);
    }
    u8 master_irr() {
        command(kReadIrr);
        return in(pic.master_ports(), 0);
    }
    void raise(unsigned pin) { pic.set_level(pin, true); }
    void lower(unsigned pin) { pic.set_level(pin, false); }
    void pulse(unsigned pin) {
        lower(pin);
        raise(pin);
    }

    // IoStatus values of the helpers, together; Ok is 0. Without a branch per access the analyzer stays
    // quick.
    unsigned refused = 0;
    testing_rig::RecordingSink wires;
    Pic8259Pair pic{IrqLine(wires, 0)};
};

TEST_F(Pic8259Test, PowerOnIsQuiet) {
    Pic8259Pair fresh(IrqLine::detached());
    for (unsigned pin = 0; pin < 16; ++pin) fresh.set_level(pin, true);
    EXPECT_FALSE(fresh.requests());
}

TEST_F(Pic8259Test, MaskIsReadableBeforeInitialisation) {
    Pic8259Pair fresh(IrqLine::detached());
    out(fresh.master_ports(), 1, 0xfb);
    EXPECT_EQ(in(fresh.master_ports(), 1), 0xfb);
}

TEST_F(Pic8259Test, InitialisationClearsMaskAndShowsIrr) {
    out(pic.master_ports(), 1, 0xff);
    command(kReadIsr);
    initialise(0x11, 0x01);
    EXPECT_EQ(in(pic.master_ports(), 1), 0x00);
    raise(3);
    EXPECT_EQ(in(pic.master_ports(), 0), 0x08);
}

TEST_F(Pic8259Test, RequestRaisesIntrAndAcknowledgeGivesTheVector) {
    raise(4);
    EXPECT_EQ(wires.edges, (std::vector<testing_rig::RecordingSink::Edge>{{0, true}}));
    EXPECT_EQ(pic.acknowledge(), 0x24);
    EXPECT_FALSE(pic.requests());
    EXPECT_EQ(master_isr(), 0x10);
    EXPECT_EQ(master_irr(), 0x00);
    command(kEoi);
    EXPECT_EQ(master_isr(), 0x00);
    EXPECT_FALSE(pic.requests());  // edge mode: the level alone is not a request
    pulse(4);
    EXPECT_EQ(pic.acknowledge(), 0x24);
}

TEST_F(Pic8259Test, MaskedRequestWaitsInIrr) {
    out(pic.master_ports(), 1, 0x10);
    raise(4);
    EXPECT_FALSE(pic.requests());
    EXPECT_EQ(master_irr(), 0x10);
    out(pic.master_ports(), 1, 0x00);
    EXPECT_TRUE(pic.requests());
}

TEST_F(Pic8259Test, FullyNestedLowerLevelsWaitHigherOnesInterrupt) {
    raise(4);
    EXPECT_EQ(pic.acknowledge(), 0x24);
    raise(5);
    EXPECT_FALSE(pic.requests());
    raise(1);
    EXPECT_EQ(pic.acknowledge(), 0x21);
    EXPECT_EQ(master_isr(), 0x12);
    command(kEoi);  // non-specific: the highest in service
    EXPECT_EQ(master_isr(), 0x10);
    EXPECT_FALSE(pic.requests());
    command(kEoi);
    EXPECT_EQ(pic.acknowledge(), 0x25);
}

TEST_F(Pic8259Test, RequestThatGoesAwayIsAnsweredAsIr7AndNotPutInService) {
    raise(4);
    lower(4);
    EXPECT_FALSE(pic.requests());
    EXPECT_EQ(pic.acknowledge(), 0x27);
    EXPECT_EQ(master_isr(), 0x00);
}

TEST_F(Pic8259Test, InterruptOfTheSlaveServesTheCascadeToo) {
    raise(10);
    EXPECT_TRUE(pic.requests());
    EXPECT_EQ(pic.acknowledge(), 0x2a);
    EXPECT_EQ(slave_isr(), 0x04);
    EXPECT_EQ(master_isr(), 0x04);
    slave_command(kEoi);
    command(kEoi);
    EXPECT_EQ(slave_isr(), 0);
    EXPECT_EQ(master_isr(), 0);
}

TEST_F(Pic8259Test, SlaveLevelsRankBetweenIrq1AndIrq3) {
    raise(3);
    raise(8);
    raise(15);
    raise(1);
    EXPECT_EQ(pic.acknowledge(), 0x21);
    command(kEoi);
    EXPECT_EQ(pic.acknowledge(), 0x28);
    slave_command(kEoi);
    command(kEoi);
    EXPECT_EQ(pic.acknowledge(), 0x2f);
    slave_command(kEoi);
    command(kEoi);
    EXPECT_EQ(pic.acknowledge(), 0x23);
}

TEST_F(Pic8259Test, WithoutSpecialFullyNestedModeTheSlaveWaitsForTheMastersEoi) {
    raise(12);
    EXPECT_EQ(pic.acknowledge(), 0x2c);
    raise(8);
    EXPECT_FALSE(pic.requests());
    command(kEoi);
    EXPECT_EQ(pic.acknowledge(), 0x28);
}

TEST_F(Pic8259Test, SpecialFullyNestedModeLetsAHigherLevelOfTheSlaveIn) {
    initialise(0x11, 0x11);
    raise(12);
    EXPECT_EQ(pic.acknowledge(), 0x2c);
    raise(13);  // lower in the slave
    EXPECT_FALSE(pic.requests());
    raise(8);
    EXPECT_TRUE(pic.requests());
    EXPECT_EQ(pic.acknowledge(), 0x28);
    EXPECT_EQ(slave_isr(), 0x11);
}

TEST_F(Pic8259Test, SpecialFullyNestedModeDoesNotReachOrdinaryInputs) {
    initialise(0x11, 0x11);
    raise(4);
    EXPECT_EQ(pic.acknowledge(), 0x24);
    pulse(4);
    EXPECT_FALSE(pic.requests());
}

TEST_F(Pic8259Test, SpecificEoiEndsTheNamedLevel) {
    raise(4);
    (void)pic.acknowledge();
    raise(1);
    (void)pic.acknowledge();
    command(0x64);
    EXPECT_EQ(master_isr(), 0x02);
}

TEST_F(Pic8259Test, RotateOnNonSpecificEoiMakesTheServedLevelLowest) {
    raise(4);
    (void)pic.acknowledge();
    command(0xa0);
    EXPECT_EQ(master_isr(), 0x00);
    pulse(4);
    raise(5);
    raise(3);
    EXPECT_EQ(pic.acknowledge(), 0x25);  // 5 6 7 0 1 2 3 4
    command(kEoi);
    EXPECT_EQ(pic.acknowledge(), 0x23);
    command(kEoi);
    EXPECT_EQ(pic.acknowledge(), 0x24);
}

TEST_F(Pic8259Test, RotateOnSpecificEoiAndSetPriority) {
    raise(6);
    (void)pic.acknowledge();
    command(0xe6);
    EXPECT_EQ(master_isr(), 0x00);
    raise(7);
    raise(0);
    EXPECT_EQ(pic.acknowledge(), 0x27);
    command(kEoi);
    command(0xc0 | 7);  // back to the default order
    pulse(7);
    EXPECT_EQ(pic.acknowledge(), 0x20);
}

TEST_F(Pic8259Test, AutomaticEoiLeavesNothingInService) {
    initialise(0x11, 0x03);
    raise(4);
    EXPECT_EQ(pic.acknowledge(), 0x24);
    EXPECT_EQ(master_isr(), 0x00);
    raise(5);
    EXPECT_EQ(pic.acknowledge(), 0x25);
}

TEST_F(Pic8259Test, RotationInAutomaticEoiMode) {
    initialise(0x11, 0x03);
    command(0x80);
    raise(3);
    EXPECT_EQ(pic.acknowledge(), 0x23);
    pulse(3);
    raise(7);
    EXPECT_EQ(pic.acknowledge(), 0x27);
    EXPECT_EQ(pic.acknowledge(), 0x23);
    command(0x00);  // off: the order stays
    pulse(0);
    pulse(3);
    EXPECT_EQ(pic.acknowledge(), 0x20);
    EXPECT_EQ(pic.acknowledge(), 0x23);
}

TEST_F(Pic8259Test, SpecialMaskModeLetsLowerLevelsInWhenTheServedOneIsMasked) {
    raise(3);
    (void)pic.acknowledge();
    raise(5);
    EXPECT_FALSE(pic.requests());
    out(pic.master_ports(), 1, 0x08);
    EXPECT_FALSE(pic.requests());
    command(0x68);  // special mask mode
    EXPECT_EQ(pic.acknowledge(), 0x25);
    command(kEoi);  // does not see the masked level 3
    EXPECT_EQ(master_isr(), 0x08);
    command(kEoi);
    EXPECT_EQ(master_isr(), 0x08);
    command(0x48);  // mode off
    command(kEoi);
    EXPECT_EQ(master_isr(), 0x00);
}

TEST_F(Pic8259Test, SmmWithoutEsmmDoesNothing) {
    raise(3);
    (void)pic.acknowledge();
    raise(5);
    out(pic.master_ports(), 1, 0x08);
    command(0x28);
    EXPECT_FALSE(pic.requests());
}

TEST_F(Pic8259Test, PollAcknowledgesTheHighestLevel) {
    raise(6);
    raise(3);
    command(kPoll);
    EXPECT_EQ(in(pic.master_ports(), 0), 0x83);
    EXPECT_EQ(master_isr(), 0x08);
    command(kPoll);
    EXPECT_EQ(in(pic.master_ports(), 0) & 0x80, 0x00);  // 6 is held back
    EXPECT_EQ(in(pic.master_ports(), 0), 0x08);         // back to the register selected before
}

TEST_F(Pic8259Test, PollOfTheCascadeLeavesTheSlaveToItsOwnPoll) {
    raise(9);
    command(kPoll);
    EXPECT_EQ(in(pic.master_ports(), 0), 0x82);
    slave_command(kPoll);
    EXPECT_EQ(in(pic.slave_ports(), 0), 0x81);
    EXPECT_EQ(slave_isr(), 0x02);
}

TEST_F(Pic8259Test, LevelModeAsksAgainWhileTheLineIsHigh) {
    initialise(0x19, 0x01);
    raise(5);
    EXPECT_EQ(pic.acknowledge(), 0x25);
    EXPECT_FALSE(pic.requests());
    EXPECT_EQ(master_irr(), 0x20);
    command(kEoi);
    EXPECT_TRUE(pic.requests());
    (void)pic.acknowledge();
    lower(5);
    command(kEoi);
    EXPECT_FALSE(pic.requests());
}

TEST_F(Pic8259Test, ElcrMakesSingleInputsLevelTriggered) {
    out(pic.elcr_ports(), 0, 0xff);
    out(pic.elcr_ports(), 1, 0xff);
    EXPECT_EQ(in(pic.elcr_ports(), 0), 0xf8);
    EXPECT_EQ(in(pic.elcr_ports(), 1), 0xde);
    raise(11);
    EXPECT_EQ(pic.acknowledge(), 0x2b);
    slave_command(kEoi);
    command(kEoi);
    EXPECT_EQ(pic.acknowledge(), 0x2b);
    lower(11);
    slave_command(kEoi);
    command(kEoi);
    EXPECT_FALSE(pic.requests());
    // Initialisation keeps it.
    initialise(0x11, 0x01);
    EXPECT_EQ(in(pic.elcr_ports(), 0), 0xf8);
}

TEST_F(Pic8259Test, InitialisationForgetsEdges) {
    raise(4);
    initialise(0x11, 0x01);
    EXPECT_FALSE(pic.requests());
    pulse(4);
    EXPECT_TRUE(pic.requests());
}

TEST_F(Pic8259Test, NoRequestLeavesDuringInitialisation) {
    command(0x11);
    raise(4);
    EXPECT_FALSE(pic.requests());
    out(pic.master_ports(), 1, 0x40);
    out(pic.master_ports(), 1, 0x04);
    out(pic.master_ports(), 1, 0x01);
    EXPECT_EQ(pic.acknowledge(), 0x44);
}

TEST_F(Pic8259Test, SequenceWithoutIcw4SkipsItAndClearsItsModes) {
    initialise(0x11, 0x03);
    command(0x10);
    out(pic.master_ports(), 1, 0x30);
    out(pic.master_ports(), 1, 0x04);
    out(pic.master_ports(), 1, 0xfe);  // already the mask
    EXPECT_EQ(in(pic.master_ports(), 1), 0xfe);
    raise(0);
    EXPECT_EQ(pic.acknowledge(), 0x30);
    EXPECT_EQ(master_isr(), 0x01);  // no automatic end any more
}

TEST_F(Pic8259Test, SingleModeSkipsIcw3AndAnswersForIr2Itself) {
    command(0x13);
    out(pic.master_ports(), 1, 0x20);
    out(pic.master_ports(), 1, 0x01);
    raise(8);
    EXPECT_EQ(pic.acknowledge(), 0x22);
    EXPECT_EQ(slave_isr(), 0x00);
}

TEST_F(Pic8259Test, SlaveWithAnotherNameLeavesTheBusFloating) {
    slave_command(0x11);
    out(pic.slave_ports(), 1, 0x28);
    out(pic.slave_ports(), 1, 0x05);
    out(pic.slave_ports(), 1, 0x01);
    raise(8);
    EXPECT_EQ(pic.acknowledge(), 0xff);
}

TEST_F(Pic8259Test, PinTwoCannotBeDrivenFromOutside) {
    raise(2);
    raise(16);
    raise(~0u);
    EXPECT_FALSE(pic.requests());
}

TEST_F(Pic8259Test, OnlyBytesAreTaken) {
    std::array<std::byte, 2> data{};
    EXPECT_EQ(pic.master_ports().read(0, data), IoStatus::BadWidth);
    EXPECT_EQ(pic.slave_ports().write(0, data), IoStatus::BadWidth);
    EXPECT_EQ(pic.elcr_ports().read(2, std::span(data).first(1)), IoStatus::NoRegister);
}

}  // namespace
}  // namespace tessera::pic8259
