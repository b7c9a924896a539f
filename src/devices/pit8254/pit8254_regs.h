// Registers and bits of the 8254 and of the PC's port 0x61, as their data sheets print them.
// Nothing but the specification lives here.
#pragma once

#include "base/types.h"

namespace tessera::pit8254 {

// [8254] "Programming": the fourth port takes control words.
inline constexpr unsigned kCounters = 3;
inline constexpr unsigned kControlPort = 3;

// [8254] Figure 7, control word: SC1-0, RW1-0, M2-0, BCD.
inline constexpr unsigned kReadBack = 3;  // as SC1-0
enum class Access : u8 { Latch = 0, Low = 1, High = 2, LowThenHigh = 3 };
enum class Mode : u8 {
    InterruptOnTerminalCount = 0,
    HardwareRetriggerableOneShot = 1,
    RateGenerator = 2,
    SquareWave = 3,
    SoftwareTriggeredStrobe = 4,
    HardwareTriggeredStrobe = 5,
};

// [8254] Figure 11, read-back command; the two bits are active low. Bits 3-1 choose counters.
enum class ReadBack : u8 { NoStatus = 1 << 4, NoCount = 1 << 5 };

// [8254] Figure 12, status byte.
enum class StatusBit : u8 { NullCount = 1 << 6, Output = 1 << 7 };

// [PIIX 2.5.5] NMI status and control, port 0x61.
enum class Port61 : u8 {
    Gate2 = 1 << 0,
    SpeakerData = 1 << 1,
    SerrDisable = 1 << 2,
    IochkDisable = 1 << 3,
    RefreshToggle = 1 << 4,
    Output2 = 1 << 5,
};
inline constexpr u8 kPort61Writable = 0x0f;

}  // namespace tessera::pit8254
