#include "devices/ioapic/ioapic.h"

#include <array>
#include <cstring>
#include <gtest/gtest.h>
#include <vector>

#include "base/fake_clock.h"
#include "devices/ioapic/ioapic_rig.h"
#include "devices/lapic/lapic_fabric.h"
#include "devices/testing/device_suite.h"

TESSERA_JOIN_DEVICE_SUITE(IoApic, tessera::ioapic::IoApicRig);

namespace tessera::ioapic {
namespace {

constexpr u64 kMasked = 0x10000;
constexpr u64 kLevel = 0x8000;
constexpr u64 kRemoteIrr = 0x4000;
constexpr u64 kActiveLow = 0x2000;
constexpr u64 kLogical = 0x800;

struct Recorder final : ApicFabric {
    std::vector<ApicMessage> messages;
    void deliver(const ApicMessage& message) override { messages.push_back(message); }
};

class IoApicTest : public testing::Test {
protected:
    void TearDown() override { EXPECT_EQ(refused, 0u) << "an access of the helpers was refused"; }
    u32 in(u64 offset) {
        std::array<std::byte, 4> data{};
        refused |= static_cast<unsigned>(chip.read(offset, data));
        u32 value = 0;
        std::memcpy(&value, data.data(), 4);
        return value;
    }
    void out(u64 offset, u32 value) {
        std::array<std::byte, 4> data{};
        std::memcpy(data.data(), &value, 4);
        refused |= static_cast<unsigned>(chip.write(offset, data));
    }
    u32 reg(u8 index) {
        out(0x00, index);
        return in(0x10);
    }
    void set_reg(u8 index, u32 value) {
        out(0x00, index);
        out(0x10, value);
    }
    u64 entry(unsigned pin) {
        return reg(static_cast<u8>(0x10 + 2 * pin)) | u64{reg(static_cast<u8>(0x11 + 2 * pin))} << 32;
    }
    void set_entry(unsigned pin, u64 value) {
        set_reg(static_cast<u8>(0x11 + 2 * pin), static_cast<u32>(value >> 32));
        set_reg(static_cast<u8>(0x10 + 2 * pin), static_cast<u32>(value));
    }
    void pulse(unsigned pin) {
        chip.set_level(pin, true);
        chip.set_level(pin, false);
    }

    // IoStatus values of the helpers, together; Ok is 0. Without a branch per access the analyzer stays
    // quick.
    unsigned refused = 0;
    Recorder fabric;
    IoApic chip{{.id = 3}, fabric};
};

TEST_F(IoApicTest, PowerOnValues) {
    EXPECT_EQ(reg(0x00), 3u << 24);
    EXPECT_EQ(reg(0x01), 0x0017'0020u);
    EXPECT_EQ(reg(0x02), 3u << 24);
    for (unsigned pin = 0; pin < 24; ++pin) EXPECT_EQ(entry(pin), kMasked);
    EXPECT_EQ(reg(0x40), 0u);
    EXPECT_EQ(reg(0x03), 0u);
}

TEST_F(IoApicTest, IdKeepsFourBitsVersionIsReadOnly) {
    set_reg(0x00, 0xffff'ffff);
    EXPECT_EQ(reg(0x00), 0x0f00'0000u);
    EXPECT_EQ(reg(0x02), 0x0f00'0000u);
    set_reg(0x01, 0);
    EXPECT_EQ(reg(0x01), 0x0017'0020u);
}

TEST_F(IoApicTest, EntryKeepsItsWritableBitsOnly) {
    set_entry(5, ~u64{0});
    EXPECT_EQ(entry(5), 0xff00'0000'0001'afff);
}

TEST_F(IoApicTest, EdgeIsSentOncePerRise) {
    set_entry(4, 0x0200'0000'0000'0034);
    chip.set_level(4, true);
    chip.set_level(4, true);
    ASSERT_EQ(fabric.messages.size(), 1u);
    EXPECT_EQ(fabric.messages[0], (ApicMessage{.destination = 2, .vector = 0x34}));
    chip.set_level(4, false);
    EXPECT_EQ(fabric.messages.size(), 1u);
    chip.set_level(4, true);
    EXPECT_EQ(fabric.messages.size(), 2u);
    EXPECT_EQ(entry(4) & (kRemoteIrr | 0x1000), 0u);
}

TEST_F(IoApicTest, EdgeWhileMaskedIsLost) {
    set_entry(4, kMasked | 0x34);
    chip.set_level(4, true);
    set_entry(4, 0x34);
    EXPECT_TRUE(fabric.messages.empty());
    chip.set_level(4, false);
    chip.set_level(4, true);
    EXPECT_EQ(fabric.messages.size(), 1u);
}

TEST_F(IoApicTest, LevelIsSentUntilRemoteIrrAndAgainAfterEoi) {
    set_entry(9, kLevel | 0x59);
    chip.set_level(9, true);
    ASSERT_EQ(fabric.messages.size(), 1u);
    EXPECT_EQ(fabric.messages[0].trigger, TriggerMode::Level);
    EXPECT_EQ(entry(9) & kRemoteIrr, kRemoteIrr);
    pulse(9);
    chip.set_level(9, true);
    EXPECT_EQ(fabric.messages.size(), 1u);
    chip.end_of_interrupt(0x58);  // somebody else's
    EXPECT_EQ(fabric.messages.size(), 1u);
    chip.end_of_interrupt(0x59);
    EXPECT_EQ(fabric.messages.size(), 2u);
    chip.set_level(9, false);
    chip.end_of_interrupt(0x59);
    EXPECT_EQ(fabric.messages.size(), 2u);
    EXPECT_EQ(entry(9) & kRemoteIrr, 0u);
}

TEST_F(IoApicTest, LevelWhileMaskedIsSentWhenUnmasked) {
    set_entry(9, kMasked | kLevel | 0x59);
    chip.set_level(9, true);
    EXPECT_TRUE(fabric.messages.empty());
    set_entry(9, kLevel | 0x59);
    EXPECT_EQ(fabric.messages.size(), 1u);
    // Masking afterwards does not take it back; remote IRR stays until the end.
    set_entry(9, kMasked | kLevel | 0x59);
    EXPECT_EQ(entry(9) & kRemoteIrr, kRemoteIrr);
    chip.end_of_interrupt(0x59);
    EXPECT_EQ(fabric.messages.size(), 1u);
    EXPECT_EQ(entry(9) & kRemoteIrr, 0u);
}

TEST_F(IoApicTest, EoiRegisterEndsByVector) {
    set_entry(9, kLevel | 0x59);
    chip.set_level(9, true);
    out(0x40, 0x59);
    EXPECT_EQ(fabric.messages.size(), 2u);
    std::array<std::byte, 4> data{};
    EXPECT_EQ(chip.read(0x40, data), IoStatus::NoRegister);
}

TEST_F(IoApicTest, SwitchToEdgeClearsRemoteIrr) {
    set_entry(9, kLevel | 0x59);
    chip.set_level(9, true);
    set_entry(9, kMasked | 0x59);
    EXPECT_EQ(entry(9) & kRemoteIrr, 0u);
    set_entry(9, kLevel | 0x59);
    EXPECT_EQ(fabric.messages.size(), 2u);
}

TEST_F(IoApicTest, SharedVectorEndsOnBothPins) {
    set_entry(9, kLevel | 0x59);
    set_entry(10, kLevel | 0x59);
    chip.set_level(9, true);
    chip.set_level(10, true);
    chip.end_of_interrupt(0x59);
    EXPECT_EQ(fabric.messages.size(), 4u);
}

TEST_F(IoApicTest, PolarityTurnsThePinAround) {
    set_entry(4, kActiveLow | 0x34);
    chip.set_level(4, true);
    EXPECT_TRUE(fabric.messages.empty());
    chip.set_level(4, false);  // falls: active
    EXPECT_EQ(fabric.messages.size(), 1u);
    set_entry(9, kLevel | kActiveLow | 0x59);  // idle pin is active
    EXPECT_EQ(fabric.messages.size(), 2u);
}

TEST_F(IoApicTest, PinsWiredActiveLowWantTheirPolarity) {
    IoApic pci({.active_low_pins = 1u << 16}, fabric);
    const auto program = [&](u32 low) {
        std::array<std::byte, 4> data{std::byte{0x30}};
        EXPECT_EQ(pci.write(0, data), IoStatus::Ok);
        std::memcpy(data.data(), &low, 4);
        EXPECT_EQ(pci.write(0x10, data), IoStatus::Ok);
    };
    program(static_cast<u32>(kLevel | kActiveLow) | 0x60);
    EXPECT_TRUE(fabric.messages.empty());
    pci.set_level(16, true);
    EXPECT_EQ(fabric.messages.size(), 1u);
}

TEST_F(IoApicTest, EveryDeliveryModeIsPassedOnAndReservedOnesReachNobody) {
    const std::array<DeliveryMode, 8> expected{
        DeliveryMode::Fixed, DeliveryMode::LowestPriority, DeliveryMode::Smi,      DeliveryMode::Reserved,
        DeliveryMode::Nmi,   DeliveryMode::Init,           DeliveryMode::Reserved, DeliveryMode::ExtInt};
    for (unsigned mode = 0; mode < 8; ++mode) {
        set_entry(7, mode << 8 | 0x40);
        fabric.messages.clear();
        pulse(7);
        ASSERT_EQ(fabric.messages.size(), 1u);
        EXPECT_EQ(fabric.messages[0].delivery_mode, expected[mode]) << mode;
    }
}

TEST_F(IoApicTest, NmiAndItsLikeAreEdgesWhateverTheTriggerBitSays) {
    for (const u64 mode : {2u, 4u, 5u, 7u}) {
        set_entry(7, kLevel | mode << 8);
        fabric.messages.clear();
        chip.set_level(7, true);
        EXPECT_EQ(entry(7) & kRemoteIrr, 0u);
        ASSERT_EQ(fabric.messages.size(), 1u);
        EXPECT_EQ(fabric.messages[0].trigger, TriggerMode::Edge);
        chip.set_level(7, false);
    }
}

TEST_F(IoApicTest, DestinationsAreWidened) {
    set_entry(7, 0xff00'0000'0000'0040);
    pulse(7);
    EXPECT_EQ(fabric.messages.back().destination, 0xffff'ffffu);
    set_entry(7, 0x0500'0000'0000'0040 | kLogical);
    pulse(7);
    EXPECT_EQ(fabric.messages.back().destination, 5u);
    EXPECT_EQ(fabric.messages.back().destination_mode, DestinationMode::Logical);
}

TEST_F(IoApicTest, WidthsAndPlaces) {
    std::array<std::byte, 8> data{};
    EXPECT_EQ(chip.write(0x00, std::span(data).first(1)), IoStatus::Ok);
    EXPECT_EQ(chip.write(0x00, std::span(data).first(2)), IoStatus::Ok);
    EXPECT_EQ(chip.write(0x00, std::span(data).first(8)), IoStatus::BadWidth);
    EXPECT_EQ(chip.read(0x10, std::span(data).first(1)), IoStatus::BadWidth);
    EXPECT_EQ(chip.read(0x10, std::span(data).first(0)), IoStatus::BadWidth);
    EXPECT_EQ(chip.read(0x04, std::span(data).first(4)), IoStatus::NoRegister);
    chip.set_level(24, true);
    chip.set_level(~0u, true);
    EXPECT_TRUE(fabric.messages.empty());
}

// Pin to CPU and back, with the real local APIC.
TEST(IoApicWithLapic, LevelInterruptRoundTrip) {
    struct Eoi final : EoiSink {
        IoApic* chip = nullptr;
        void end_of_interrupt(u8 vector) override { chip->end_of_interrupt(vector); }
    };
    FakeClock clock;
    FakeTsc tsc(clock);
    lapic::LapicFabric fabric;
    lapic::Lapic cpu({.apic_id = 0}, clock, tsc, clock, fabric);
    fabric.add(cpu);
    cpu.write_register(0xf0, 0x1ff);
    IoApic chip({}, fabric);
    Eoi eoi;
    eoi.chip = &chip;
    cpu.connect_eoi(eoi);
    const std::array<std::byte, 4> select{std::byte{0x22}};
    const std::array<std::byte, 4> low{std::byte{0x61}, std::byte{0x80}};
    ASSERT_EQ(chip.write(0x00, select), IoStatus::Ok);
    ASSERT_EQ(chip.write(0x10, low), IoStatus::Ok);
    chip.set_level(9, true);
    EXPECT_EQ(cpu.acknowledge(), 0x61);
    EXPECT_EQ(cpu.acknowledge(), std::nullopt);
    cpu.write_register(0xb0, 0);
    EXPECT_EQ(cpu.acknowledge(), 0x61);  // still requested
    chip.set_level(9, false);
    cpu.write_register(0xb0, 0);
    EXPECT_EQ(cpu.acknowledge(), std::nullopt);
}

}  // namespace
}  // namespace tessera::ioapic
