// Registers of the HPET [HPET 2.3]: the specification and nothing else.
#pragma once

#include "base/types.h"

namespace tessera::hpet {

inline constexpr u64 kSize = 0x400;

inline constexpr u64 kCapabilities = 0x000;
inline constexpr u64 kConfiguration = 0x010;
inline constexpr u64 kInterruptStatus = 0x020;
inline constexpr u64 kMainCounter = 0x0f0;
// Of timer n, at kTimers + n * kTimerStride:
inline constexpr u64 kTimers = 0x100;
inline constexpr u64 kTimerStride = 0x20;
inline constexpr u64 kTimerConfiguration = 0x00;
inline constexpr u64 kTimerComparator = 0x08;
inline constexpr u64 kTimerMessage = 0x10;

// [HPET 2.3.4]
inline constexpr u64 kRevision = 1;
inline constexpr unsigned kLastTimerShift = 8;
inline constexpr u64 kCounter64 = 1 << 13;
inline constexpr u64 kLegacyCapable = 1 << 15;
inline constexpr unsigned kVendorShift = 16;
inline constexpr unsigned kPeriodShift = 32;  // femtoseconds

// [HPET 2.3.5]
enum class Config : u64 { Enable = 1 << 0, LegacyRoute = 1 << 1 };
inline constexpr u64 kConfigBits = 3;

// [HPET 2.3.8]
enum class TimerConfig : u64 {
    Level = 1 << 1,
    InterruptEnable = 1 << 2,
    Periodic = 1 << 3,
    PeriodicCapable = 1 << 4,
    Size64 = 1 << 5,
    ValueSet = 1 << 6,
    Mode32 = 1 << 8,
    MessageEnable = 1 << 14,
    MessageCapable = 1 << 15,
};
inline constexpr unsigned kRouteShift = 9;
inline constexpr u64 kRouteMask = 0x1f;
inline constexpr unsigned kRouteCapShift = 32;
inline constexpr u64 kTimerConfigBits = 0x7f4e;  // those software writes

}  // namespace tessera::hpet
