#include "devices/rtc_mc146818/calendar.h"

#include <algorithm>
#include <chrono>

namespace tessera::rtc_mc146818 {

namespace {

constexpr s64 kSecondsPerDay = 86'400;

constexpr s64 floor_div(s64 a, s64 b) {
    return a / b - (a % b < 0 ? 1 : 0);
}

u8 encode_number(u64 value, Format format) {
    return static_cast<u8>(format.binary ? value : value / 10 << 4 | value % 10);
}

u8 decode_number(u8 byte, Format format) {
    return static_cast<u8>(format.binary ? byte : (byte >> 4) * 10 + (byte & 0x0f));
}

u8 encode_hour(u64 hour, Format format) {
    if (format.hours24) return encode_number(hour, format);
    const u64 hour12 = hour % 12 == 0 ? 12 : hour % 12;
    return static_cast<u8>(encode_number(hour12, format) | (hour >= 12 ? kPm : 0));
}

// 0 to 23 for hours that exist; other bytes give numbers that may be larger.
u8 decode_hour(u8 byte, Format format) {
    if (format.hours24) return decode_number(byte, format);
    const u8 hour12 = decode_number(byte & 0x7f, format);
    return static_cast<u8>((hour12 == 12 ? 0 : hour12) + ((byte & kPm) != 0 ? 12 : 0));
}

// True day of the week, 0 is Sunday: 1970-01-01 was a Thursday.
u8 weekday_of(s64 days) {
    return static_cast<u8>(((days + 4) % 7 + 7) % 7);
}

}  // namespace

void encode_time(s64 seconds, Format format, u8 weekday_shift, CmosBytes& cmos) {
    seconds = std::clamp(seconds, kFirstSecond, kLastSecond);
    const s64 days = floor_div(seconds, kSecondsPerDay);
    const auto in_day = static_cast<u64>(seconds - days * kSecondsPerDay);
    const std::chrono::year_month_day date{std::chrono::sys_days{std::chrono::days{days}}};
    const auto year = static_cast<u64>(static_cast<int>(date.year()));
    cmos[kSeconds] = encode_number(in_day % 60, format);
    cmos[kMinutes] = encode_number(in_day / 60 % 60, format);
    cmos[kHours] = encode_hour(in_day / 3600, format);
    cmos[kDayOfWeek] = static_cast<u8>((weekday_of(days) + weekday_shift) % 7 + 1);
    cmos[kDayOfMonth] = encode_number(static_cast<unsigned>(date.day()), format);
    cmos[kMonth] = encode_number(static_cast<unsigned>(date.month()), format);
    cmos[kYear] = encode_number(year % 100, format);
    cmos[kCentury] = encode_number(year / 100, format);
}

Decoded decode_time(const CmosBytes& cmos, Format format) {
    const auto number = [&](u8 index) -> s64 { return decode_number(cmos[index], format); };
    const s64 year = std::min<s64>(number(kCentury), 99) * 100 + std::min<s64>(number(kYear), 99);
    const auto month = static_cast<unsigned>(std::clamp<s64>(number(kMonth), 1, 12));
    const std::chrono::sys_days first_of_month =
        std::chrono::year{static_cast<int>(year)} / std::chrono::month{month} / std::chrono::day{1};
    const s64 days = first_of_month.time_since_epoch().count() + number(kDayOfMonth) - 1;
    const s64 in_day =
        s64{decode_hour(cmos[kHours], format)} * 3600 + number(kMinutes) * 60 + number(kSeconds);
    const s64 seconds = std::clamp(days * kSecondsPerDay + in_day, kFirstSecond, kLastSecond);
    const u8 truth = weekday_of(floor_div(seconds, kSecondsPerDay));
    const auto shown = static_cast<u8>((cmos[kDayOfWeek] + 6) % 7);
    return {.seconds = seconds, .weekday_shift = static_cast<u8>((shown + 7 - truth) % 7)};
}

// Skips whole hours and minutes that do not match, so that it takes at most 24 + 60 + 60 steps.
s64 next_alarm(s64 from, Format format, const CmosBytes& cmos) {
    const auto matches = [](u8 wanted, u8 value, s64 now) { return wanted >= kDontCare || value == now; };
    const u8 hour = decode_hour(cmos[kHoursAlarm], format);
    const u8 minute = decode_number(cmos[kMinutesAlarm], format);
    const u8 second = decode_number(cmos[kSecondsAlarm], format);
    s64 at = from;
    while (at - from <= kSecondsPerDay) {
        const s64 in_day = at - floor_div(at, kSecondsPerDay) * kSecondsPerDay;
        if (!matches(cmos[kHoursAlarm], hour, in_day / 3600))
            at += 3600 - in_day % 3600;
        else if (!matches(cmos[kMinutesAlarm], minute, in_day / 60 % 60))
            at += 60 - in_day % 60;
        else if (!matches(cmos[kSecondsAlarm], second, in_day % 60))
            ++at;
        else
            return at;
    }
    return kNever;
}

}  // namespace tessera::rtc_mc146818
