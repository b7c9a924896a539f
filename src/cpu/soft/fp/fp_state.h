// Inside fp/: the x87 and MXCSR state, and the faults of instructions that may not use it.
#pragma once

#include "cpu/soft/vcpu.h"

namespace tessera::soft {

inline constexpr u32 kMxcsrFlags = 0x3f;    // IE DE ZE OE UE PE
inline constexpr u32 kMxcsrMasks = 0x1f80;  // the same, shifted
inline constexpr u32 kMxcsrValid = 0xffff;  // MXCSR_MASK: everything else is reserved [SDM 1 10.2.3]

namespace xcr0 {
inline constexpr u64 kX87 = 1 << 0, kSse = 1 << 1, kAvx = 1 << 2;
inline constexpr u64 kOffered = kX87 | kSse | kAvx;
}  // namespace xcr0

inline void set_host_mxcsr(u32 value) {
    asm volatile("ldmxcsr %0" : : "m"(value));
}
[[nodiscard]] inline u32 host_mxcsr() {
    u32 value = 0;
    asm volatile("stmxcsr %0" : "=m"(value));
    return value;
}

// Guest MXCSR -> host (masked), and the host's sticky flags -> guest.
void load_mxcsr(Vcpu& c);
void sync_mxcsr(Vcpu& c);

void x87_load(Vcpu& c);

// The status word as the guest sees it: ES and B follow from the flags and the guest's masks.
[[nodiscard]] inline u16 x87_status_of(u16 status, u16 control) {
    const bool pending = (status & ~control & 0x3f) != 0;
    return static_cast<u16>((status & 0x7f7f) | (pending ? 0x8080 : 0));
}

// Changes TOP of a state that is not live. The registers stay where they are, so their numbers change.
void set_x87_top(x86::Fpu& fpu, unsigned top);

// As an MMX instruction leaves it: TOP 0, all registers valid.
[[nodiscard]] inline bool mmx_ready(const x86::Fpu& fpu) {
    return (fpu.status & 0x3800) == 0 && fpu.tag == 0;
}

// VEX instructions exist [SDM 2A 2.4].
[[nodiscard]] inline bool avx_offered(const Vcpu& c) {
    constexpr u64 kState = xcr0::kSse | xcr0::kAvx;
    return (c.cr4 & x86::cr4::kOsxsave) != 0 && (c.xcr0 & kState) == kState && c.protected_mode() &&
           !c.v8086();
}

}  // namespace tessera::soft
