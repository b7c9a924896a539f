#include "devices/pci_uart/pci_uart.h"

#include <gtest/gtest.h>

#include "devices/pci_uart/pci_uart_rig.h"
#include "devices/testing/device_suite.h"

TESSERA_JOIN_DEVICE_SUITE(PciUart, tessera::pci_uart::PciUartRig);

namespace tessera::pci_uart {
namespace {

constexpr u64 kBase = 0x2000;

struct PciUartTest : testing::Test {
    void SetUp() override {
        ASSERT_TRUE(rig.attached);
        rig.device.config().program_bar(0, kBase);
        rig.device.config().enable(pci::Command::Io);
    }
    u8 in(u64 offset) {
        std::array<std::byte, 1> data{};
        rig.ports.read(kBase + offset, data);
        return std::to_integer<u8>(data[0]);
    }
    void out(u64 offset, u8 value) {
        const std::array data{std::byte{value}};
        rig.ports.write(kBase + offset, data);
    }
    PciUartRig rig;
};

TEST_F(PciUartTest, ItIsA16550CompatibleSerialController) {
    std::array<std::byte, 4> data{};
    rig.device.read_config(0x08, data);
    EXPECT_EQ(data[1], std::byte{2}) << "16550";
    EXPECT_EQ(data[2], std::byte{0}) << "serial";
    EXPECT_EQ(data[3], std::byte{7}) << "simple communication";
    const std::array ones{std::byte{0xff}, std::byte{0xff}, std::byte{0xff}, std::byte{0xff}};
    rig.device.write_config(0x10, ones);
    rig.device.read_config(0x10, data);
    EXPECT_EQ(data[0], std::byte{0xf9}) << "eight ports";
}

TEST_F(PciUartTest, TheChipAnswersAtTheBar) {
    out(7, 0x5a);
    EXPECT_EQ(in(7), 0x5a);
    out(0, 'x');
    EXPECT_EQ(rig.wire.bytes, std::vector<u8>{'x'});
    rig.device.config().program_bar(0, 0x3000);
    EXPECT_EQ(in(7), 0xff);
}

TEST_F(PciUartTest, TheChipsInterruptIsTheCardsPin) {
    out(4, 8);  // OUT2
    out(1, 2);  // transmitter empty
    EXPECT_TRUE(rig.wires.levels[0]);
    EXPECT_TRUE(rig.device.config().interrupt());
    (void)in(2);  // IIR
    EXPECT_FALSE(rig.wires.levels[0]);
}

TEST_F(PciUartTest, ResetIsTheChipsToo) {
    out(4, 8);
    out(1, 2);
    out(7, 0x5a);
    rig.device.reset();
    EXPECT_FALSE(rig.wires.levels[0]);
    EXPECT_FALSE(rig.device.config().interrupt());
    rig.device.config().program_bar(0, kBase);
    rig.device.config().enable(pci::Command::Io);
    EXPECT_EQ(in(7), 0);
}

TEST_F(PciUartTest, SweepOfTheBar) {
    for (u64 offset = 0; offset < 0x10; ++offset)
        for (const std::size_t width : {1, 2, 4, 8}) {
            std::array<std::byte, 8> data{};
            const auto part = std::span(data).first(width);
            rig.ports.write(kBase + offset, part);
            rig.ports.read(kBase + offset, part);
            if (width != 1 || offset >= 8)
                for (const std::byte b : part) EXPECT_EQ(b, std::byte{0xff}) << offset << " x " << width;
        }
}

}  // namespace
}  // namespace tessera::pci_uart
