#include "devices/pci/placement.h"

#include <gtest/gtest.h>
#include <vector>

#include "devices/pci/pci_rig.h"

namespace tessera::pci {
namespace {

constexpr Placement kPlacement{.io = {.first = 0x1000, .last = 0xffff},
                               .memory = {.first = 0xc000'0000, .last = 0xdfff'ffff},
                               .memory64 = {.first = 0x8'0000'0000, .last = 0xf'ffff'ffff},
                               .isa_interrupts = {10, 11, 10, 11, 10, 11, 10, 11}};

struct Region {
    u64 base, size;
};

TEST(PlacementTest, EveryBarGetsAnAlignedAddressOfItsOwnAndIsDecoded) {
    PciWorld world;
    ASSERT_TRUE(place_all(world.root, kPlacement));
    std::vector<Region> memory;
    for (TestCard* card : {&world.card, &world.far_card}) {
        const ConfigSpace& config = card->config();
        for (const unsigned bar : {0U, 1U, 4U}) {
            const u64 address = config.bar_address(bar).value_or(1);
            EXPECT_EQ(address % config.bars()[bar].size, 0U);
            memory.push_back({address, config.bars()[bar].size});
            const auto& window = bar == 4 ? kPlacement.memory64 : kPlacement.memory;
            EXPECT_GE(address, window.first);
            EXPECT_LE(address, window.last);
        }
        EXPECT_GE(config.bar_address(2).value_or(0), 0x1000U);
        EXPECT_FALSE(config.command().has(Command::BusMaster)) << "that is the driver's";
    }
    for (std::size_t a = 0; a < memory.size(); ++a)
        for (std::size_t b = a + 1; b < memory.size(); ++b)
            EXPECT_TRUE(memory[a].base + memory[a].size <= memory[b].base ||
                        memory[b].base + memory[b].size <= memory[a].base);
}

TEST(PlacementTest, WhatIsBehindABridgeIsReachable) {
    PciWorld world;
    world.far_card.registers.value = 0x77;
    ASSERT_TRUE(place_all(world.root, kPlacement));
    std::array<std::byte, 1> data{};
    for (const unsigned bar : {0U, 4U}) {
        world.memory.read(world.far_card.config().bar_address(bar).value_or(0), data);
        EXPECT_EQ(data[0], std::byte{0x77}) << bar;
    }
    world.ports.read(world.far_card.config().bar_address(2).value_or(0), data);
    EXPECT_EQ(data[0], std::byte{0x77});
    EXPECT_EQ(world.port.config().get8(kSecondaryBus), 1);
    EXPECT_EQ(world.port.config().get8(kSubordinateBus), 1);
    EXPECT_TRUE(world.port.config().command().has(Command::BusMaster));
}

TEST(PlacementTest, InterruptLineRegistersNameTheRoutedInterrupt) {
    PciWorld world;
    ASSERT_TRUE(place_all(world.root, kPlacement));
    EXPECT_EQ(world.card.config().get8(kInterruptLine), 11) << "device 3, INTA#: line 3";
    EXPECT_EQ(world.far_card.config().get8(kInterruptLine), 10) << "behind device 4";
}

TEST(PlacementTest, TheSameMachineGetsTheSameAddressesAgain) {
    PciWorld world;
    ASSERT_TRUE(place_all(world.root, kPlacement));
    const auto before = world.far_card.config().state().bytes;
    world.root.reset_functions();
    ASSERT_TRUE(place_all(world.root, kPlacement));
    EXPECT_EQ(world.far_card.config().state().bytes, before);
}

TEST(PlacementTest, ATooSmallWindowIsAnErrorThatNamesTheFunction) {
    PciWorld world;
    Placement small = kPlacement;
    small.memory.last = small.memory.first + 0xffff;
    const Status status = place_all(world.root, small);
    ASSERT_FALSE(status);
    EXPECT_NE(status.error().message.find("card"), std::string::npos) << status.error().message;
}

TEST(PlacementTest, WithoutAHighWindowLargeBarsGoBelow4GiB) {
    PciWorld world;
    Placement low = kPlacement;
    low.memory64 = {};
    ASSERT_TRUE(place_all(world.root, low));
    EXPECT_LT(world.card.config().bar_address(4).value_or(~u64{0}), 0xe000'0000U);
}

}  // namespace
}  // namespace tessera::pci
