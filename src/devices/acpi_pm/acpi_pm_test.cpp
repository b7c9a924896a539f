#include "devices/acpi_pm/acpi_pm.h"

#include <array>
#include <gtest/gtest.h>

#include "devices/acpi_pm/acpi_pm_rig.h"
#include "devices/testing/device_suite.h"

TESSERA_JOIN_DEVICE_SUITE(AcpiPm24, tessera::acpi_pm::AcpiPmRig24);
TESSERA_JOIN_DEVICE_SUITE(AcpiPm32, tessera::acpi_pm::AcpiPmRig32);

namespace tessera::acpi_pm {
namespace {

// Restated from the specification on purpose.
enum Offset : u8 { STS = 0x0, EN = 0x2, CNT = 0x4, TMR = 0x8 };
constexpr u16 kTmr = 0x0001, kPwrBtn = 0x0100, kRtc = 0x0400, kWake = 0x8000;
constexpr u16 kSlpEn = 0x2000, kS5 = 5 << 10, kS3 = 3 << 10;
constexpr u64 kSecond = 1'000'000'000;

template <typename Rig>
class AcpiPmFixture : public testing::Test {
protected:
    static u32 read(IoDevice& device, u64 offset, std::size_t width) {
        std::array<std::byte, 4> buffer{};
        EXPECT_EQ(device.read(offset, std::span(buffer).first(width)), IoStatus::Ok);
        u32 value = 0;
        for (std::size_t i = 0; i < width; ++i) value |= std::to_integer<u32>(buffer[i]) << (8 * i);
        return value;
    }
    static void write(IoDevice& device, u64 offset, std::size_t width, u32 value) {
        std::array<std::byte, 4> buffer{};
        for (std::size_t i = 0; i < width; ++i) buffer[i] = static_cast<std::byte>(value >> (8 * i));
        EXPECT_EQ(device.write(offset, std::span(buffer).first(width)), IoStatus::Ok);
    }
    u16 inw(u64 offset) { return static_cast<u16>(read(pm, offset, 2)); }
    void outw(u64 offset, u16 value) { write(pm, offset, 2, value); }
    u32 timer() { return read(pm, TMR, 4); }
    [[nodiscard]] bool sci() const { return rig.wires.levels[9]; }

    Rig rig;
    AcpiPm& pm = rig.device;
    FakeClock& clock = rig.clock;
};

using AcpiPmTest = AcpiPmFixture<AcpiPmRig32>;
using AcpiPm24Test = AcpiPmFixture<AcpiPmRig24>;

TEST_F(AcpiPmTest, ResetStateIsQuietAndInAcpiMode) {
    EXPECT_EQ(inw(STS), 0);
    EXPECT_EQ(inw(EN), 0);
    EXPECT_EQ(inw(CNT), 0x0001);
    EXPECT_FALSE(sci());
}

TEST_F(AcpiPmTest, SciEnCannotBeCleared) {
    outw(CNT, 0);
    EXPECT_EQ(inw(CNT), 0x0001);
}

// --- PM timer ---

TEST_F(AcpiPmTest, TimerRunsAtItsExactFrequency) {
    EXPECT_EQ(timer(), 0U);
    clock.advance(kSecond);
    EXPECT_EQ(timer(), 3'579'545U);
    clock.advance(999 * kSecond);
    EXPECT_EQ(timer(), 3'579'545'000U);
    clock.advance(280);  // one tick is 279.4 ns
    EXPECT_EQ(timer(), 3'579'545'001U);
}

TEST_F(AcpiPmTest, ThirtyTwoBitTimerWraps) {
    clock.advance(1200 * kSecond);
    EXPECT_EQ(timer(), 4'295'454'000U - 4'294'967'296U);
}

TEST_F(AcpiPm24Test, TwentyFourBitTimerWrapsAndKeepsItsTopByteClear) {
    clock.advance(5 * kSecond);
    EXPECT_EQ(timer(), 17'897'725U - 16'777'216U);
}

TEST_F(AcpiPmTest, TimerIsReadOnly) {
    clock.advance(kSecond);
    write(pm, TMR, 4, 0);
    EXPECT_EQ(timer(), 3'579'545U);
}

TEST_F(AcpiPm24Test, CarrySetsTmrStsOnBothEdgesOfTheTopBit) {
    // 2^23 ticks are 2.3435 s.
    clock.advance(2'343'400'000);
    EXPECT_EQ(inw(STS) & kTmr, 0);
    clock.advance(200'000);
    EXPECT_EQ(inw(STS) & kTmr, kTmr);
    outw(STS, kTmr);
    EXPECT_EQ(inw(STS) & kTmr, 0);
    clock.advance(2'343'600'000);
    EXPECT_EQ(inw(STS) & kTmr, kTmr);
}

TEST_F(AcpiPm24Test, CarryRaisesTheSciAtItsTimeWhenEnabled) {
    outw(EN, kTmr);
    clock.advance(2'343'400'000);
    EXPECT_FALSE(sci());
    clock.advance(200'000);
    EXPECT_TRUE(sci());
    outw(STS, kTmr);
    EXPECT_FALSE(sci());
    clock.advance(2'343'600'000);
    EXPECT_TRUE(sci());
}

TEST_F(AcpiPm24Test, NoTimerRunsWhileNobodyWantsTheCarry) {
    EXPECT_EQ(clock.armed_count(), 0U);
    outw(EN, kTmr);
    EXPECT_EQ(clock.armed_count(), 1U);
    outw(EN, 0);
    EXPECT_EQ(clock.armed_count(), 0U);
}

// --- Events ---

TEST_F(AcpiPmTest, PowerButtonRaisesTheSciUntilItsStatusIsCleared) {
    outw(EN, kPwrBtn);
    EXPECT_TRUE(pm.press_power_button());
    EXPECT_TRUE(sci());
    EXPECT_EQ(inw(STS), kPwrBtn);
    outw(STS, kPwrBtn);
    EXPECT_FALSE(sci());
    EXPECT_EQ(inw(STS), 0);
}

TEST_F(AcpiPmTest, PowerButtonNobodyListensToIsReportedAndRemembered) {
    EXPECT_FALSE(pm.press_power_button());
    EXPECT_FALSE(sci());
    outw(EN, kPwrBtn);
    EXPECT_TRUE(sci());
}

TEST_F(AcpiPmTest, StatusIsClearedByWritingOnesOnly) {
    pm.press_power_button();
    pm.rtc_alarm();
    outw(STS, kRtc);
    EXPECT_EQ(inw(STS), kPwrBtn);
    outw(STS, 0);
    EXPECT_EQ(inw(STS), kPwrBtn);
}

TEST_F(AcpiPmTest, EnableKeepsOnlyEventsThatExist) {
    outw(EN, 0xffff);
    EXPECT_EQ(inw(EN), 0x0521);  // timer, global lock, power button, RTC
}

TEST_F(AcpiPmTest, BytesOfARegisterCanBeAccessedAlone) {
    pm.press_power_button();
    EXPECT_EQ(read(pm, STS + 1, 1), 0x01U);
    write(pm, EN + 1, 1, 0x01);
    EXPECT_TRUE(sci());
    write(pm, STS, 1, 0xff);  // the low byte does not hold the button
    EXPECT_TRUE(sci());
    write(pm, STS + 1, 1, 0x01);
    EXPECT_FALSE(sci());
}

TEST_F(AcpiPmTest, FourBytesReadStatusAndEnableTogether) {
    outw(EN, kPwrBtn);
    pm.press_power_button();
    EXPECT_EQ(read(pm, STS, 4), 0x0100'0100U);
}

TEST_F(AcpiPmTest, UnalignedOddAndOutsideAccessesAreRefused) {
    std::array<std::byte, 8> buffer{};
    EXPECT_EQ(pm.read(1, std::span(buffer).first(2)), IoStatus::Unaligned);
    EXPECT_EQ(pm.read(0, std::span(buffer).first(3)), IoStatus::BadWidth);
    EXPECT_EQ(pm.read(0, buffer), IoStatus::BadWidth);
    EXPECT_EQ(pm.read(12, std::span(buffer).first(4)), IoStatus::NoRegister);
    EXPECT_EQ(pm.write(~u64{0}, std::span(buffer).first(1)), IoStatus::NoRegister);
}

// --- Sleep ---

TEST_F(AcpiPmTest, S5PowersOff) {
    outw(CNT, kS5);
    EXPECT_EQ(rig.machine.power_offs, 0U);
    outw(CNT, kS5 | kSlpEn);
    EXPECT_EQ(rig.machine.power_offs, 1U);
    EXPECT_EQ(inw(CNT), kS5 | 0x0001);  // SLP_EN reads as zero
}

TEST_F(AcpiPmTest, S5ByBytesPowersOff) {
    write(pm, CNT + 1, 1, (kS5 | kSlpEn) >> 8);
    EXPECT_EQ(rig.machine.power_offs, 1U);
}

TEST_F(AcpiPmTest, OtherSleepStatesAreRefusedAndWakeAtOnce) {
    outw(CNT, kS3 | kSlpEn);
    EXPECT_EQ(rig.machine.power_offs, 0U);
    EXPECT_EQ(pm.refused_sleeps(), 1U);
    EXPECT_EQ(inw(STS), kWake);
    outw(STS, kWake);
    EXPECT_EQ(inw(STS), 0);
}

// --- General-purpose events ---

TEST_F(AcpiPmTest, GpeRaisesTheSciWhenEnabled) {
    pm.set_gpe(3, true);
    EXPECT_FALSE(sci());
    EXPECT_EQ(read(pm.gpe0(), 0, 2), 0x0008U);
    write(pm.gpe0(), 2, 2, 0x0008);
    EXPECT_TRUE(sci());
}

TEST_F(AcpiPmTest, GpeStatusStaysUntilClearedAndWhileItsInputIsHigh) {
    write(pm.gpe0(), 2, 2, 0xffff);
    pm.set_gpe(0, true);
    write(pm.gpe0(), 0, 2, 0x0001);
    EXPECT_TRUE(sci());
    pm.set_gpe(0, false);
    EXPECT_TRUE(sci());
    write(pm.gpe0(), 0, 2, 0x0001);
    EXPECT_FALSE(sci());
}

TEST_F(AcpiPmTest, UnknownGpeIsIgnored) {
    pm.set_gpe(16, true);
    pm.set_gpe(~0U, true);
    EXPECT_EQ(read(pm.gpe0(), 0, 4), 0U);
}

// --- Reset and snapshots ---

TEST_F(AcpiPmTest, ResetDropsTheSciAndKeepsTheTimerRunning) {
    outw(EN, kPwrBtn);
    pm.press_power_button();
    clock.advance(kSecond);
    pm.reset();
    EXPECT_FALSE(sci());
    EXPECT_EQ(timer(), 3'579'545U);
}

TEST_F(AcpiPmTest, ImpossibleStatusIsRefused) {
    auto bad = testing_rig::saved(rig);
    bad.numbers[1] = 0x0002;
    EXPECT_FALSE(testing_rig::load(rig, bad));
}

TEST_F(AcpiPmTest, TimerFromTheFutureIsRefused) {
    auto bad = testing_rig::saved(rig);
    bad.numbers[7] = 1;
    EXPECT_FALSE(testing_rig::load(rig, bad));
}

}  // namespace
}  // namespace tessera::acpi_pm
