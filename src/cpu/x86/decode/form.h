// One row of the opcode tables as the decoder reads it: which encodings it matches, the instruction they are,
// and where its operands come from. row.h makes it from text.
#pragma once

#include <array>

#include "cpu/x86/insn.h"

namespace tessera::x86::tables {

// What a row may ask about an encoding, gathered into one word so that a match is one compare.
namespace key {
inline constexpr u32 kPrefix = 3 << 0;  // 0 none, 1 66, 2 F3, 3 F2, as VEX.pp; the last of F2 and F3 hides 66
inline constexpr u32 kRepeat = 2 << 0;  // the bit of kPrefix that says F2 or F3
inline constexpr u32 kMode64 = 1 << 2;
inline constexpr u32 kW = 1 << 3;
inline constexpr u32 kL = 1 << 4;
inline constexpr u32 kRexB = 1 << 5;
inline constexpr u32 kModrmShift = 8;  // the modrm byte
inline constexpr u32 kRm = 7 << 8;
inline constexpr u32 kReg = 7 << 11;
inline constexpr u32 kMod = 3 << 14;
inline constexpr u32 kRegisterForm = 1 << 16;  // mod is 3
}  // namespace key

// Where an operand comes from.
enum class Source : u8 {
    None,
    RegGpr,     // modrm.reg
    RmGpr,      // modrm.rm: register or memory
    OpcodeGpr,  // low three bits of the opcode
    VvvvGpr,
    Accumulator,  // AL, AX, EAX, RAX
    Cl,
    Dx,
    RmMemory,   // modrm.rm, memory only
    AnyModGpr,  // modrm.rm is a register whatever mod says (MOV CR, MOV DR)
    RegSegment,
    RegControl,
    RegDebug,
    FixedSegment,  // + Seg
    RegMmx = FixedSegment + 6,
    RmMmx,
    RegVector,
    RmVector,
    VvvvVector,
    ImmediateVector,  // bits 4-7 of an immediate byte
    Xmm0,
    St0,
    StRm,
    Imm8,
    Imm8Signed,  // extended to the operand size
    ImmZ,        // 2 or 4 bytes, sign-extended to the operand size
    ImmV,        // 2, 4, or 8 bytes
    Imm16,
    ImmOne,      // the constant 1 of D0, D1
    Imm8Second,  // ENTER's nesting level
    Rel8,
    RelZ,
    FarPointer,
    Moffs,  // a memory operand given by its offset alone
};

// How many bytes an operand has. The first block is fixed, the others depend on operand size or VEX.L.
enum class Size : u8 {
    S0,
    S1,
    S2,
    S4,
    S6,
    S8,
    S10,
    S16,
    S32,
    S512,
    V,      // operand size
    Z,      // operand size, at most 4
    Far,    // operand size + 2, at most 6: no far pointer of AMD processors has a 64-bit offset [APM 3 LFS],
            // [measured]
    Pair,   // twice the operand size (BOUND)
    Crc,    // operand size, at least 4 (CRC32's register)
    Table,  // pseudo-descriptor: 6, with a 64-bit base 10
    Env,    // x87 environment: 14 or 28
    FpuSave,  // x87 environment and registers: 94 or 108
    X,        // 16 or 32 by VEX.L
    Half,     // of X
    Quarter,
    Eighth,
    Count_,
};

struct OperandSpec {
    Source source = Source::None;
    Size size = Size::S0;
};

enum class OperandSizeRule : u8 {
    Byte,       // 1
    V,          // 66 and REX.W
    Z,          // as V, but 4 in place of 8 (I/O; far loads, which on AMD know no 64-bit offset)
    Default64,  // 8 in 64-bit mode, unless 66 without REX.W makes it 2
    Y,          // 8 with REX.W or VEX.W in 64-bit mode, else 4; 66 is ignored or part of the opcode
    Native,     // 8 in 64-bit mode, else 4
    Table,      // 8 in 64-bit mode, else as V (LGDT)
    Count_,
};

enum class Trait : u16 {
    Lockable = 1 << 0,     // LOCK is legal if the destination is memory
    UsesVvvv = 1 << 1,     // else VEX.vvvv must be 1111
    AnyMod = 1 << 2,       // mod is ignored: always the register form
    Condition = 1 << 3,    // the opcode's low bits are a condition: flags read follow from it
    ShiftCount = 1 << 4,   // flags written depend on an immediate count
    MaybeFlags = 1 << 5,   // flags written only perhaps, so they count as read as well
    RepeatFlags = 1 << 6,  // the same if there is a REP prefix
    VsibX = 1 << 7,        // VSIB index of the vector's size
    Vsib16 = 1 << 8,       // VSIB index in XMM
    NeedsModrm = 1 << 9,
};

struct Form {
    u32 mask = 0;
    u32 value = 0;
    Mnemonic mnemonic = Mnemonic::Invalid;
    InsnClass insn_class = InsnClass::Integer;
    OperandSizeRule size_rule = OperandSizeRule::V;
    Flags<Trait> traits;
    u8 operand_count = 0;
    u8 mandatory_prefix = 0;
    std::array<OperandSpec, 4> operand{};
    u16 flags_read = 0;
    u16 flags_written = 0;
    u16 flags_undefined = 0;

    [[nodiscard]] constexpr bool matches(u32 key) const { return (key & mask) == value; }
};

// Where the rows of an opcode are. If `grouped`, `first` is the number of a group, which has a slot per
// modrm.reg.
struct Slot {
    u16 first = 0;
    u8 count = 0;  // 0: no such instruction
    bool grouped : 1 = false;
    bool has_modrm : 1 = false;
};

struct OpcodeMap {
    const Form* forms;
    const Slot* slots;  // 256
    const std::array<Slot, 8>* groups;
};

extern const OpcodeMap one_byte_map;
extern const OpcodeMap two_byte_map;      // 0F
extern const OpcodeMap three_byte38_map;  // 0F 38
extern const OpcodeMap three_byte3a_map;  // 0F 3A
extern const OpcodeMap vex0f_map;
extern const OpcodeMap vex0f38_map;
extern const OpcodeMap vex0f3a_map;

}  // namespace tessera::x86::tables
