// LDMXCSR, STMXCSR, VZEROALL, VZEROUPPER.
#include "cpu/soft/fp/fp.h"
#include "cpu/soft/fp/vector_lower.h"

namespace tessera::soft {

namespace {

using x86::Insn;
using x86::Mnemonic;

// 64-bit mode has sixteen registers, the others eight.
unsigned register_count(const Vcpu& c) {
    return c.code64() ? 16 : 8;
}

template <Form F>
void ldmxcsr(Vcpu& c, const Op& op) {
    check_available(c, kTrapOf<F>);
    const u32 value = load<u32>(c, linear(c, op, 4, Access::Read), op.seg);
    if ((value & ~kMxcsrValid) != 0) raise_gp0(c);
    c.mxcsr = value;
    load_mxcsr(c);
    update_fp_enables(c);
}

template <Form F>
void stmxcsr(Vcpu& c, const Op& op) {
    check_available(c, kTrapOf<F>);
    sync_mxcsr(c);
    store<u32>(c, linear(c, op, 4, Access::Write), c.mxcsr, op.seg);
}

void vzeroall(Vcpu& c, const Op& /*op*/) {
    check_available(c, kTrapAvx);
    for (unsigned i = 0; i < register_count(c); ++i) c.ymm[i] = {};
}

void vzeroupper(Vcpu& c, const Op& /*op*/) {
    check_available(c, kTrapAvx);
    for (unsigned i = 0; i < register_count(c); ++i) clear_upper(c, static_cast<u8>(i));
}

}  // namespace

Handler lower_vector_control(const Insn& in, Op& /*op*/) {
    switch (in.mnemonic) {
        case Mnemonic::Ldmxcsr: return continue_with<ldmxcsr<Form::Legacy>>;
        case Mnemonic::Vldmxcsr: return continue_with<ldmxcsr<Form::Vex128>>;
        case Mnemonic::Stmxcsr: return continue_with<stmxcsr<Form::Legacy>>;
        case Mnemonic::Vstmxcsr: return continue_with<stmxcsr<Form::Vex128>>;
        case Mnemonic::Vzeroall: return continue_with<vzeroall>;
        case Mnemonic::Vzeroupper: return continue_with<vzeroupper>;
        default: return nullptr;
    }
}

}  // namespace tessera::soft
