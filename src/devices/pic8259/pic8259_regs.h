// Command words of the 8259A as its data sheet prints them. Nothing but the specification lives here.
#pragma once

#include "base/types.h"

namespace tessera::pic8259 {

// [8259A] Figure 7. A command with D4 set is ICW1; else D3 tells OCW3 from OCW2.
enum class Icw1 : u8 { IC4 = 1 << 0, SNGL = 1 << 1, ADI = 1 << 2, LTIM = 1 << 3, Select = 1 << 4 };
enum class Icw4 : u8 { UPM = 1 << 0, AEOI = 1 << 1, MasterBuffer = 1 << 2, BUF = 1 << 3, SFNM = 1 << 4 };
inline constexpr u8 kIcw4Bits = 0x1f;

// [8259A] Figure 8.
inline constexpr u8 kOcw3Select = 1 << 3;
enum class Ocw2 : u8 {  // R, SL, EOI
    RotateInAutoEoiClear = 0b000,
    NonSpecificEoi = 0b001,
    NoOperation = 0b010,
    SpecificEoi = 0b011,
    RotateInAutoEoiSet = 0b100,
    RotateOnNonSpecificEoi = 0b101,
    SetPriority = 0b110,
    RotateOnSpecificEoi = 0b111,
};
enum class Ocw3 : u8 { RIS = 1 << 0, RR = 1 << 1, Poll = 1 << 2, SMM = 1 << 5, ESMM = 1 << 6 };

inline constexpr u8 kPollRequest = 1 << 7;

// The data sheet's default: an acknowledge without a request answers as IR7.
inline constexpr unsigned kSpuriousLevel = 7;

// [PIIX 2.5.12] Edge/level control: IRQ 0, 1, 2, 8 and 13 are edges by wiring.
inline constexpr u8 kElcr1Writable = 0xf8;
inline constexpr u8 kElcr2Writable = 0xde;

// On the PC the slave's INT is the master's IR2 [PIIX 2.5.3].
inline constexpr unsigned kCascadeLevel = 2;

}  // namespace tessera::pic8259
