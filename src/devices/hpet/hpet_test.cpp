#include "devices/hpet/hpet.h"

#include <cstring>
#include <gtest/gtest.h>

#include "devices/hpet/hpet_rig.h"
#include "devices/testing/device_suite.h"

TESSERA_JOIN_DEVICE_SUITE(Hpet, tessera::hpet::HpetRig);

namespace tessera::hpet {
namespace {

// Offsets and bits as the specification prints them.
struct HpetTest : testing::Test {
    template <typename T = u64>
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
    void start(u64 extra = 0) { out<u64>(0x10, 1 | extra); }
    void ticks(u64 count) { rig.clock.advance(count * 10); }
    std::size_t rises(const testing_rig::RecordingSink& sink, unsigned pin) {
        std::size_t count = 0;
        for (const auto& edge : sink.edges) count += edge.pin == pin && edge.high ? 1 : 0;
        return count;
    }
    // Routed to pin 20, interrupts on.
    static constexpr u64 kOn20 = 20 << 9 | 1 << 2;

    HpetRig rig;
};

TEST_F(HpetTest, CapabilitiesSayWhatItIs) {
    EXPECT_EQ(in<u32>(0), 0x7e55'a201U) << "vendor, legacy, 64 bits, three timers, revision 1";
    EXPECT_EQ(in<u32>(4), 10'000'000U) << "femtoseconds";
    for (const u64 timer : {0x100U, 0x120U, 0x140U})
        EXPECT_EQ(in(timer), 0x00f0'0000'0000'8030U) << "pins 20-23, messages, 64 bits, periodic";
    EXPECT_EQ(in(0x108), ~u64{0});
    EXPECT_EQ(in(0x160), 0U) << "there is no fourth";
    EXPECT_EQ(in(0x3f8), 0U);
}

TEST_F(HpetTest, TheCounterCountsWhileEnabled) {
    ticks(100);
    EXPECT_EQ(in(0xf0), 0U);
    start();
    ticks(100);
    EXPECT_EQ(in(0xf0), 100U);
    out<u64>(0x10, 0);
    ticks(100);
    EXPECT_EQ(in(0xf0), 100U);
    out<u64>(0xf0, 0xffff'ffff);
    start();
    ticks(2);
    EXPECT_EQ(in(0xf0), 0x1'0000'0001U);
    EXPECT_EQ(in<u32>(0xf4), 1U);
}

TEST_F(HpetTest, AccessesOfOtherWidthsAndPlacesAreRefused) {
    EXPECT_EQ(out<u8>(0x10, 1), IoStatus::BadWidth);
    EXPECT_EQ(out<u16>(0x10, 1), IoStatus::BadWidth);
    EXPECT_EQ(out<u32>(0x12, 1), IoStatus::Unaligned);
    EXPECT_EQ(out<u64>(0x14, 1), IoStatus::Unaligned);
    EXPECT_EQ(out<u64>(0x400, 1), IoStatus::NoRegister);
    EXPECT_EQ(in(0x10), 0U);
}

TEST_F(HpetTest, AOneShotTimerFiresOnceWhenTheCounterArrives) {
    out<u64>(0x100, kOn20);
    out<u64>(0x108, 1'000'000);
    start();
    ticks(999'999);
    EXPECT_EQ(rises(rig.wires, 20), 0U);
    ticks(1);
    EXPECT_EQ(rises(rig.wires, 20), 1U);
    EXPECT_FALSE(rig.wires.levels[20]) << "an edge";
    EXPECT_EQ(in(0x20), 0U) << "which has no status";
    ticks(100'000'000);
    EXPECT_EQ(rises(rig.wires, 20), 1U);
}

TEST_F(HpetTest, AComparatorThatHasPassedWaitsForTheNextTimeRound) {
    start();
    ticks(1000);
    out<u64>(0x100, kOn20 | 1 << 8);
    out<u64>(0x108, 999);
    ticks(0xffff'ffff - 2);
    EXPECT_EQ(rises(rig.wires, 20), 0U);
    ticks(2);
    EXPECT_EQ(rises(rig.wires, 20), 1U) << "a 32-bit timer comes round after 2^32 ticks";
}

TEST_F(HpetTest, ALevelTriggeredTimerHoldsItsLineUntilTheStatusIsCleared) {
    out<u64>(0x120, kOn20 | 1 << 1);
    out<u64>(0x128, 100'000);
    start();
    ticks(100'000);
    EXPECT_TRUE(rig.wires.levels[20]);
    EXPECT_EQ(in(0x20), 2U);
    out<u64>(0x20, 1);
    EXPECT_TRUE(rig.wires.levels[20]) << "another timer's bit";
    out<u64>(0x20, 2);
    EXPECT_FALSE(rig.wires.levels[20]);
    EXPECT_EQ(in(0x20), 0U);
}

TEST_F(HpetTest, StatusIsKeptWhileInterruptsAreOff) {
    out<u64>(0x120, 20 << 9 | 1 << 1);
    out<u64>(0x128, 100);
    start();
    ticks(100);
    EXPECT_EQ(in(0x20), 2U);
    EXPECT_FALSE(rig.wires.levels[20]);
    out<u64>(0x120, kOn20 | 1 << 1);
    EXPECT_TRUE(rig.wires.levels[20]);
}

TEST_F(HpetTest, APeriodicTimerFiresEveryPeriodAndShowsItsNextMatch) {
    out<u64>(0x100, kOn20 | 1 << 3 | 1 << 6);
    out<u64>(0x108, 100'000);
    EXPECT_EQ(in(0x100) & 1 << 6, 0U) << "the value-set bit is used up";
    start();
    for (unsigned n = 1; n <= 5; ++n) {
        ticks(100'000);
        EXPECT_EQ(rises(rig.wires, 20), n);
        EXPECT_EQ(in(0x108), (n + 1) * u64{100'000});
    }
}

// What Linux does: the first match by the value-set bit, then the period by a second write.
TEST_F(HpetTest, FirstMatchAndPeriodMayDiffer) {
    out<u32>(0x100, kOn20 | 1 << 3 | 1 << 6 | 1 << 8);
    out<u32>(0x108, 5'000);
    out<u32>(0x108, 100'000);
    EXPECT_EQ(in(0x108), 5'000U) << "the second write is the period's";
    start();
    ticks(5'000);
    EXPECT_EQ(rises(rig.wires, 20), 1U);
    EXPECT_EQ(in(0x108), 105'000U);
}

TEST_F(HpetTest, LegacyRoutingReplacesTheOldTimers) {
    out<u64>(0x100, 1 << 2 | 1 << 3 | 1 << 6);
    out<u64>(0x108, 100'000);
    out<u64>(0x120, kOn20);
    out<u64>(0x128, 150'000);
    EXPECT_FALSE(rig.wires.levels[HpetRig::kLegacySelected]);
    start(2);
    EXPECT_TRUE(rig.wires.levels[HpetRig::kLegacySelected]);
    ticks(200'000);
    EXPECT_EQ(rises(rig.legacy, 0), 2U);
    EXPECT_EQ(rises(rig.legacy, 8), 1U);
    EXPECT_EQ(rises(rig.wires, 20), 0U) << "the route does not count";
    start();
    EXPECT_FALSE(rig.wires.levels[HpetRig::kLegacySelected]);
}

// [8259A "Interrupt request"] A request whose wire falls before it is acknowledged is lost.
TEST_F(HpetTest, ALegacyEdgeLeavesTheWireHighUntilTheNextOne) {
    out<u64>(0x100, 1 << 2);
    out<u64>(0x108, 100'000);
    start(2);
    ticks(100'000);
    EXPECT_TRUE(rig.legacy.levels[0]);
    out<u64>(0x108, 200'000);
    ticks(100'000);
    EXPECT_EQ(rises(rig.legacy, 0), 2U);
    EXPECT_TRUE(rig.legacy.levels[0]);
    out<u64>(0x100, 0);
    EXPECT_FALSE(rig.legacy.levels[0]);
}

TEST_F(HpetTest, MessagesGoWhereTheTimerSays) {
    out<u64>(0x140, 1 << 2 | 1 << 14);
    out<u64>(0x150, 0xfee0'1000'0000'0035);
    out<u64>(0x148, 100);
    start();
    ticks(3'000);
    EXPECT_EQ(rig.messages.sent, (std::vector<RecordingMessages::Message>{{0xfee0'1000, 0x35}}));
}

TEST_F(HpetTest, OnlyRoutesTheTimerHasAreTaken) {
    for (u64 route = 0; route < 32; ++route) {
        out<u64>(0x100, route << 9);
        EXPECT_EQ(in(0x100) >> 9 & 31, route >= 20 && route < 24 ? route : 0) << route;
    }
}

TEST_F(HpetTest, TinyPeriodsDoNotStorm) {
    out<u64>(0x100, kOn20 | 1 << 3 | 1 << 6);
    out<u64>(0x108, 1);
    start();
    ticks(100'000);  // a millisecond
    EXPECT_LE(rises(rig.wires, 20), 51U);
    EXPECT_GE(rises(rig.wires, 20), 40U);
    out<u64>(0x100, kOn20 | 1 << 3 | 1 << 6);
    out<u64>(0x108, 0);
    ticks(100'000);
    EXPECT_LE(rises(rig.wires, 20), 53U) << "a period of nothing is none";
}

TEST_F(HpetTest, HaltingTheCounterStopsTheTimers) {
    out<u64>(0x100, kOn20);
    out<u64>(0x108, 1000);
    start();
    ticks(500);
    out<u64>(0x10, 0);
    ticks(5000);
    EXPECT_EQ(rises(rig.wires, 20), 0U);
    EXPECT_EQ(rig.clock.armed_count(), 0U);
    start();
    ticks(3000);
    EXPECT_EQ(rises(rig.wires, 20), 1U);
}

TEST_F(HpetTest, LateServiceIsOneInterruptAndKeepsThePhase) {
    out<u64>(0x100, 20 << 9 | 1 << 3 | 1 << 6);
    out<u64>(0x108, 1000);
    start();
    ticks(123'456);
    EXPECT_EQ(in(0x108), 124'000U);
}

// [HPET 2.3] Any value anywhere.
TEST_F(HpetTest, SweepOfEveryByteAndWidth) {
    for (u64 offset = 0; offset < 0x408; ++offset)
        for (const std::size_t width : {1, 2, 4, 8}) {
            std::array<std::byte, 8> data{};
            data.fill(std::byte{0xff});
            const auto part = std::span(data).first(width);
            (void)rig.device.write(offset, part);
            const bool taken = width >= 4 && offset % width == 0 && offset < 0x400;
            EXPECT_EQ(rig.device.read(offset, part) == IoStatus::Ok, taken) << offset << " x " << width;
            rig.clock.advance(1000);
        }
}

}  // namespace
}  // namespace tessera::hpet
