#include "devices/pci/config_space.h"

#include <cstring>
#include <gtest/gtest.h>

#include "devices/pci/pci_rig.h"
#include "devices/testing/device_suite.h"

TESSERA_JOIN_DEVICE_SUITE(PciFunction, tessera::pci::PciFunctionRig);

namespace tessera::pci {
namespace {

struct ConfigSpaceTest : testing::Test {
    template <typename T>
    T in(u16 offset) {
        std::array<std::byte, sizeof(T)> buffer{};
        rig.device.read_config(offset, buffer);
        T value = 0;
        std::memcpy(&value, buffer.data(), sizeof value);
        return value;
    }
    template <typename T>
    void out(u16 offset, T value) {
        std::array<std::byte, sizeof(T)> buffer{};
        std::memcpy(buffer.data(), &value, sizeof value);
        rig.device.write_config(offset, buffer);
    }
    u8 capability(u8 id) {
        for (u8 at = in<u8>(0x34); at != 0; at = in<u8>(static_cast<u16>(at + 1)))
            if (in<u8>(at) == id) return at;
        return 0;
    }
    // I/O, memory and bus master on.
    void power_up() { out<u16>(0x04, 7); }

    PciFunctionRig rig;
};

TEST_F(ConfigSpaceTest, TheHeaderSaysWhatTheFunctionIs) {
    EXPECT_EQ(in<u32>(0x00), 0x5678'1234U);
    EXPECT_EQ(in<u32>(0x08), 0x0200'0003U) << "class in the upper three bytes, revision in the lowest";
    EXPECT_EQ(in<u8>(0x0e), 0);
    EXPECT_EQ(in<u32>(0x2c), 0xdef0'9abcU);
    EXPECT_EQ(in<u8>(0x3d), 1) << "INTA#";
    EXPECT_EQ(in<u16>(0x06), 0x10) << "it has capabilities";
}

TEST_F(ConfigSpaceTest, ReadOnlyRegistersStay) {
    for (const u16 offset : {kVendorId, kRevision, kSubsystemVendor, kCapabilities}) {
        const u32 before = in<u32>(offset);
        out<u32>(offset, ~before);
        EXPECT_EQ(in<u32>(offset), before) << offset;
    }
    out<u16>(0x04, 0xffff);
    EXPECT_EQ(in<u16>(0x04), 0x0547)
        << "I/O, memory, master, parity, SERR, INTx disable; the rest is wired to 0";
    out<u8>(0x3c, 0x0b);
    EXPECT_EQ(in<u16>(0x3c), 0x010b) << "the interrupt line is software's, the pin is not";
}

// [PCI 6.2.5.1] Write all ones, read back: the lowest writable bit is the size.
TEST_F(ConfigSpaceTest, SizingReadsBackMaskAndType) {
    for (unsigned bar = 0; bar < 6; ++bar) out<u32>(static_cast<u16>(0x10 + 4 * bar), 0xffff'ffff);
    out<u32>(0x30, 0xffff'ffff);
    EXPECT_EQ(in<u32>(0x10), 0xffff'f000U);
    EXPECT_EQ(in<u32>(0x14), 0xffff'f000U) << "70 vectors: 1120 bytes of table, 16 of pending bits";
    EXPECT_EQ(in<u32>(0x18), 0xffff'ffe1U);
    EXPECT_EQ(in<u32>(0x1c), 0U);
    EXPECT_EQ(in<u32>(0x20), 0xffe0'000cU) << "64 bits, prefetchable";
    EXPECT_EQ(in<u32>(0x24), 0xffff'ffffU);
    EXPECT_EQ(in<u32>(0x30), 0xffff'0001U);
}

TEST_F(ConfigSpaceTest, ABarIsDecodedWhenItsSpaceIsEnabled) {
    out<u32>(0x10, 0xd000'0000);
    out<u32>(0x18, 0xc000);
    EXPECT_FALSE(rig.uplink.places[0]);
    out<u16>(0x04, 2);
    EXPECT_EQ(rig.uplink.places[0], 0xd000'0000U);
    EXPECT_FALSE(rig.uplink.places[2]);
    out<u16>(0x04, 1);
    EXPECT_FALSE(rig.uplink.places[0]);
    EXPECT_EQ(rig.uplink.places[2], 0xc000U);
}

TEST_F(ConfigSpaceTest, ZeroAndAllOnesAreNotDecoded) {
    power_up();
    for (const u32 value : {0U, 0xffff'ffffU}) {
        out<u32>(0x10, value);
        EXPECT_FALSE(rig.uplink.places[0]) << value;
        out<u32>(0x18, value);
        EXPECT_FALSE(rig.uplink.places[2]) << value;
    }
    out<u32>(0x20, 0xffff'ffff);
    out<u32>(0x24, 0xffff'ffff);
    EXPECT_FALSE(rig.uplink.places[4]);
    out<u32>(0x18, 0x0001'0000);
    EXPECT_FALSE(rig.uplink.places[2]) << "beyond the last port";
    out<u32>(0x18, 0xffe0);
    EXPECT_EQ(rig.uplink.places[2], 0xffe0U) << "the last ports there are";
}

TEST_F(ConfigSpaceTest, A64BitBarIsOneAddressInTwoRegisters) {
    power_up();
    out<u32>(0x24, 0x12);
    out<u32>(0x20, 0x3456'7890);
    EXPECT_EQ(rig.uplink.places[4], 0x12'3440'0000U);
}

TEST_F(ConfigSpaceTest, BytesOfABarAreWrittenOneByOne) {
    power_up();
    out<u8>(0x13, 0xd1);
    EXPECT_EQ(rig.uplink.places[0], 0xd100'0000U);
    out<u16>(0x10, 0xffff);
    EXPECT_EQ(rig.uplink.places[0], 0xd100'f000U);
}

TEST_F(ConfigSpaceTest, TheRomNeedsItsOwnEnableBitToo) {
    power_up();
    out<u32>(0x30, 0xd200'0000);
    EXPECT_FALSE(rig.uplink.places[6]);
    out<u32>(0x30, 0xd200'0001);
    EXPECT_EQ(rig.uplink.places[6], 0xd200'0000U);
}

TEST_F(ConfigSpaceTest, CapabilitiesAreLinkedAndEndWithZero) {
    EXPECT_NE(capability(0x01), 0);
    EXPECT_NE(capability(0x05), 0);
    EXPECT_NE(capability(0x11), 0);
    const u8 vendor = capability(0x09);
    ASSERT_NE(vendor, 0);
    EXPECT_EQ(vendor % 4, 0);
    EXPECT_EQ(in<u8>(static_cast<u16>(vendor + 2)), 12);
    out<u32>(vendor, 0xffff'ffff);
    out<u8>(static_cast<u16>(vendor + 4), 0xff);
    EXPECT_EQ(in<u8>(static_cast<u16>(vendor + 4)), 0xf2) << "only the writable bits take it";
}

TEST_F(ConfigSpaceTest, ExtendedCapabilitiesBeginAt256) {
    EXPECT_EQ(in<u32>(0x100), 0x0001'000bU) << "the only one: no next";
    EXPECT_EQ(in<u8>(0x104), 12);
    EXPECT_EQ(in<u32>(0x110), 0U);
    EXPECT_EQ(in<u32>(0xffc), 0U);
}

TEST(ConfigSpaceSizeTest, AConventionalFunctionDoesNotAnswerBeyond256) {
    ConfigSpace config({.vendor = 1, .device = 2, .class_code = 0});
    std::array<std::byte, 4> data{};
    config.read(0x100, data);
    EXPECT_EQ(data, (std::array{std::byte{0xff}, std::byte{0xff}, std::byte{0xff}, std::byte{0xff}}));
    config.write(0x100, data);
}

TEST_F(ConfigSpaceTest, ThePinFollowsTheRequestUnlessDisabled) {
    rig.device.config().set_interrupt(true);
    EXPECT_TRUE(rig.wires.levels[16]);
    EXPECT_EQ(in<u16>(0x06) & 8, 8);
    out<u16>(0x04, 0x400);
    EXPECT_FALSE(rig.wires.levels[16]);
    EXPECT_EQ(in<u16>(0x06) & 8, 8) << "the status bit shows it all the same";
    out<u16>(0x04, 0);
    EXPECT_TRUE(rig.wires.levels[16]);
    rig.device.config().set_interrupt(false);
    EXPECT_FALSE(rig.wires.levels[16]);
}

TEST_F(ConfigSpaceTest, AFunctionWithMessagesOnDoesNotUseItsPin) {
    rig.device.config().set_interrupt(true);
    const auto msix = static_cast<u16>(capability(0x11) + 2);
    out<u16>(msix, 0x8000);
    EXPECT_FALSE(rig.wires.levels[16]);
    out<u16>(msix, 0);
    EXPECT_TRUE(rig.wires.levels[16]);
    const auto msi = static_cast<u16>(capability(0x05) + 2);
    out<u16>(msi, 1);
    EXPECT_FALSE(rig.wires.levels[16]);
}

TEST_F(ConfigSpaceTest, InD3TheFunctionIsSilent) {
    power_up();
    out<u32>(0x10, 0xd000'0000);
    rig.device.config().set_interrupt(true);
    const auto power = static_cast<u16>(capability(0x01) + 4);
    out<u16>(power, 3);
    EXPECT_FALSE(rig.uplink.places[0]);
    EXPECT_FALSE(rig.wires.levels[16]);
    EXPECT_FALSE(rig.device.config().bus_master());
    EXPECT_EQ(in<u32>(0x10), 0xd000'0000U) << "registers stay: no soft reset";
    out<u16>(power, 1);
    EXPECT_EQ(in<u16>(power) & 3, 3) << "D1 is not supported: the write is ignored";
    out<u16>(power, 0);
    EXPECT_EQ(rig.uplink.places[0], 0xd000'0000U);
    EXPECT_TRUE(rig.wires.levels[16]);
}

TEST_F(ConfigSpaceTest, FunctionLevelResetIsOneBitThatReadsZero) {
    rig.device.config().set_reset_bit(0x109, 0x80);
    power_up();
    out<u32>(0x10, 0xd000'0000);
    out<u16>(0x108, 0x8000);
    EXPECT_EQ(rig.device.resets, 1U);
    EXPECT_EQ(in<u8>(0x109) & 0x80, 0);
    EXPECT_EQ(in<u16>(0x04), 0);
    EXPECT_FALSE(rig.uplink.places[0]);
    out<u16>(0x10a, 0xffff);
    EXPECT_EQ(rig.device.resets, 1U);
}

TEST_F(ConfigSpaceTest, FirmwareProgramsAndEnables) {
    auto& config = rig.device.config();
    config.program_bar(0, 0xd000'0000);
    config.program_bar(4, 0x10'0000'0000);
    config.enable(Flags(Command::Memory) | Command::BusMaster);
    EXPECT_EQ(rig.uplink.places[0], 0xd000'0000U);
    EXPECT_EQ(rig.uplink.places[4], 0x10'0000'0000U);
    EXPECT_EQ(in<u32>(0x20), 0x0000'000cU);
    EXPECT_EQ(in<u32>(0x24), 0x10U);
    EXPECT_EQ(in<u16>(0x04), 6);
}

TEST_F(ConfigSpaceTest, RestoringMovesBarsToWhereTheyWere) {
    power_up();
    out<u32>(0x10, 0xd000'0000);
    PciFunctionRig other;
    ASSERT_TRUE(testing_rig::load(other, testing_rig::saved(rig)));
    EXPECT_EQ(other.uplink.places[0], 0xd000'0000U);
}

}  // namespace
}  // namespace tessera::pci
