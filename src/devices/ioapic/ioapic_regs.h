// Registers and bits of the 82093AA I/O APIC, and the EOI register its successors added.
// Nothing but the specification lives here.
#pragma once

#include "base/types.h"

namespace tessera::ioapic {

// [82093AA 3.1] Offsets in the page; [ICH9 13.5.1] for EOIR.
enum class Window : u16 { IOREGSEL = 0x00, IOWIN = 0x10, EOIR = 0x40 };

// [82093AA 3.2] What IOREGSEL selects.
enum class Index : u8 { IOAPICID = 0x00, IOAPICVER = 0x01, IOAPICARB = 0x02, IOREDTBL = 0x10 };

inline constexpr unsigned kPins = 24;
inline constexpr unsigned kIndexEnd = 0x10 + 2 * kPins;

inline constexpr u32 kVersion = 0x20;
inline constexpr unsigned kIdShift = 24;
inline constexpr u8 kIdMask = 0x0f;  // [82093AA 3.2.1] bits 27:24

// [82093AA 3.2.4] Redirection table entry.
enum class Redirection : u64 {
    LogicalDestination = 1 << 11,
    DeliveryStatus = 1 << 12,
    ActiveLow = 1 << 13,
    RemoteIrr = 1 << 14,
    Level = 1 << 15,
    Masked = 1 << 16,
};
inline constexpr unsigned kDeliveryModeShift = 8;
inline constexpr unsigned kDestinationShift = 56;
// What software may write, the two status bits left out.
inline constexpr u64 kWritable = u64{0xff} << kDestinationShift | 0x1'afff;

}  // namespace tessera::ioapic
