#include "devices/rtc_mc146818/rtc_mc146818.h"

#include <array>
#include <gtest/gtest.h>
#include <string>

#include "devices/rtc_mc146818/rtc_mc146818_rig.h"
#include "devices/testing/device_suite.h"

TESSERA_JOIN_DEVICE_SUITE(Rtc, tessera::rtc_mc146818::RtcRig);

namespace tessera::rtc_mc146818 {
namespace {

// Restated from the data sheet on purpose.
enum Index : u8 {
    Sec = 0,
    SecAlarm = 1,
    Min = 2,
    MinAlarm = 3,
    Hour = 4,
    HourAlarm = 5,
    WeekDay = 6,
    Day = 7,
    Month = 8,
    Year = 9,
    A = 10,
    B = 11,
    C = 12,
    D = 13,
    Century = 0x32
};
constexpr u8 kSet = 0x80, kPie = 0x40, kAie = 0x20, kUie = 0x10, kBinary = 0x04, k24 = 0x02;
constexpr u8 kIrqf = 0x80, kPf = 0x40, kAf = 0x20, kUf = 0x10;
constexpr u64 kMs = 1'000'000, kSecond = 1'000'000'000;

class RtcTest : public testing::Test {
protected:
    u8 in(u8 index) {
        rig.write(0, index);
        std::array<std::byte, 1> buffer{std::byte{0xff}};
        EXPECT_EQ(rtc.read(1, buffer), IoStatus::Ok);
        return std::to_integer<u8>(buffer[0]);
    }
    void out(u8 index, u8 value) {
        rig.write(0, index);
        rig.write(1, value);
    }
    // As a person reads BCD registers.
    std::string shown() {
        const auto hex = [&](u8 index) {
            const u8 v = in(index);
            return std::string{"0123456789abcdef"[v >> 4], "0123456789abcdef"[v & 15]};
        };
        return hex(Century) + hex(Year) + "-" + hex(Month) + "-" + hex(Day) + " " + hex(Hour) + ":" +
               hex(Min) + ":" + hex(Sec);
    }
    // What Linux does: SET, divider reset, the bytes, then both back.
    void set_bcd(u8 century, u8 year, u8 month, u8 day, u8 hour, u8 minute, u8 second) {
        const u8 control = in(B);
        out(B, control | kSet);
        const u8 select = in(A);
        out(A, (select & 0x0f) | 0x70);
        out(Century, century);
        out(Year, year);
        out(Month, month);
        out(Day, day);
        out(Hour, hour);
        out(Min, minute);
        out(Sec, second);
        out(B, control);
        out(A, select);
    }
    [[nodiscard]] bool irq() const { return rig.wires.levels[8]; }

    RtcRig rig;
    Rtc& rtc = rig.device;
    FakeClock& clock = rig.clock;
};

// --- Time of day ---

TEST_F(RtcTest, ShowsTheWallClockInBcdWhenNew) {
    EXPECT_EQ(shown(), "2024-02-28 23:59:58");
    EXPECT_EQ(in(WeekDay), 4);  // Wednesday, with Sunday as 1
    EXPECT_EQ(in(A) & 0x7f, 0x26);
    EXPECT_EQ(in(B), k24);
    EXPECT_EQ(in(D), 0x80);
}

TEST_F(RtcTest, CountsThroughTheLeapDay) {
    clock.advance(2 * kSecond);
    EXPECT_EQ(shown(), "2024-02-29 00:00:00");
    EXPECT_EQ(in(WeekDay), 5);
    clock.advance(86'400 * kSecond);
    EXPECT_EQ(shown(), "2024-03-01 00:00:00");
}

TEST_F(RtcTest, BinaryModeShowsBinary) {
    out(B, k24 | kBinary);
    EXPECT_EQ(in(Sec), 58);
    EXPECT_EQ(in(Min), 59);
    EXPECT_EQ(in(Hour), 23);
    EXPECT_EQ(in(Day), 28);
    EXPECT_EQ(in(Year), 24);
    EXPECT_EQ(in(Century), 20);
}

TEST_F(RtcTest, TwelveHourModeShowsTwelveAtMidnightAndNoonWithPmInBitSeven) {
    out(B, 0);
    EXPECT_EQ(in(Hour), 0x91);  // 11 PM
    clock.advance(2 * kSecond);
    EXPECT_EQ(in(Hour), 0x12);  // midnight
    clock.advance(3600 * kSecond);
    EXPECT_EQ(in(Hour), 0x01);
    clock.advance(u64{11} * 3600 * kSecond);
    EXPECT_EQ(in(Hour), 0x92);  // noon
}

TEST_F(RtcTest, LocalTimeIsAnOffset) {
    Rtc local({.utc_offset_seconds = -3600}, IrqLine::detached(), clock, clock);
    const std::array<std::byte, 1> index{std::byte{Hour}};
    EXPECT_EQ(local.write(0, index), IoStatus::Ok);
    std::array<std::byte, 1> hour{};
    EXPECT_EQ(local.read(1, hour), IoStatus::Ok);
    EXPECT_EQ(hour[0], std::byte{0x22});
}

// --- Setting ---

TEST_F(RtcTest, SetTimeGoesOnHalfASecondAfterTheDividerIsLetGo) {
    clock.advance(123 * kMs);
    set_bcd(0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x59);
    EXPECT_EQ(shown(), "1999-12-31 23:59:59");
    clock.advance(499 * kMs);
    EXPECT_EQ(shown(), "1999-12-31 23:59:59");
    clock.advance(2 * kMs);
    EXPECT_EQ(shown(), "2000-01-01 00:00:00");
    clock.advance(998 * kMs);
    EXPECT_EQ(shown(), "2000-01-01 00:00:00");
    clock.advance(2 * kMs);
    EXPECT_EQ(shown(), "2000-01-01 00:00:01");
}

TEST_F(RtcTest, SetFreezesTheTimeAndKeepsWhatIsWritten) {
    out(B, k24 | kSet);
    clock.advance(10 * kSecond);
    EXPECT_EQ(in(Sec), 0x58);
    out(Sec, 0x77);
    EXPECT_EQ(in(Sec), 0x77);
    EXPECT_EQ(in(A) & 0x80, 0);
    EXPECT_EQ(in(C)&kUf, 0);
}

TEST_F(RtcTest, SecondsKeepTheirBeatWhenOnlySetWasUsed) {
    clock.advance(400 * kMs);
    out(B, k24 | kSet);
    out(Sec, 0x10);
    clock.advance(100 * kMs);
    out(B, k24);
    clock.advance(499 * kMs);
    EXPECT_EQ(in(Sec), 0x10);
    clock.advance(2 * kMs);
    EXPECT_EQ(in(Sec), 0x11);
}

TEST_F(RtcTest, WritingWithoutSetChangesOneField) {
    out(Min, 0x30);
    EXPECT_EQ(shown(), "2024-02-28 23:30:58");
    clock.advance(2 * kSecond);
    EXPECT_EQ(shown(), "2024-02-28 23:31:00");
}

TEST_F(RtcTest, TimeCanBeSetInTwelveHourBinary) {
    out(B, kBinary | kSet);
    out(Century, 20);
    out(Year, 24);
    out(Month, 2);
    out(Day, 28);
    out(Hour, 0x80 | 12);
    out(Min, 5);
    out(Sec, 58);
    out(B, kBinary);
    out(B, k24);
    EXPECT_EQ(shown(), "2024-02-28 12:05:58");
}

TEST_F(RtcTest, DayOfTheWeekIsTheGuests) {
    out(WeekDay, 1);
    EXPECT_EQ(in(WeekDay), 1);
    clock.advance(2 * kSecond);
    EXPECT_EQ(in(WeekDay), 2);
}

TEST_F(RtcTest, ImpossibleTimesBecomePossibleOnes) {
    set_bcd(0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff);
    clock.advance(10 * kSecond);
    EXPECT_EQ(shown().substr(0, 4), "9999");
    set_bcd(0, 0, 0, 0, 0, 0, 0);
    clock.advance(10 * kSecond);
    EXPECT_EQ(shown().substr(0, 2), "00");
}

TEST_F(RtcTest, StoppedDividerStopsTheTime) {
    out(A, 0x76);
    clock.advance(10 * kSecond);
    EXPECT_EQ(in(Sec), 0x58);
    out(A, 0x26);
    clock.advance(501 * kMs);
    EXPECT_EQ(in(Sec), 0x59);
}

TEST_F(RtcTest, UipIsSetForTwoMillisecondsBeforeEachSecond) {
    EXPECT_EQ(in(A) & 0x80, 0);
    clock.advance(997'700'000);
    EXPECT_EQ(in(A) & 0x80, 0);
    clock.advance(100'000);
    EXPECT_EQ(in(A) & 0x80, 0x80);
    EXPECT_EQ(in(Sec), 0x58);
    clock.advance(2'200'000);
    EXPECT_EQ(in(A) & 0x80, 0);
    EXPECT_EQ(in(Sec), 0x59);
}

// --- Interrupts ---

TEST_F(RtcTest, UpdateEndedInterruptsEverySecond) {
    out(B, k24 | kUie);
    (void)in(C);
    clock.advance(999 * kMs);
    EXPECT_FALSE(irq());
    clock.advance(1 * kMs);
    EXPECT_TRUE(irq());
    EXPECT_EQ(in(C) & (kIrqf | kUf), kIrqf | kUf);
    EXPECT_FALSE(irq());
    EXPECT_EQ(in(C), 0);
    clock.advance(1 * kSecond);
    EXPECT_TRUE(irq());
}

TEST_F(RtcTest, FlagsAreSetWithoutTheirEnables) {
    clock.advance(1 * kSecond);
    EXPECT_EQ(in(C), kUf | kPf);
    EXPECT_FALSE(irq());
    EXPECT_EQ(in(C), 0);
}

TEST_F(RtcTest, EnablingASourceWhoseFlagIsSetInterruptsAtOnce) {
    clock.advance(1 * kSecond);
    out(B, k24 | kUie);
    EXPECT_TRUE(irq());
}

TEST_F(RtcTest, SettingSetClearsUie) {
    out(B, k24 | kUie);
    out(B, k24 | kUie | kSet);
    EXPECT_EQ(in(B), k24 | kSet);
}

TEST_F(RtcTest, AlarmStrikesAtItsTimeAndOnlyThen) {
    out(HourAlarm, 0x00);
    out(MinAlarm, 0x01);
    out(SecAlarm, 0x30);
    out(B, k24 | kAie);
    clock.advance(91 * kSecond);
    EXPECT_FALSE(irq());
    clock.advance(1 * kSecond);
    EXPECT_TRUE(irq());
    EXPECT_EQ(in(C) & (kIrqf | kAf), kIrqf | kAf);
    clock.advance(86'399 * kSecond);
    EXPECT_FALSE(irq());
    clock.advance(1 * kSecond);
    EXPECT_TRUE(irq());
}

TEST_F(RtcTest, AlarmBytesFromC0UpMatchAnything) {
    out(HourAlarm, 0xc0);
    out(MinAlarm, 0xff);
    out(SecAlarm, 0x05);
    out(B, k24 | kAie);
    clock.advance(7 * kSecond);
    EXPECT_TRUE(irq());
    (void)in(C);
    clock.advance(59 * kSecond);
    EXPECT_FALSE(irq());
    clock.advance(1 * kSecond);
    EXPECT_TRUE(irq());
}

TEST_F(RtcTest, AlarmInTwelveHourModeKnowsAmFromPm) {
    out(B, kAie);
    out(HourAlarm, 0x81);  // 1 PM
    out(MinAlarm, 0x00);
    out(SecAlarm, 0x00);
    clock.advance((u64{12} * 3600 + 3601) * kSecond);
    EXPECT_FALSE(irq());
    clock.advance(1 * kSecond);
    EXPECT_TRUE(irq());
}

TEST_F(RtcTest, AlarmForATimeThatDoesNotExistNeverStrikes) {
    out(HourAlarm, 0x99);
    out(B, k24 | kAie);
    clock.advance(u64{200'000} * kSecond);
    EXPECT_FALSE(irq());
    EXPECT_EQ(in(C)&kAf, 0);
}

TEST_F(RtcTest, PeriodicRatesFollowTable5) {
    // Nanoseconds for rates 1 to 15: 3.90625 ms, 7.8125 ms, 122.070 us, then doubling to 500 ms.
    const std::array<u64, 16> period = {
        0,         3'906'250, 7'812'500,  122'071,    244'141,    488'282,     976'563,     1'953'125,
        3'906'250, 7'812'500, 15'625'000, 31'250'000, 62'500'000, 125'000'000, 250'000'000, 500'000'000};
    for (u8 rate = 1; rate < 16; ++rate) {
        RtcRig fresh;
        fresh.write(0, A);
        fresh.write(1, 0x20 | rate);
        fresh.write(0, B);
        fresh.write(1, k24 | kPie);
        fresh.clock.advance(period[rate] - 2);
        EXPECT_FALSE(fresh.wires.levels[8]) << int{rate};
        fresh.clock.advance(2);
        EXPECT_TRUE(fresh.wires.levels[8]) << int{rate};
    }
}

TEST_F(RtcTest, PeriodicInterruptDoesNotDriftWhenServedLate) {
    out(B, k24 | kPie);  // 1024 Hz
    unsigned interrupts = 0;
    while (clock.now_ns() < 10 * kSecond) {
        clock.advance(clock.next_deadline_ns() - clock.now_ns());
        if (!irq()) continue;
        ++interrupts;
        clock.advance(300'000);  // within the period of 976 us
        EXPECT_EQ(in(C)&kPf, kPf);
    }
    EXPECT_EQ(interrupts, 10'240U);
}

TEST_F(RtcTest, NoTimerRunsWithoutEnabledInterrupts) {
    EXPECT_EQ(clock.armed_count(), 0U);
    out(B, k24 | kPie);
    EXPECT_EQ(clock.armed_count(), 1U);
    clock.advance(1 * kSecond);
    EXPECT_EQ(clock.armed_count(), 0U) << "the line is high: nothing can change it";
    out(B, k24);
    EXPECT_EQ(clock.armed_count(), 0U);
}

TEST_F(RtcTest, RateZeroAndStoppedDividerMakeNoPeriodicInterrupt) {
    out(A, 0x20);
    out(B, k24 | kPie);
    clock.advance(10 * kSecond);
    EXPECT_FALSE(irq());
    out(A, 0x66);
    clock.advance(10 * kSecond);
    EXPECT_FALSE(irq());
}

TEST_F(RtcTest, HostClockSetBackMakesNoInterruptAndTimeGoesOn) {
    out(B, k24 | kUie);
    clock.advance(5 * kSecond);
    (void)in(C);
    clock.wall_base_ns -= 3600 * kSecond;
    EXPECT_EQ(in(C), 0);
    clock.advance(1 * kSecond);
    EXPECT_TRUE(irq());
    EXPECT_EQ(in(C)&kUf, kUf);
}

// --- Memory, ports, reset ---

TEST_F(RtcTest, MemoryKeepsWhatIsWritten) {
    for (u8 i = 0x0e; i < 0x80; ++i)
        if (i != Century) out(i, static_cast<u8>(i ^ 0x5a));
    for (u8 i = 0x0e; i < 0x80; ++i)
        if (i != Century) EXPECT_EQ(in(i), i ^ 0x5a);
}

TEST_F(RtcTest, PresetReachesMemoryOnly) {
    EXPECT_TRUE(rtc.preset(0x15, 0x80));
    EXPECT_EQ(in(0x15), 0x80);
    EXPECT_FALSE(rtc.preset(Sec, 0));
    EXPECT_FALSE(rtc.preset(D, 0));
    EXPECT_FALSE(rtc.preset(Century, 0));
    EXPECT_FALSE(rtc.preset(0x80, 0));
}

TEST_F(RtcTest, IndexBitSevenIsTheNmiMask) {
    rig.write(0, 0x80 | B);
    EXPECT_TRUE(rtc.nmi_masked());
    std::array<std::byte, 1> buffer{};
    EXPECT_EQ(rtc.read(1, buffer), IoStatus::Ok);
    EXPECT_EQ(buffer[0], std::byte{k24});
    rig.write(0, B);
    EXPECT_FALSE(rtc.nmi_masked());
}

TEST_F(RtcTest, IndexPortReadsAsAnEmptyBus) {
    std::array<std::byte, 1> buffer{};
    EXPECT_EQ(rtc.read(0, buffer), IoStatus::Ok);
    EXPECT_EQ(buffer[0], std::byte{0xff});
}

TEST_F(RtcTest, WordWriteIsIndexAndData) {
    const std::array<std::byte, 2> word{std::byte{0x40}, std::byte{0x99}};
    EXPECT_EQ(rtc.write(0, word), IoStatus::Ok);
    EXPECT_EQ(in(0x40), 0x99);
    EXPECT_EQ(rtc.write(1, word), IoStatus::BadWidth);
    EXPECT_EQ(rtc.write(2, std::span(word).first(1)), IoStatus::NoRegister);
}

TEST_F(RtcTest, ResetTurnsInterruptsOffAndKeepsTimeFormatAndMemory) {
    out(0x40, 0x77);
    out(B, k24 | kBinary | kUie | kPie | kAie | 0x08);
    clock.advance(2 * kSecond);
    EXPECT_TRUE(irq());
    rtc.reset();
    EXPECT_FALSE(irq());
    EXPECT_EQ(in(B), k24 | kBinary);
    EXPECT_EQ(in(C), 0);
    EXPECT_EQ(in(0x40), 0x77);
    EXPECT_EQ(in(Day), 29);
}

TEST_F(RtcTest, FirmwareInitStartsAClockThatAGuestLeftStopped) {
    out(B, kBinary | kSet);
    out(A, 0x70);
    clock.advance(3 * kSecond);
    rtc.firmware_init();
    EXPECT_EQ(in(B), k24);
    EXPECT_EQ(in(A) & 0x7f, 0x26);
    const u8 before = in(Sec);
    clock.advance(1 * kSecond);
    EXPECT_NE(in(Sec), before);
}

// --- Snapshots ---

TEST_F(RtcTest, HostileSnapshotsAreRefused) {
    const auto good = testing_rig::saved(rig);
    const auto refused = [&](auto change) {
        auto bad = good;
        change(bad);
        return !testing_rig::load(rig, bad).has_value();
    };
    EXPECT_TRUE(refused([](auto& s) { s.blobs[1].resize(127); }));
    EXPECT_TRUE(refused([](auto& s) { s.numbers[2] = 0x80; }));
    EXPECT_TRUE(refused([](auto& s) { s.numbers[4] = 0x80; }));
    EXPECT_TRUE(refused([](auto& s) { s.numbers[8] = u64{1} << 62; }));
    EXPECT_TRUE(refused([](auto& s) { s.numbers[9] = 1'000'000'000; }));
    EXPECT_TRUE(refused([](auto& s) { s.numbers[10] = 7; }));
    EXPECT_EQ(good, testing_rig::saved(rig));
}

TEST_F(RtcTest, RestoredClockCatchesUpWithTheWall) {
    const auto state = testing_rig::saved(rig);
    RtcRig other;
    other.clock.wall_base_ns += 86'400 * kSecond;
    ASSERT_TRUE(testing_rig::load(other, state));
    other.write(0, Day);
    std::array<std::byte, 1> day{};
    EXPECT_EQ(other.device.read(1, day), IoStatus::Ok);
    EXPECT_EQ(day[0], std::byte{0x29});
}

}  // namespace
}  // namespace tessera::rtc_mc146818
