// Numbers of MSRs that this folder treats by name. [SDM 4 table 2-2]
#pragma once

#include "base/types.h"

namespace tessera::kvm {

inline constexpr u32 kMsrTsc = 0x10;
inline constexpr u32 kMsrApicBase = 0x1b;
inline constexpr u32 kMsrTscAdjust = 0x3b;
inline constexpr u32 kMsrTscDeadline = 0x6e0;
inline constexpr u32 kMsrX2apicFirst = 0x800;
inline constexpr u32 kMsrX2apicLast = 0x8ff;

}  // namespace tessera::kvm
