#include "devices/pci_config/pci_config.h"

#include <array>
#include <cstring>
#include <gtest/gtest.h>

#include "devices/pci_config/pci_config_rig.h"
#include "devices/testing/device_suite.h"

TESSERA_JOIN_DEVICE_SUITE(PciConfig, tessera::pci_config::PciConfigRig);

namespace tessera::pci_config {
namespace {

struct PciConfigTest : testing::Test {
    template <typename T>
    T in(u64 offset) {
        std::array<std::byte, sizeof(T)> buffer{};
        EXPECT_EQ(rig.device.read(offset, buffer), IoStatus::Ok);
        T value = 0;
        std::memcpy(&value, buffer.data(), sizeof value);
        return value;
    }
    template <typename T>
    IoStatus out(u64 offset, T value) {
        std::array<std::byte, sizeof(T)> buffer{};
        std::memcpy(buffer.data(), &value, sizeof value);
        return rig.device.write(offset, buffer);
    }
    PciConfigRig rig;
};

TEST_F(PciConfigTest, TheAddressIsADoubleWordThatReadsBack) {
    // What systems test for mechanism #1: the enable bit stays.
    EXPECT_EQ(out<u32>(0, 0x8000'0000), IoStatus::Ok);
    EXPECT_EQ(in<u32>(0), 0x8000'0000U);
    EXPECT_EQ(out<u32>(0, 0xffff'ffff), IoStatus::Ok);
    EXPECT_EQ(in<u32>(0), 0x80ff'fffcU) << "reserved bits and the two lowest read as zero";
    EXPECT_EQ(out<u8>(0, 0x12), IoStatus::NoRegister);
    EXPECT_EQ(out<u16>(2, 0x12), IoStatus::NoRegister);
    EXPECT_EQ(in<u32>(0), 0x80ff'fffcU);
}

TEST_F(PciConfigTest, EveryFunctionReadsAsAbsent) {
    for (const u32 device : {0U, 1U, 31U}) {
        EXPECT_EQ(out<u32>(0, 0x8000'0000 | device << 11), IoStatus::Ok);
        EXPECT_EQ(in<u32>(4), 0xffff'ffffU);
        EXPECT_EQ(in<u16>(6), 0xffffU);
        EXPECT_EQ(in<u8>(7), 0xffU);
        EXPECT_EQ(out<u32>(4, 0), IoStatus::Ok);
    }
    EXPECT_EQ(out<u32>(6, 0), IoStatus::BadWidth);
}

TEST_F(PciConfigTest, BytesAtCf9AreTheResetRegisters) {
    EXPECT_EQ(in<u8>(1), 0x5a);
    EXPECT_EQ(out<u8>(1, 0x06), IoStatus::Ok);
    EXPECT_EQ(rig.reset_register.last, std::byte{0x06});
    EXPECT_EQ(out<u32>(0, 0x0000'0600), IoStatus::Ok);
    EXPECT_EQ(rig.reset_register.last, std::byte{0x06}) << "a double word is an address";
}

}  // namespace
}  // namespace tessera::pci_config
