#include "devices/pci/pci_bus.h"

#include <cstring>
#include <gtest/gtest.h>

#include "devices/pci/pci_rig.h"
#include "devices/testing/device_suite.h"

TESSERA_JOIN_DEVICE_SUITE(ConfigPorts, tessera::pci::ConfigPortsRig);
TESSERA_JOIN_DEVICE_SUITE(RootPort, tessera::pci::RootPortRig);
TESSERA_JOIN_DEVICE_SUITE(IsaBridge, tessera::pci::IsaBridgeRig);

namespace tessera::pci {
namespace {

// As a guest sees it: two address spaces.
struct PciBusTest : testing::Test {
    template <typename T>
    static T in(IoBus& bus, u64 address) {
        std::array<std::byte, sizeof(T)> buffer{};
        bus.read(address, buffer);
        T value = 0;
        std::memcpy(&value, buffer.data(), sizeof value);
        return value;
    }
    template <typename T>
    static void out(IoBus& bus, u64 address, T value) {
        std::array<std::byte, sizeof(T)> buffer{};
        std::memcpy(buffer.data(), &value, sizeof value);
        bus.write(address, buffer);
    }
    static u32 address(u32 bus, u32 device, u32 function, u32 offset) {
        return 0x8000'0000 | bus << 16 | device << 11 | function << 8 | (offset & 0xfc);
    }
    u32 config(u32 bus, u32 device, u32 offset, u32 function = 0) {
        out<u32>(world.ports, 0xcf8, address(bus, device, function, offset));
        return in<u32>(world.ports, 0xcfc);
    }
    void config_write(u32 bus, u32 device, u32 offset, u32 value) {
        out<u32>(world.ports, 0xcf8, address(bus, device, 0, offset));
        out<u32>(world.ports, 0xcfc, value);
    }
    static u64 ecam(u64 bus, u64 device, u64 function, u64 offset) {
        return PciWorld::kEcamBase + (bus << 20 | device << 15 | function << 12 | offset);
    }
    // Bus 1 behind the root port, memory window d0000000-d00fffff, everything enabled.
    void open_port() {
        config_write(0, 4, 0x18, 0x0001'0100);
        config_write(0, 4, 0x20, 0xd000'd000);
        config_write(0, 4, 0x04, 7);
    }

    PciWorld world;
    void SetUp() override { ASSERT_TRUE(world.built); }
};

TEST_F(PciBusTest, TheAddressIsADoubleWordThatReadsBack) {
    // What systems test for mechanism #1: the enable bit stays.
    out<u32>(world.ports, 0xcf8, 0x8000'0000);
    EXPECT_EQ(in<u32>(world.ports, 0xcf8), 0x8000'0000U);
    out<u32>(world.ports, 0xcf8, 0xffff'ffff);
    EXPECT_EQ(in<u32>(world.ports, 0xcf8), 0x80ff'fffcU) << "reserved bits and the two lowest read as zero";
    out<u8>(world.ports, 0xcf8, 0x12);
    out<u16>(world.ports, 0xcfa, 0x12);
    EXPECT_EQ(in<u32>(world.ports, 0xcf8), 0x80ff'fffcU) << "narrow accesses are not the register's";
}

TEST_F(PciBusTest, BytesAtCf9AreTheResetRegisters) {
    EXPECT_EQ(in<u8>(world.ports, 0xcf9), 0x5a);
    out<u8>(world.ports, 0xcf9, 0x06);
    EXPECT_EQ(world.reset_register.last, std::byte{0x06});
    out<u32>(world.ports, 0xcf8, 0x0000'0800);
    EXPECT_EQ(world.reset_register.last, std::byte{0x06}) << "a double word is an address";
}

TEST_F(PciBusTest, BothMechanismsReachTheSameRegisters) {
    EXPECT_EQ(config(0, 3, 0), 0x5678'1234U);
    EXPECT_EQ(in<u32>(world.memory, ecam(0, 3, 0, 0)), 0x5678'1234U);
    out<u8>(world.memory, ecam(0, 3, 0, 0x3c), 0x5b);
    EXPECT_EQ(config(0, 3, 0x3c), 0x0000'015bU);
    EXPECT_EQ(in<u8>(world.ports, 0xcfd), 1) << "byte enables: the pin";
    EXPECT_EQ(in<u16>(world.ports, 0xcfc), 0x015b);
    EXPECT_EQ(in<u32>(world.memory, ecam(0, 3, 0, 0x100)), 0x0001'000bU);
}

TEST_F(PciBusTest, WithoutTheEnableBitNobodyAnswers) {
    out<u32>(world.ports, 0xcf8, 3U << 11);
    EXPECT_EQ(in<u32>(world.ports, 0xcfc), 0xffff'ffffU);
}

TEST_F(PciBusTest, AbsentFunctionsReadAsAllOnes) {
    for (const u32 device : {1U, 2U, 31U}) EXPECT_EQ(config(0, device, 0), 0xffff'ffffU);
    EXPECT_EQ(config(0, 3, 0, 1), 0xffff'ffffU);
    EXPECT_EQ(config(1, 0, 0), 0xffff'ffffU) << "no bridge leads to bus 1 yet";
    EXPECT_EQ(config(255, 31, 0, 7), 0xffff'ffffU);
    config_write(0, 2, 4, 0xffff'ffff);
}

TEST_F(PciBusTest, AnAttachedBarAnswersWhereTheGuestPutsIt) {
    world.card.registers.value = 0x11223344;
    config_write(0, 3, 0x10, 0xc800'0000);
    EXPECT_EQ(in<u32>(world.memory, 0xc800'0000), 0xffff'ffffU);
    config_write(0, 3, 0x04, 2);
    EXPECT_EQ(in<u32>(world.memory, 0xc800'0000), 0x1122'3344U);
    config_write(0, 3, 0x10, 0xc900'0000);
    EXPECT_EQ(in<u32>(world.memory, 0xc800'0000), 0xffff'ffffU);
    EXPECT_EQ(in<u32>(world.memory, 0xc900'0ffc), 0x1122'3344U);
    config_write(0, 3, 0x10, 0xffff'ffff);
    EXPECT_EQ(in<u32>(world.memory, 0xffff'f000), 0xffff'ffffU) << "being sized";
}

TEST_F(PciBusTest, ABarOnTopOfTheBoardsOwnDevicesLeavesThemWorking) {
    config_write(0, 3, 0x04, 3);
    config_write(0, 3, 0x10, 0xe000'0000);
    EXPECT_EQ(in<u32>(world.memory, ecam(0, 3, 0, 0)), 0x5678'1234U);
    config_write(0, 3, 0x18, 0xce0);
    EXPECT_EQ(config(0, 3, 0), 0x5678'1234U);
    EXPECT_EQ(world.memory.overlaps() + world.ports.overlaps(), 2U);
}

TEST_F(PciBusTest, SlotsHaveOneOwnerAndErrorsNameBoth) {
    TestCard another;
    const Status clash = world.root.attach("another", {.device = 3}, another, world.lock);
    ASSERT_FALSE(clash);
    EXPECT_NE(clash.error().message.find("another"), std::string::npos);
    EXPECT_NE(clash.error().message.find("card"), std::string::npos);
    EXPECT_FALSE(world.root.attach("another", {.device = 32}, another, world.lock));
    EXPECT_FALSE(world.root.attach("another", {.device = 9, .function = 1}, another, world.lock))
        << "without function 0 nobody would look";
    EXPECT_EQ(world.root.free_device(0), 1);
    EXPECT_EQ(world.root.free_device(3), 5);
}

TEST_F(PciBusTest, ASecondFunctionMakesTheDeviceMultifunction) {
    EXPECT_EQ(config(0, 3, 0x0c) >> 16 & 0xff, 0U);
    TestCard second;
    ASSERT_TRUE(world.root.attach("second", {.device = 3, .function = 5}, second, world.lock));
    EXPECT_EQ(config(0, 3, 0x0c) >> 16 & 0xff, 0x80U);
    EXPECT_EQ(config(0, 3, 0, 5), 0x5678'1234U);
    config_write(0, 3, 0x0c, 0);
    world.card.reset();
    EXPECT_EQ(config(0, 3, 0x0c) >> 16 & 0xff, 0x80U);
}

TEST_F(PciBusTest, PinsReachTheirLines) {
    world.card.config().set_interrupt(true);
    EXPECT_TRUE(world.wires.levels[3]) << "INTA# of device 3";
    world.far_card.config().set_interrupt(true);
    EXPECT_TRUE(world.wires.levels[4]) << "INTA# of device 0 behind device 4 comes out as its INTA#";
    EXPECT_EQ(world.root.interrupt_line(31, 3), 2U);
    EXPECT_EQ(world.port.secondary().interrupt_line(2, 3), 5U) << "pin 3 + 2 is pin 1 of device 4";
}

TEST_F(PciBusTest, ABridgeLeadsToTheBusesItClaims) {
    config_write(0, 4, 0x18, 0x0007'0500);
    EXPECT_EQ(config(5, 0, 0), 0x5678'1234U);
    EXPECT_EQ(config(5, 1, 0), 0xffff'ffffU);
    EXPECT_EQ(config(6, 0, 0), 0xffff'ffffU) << "claimed, but no such bus below";
    EXPECT_EQ(config(8, 0, 0), 0xffff'ffffU);
    config_write(0, 4, 0x18, 0x00ff'0000);
    EXPECT_EQ(config(0, 4, 0x08) >> 8, 0x06'0400U) << "bus 0 is the root's whatever a bridge claims";
}

TEST_F(PciBusTest, ABridgeForwardsItsWindowsOnly) {
    world.far_card.registers.value = 0x55;
    open_port();
    config_write(1, 0, 0x04, 7);
    config_write(1, 0, 0x10, 0xd000'0000);
    EXPECT_EQ(in<u8>(world.memory, 0xd000'0000), 0x55);
    config_write(1, 0, 0x10, 0xd010'0000);
    EXPECT_EQ(in<u8>(world.memory, 0xd010'0000), 0xff);
    config_write(0, 4, 0x20, 0xd010'd000);
    EXPECT_EQ(in<u8>(world.memory, 0xd010'0000), 0x55) << "the window grew";
    config_write(0, 4, 0x04, 5);
    EXPECT_EQ(in<u8>(world.memory, 0xd010'0000), 0xff) << "memory is not forwarded";
    config_write(0, 4, 0x04, 7);
    config_write(1, 0, 0x18, 0x2000);
    EXPECT_EQ(in<u8>(world.ports, 0x2000), 0xff);
    config_write(0, 4, 0x1c, 0x2020);
    EXPECT_EQ(in<u8>(world.ports, 0x2000), 0x55);
    config_write(1, 0, 0x20, 0);
    config_write(1, 0, 0x24, 0x9);
    EXPECT_EQ(in<u8>(world.memory, 0x9'0000'0000), 0xff);
    config_write(0, 4, 0x28, 9);
    config_write(0, 4, 0x2c, 9);
    config_write(0, 4, 0x24, 0x0010'0000);
    EXPECT_EQ(in<u8>(world.memory, 0x9'0000'0000), 0x55) << "the prefetchable window has 64 bits";
}

TEST_F(PciBusTest, MessagesGoUpThroughABridgeThatIsMaster) {
    config_write(1, 0, 0x04, 4);
    open_port();
    config_write(1, 0, 0x04, 4);
    world.far_card.config().send_message(0xfee0'0000, 1);
    EXPECT_EQ(world.messages.messages.size(), 1U);
    config_write(0, 4, 0x04, 3);
    world.far_card.config().send_message(0xfee0'0000, 1);
    EXPECT_EQ(world.messages.messages.size(), 1U);
}

TEST_F(PciBusTest, SecondaryBusResetResetsWhatIsBehind) {
    open_port();
    config_write(1, 0, 0x10, 0xd000'0000);
    config_write(0, 4, 0x3c, 0x0040'0000);
    EXPECT_EQ(world.far_card.resets, 1U);
    config_write(0, 4, 0x3c, 0x0040'0000);
    EXPECT_EQ(world.far_card.resets, 1U) << "held, not again";
    config_write(0, 4, 0x3c, 0);
    EXPECT_EQ(config(1, 0, 0x10), 0U);
    EXPECT_EQ(world.card.resets, 0U);
}

TEST_F(PciBusTest, ARootPortHasClosedWindowsAtReset) {
    EXPECT_EQ(config(0, 4, 0x1c) & 0xffff, 0x00f0U);
    EXPECT_EQ(config(0, 4, 0x20), 0x0000'fff0U);
    EXPECT_EQ(config(0, 4, 0x24), 0x0001'fff1U);
    EXPECT_EQ(config(0, 4, 0x0c) >> 16 & 0x7f, 1U);
}

TEST_F(PciBusTest, ARootPortSaysSoInItsExpressCapability) {
    u32 at = config(0, 4, 0x34) & 0xff;
    while (at != 0 && (config(0, 4, at) & 0xff) != 0x10) at = config(0, 4, at) >> 8 & 0xff;
    ASSERT_NE(at, 0U);
    EXPECT_EQ(config(0, 4, at) >> 16, 0x0042U) << "version 2, root port, no slot";
    EXPECT_EQ(config(0, 4, at + 0x0c) >> 24, 1U) << "port number";
    EXPECT_EQ(config(0, 4, at + 0x10) >> 16 & 0x3ff, 0x11U) << "one lane of 2.5 GT/s";
}

// Every configuration byte of every device on bus 0, all widths, at every alignment.
TEST_F(PciBusTest, SweepOfConfigurationSpace) {
    for (u64 device = 0; device < 6; ++device)
        for (u64 offset = 0; offset < 0x140; ++offset)
            for (const std::size_t width : {1, 2, 4, 8}) {
                std::array<std::byte, 8> data{};
                data.fill(std::byte{0x5a});
                const u64 place = ecam(0, device, 0, offset);
                world.memory.write(place, std::span(data).first(width));
                world.memory.read(place, std::span(data).first(width));
                if (offset % 4 + width > 4)
                    for (std::size_t n = 0; n < width; ++n)
                        EXPECT_EQ(data[n], std::byte{0xff}) << offset << " x " << width;
            }
    EXPECT_EQ(in<u32>(world.memory, ecam(0, 3, 0, 0)), 0x5678'1234U);
}

TEST_F(PciBusTest, SweepOfThePorts) {
    for (u64 port = 0xcf0; port < 0xd08; ++port)
        for (const std::size_t width : {1, 2, 4}) {
            std::array<std::byte, 4> data{};
            data.fill(std::byte{0xa5});
            if (port != 0xcf9) world.ports.write(port, std::span(data).first(width));
            world.ports.read(port, std::span(data).first(width));
            const bool outside = port < 0xcf8 || port + width > 0xd00;
            if (outside)
                for (std::size_t n = 0; n < width; ++n) EXPECT_EQ(data[n], std::byte{0xff}) << port;
        }
}

TEST_F(PciBusTest, SweepOfTheMsixBar) {
    config_write(0, 3, 0x04, 6);
    config_write(0, 3, 0x14, 0xc800'0000);
    for (u64 offset = 0; offset < 0x1010; ++offset)
        for (const std::size_t width : {1, 2, 4, 8}) {
            std::array<std::byte, 8> data{};
            data.fill(std::byte{0x5a});
            world.memory.write(0xc800'0000 + offset, std::span(data).first(width));
            world.memory.read(0xc800'0000 + offset, std::span(data).first(width));
            const bool taken = width >= 4 && offset % width == 0 && offset + width <= 0x1000;
            for (std::size_t n = 0; n < width; ++n)
                if (!taken) EXPECT_EQ(data[n], std::byte{0xff}) << offset << " x " << width;
        }
}

TEST(PirqRouterTest, LinesGoToTheIoApicAndToWhereTheyAreRouted) {
    testing_rig::RecordingSink io_apic;
    testing_rig::RecordingSink pic;
    PirqRouter router(io_apic, pic);
    router.set_level(2, true);
    EXPECT_TRUE(io_apic.levels[18]);
    EXPECT_TRUE(pic.edges.empty()) << "not routed at reset";
    router.set_route(2, 11);
    EXPECT_TRUE(pic.levels[11]);
    router.set_route(2, 10);
    EXPECT_FALSE(pic.levels[11]);
    EXPECT_TRUE(pic.levels[10]);
    router.set_route(2, 0x8a);
    EXPECT_FALSE(pic.levels[10]);
    for (const u8 reserved : std::array<u8, 5>{0, 1, 2, 8, 13}) {
        router.set_route(2, reserved);
        EXPECT_FALSE(pic.levels[reserved]) << "cannot be routed to";
    }
}

TEST(PirqRouterTest, ALineIsHighWhileAnyOfItsHoldersIs) {
    testing_rig::RecordingSink io_apic;
    testing_rig::RecordingSink pic;
    PirqRouter router(io_apic, pic);
    router.set_route(0, 10);
    router.set_route(1, 10);
    router.set_level(0, true);
    router.set_level(0, true);
    router.set_level(1, true);
    router.set_level(0, false);
    EXPECT_TRUE(io_apic.levels[16]);
    router.set_level(0, false);
    EXPECT_FALSE(io_apic.levels[16]);
    EXPECT_TRUE(pic.levels[10]) << "line 1 is routed to the same input";
    router.set_level(1, false);
    EXPECT_FALSE(pic.levels[10]);
}

}  // namespace
}  // namespace tessera::pci
