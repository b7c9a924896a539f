// The reset control register at port 0xCF9 as [ICH9] prints it. Nothing but the specification.
#pragma once

#include "base/types.h"

namespace tessera::reset_control {

// [ICH9 13.7.5] RST_CNT
enum class RstCnt : u8 { SYS_RST = 1 << 1, RST_CPU = 1 << 2, FULL_RST = 1 << 3 };
inline constexpr u8 kRstCntMask = 0x0e;

}  // namespace tessera::reset_control
