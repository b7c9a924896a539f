// One row per MMX instruction that is a pure function of its operands.
#pragma once

#include <span>

#include "cpu/soft/fp/vector_row.h"

namespace tessera::soft {

struct MmxRow {
    x86::Mnemonic mnemonic;
    u8 memory;       // bytes of the memory operand; 0: there is none
    bool immediate;  // 256 functions, kMmxStride apart
    VectorFn fn;     // *d = f(*d, *b), eight bytes; a is not used
};
inline constexpr unsigned kMmxStride = 16;

std::span<const MmxRow> mmx_rows();  // mmx_rows.cpp

}  // namespace tessera::soft
