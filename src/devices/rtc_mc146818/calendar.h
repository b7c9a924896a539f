// Times as the RTC's registers show them: encoding, decoding, and when an alarm next matches.
#pragma once

#include <array>

#include "base/types.h"
#include "devices/rtc_mc146818/rtc_mc146818_regs.h"

namespace tessera::rtc_mc146818 {

// How the registers show numbers and hours, from DM and 24/12 of register B.
struct Format {
    bool binary = false;
    bool hours24 = true;
};

using CmosBytes = std::array<u8, kCmosSize>;

// Seconds since 1970-01-01 00:00 that the registers can show: years 0 to 9999.
inline constexpr s64 kFirstSecond = -62'167'219'200;
inline constexpr s64 kLastSecond = 253'402'300'799;

// Writes the seven time bytes and the century. `weekday_shift` (0-6) is added to the true day of the week.
void encode_time(s64 seconds, Format format, u8 weekday_shift, CmosBytes& cmos);

struct Decoded {
    s64 seconds;
    u8 weekday_shift;
};
// Takes any bytes. Numbers that no clock shows (second 75, month 0) count on into the next unit or are
// clamped.
[[nodiscard]] Decoded decode_time(const CmosBytes& cmos, Format format);

// The first second at or after `from` at which the alarm bytes match; never more than a day later. `kNever`
// when they hold a time that does not exist.
inline constexpr s64 kNever = ~(s64{1} << 63);
[[nodiscard]] s64 next_alarm(s64 from, Format format, const CmosBytes& cmos);

}  // namespace tessera::rtc_mc146818
