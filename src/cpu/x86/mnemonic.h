// The names of all instructions the processor has, and the class each belongs to; the list is mnemonics.def.
#pragma once

#include "base/types.h"

namespace tessera::x86 {

enum class Mnemonic : u16 {
    Invalid,
#define TESSERA_MNEMONIC(id, insn_class) id,
#include "cpu/x86/mnemonics.def"
#undef TESSERA_MNEMONIC
    Count_,
};

inline constexpr unsigned kMnemonicCount = static_cast<unsigned>(Mnemonic::Count_);

// What kind of instruction it is; selects who lowers it. One class per mnemonic, except that instructions on
// MM registers are of class Mmx in Insn::insn_class even where the same mnemonic on XMM registers is of class
// Vector.
enum class InsnClass : u8 {
    Integer,  // ALU, moves, shifts, bits, stack (push, pop, enter, leave), flags, BMI, cmov, setcc, xchg,
              // cmpxchg
    String,   // MOVS CMPS STOS LODS SCAS INS OUTS
    Branch,   // near jumps, calls, returns, LOOP*, JCXZ
    System,   // far transfers, interrupts, IRET, segments, control registers, MSRs, I/O, CPUID, HLT, cache,
              // TSC, ...
    X87,
    Mmx,     // on MM registers, incl. their SSE forms (PSHUFW, CVTPI2PS, MOVQ2DQ, ...)
    Vector,  // SSE..SSE4.2, AES, PCLMUL, SHA, AVX, AVX2, FMA, F16C, LDMXCSR, VZEROUPPER
    XState,  // FXSAVE/FXRSTOR, XSAVE family, XGETBV, XSETBV
};

// The id in lower case ("add", "jcc", "movsd"); "invalid" for Invalid and for numbers that are no mnemonic.
const char* name(Mnemonic mnemonic);

// The class of the mnemonic in mnemonics.def; Integer for Invalid.
InsnClass insn_class_of(Mnemonic mnemonic);

}  // namespace tessera::x86
