#include "devices/pit8254/pit8254.h"

#include <array>
#include <gtest/gtest.h>
#include <string>
#include <vector>

#include "devices/pit8254/pit8254_rig.h"
#include "devices/testing/device_suite.h"

TESSERA_JOIN_DEVICE_SUITE(Pit8254, tessera::pit8254::PitRig);

namespace tessera::pit8254 {
namespace {

// Control words: counter in bits 7-6, access in 5-4 (1 low, 2 high, 3 both), mode in 3-1, BCD in 0.
constexpr u8 control(unsigned counter, unsigned access, unsigned mode, bool bcd = false) {
    return static_cast<u8>(counter << 6 | access << 4 | mode << 1 | (bcd ? 1 : 0));
}

// Most tests use counter 2, whose gate and output port 0x61 shows.
class Pit8254Test : public testing::Test {
protected:
    Pit8254Test() { to_tick(10); }

    void TearDown() override { EXPECT_EQ(refused, 0u) << "an access of the helpers was refused"; }

    // Moves to the first nanosecond of a tick of the 1.193182 MHz clock.
    void to_tick(u64 tick) {
        const u64 ns = static_cast<u64>((u128{tick} * 1'000'000'000 + 1'193'181) / 1'193'182);
        clock.advance(ns - clock.now_ns());
        tick_ = tick;
    }
    void ticks(u64 count) { to_tick(tick_ + count); }
    u8 in(u64 offset) {
        std::array<std::byte, 1> data{};
        refused |= static_cast<unsigned>(pit.counter_ports().read(offset, data));
        return std::to_integer<u8>(data[0]);
    }
    void out(u64 offset, unsigned value) {
        const std::array<std::byte, 1> data{static_cast<std::byte>(value)};
        refused |= static_cast<unsigned>(pit.counter_ports().write(offset, data));
    }
    u8 in61() {
        std::array<std::byte, 1> data{};
        refused |= static_cast<unsigned>(pit.speaker_port().read(0, data));
        return std::to_integer<u8>(data[0]);
    }
    void gate2(bool high) {
        const std::array<std::byte, 1> data{static_cast<std::byte>(high ? 1 : 0)};
        refused |= static_cast<unsigned>(pit.speaker_port().write(0, data));
    }
    bool out2() { return (in61() & 0x20) != 0; }
    u16 read16(unsigned counter) {
        out(3, counter << 6);
        const u8 low = in(counter);
        return static_cast<u16>(low | in(counter) << 8);
    }
    // OUT2 at each of the next ticks, the present one first, as the data sheet's diagrams draw it.
    std::string wave(unsigned count) {
        std::string shape;
        for (unsigned i = 0; i < count; ++i) {
            shape += out2() ? '-' : '_';
            ticks(1);
        }
        return shape;
    }
    std::vector<unsigned> counts(unsigned count) {
        std::vector<unsigned> seen;
        for (unsigned i = 0; i < count; ++i) {
            seen.push_back(in(2));
            ticks(1);
        }
        return seen;
    }

    // IoStatus values of the helpers, together; Ok is 0. Without a branch per access the analyzer stays
    // quick.
    unsigned refused = 0;
    FakeClock clock;
    testing_rig::RecordingSink wires;
    Pit8254 pit{clock, clock, IrqLine(wires, 0)};
    u64 tick_ = 0;
};

// --- Mode 0.

TEST_F(Pit8254Test, Mode0RisesNPlusOneClocksAfterTheCountIsWritten) {
    gate2(true);
    out(3, control(2, 1, 0));
    EXPECT_FALSE(out2());
    out(2, 4);
    EXPECT_EQ(wave(8), "_____---");
}

TEST_F(Pit8254Test, Mode0CountsDownAndOnBelowZero) {
    gate2(true);
    out(3, control(2, 1, 0));
    out(2, 3);
    ticks(1);
    EXPECT_EQ(counts(6), (std::vector<unsigned>{3, 2, 1, 0, 0xff, 0xfe}));
}

TEST_F(Pit8254Test, Mode0GatePausesTheCount) {
    gate2(true);
    out(3, control(2, 1, 0));
    out(2, 4);
    ticks(3);  // shows 2
    EXPECT_EQ(in(2), 2);
    gate2(false);
    ticks(10);
    EXPECT_EQ(in(2), 2);
    EXPECT_FALSE(out2());
    gate2(true);
    EXPECT_EQ(wave(4), "__--");
}

TEST_F(Pit8254Test, Mode0WrittenWithGateLowRisesNClocksAfterTheGate) {
    gate2(false);
    out(3, control(2, 1, 0));
    out(2, 3);
    ticks(5);
    gate2(true);
    EXPECT_EQ(wave(5), "___--");
}

TEST_F(Pit8254Test, Mode0NewCountStartsOverAndLowersOut) {
    gate2(true);
    out(3, control(2, 1, 0));
    out(2, 2);
    ticks(5);
    EXPECT_TRUE(out2());
    out(2, 3);
    EXPECT_EQ(wave(6), "____--");
}

TEST_F(Pit8254Test, Mode0FirstOfTwoBytesStopsTheCount) {
    gate2(true);
    out(3, control(2, 3, 0));
    out(2, 2);
    out(2, 0);
    ticks(5);
    EXPECT_TRUE(out2());
    out(2, 4);
    EXPECT_FALSE(out2());
    ticks(100);
    EXPECT_FALSE(out2());
    out(2, 0);
    EXPECT_EQ(wave(6), "_____-");
}

// --- Mode 1.

TEST_F(Pit8254Test, Mode1PulseOfNClocksAfterTheTrigger) {
    gate2(false);
    out(3, control(2, 1, 1));
    out(2, 3);
    EXPECT_EQ(wave(4), "----");
    gate2(true);
    EXPECT_EQ(wave(6), "-___--");
}

TEST_F(Pit8254Test, Mode1CanBeRetriggeredAndIgnoresTheGateLevel) {
    gate2(false);
    out(3, control(2, 1, 1));
    out(2, 3);
    gate2(true);
    ticks(3);
    gate2(false);
    gate2(true);
    EXPECT_EQ(wave(6), "____--");
}

TEST_F(Pit8254Test, Mode1NewCountWaitsForTheNextTrigger) {
    gate2(false);
    out(3, control(2, 1, 1));
    out(2, 3);
    gate2(true);
    ticks(1);
    out(2, 1);
    EXPECT_EQ(wave(5), "___--");
    gate2(false);
    gate2(true);
    EXPECT_EQ(wave(4), "-_--");
}

// --- Mode 2.

TEST_F(Pit8254Test, Mode2IsLowForOneClockInN) {
    gate2(true);
    out(3, control(2, 1, 2));
    EXPECT_TRUE(out2());
    out(2, 3);
    EXPECT_EQ(wave(10), "---_--_--_");
}

TEST_F(Pit8254Test, Mode2CountsFromNToOne) {
    gate2(true);
    out(3, control(2, 1, 2));
    out(2, 4);
    ticks(1);
    EXPECT_EQ(counts(6), (std::vector<unsigned>{4, 3, 2, 1, 4, 3}));
}

TEST_F(Pit8254Test, Mode2NewCountTakesOverAtTheEndOfTheCycle) {
    gate2(true);
    out(3, control(2, 1, 2));
    out(2, 4);
    ticks(2);
    out(2, 3);
    EXPECT_EQ(counts(6), (std::vector<unsigned>{3, 2, 1, 3, 2, 1}));
}

TEST_F(Pit8254Test, Mode2GateLowForcesOutHighAndItsRiseReloads) {
    gate2(true);
    out(3, control(2, 1, 2));
    out(2, 4);
    ticks(4);
    EXPECT_FALSE(out2());
    gate2(false);
    EXPECT_TRUE(out2());
    ticks(7);
    gate2(true);
    EXPECT_EQ(wave(6), "----_-");
}

// --- Mode 3.

TEST_F(Pit8254Test, Mode3EvenCountIsAnEvenSquare) {
    gate2(true);
    out(3, control(2, 1, 3));
    out(2, 4);
    EXPECT_EQ(wave(10), "---__--__-");
}

TEST_F(Pit8254Test, Mode3OddCountIsHighOneClockLonger) {
    gate2(true);
    out(3, control(2, 1, 3));
    out(2, 5);
    ticks(1);
    EXPECT_EQ(wave(10), "---__---__");
}

TEST_F(Pit8254Test, Mode3CountsByTwo) {
    gate2(true);
    out(3, control(2, 1, 3));
    out(2, 4);
    ticks(1);
    EXPECT_EQ(counts(6), (std::vector<unsigned>{4, 2, 4, 2, 4, 2}));
    out(3, control(2, 1, 3));
    out(2, 5);
    ticks(1);
    EXPECT_EQ(counts(8), (std::vector<unsigned>{4, 2, 0, 4, 2, 4, 2, 0}));
}

TEST_F(Pit8254Test, Mode3NewCountTakesOverAtTheHalfCycle) {
    gate2(true);
    out(3, control(2, 1, 3));
    out(2, 8);
    ticks(1);
    EXPECT_EQ(wave(2), "--");
    out(2, 4);
    EXPECT_EQ(wave(8), "--__--__");
}

TEST_F(Pit8254Test, Mode3GateLowForcesOutHigh) {
    gate2(true);
    out(3, control(2, 1, 3));
    out(2, 4);
    ticks(3);
    EXPECT_FALSE(out2());
    gate2(false);
    EXPECT_EQ(wave(5), "-----");
    gate2(true);
    EXPECT_EQ(wave(6), "---__-");
}

TEST_F(Pit8254Test, CountOfOneIsIllegalInModes2And3AndGivesNoPulse) {
    gate2(true);
    for (const unsigned mode : {2u, 3u}) {
        out(3, control(2, 1, mode));
        out(2, 1);
        EXPECT_EQ(wave(6), "------");
    }
}

// --- Modes 4 and 5.

TEST_F(Pit8254Test, Mode4StrobesNPlusOneClocksAfterTheCountIsWritten) {
    gate2(true);
    out(3, control(2, 1, 4));
    EXPECT_TRUE(out2());
    out(2, 3);
    EXPECT_EQ(wave(8), "----_---");
}

TEST_F(Pit8254Test, Mode4GatePausesAndNewCountRestarts) {
    gate2(true);
    out(3, control(2, 1, 4));
    out(2, 3);
    ticks(2);
    gate2(false);
    ticks(9);
    gate2(true);
    EXPECT_EQ(wave(4), "--_-");
    out(2, 3);
    ticks(2);
    out(2, 3);
    EXPECT_EQ(wave(6), "----_-");
}

TEST_F(Pit8254Test, Mode5StrobesNPlusOneClocksAfterTheTrigger) {
    gate2(false);
    out(3, control(2, 1, 5));
    out(2, 3);
    EXPECT_EQ(wave(4), "----");
    gate2(true);
    EXPECT_EQ(wave(7), "----_--");
    gate2(false);
    gate2(true);
    ticks(2);
    gate2(false);
    gate2(true);  // again before it strobed
    EXPECT_EQ(wave(6), "----_-");
}

TEST_F(Pit8254Test, Modes6And7Are2And3) {
    out(3, control(2, 1, 6));
    out(3, 0xe8);
    EXPECT_EQ(in(2) & 0x0e, 2 << 1);
    out(3, control(2, 1, 7));
    out(3, 0xe8);
    EXPECT_EQ(in(2) & 0x0e, 3 << 1);
}

// --- Counts, latches, read-back.

TEST_F(Pit8254Test, ZeroIsTheLargestCount) {
    out(3, control(0, 3, 2));
    out(0, 0);
    out(0, 0);
    ticks(1 + 1);
    EXPECT_EQ(read16(0), 0xffff);
    ticks(0xffff);
    EXPECT_EQ(read16(0), 0);
    out(3, control(0, 3, 2, true));
    out(0, 0);
    out(0, 0);
    ticks(1 + 1);
    EXPECT_EQ(read16(0), 0x9999);
}

TEST_F(Pit8254Test, BcdCountsInDecimal) {
    gate2(true);
    out(3, control(2, 3, 0, true));
    out(2, 0x00);
    out(2, 0x10);
    ticks(1 + 1);
    EXPECT_EQ(read16(2), 0x0999);
    ticks(999);
    EXPECT_TRUE(out2());
    EXPECT_EQ(read16(2), 0x0000);
    ticks(1);
    EXPECT_EQ(read16(2), 0x9999);
}

TEST_F(Pit8254Test, AccessModesReadAndWriteTheirByte) {
    out(3, control(0, 2, 2));
    out(0, 0x12);
    ticks(1);
    EXPECT_EQ(in(0), 0x12);
    ticks(1);
    EXPECT_EQ(in(0), 0x11);
    out(3, control(0, 1, 2));
    out(0, 0x12);
    ticks(1);
    EXPECT_EQ(in(0), 0x12);
    ticks(0x12);
    EXPECT_EQ(in(0), 0x12);
}

TEST_F(Pit8254Test, LatchHoldsTheCountUntilReadAndTheFirstLatchCounts) {
    out(3, control(0, 3, 2));
    out(0, 0x00);
    out(0, 0x80);
    ticks(1);
    out(3, 0x00);
    ticks(0x101);
    out(3, 0x00);
    EXPECT_EQ(in(0), 0x00);
    ticks(5);
    EXPECT_EQ(in(0), 0x80);
    // Released: runs on.
    const u8 low = in(0);
    const u8 high = in(0);
    EXPECT_EQ(high << 8 | low, 0x8000 - 0x106);
}

TEST_F(Pit8254Test, ReadBackLatchesStatusThenCountOfSeveralCounters) {
    gate2(true);
    out(3, control(0, 3, 2));
    out(0, 0x34);
    out(0, 0x12);
    out(3, control(2, 1, 0));
    out(2, 9);
    ticks(1);
    out(3, 0xca);  // count and status of counters 0 and 2
    ticks(3);
    EXPECT_EQ(in(0), 0xb4);  // OUT high, loaded, both bytes, mode 2
    EXPECT_EQ(in(0), 0x34);
    EXPECT_EQ(in(0), 0x12);
    EXPECT_EQ(in(2), 0x10);  // OUT low, low byte, mode 0
    EXPECT_EQ(in(2), 9);
    EXPECT_EQ(in(2), 6);
}

TEST_F(Pit8254Test, NullCountUntilTheCountIsLoaded) {
    out(3, control(0, 1, 2));
    out(3, 0xe2);
    EXPECT_EQ(in(0) & 0x40, 0x40);
    out(0, 5);
    out(3, 0xe2);
    EXPECT_EQ(in(0) & 0x40, 0x40);
    ticks(1);
    out(3, 0xe2);
    EXPECT_EQ(in(0) & 0x40, 0x00);
    out(0, 7);  // waits for the end of the cycle
    out(3, 0xe2);
    EXPECT_EQ(in(0) & 0x40, 0x40);
    ticks(5);
    out(3, 0xe2);
    EXPECT_EQ(in(0) & 0x40, 0x00);
}

TEST_F(Pit8254Test, ControlWordResetsLatchesAndFlipFlops) {
    out(3, control(0, 3, 2));
    out(0, 0x11);  // first of two bytes
    out(3, 0x00);
    (void)in(0);
    out(3, control(0, 3, 2));
    out(0, 0x22);
    out(0, 0x33);
    ticks(1);
    EXPECT_EQ(in(0), 0x22);
    EXPECT_EQ(in(0), 0x33);
}

TEST_F(Pit8254Test, ControlPortReadsNothingAndOnlyBytesAreTaken) {
    std::array<std::byte, 2> data{};
    EXPECT_EQ(pit.counter_ports().read(3, std::span(data).first(1)), IoStatus::NoRegister);
    EXPECT_EQ(pit.counter_ports().read(0, data), IoStatus::BadWidth);
    EXPECT_EQ(pit.speaker_port().write(0, data), IoStatus::BadWidth);
}

// --- Port 0x61.

TEST_F(Pit8254Test, Port61KeepsFourBitsAndTogglesRefresh) {
    const std::array<std::byte, 1> data{std::byte{0xff}};
    EXPECT_EQ(pit.speaker_port().write(0, data), IoStatus::Ok);
    EXPECT_EQ(in61() & 0xcf, 0x0f);
    int changes = 0;
    u8 last = in61() & 0x10;
    for (int i = 0; i < 1000; ++i) {
        clock.advance(1'000);
        const u8 next = in61() & 0x10;
        if (next != last) ++changes;
        last = next;
    }
    EXPECT_NEAR(changes, 66, 1);
}

// --- Counter 0's wire.

TEST_F(Pit8254Test, Counter0RaisesItsWireAtTheTrueRate) {
    out(3, control(0, 3, 2));
    out(0, 11932 & 0xff);  // 100 Hz
    out(0, 11932 >> 8);
    wires.edges.clear();
    clock.advance(1'000'000'000);
    // The wire idles high: a fall and a rise per period.
    EXPECT_EQ(wires.edges.size(), 2u * (1'193'182 / 11932));
    EXPECT_TRUE(wires.levels[0]);
}

TEST_F(Pit8254Test, Counter0DoesNotDrift) {
    out(3, control(0, 3, 3));
    out(0, 1193 & 0xff);
    out(0, 1193 >> 8);
    wires.edges.clear();
    clock.advance(u64{3600} * 1'000'000'000);
    // The recorder is bounded; the counter is not.
    const u64 elapsed_ticks = u64{3600} * 1'193'182;
    EXPECT_NEAR(static_cast<double>(read16(0)),
                1192.0 - 2 * static_cast<double>((elapsed_ticks - 1) % 1193 % 597), 4.0);
}

TEST_F(Pit8254Test, OneShotOfCounter0RisesOnceAndNothingStaysArmed) {
    out(3, control(0, 3, 0));
    out(0, 100);
    EXPECT_EQ(clock.armed_count(), 0u);
    out(0, 0);
    EXPECT_EQ(clock.armed_count(), 1u);
    wires.edges.clear();
    ticks(100);
    EXPECT_TRUE(wires.edges.empty());
    ticks(1);
    EXPECT_EQ(wires.edges, (std::vector<testing_rig::RecordingSink::Edge>{{0, true}}));
    EXPECT_EQ(clock.armed_count(), 0u);
}

TEST_F(Pit8254Test, CountersWithoutAListenerArmNothing) {
    gate2(true);
    out(3, control(1, 1, 2));
    out(1, 18);
    out(3, control(2, 3, 3));
    out(2, 0);
    out(2, 0x10);
    EXPECT_EQ(clock.armed_count(), 0u);
}

TEST_F(Pit8254Test, TinyCountsDoNotStorm) {
    out(3, control(0, 1, 2));
    out(0, 2);
    wires.edges.clear();
    clock.advance(10'000'000);
    EXPECT_LE(wires.edges.size(), 2u * 500 + 2);
    EXPECT_GE(wires.edges.size(), 2u * 450);
}

}  // namespace
}  // namespace tessera::pit8254
