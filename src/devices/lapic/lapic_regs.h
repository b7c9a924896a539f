// Registers and bits of the local APIC as [SDM 3A 11] prints them. Nothing but the specification lives here.
#pragma once

#include "base/types.h"

namespace tessera::lapic {

// [SDM 3A Table 11-1] (memory-mapped, at 16 times this index) and [SDM 3A Table 11-6] (MSRs, at 0x800 + this
// index).
enum class Register : u8 {
    Id = 0x02,
    Version = 0x03,
    Tpr = 0x08,
    Apr = 0x09,  // xAPIC only
    Ppr = 0x0a,
    Eoi = 0x0b,
    Rrd = 0x0c,  // xAPIC only
    Ldr = 0x0d,
    Dfr = 0x0e,  // xAPIC only
    Svr = 0x0f,
    Isr0 = 0x10,  // eight of each
    Tmr0 = 0x18,
    Irr0 = 0x20,
    Esr = 0x28,
    LvtCmci = 0x2f,
    Icr = 0x30,
    IcrHigh = 0x31,  // xAPIC only: ICR is one 64-bit register in x2APIC mode
    LvtTimer = 0x32,
    LvtThermal = 0x33,
    LvtPerformance = 0x34,
    LvtLint0 = 0x35,
    LvtLint1 = 0x36,
    LvtError = 0x37,
    InitialCount = 0x38,
    CurrentCount = 0x39,
    DivideConfiguration = 0x3e,
    SelfIpi = 0x3f,  // x2APIC only
};

// Entries of the local vector table, as an index of ours.
enum class Lvt : u8 { Cmci, Timer, Thermal, Performance, Lint0, Lint1, Error };
inline constexpr unsigned kLvtCount = 7;

inline constexpr u32 kMsrApicBase = 0x1b;
inline constexpr u32 kMsrTscDeadline = 0x6e0;
inline constexpr u32 kMsrX2apicFirst = 0x800;
inline constexpr u32 kMsrX2apicLast = 0x8ff;

// IA32_APIC_BASE [SDM 3A Figure 11-26].
enum class ApicBase : u64 { BSP = 1 << 8, EXTD = 1 << 10, EN = 1 << 11 };
inline constexpr u64 kDefaultBase = 0xfee0'0000;

// Spurious interrupt vector register [SDM 3A Figure 11-23].
enum class Svr : u32 { Enable = 1 << 8, FocusDisabled = 1 << 9, EoiBroadcastSuppression = 1 << 12 };
inline constexpr u32 kSvrBits = 0x13ff;
inline constexpr u32 kSvrReset = 0xff;

// Local vector table [SDM 3A Figure 11-8].
enum class LvtBit : u32 {
    DeliveryStatus = 1 << 12,
    ActiveLow = 1 << 13,
    RemoteIrr = 1 << 14,
    Level = 1 << 15,
    Masked = 1 << 16,
};
enum class TimerMode : u8 { OneShot = 0, Periodic = 1, TscDeadline = 2, Reserved = 3 };  // bits 18:17

// Error status register [SDM 3A Figure 11-9]; bits 0-3 are of the P6's serial bus.
enum class Esr : u32 {
    RedirectableIpi = 1 << 4,
    SendIllegalVector = 1 << 5,
    ReceiveIllegalVector = 1 << 6,
    IllegalRegister = 1 << 7,
};

// Interrupt command register [SDM 3A Figure 11-12].
enum class Icr : u32 { Logical = 1 << 11, Busy = 1 << 12, Assert = 1 << 14, Level = 1 << 15 };
enum class Shorthand : u8 { None = 0, Self = 1, AllIncludingSelf = 2, AllExcludingSelf = 3 };  // bits 19:18
inline constexpr u32 kIcrBits = 0xccfff;  // of the low half, without the reserved bits 13, 16, 17, 20-31

// Destination format register [SDM 3A Figure 11-14]: bits 31:28, the others read as ones.
inline constexpr u32 kDfrFlat = 0xffff'ffff;
inline constexpr u32 kDfrModelShift = 28;
inline constexpr u32 kDfrModelFlat = 0xf;
inline constexpr u32 kDfrModelCluster = 0x0;

// [SDM 3A 11.5.2], [SDM 3A 11.8.5]: vectors below are not accepted from anywhere.
inline constexpr u8 kFirstLegalVector = 16;

}  // namespace tessera::lapic
