// Copies a decoded guest instruction with other registers and another memory operand.
#pragma once

#include "cpu/soft/jit/emitter.h"
#include "cpu/x86/insn.h"

namespace tessera::soft::jit {

// What the copy's operands are. Vector, MMX and x87 registers, and everything implied, stay as they are.
struct Operands {
    u8 reg = 0;           // host register (0-15) of ModRM.reg, or of the opcode's low bits; or /n
    bool memory = false;  // ModRM.rm is `m`, else the register `rm`
    u8 rm = 0;
    Mem m;
    u8 vvvv = 0;
    u8 opcode_change = 0;  // bits that differ in the opcode: 2 for the twin with the operands exchanged
    bool drop_lock = false;
};

// Whether the instruction can be written with these operands (AH and its like have no place beside R8-R15).
[[nodiscard]] bool can_reencode(const x86::Insn& in, const Operands& to);
// `bytes` is the guest's instruction. At most 20 bytes are written.
void reencode(Emitter& e, const x86::Insn& in, const u8* bytes, const Operands& to);

}  // namespace tessera::soft::jit
