// Lowering: from a decoded instruction to the Op the interpreter runs. One function per instruction class.
#pragma once

#include "cpu/soft/op.h"
#include "cpu/soft/vcpu.h"
#include "cpu/x86/insn.h"

namespace tessera::soft {

// `op` comes with ip, len, n, flags, and (if there is a memory operand) base, index, scale, disp, seg filled.
// Sets fn and the rest. Returns false for an instruction it does not know: the caller makes it #UD.
// *ends_block must be set true when fn does not continue with the next op (end_with, branches).
bool lower_integer(const x86::Insn& in, Op& op, bool* ends_block);
bool lower_string(const x86::Insn& in, Op& op, bool* ends_block);
bool lower_branch(const x86::Insn& in, Op& op, bool* ends_block);
bool lower_system(const x86::Insn& in, Op& op, bool* ends_block);
bool lower_x87(const x86::Insn& in, Op& op, bool* ends_block);
bool lower_mmx(const x86::Insn& in, Op& op, bool* ends_block);
bool lower_vector(const x86::Insn& in, Op& op, bool* ends_block);
bool lower_xstate(const x86::Insn& in, Op& op, bool* ends_block);

// Byte offset of an integer register operand in Vcpu::reg (Op::r1, r2, r3).
[[nodiscard]] inline u8 gpr_offset(const x86::Operand& o) {
    return static_cast<u8>(o.kind == x86::OperandKind::GprHigh ? o.reg * 8 + 1 : o.reg * 8);
}

}  // namespace tessera::soft
