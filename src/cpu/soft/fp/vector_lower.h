// Lowering of vector instructions, by kind. Each returns null for an instruction that is not of its kind.
#pragma once

#include "cpu/soft/fp/vector_access.h"
#include "cpu/x86/insn.h"

namespace tessera::soft {

Handler lower_table_op(const x86::Insn& in, Op& op);  // vector_lower.cpp: the rows
Handler lower_hot_op(x86::Mnemonic mnemonic, Form form,
                     Source source);                      // vector_hot.cpp: rows with own handlers
Handler lower_vector_store(const x86::Insn& in, Op& op);  // vector_store.cpp: to memory
Handler lower_vector_gpr(const x86::Insn& in,
                         Op& op);  // vector_gpr.cpp: to and from integer registers and flags
Handler lower_vector_string(const x86::Insn& in, Op& op);  // vector_string.cpp: PCMPxSTRx
Handler lower_vector_masked(const x86::Insn& in,
                            Op& op);  // vector_masked.cpp: blends by mask, masked moves, gathers
Handler lower_vector_control(const x86::Insn& in, Op& op);  // vector_control.cpp: MXCSR, VZEROALL

[[nodiscard]] inline Form form_of(const x86::Insn& in) {
    if (!in.has(x86::InsnFlag::Vex)) return Form::Legacy;
    return in.has(x86::InsnFlag::VexL) ? Form::Vex256 : Form::Vex128;
}

// The operands before the immediate.
[[nodiscard]] inline unsigned operands_before_immediate(const x86::Insn& in) {
    unsigned n = in.operand_count;
    while (n > 0 && in.is(n - 1, x86::OperandKind::Immediate)) --n;
    return n;
}
[[nodiscard]] inline bool has_immediate(const x86::Insn& in) {
    return operands_before_immediate(in) != in.operand_count;
}

// Turns a form known at run time into one known while compiling: f.template operator()<Form>().
template <class F>
Handler for_form(Form form, F f) {
    switch (form) {
        case Form::Legacy: return f.template operator()<Form::Legacy>();
        case Form::Vex128: return f.template operator()<Form::Vex128>();
        case Form::Vex256: return f.template operator()<Form::Vex256>();
    }
    return nullptr;
}

}  // namespace tessera::soft
