// Which instructions a processor has, by the same table its CPUID is made from.
#pragma once

#include <span>

#include "cpu/x86/cpuid.h"
#include "cpu/x86/insn.h"

namespace tessera::x86 {

// Makes of a decoded instruction what a processor of that level takes the same bytes for. LZCNT and TZCNT are
// BSR and BSF with a meaningless prefix where their features are missing [APM 3 LZCNT, TZCNT]; false: #UD.
// SSE to SSE4.1, x87 and MMX are part of every level and not looked at.
[[nodiscard]] bool adapt_to(FeatureLevel level, Insn& in);

// decode() for a processor of that level.
DecodeStatus decode(std::span<const u8> bytes, CodeSize size, FeatureLevel level, Insn& out);

}  // namespace tessera::x86
