// lower_integer: asks the families in turn.
#include "cpu/soft/integer/handlers.h"

namespace tessera::soft {

bool lower_integer(const x86::Insn& in, Op& op, bool* /*ends_block*/) {
    return lower_alu(in, op) || lower_move(in, op) || lower_stack(in, op) || lower_shift(in, op) ||
           lower_multiply(in, op) || lower_bits(in, op) || lower_atomic(in, op) || lower_flags(in, op) ||
           lower_bmi(in, op) || lower_decimal(in, op);
}

}  // namespace tessera::soft
