// Register names and bits of the MC146818A real-time clock [MC146818A] as a PC uses it. Nothing but the
// specification.
#pragma once

#include "base/types.h"

namespace tessera::rtc_mc146818 {

// [MC146818A] "Address map". The century byte is the PC's [ACPI 6.5 5.2.9 CENTURY].
inline constexpr u8 kSeconds = 0x00;
inline constexpr u8 kSecondsAlarm = 0x01;
inline constexpr u8 kMinutes = 0x02;
inline constexpr u8 kMinutesAlarm = 0x03;
inline constexpr u8 kHours = 0x04;
inline constexpr u8 kHoursAlarm = 0x05;
inline constexpr u8 kDayOfWeek = 0x06;  // 1 is Sunday
inline constexpr u8 kDayOfMonth = 0x07;
inline constexpr u8 kMonth = 0x08;
inline constexpr u8 kYear = 0x09;
inline constexpr u8 kRegisterA = 0x0a;
inline constexpr u8 kRegisterB = 0x0b;
inline constexpr u8 kRegisterC = 0x0c;
inline constexpr u8 kRegisterD = 0x0d;
inline constexpr u8 kFirstRam = 0x0e;
inline constexpr u8 kCentury = 0x32;
inline constexpr std::size_t kCmosSize = 128;

// Register A: UIP, divider select, rate select.
inline constexpr u8 kUip = 0x80;
inline constexpr u8 kDividerMask = 0x70;
inline constexpr u8 kDivider32KHz = 0x20;  // the only time base a PC has a crystal for
inline constexpr u8 kDividerReset = 0x60;  // bits 6 and 5 set, bit 4 ignored
inline constexpr u8 kRateMask = 0x0f;

enum class RegisterB : u8 {
    DSE = 1 << 0,
    H24 = 1 << 1,  // the data sheet's 24/12
    DM = 1 << 2,   // 1: binary, 0: BCD
    SQWE = 1 << 3,
    UIE = 1 << 4,
    AIE = 1 << 5,
    PIE = 1 << 6,
    SET = 1 << 7,
};
inline constexpr u8 kEnableBits = 0x70;      // PIE, AIE, UIE: the same places as their flags in register C
inline constexpr u8 kClearedByReset = 0x78;  // and SQWE [MC146818A] "RESET"

enum class RegisterC : u8 { UF = 1 << 4, AF = 1 << 5, PF = 1 << 6, IRQF = 1 << 7 };
inline constexpr u8 kFlagBits = 0x70;

inline constexpr u8 kVrt = 0x80;  // register D: the battery is good

// An alarm byte from 0xc0 up matches anything.
inline constexpr u8 kDontCare = 0xc0;
inline constexpr u8 kPm = 0x80;  // in the hours byte of the 12-hour mode

inline constexpr u64 kTimeBaseHz = 32'768;
// [MC146818A] "Update cycle" at 32.768 kHz: UIP rises 244 us before the cycle, which takes 1984 us.
inline constexpr u64 kUpdateInProgressNs = 244'000 + 1'984'000;
// [MC146818A] "Divider control": the first update comes half a second after the divider is let go.
inline constexpr u64 kFirstUpdateNs = 500'000'000;

}  // namespace tessera::rtc_mc146818
