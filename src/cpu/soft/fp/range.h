// Inside fp/: whether a SIMD result out of range is exact, for guests that unmask underflow or overflow.
#pragma once

#include "cpu/soft/fp/vector_row.h"

namespace tessera::soft {

// What an instruction was given and what came out; b may be as short as the row says.
struct Operands {
    const u8* d;
    const void* a;
    const void* b;
    const u8* result;
};

// With underflow (or overflow) unmasked a tiny (or huge) result is rounded as if exponents had no bounds, and
// the precision flag says whether that lost anything [SDM 1 4.9.1.5]; the host, which masks both, also
// reports what denormalisation or infinity lost. Computes each element alone, with exponents that keep its
// result in range. True if any was inexact. Leaves the host's MXCSR without meaning.
bool inexact_without_limits(const Row& row, VectorFn fn, const Operands& operands, bool wide, u32 mxcsr);

}  // namespace tessera::soft
