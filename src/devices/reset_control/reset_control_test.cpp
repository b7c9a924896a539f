#include "devices/reset_control/reset_control.h"

#include <array>
#include <gtest/gtest.h>

#include "devices/reset_control/a20_gate.h"
#include "devices/reset_control/reset_control_rig.h"
#include "devices/testing/device_suite.h"

TESSERA_JOIN_DEVICE_SUITE(ResetControl, tessera::reset_control::ResetControlRig);

namespace tessera::reset_control {
namespace {

class ResetControlTest : public testing::Test {
protected:
    void out(u8 value) {
        const std::array<std::byte, 1> buffer{std::byte{value}};
        EXPECT_EQ(rig.device.write(0, buffer), IoStatus::Ok);
    }
    u8 in() {
        std::array<std::byte, 1> buffer{std::byte{0xff}};
        EXPECT_EQ(rig.device.read(0, buffer), IoStatus::Ok);
        return std::to_integer<u8>(buffer[0]);
    }
    ResetControlRig rig;
};

TEST_F(ResetControlTest, AcpiResetValueResetsTheMachine) {
    out(0x06);
    EXPECT_EQ(rig.machine.resets, std::vector{ResetSource::ResetRegister});
    EXPECT_EQ(rig.machine.power_offs, 0U);
}

TEST_F(ResetControlTest, ChoosingTheKindAloneDoesNothing) {
    out(0x02);
    EXPECT_TRUE(rig.machine.resets.empty());
    EXPECT_EQ(in(), 0x02);
    out(0x0a);
    EXPECT_TRUE(rig.machine.resets.empty());
}

TEST_F(ResetControlTest, EveryValueWithBitTwoResets) {
    for (const u8 value : {u8{0x04}, u8{0x06}, u8{0x0e}, u8{0xff}}) {
        ResetControlRig fresh;
        const std::array<std::byte, 1> buffer{std::byte{value}};
        EXPECT_EQ(fresh.device.write(0, buffer), IoStatus::Ok);
        EXPECT_EQ(fresh.machine.resets.size(), 1U) << int{value};
    }
}

TEST_F(ResetControlTest, OnlyTheRisingBitAsks) {
    out(0x06);
    out(0x06);
    EXPECT_EQ(rig.machine.resets.size(), 1U);
    out(0x02);
    out(0x06);
    EXPECT_EQ(rig.machine.resets.size(), 2U);
}

TEST_F(ResetControlTest, WiderAccessesAreRefused) {
    std::array<std::byte, 4> buffer{};
    buffer.fill(std::byte{0x06});
    EXPECT_EQ(rig.device.write(0, buffer), IoStatus::BadWidth);
    EXPECT_TRUE(rig.machine.resets.empty());
}

TEST(A20LatchTest, EitherDriverKeepsTheLineOn) {
    A20Latch latch;
    EXPECT_TRUE(latch.enabled());
    latch.set_a20(A20Driver::KeyboardController, false);
    EXPECT_TRUE(latch.enabled());
    latch.set_a20(A20Driver::Port92, false);
    EXPECT_FALSE(latch.enabled());
    latch.set_a20(A20Driver::KeyboardController, true);
    EXPECT_TRUE(latch.enabled());
}

}  // namespace
}  // namespace tessera::reset_control
