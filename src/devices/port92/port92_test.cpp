#include "devices/port92/port92.h"

#include <array>
#include <gtest/gtest.h>

#include "devices/port92/port92_rig.h"
#include "devices/testing/device_suite.h"

TESSERA_JOIN_DEVICE_SUITE(Port92, tessera::port92::Port92Rig);

namespace tessera::port92 {
namespace {

class Port92Test : public testing::Test {
protected:
    void SetUp() override { rig.a20.set_a20(A20Driver::KeyboardController, false); }
    void out(u8 value) {
        const std::array<std::byte, 1> buffer{std::byte{value}};
        EXPECT_EQ(rig.device.write(0, buffer), IoStatus::Ok);
    }
    u8 in() {
        std::array<std::byte, 1> buffer{std::byte{0xff}};
        EXPECT_EQ(rig.device.read(0, buffer), IoStatus::Ok);
        return std::to_integer<u8>(buffer[0]);
    }
    Port92Rig rig;
};

TEST_F(Port92Test, A20IsOnAtStartAndFollowsBitOne) {
    EXPECT_EQ(in(), 0x02);
    EXPECT_TRUE(rig.a20.enabled());
    out(0x00);
    EXPECT_FALSE(rig.a20.enabled());
    EXPECT_EQ(in(), 0x00);
    out(0x02);
    EXPECT_TRUE(rig.a20.enabled());
    EXPECT_TRUE(rig.machine.resets.empty());
}

TEST_F(Port92Test, BitZeroRisingResets) {
    out(0x03);
    EXPECT_EQ(rig.machine.resets, std::vector{ResetSource::Port92});
    out(0x03);
    EXPECT_EQ(rig.machine.resets.size(), 1U);
    out(0x02);
    out(0x03);
    EXPECT_EQ(rig.machine.resets.size(), 2U);
}

TEST_F(Port92Test, OnlyResetA20AndLightsAreKept) {
    out(0xfe);
    EXPECT_EQ(in(), 0xc2);
}

TEST_F(Port92Test, ResetTurnsA20On) {
    out(0x00);
    rig.device.reset();
    EXPECT_TRUE(rig.a20.enabled());
}

TEST_F(Port92Test, LoadDrivesTheWire) {
    out(0x00);
    const auto state = testing_rig::saved(rig);
    Port92Rig other;
    other.a20.set_a20(A20Driver::KeyboardController, false);
    ASSERT_TRUE(testing_rig::load(other, state));
    EXPECT_FALSE(other.a20.enabled());
}

TEST_F(Port92Test, WiderAccessesAreRefused) {
    const std::array<std::byte, 2> buffer{std::byte{1}, std::byte{0}};
    EXPECT_EQ(rig.device.write(0, buffer), IoStatus::BadWidth);
    EXPECT_TRUE(rig.machine.resets.empty());
}

}  // namespace
}  // namespace tessera::port92
