// Which bits of the control registers this processor has.
#pragma once

#include "cpu/soft/soft_cpu.h"
#include "cpu/soft/vcpu.h"

namespace tessera::soft {

// All of RFLAGS that exists [SDM 1 3.4.3].
inline constexpr u64 kRflagsMask = 0x3f'7fd7;
// [APM 2 3.1.7] Automatic IBRS: accepted, see cpuid.cpp for why there is nothing to do.
inline constexpr u64 kEferAutoIbrs = 1 << 21;
inline constexpr u64 kEferMask =
    x86::efer::kSce | x86::efer::kLme | x86::efer::kLma | x86::efer::kNxe | kEferAutoIbrs;

[[nodiscard]] u64 cr4_mask(CpuModel model);
// WRMSR to EFER: #GP(0) for what it refuses.
void set_efer(Vcpu& c, u64 value);

}  // namespace tessera::soft
