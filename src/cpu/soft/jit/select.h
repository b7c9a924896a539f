// Which guest instructions run as copies of themselves, and where their operands stand in the encoding.
#pragma once

#include <optional>

#include "cpu/x86/insn.h"

namespace tessera::soft::jit {

// The places of integer registers in an encoding.
struct Places {
    bool reg = false;  // ModRM.reg, or the opcode's low bits
    bool rm = false;   // ModRM.rm as a register
    bool vvvv = false;
    u8 reg_number = 0, rm_number = 0;        // as encoded (AH is 4), vvvv is Insn::vex_vvvv
    bool reg_high = false, rm_high = false;  // AH CH DH BH
};

struct MemoryUse {
    bool used = false;  // there is a memory operand that is accessed
    bool write = false;
    u8 size = 0;
    bool aligned = false;  // #GP unless aligned to its size
};

[[nodiscard]] Places places_of(const x86::Insn& in);
// The instruction can have its two registers' places exchanged, with these bits of the opcode changed.
[[nodiscard]] std::optional<u8> exchange_registers(const x86::Insn& in);
// The register in ModRM.rm may be exchanged for eight bytes of memory that hold it; the instruction must not
// have this register in another place.
[[nodiscard]] bool may_be_memory(const x86::Insn& in, unsigned rm);
// The integer register is overwritten whatever it was.
[[nodiscard]] bool overwrites(const x86::Insn& in, unsigned guest);
// BT and its like with a register as bit number and a memory operand, which is a bit string of any length.
[[nodiscard]] bool is_bit_string(const x86::Insn& in);
[[nodiscard]] MemoryUse memory_use(const x86::Insn& in);
// An unaligned store of a vector register and nothing else.
[[nodiscard]] bool stores_vector(const x86::Insn& in);
// The instruction may be copied, once its integer registers and its memory operand are replaced.
[[nodiscard]] bool is_copyable(const x86::Insn& in);
// Which operands (bit n: operand n) the instruction writes, if they are integer registers.
[[nodiscard]] unsigned written_operands(const x86::Insn& in);

// Sets of integer registers: bit n is register n.
[[nodiscard]] constexpr u16 bit_of(unsigned guest) {
    return static_cast<u16>(1U << guest);
}
// Those of the operands in `which` (bit n: operand n).
[[nodiscard]] u16 registers_of(const x86::Insn& in, unsigned which);
// What the instruction writes, at most. RSP, where pushes, pops, calls and returns change it, is not among
// them.
[[nodiscard]] u16 registers_written(const x86::Insn& in);

}  // namespace tessera::soft::jit
