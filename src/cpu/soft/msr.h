// Model-specific registers. RDMSR and WRMSR raise #GP(0) for what is not in the table of msr.cpp, as hardware
// does.
#pragma once

#include "cpu/soft/vcpu.h"

namespace tessera::soft {

// False: #GP(0).
[[nodiscard]] bool read_msr(Vcpu& c, u32 index, u64& value);
// False: #GP(0). May also raise by itself.
[[nodiscard]] bool write_msr(Vcpu& c, u32 index, u64 value);

// The guest's time-stamp counter now.
[[nodiscard]] u64 guest_tsc(const Vcpu& c);

}  // namespace tessera::soft
