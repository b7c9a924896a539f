// One decoded x86 instruction: all encodings dissolved into operands, plus the raw fields a re-encoder needs.
// The decoder (decode/) makes it; interpreter, translator, tracer and tests read it.
#pragma once

#include <array>
#include <span>

#include "base/flags.h"
#include "base/types.h"
#include "cpu/x86/mnemonic.h"
#include "cpu/x86/state.h"

namespace tessera::x86 {

enum class CodeSize : u8 { Bits16, Bits32, Bits64 };

enum class OperandKind : u8 {
    None,
    Gpr,         // reg 0-15, of `size` bytes
    GprHigh,     // AH CH DH BH as reg 0-3, size 1
    Segment,     // reg is a Seg
    Control,     // CR0-CR15
    Debug,       // DR0-DR15
    Mmx,         // MM0-MM7
    Vector,      // XMM/YMM 0-15; size 16 or 32, or the bytes used (4, 8) for scalars
    St,          // ST(0)-ST(7)
    Memory,      // described by Insn::base, index, scale, displacement, segment
    Immediate,   // Insn::immediate, sign- or zero-extended to this operand's size as the instruction says;
                 // higher bits are 0
    Immediate2,  // Insn::immediate2 (ENTER's nesting level)
    Relative,    // Insn::immediate is the signed distance from the next instruction, as a 64-bit number
    FarPointer,  // Insn::immediate2 : Insn::immediate
};

struct Operand {
    OperandKind kind = OperandKind::None;
    u8 reg = 0;
    u16 size =
        0;  // bytes accessed; 0 for memory operands that are only addresses (LEA, INVLPG, CLFLUSH, prefetch)

    friend bool operator==(const Operand&, const Operand&) = default;
};

enum class InsnFlag : u16 {
    Lock = 1 << 0,               // F0 given, and legal
    Rep = 1 << 1,                // F3 given and not part of the opcode
    Repne = 1 << 2,              // F2 given and not part of the opcode
    OperandSizePrefix = 1 << 3,  // 66 given
    AddressSizePrefix = 1 << 4,
    SegmentOverride = 1 << 5,
    RexW = 1 << 6,  // REX.W or VEX.W
    Vex = 1 << 7,   // VEX encoded: upper halves are zeroed, no alignment faults
    VexL = 1 << 8,  // 256-bit
    HasModrm = 1 << 9,
    Vsib = 1 << 10,  // index is a vector register of `vsib_size` bytes
    Rex = 1 << 11,   // a REX prefix is in effect
};

inline constexpr u8 kNoRegister = 0xff;
inline constexpr u8 kRipBase = 16;  // value of Insn::base for RIP-relative addresses

// Operands are the explicit ones in Intel's order, destination first. Not listed: rAX, rDX, rSP, rSI, rDI,
// flags, ... where they are implied (MUL, PUSH, CMPXCHG, XSAVE, MASKMOVQ, ...); listed though fixed: CL and 1
// of shifts, AL/AX/EAX/RAX and DX of IN, OUT, XCHG and the short ALU forms, XMM0 of BLENDV and SHA256RNDS2,
// ST(0) of x87 instructions with two registers, the segment register of PushSeg, PopSeg. An x87 instruction
// with a memory operand lists that alone. REPNE on MOVS, STOS, LODS, INS, OUTS acts as REP; F2 and F3 that
// mean nothing to an instruction are kept as flags Repne and Rep. Gathers: destination, memory, mask.
// Where processors differ this is AMD's: 66 makes near branches 16-bit in 64-bit mode too; far pointers in
// memory have at most a 32-bit offset (the Memory operand's size is 6 even with REX.W; CALLF still pushes 8
// bytes then).
struct Insn {
    Mnemonic mnemonic = Mnemonic::Invalid;
    InsnClass insn_class = InsnClass::Integer;
    u8 length = 0;
    CodeSize code_size = CodeSize::Bits64;
    u8 operand_size = 0;  // effective operand size in bytes: 1 for byte forms, else 2, 4, 8
    u8 address_size = 0;  // 2, 4, 8
    u8 condition = 0;  // low four opcode bits of Jcc, SETcc, CMOVcc; FCMOVcc: 0-7 for B E BE U NB NE NBE NU
    u8 operand_count = 0;
    std::array<Operand, 4> operand{};

    // The memory operand, if there is one. `segment` also serves implied ones: the DS:rSI side of string
    // instructions, XLAT, MASKMOVQ, MONITOR, CLZERO.
    u8 base = kNoRegister;   // 0-15, kRipBase, or kNoRegister
    u8 index = kNoRegister;  // 0-15 or kNoRegister
    u8 scale = 0;            // log2
    u8 segment =
        Ds;  // effective, defaults and overrides resolved (64-bit mode: only FS, GS have bases, SS tells #SS)
    s64 displacement = 0;  // sign-extended; of MOV moffs zero-extended from the address size
    u64 immediate = 0;
    u16 immediate2 = 0;

    Flags<InsnFlag> flags;

    // Status flags by eflags:: bits, from the table. Conservative: counts as read if it may be read (shifts
    // by CL).
    u16 flags_read = 0;
    u16 flags_written = 0;  // defined results
    u16 flags_undefined = 0;

    // Raw encoding, for the translator's re-encoder.
    u8 map = 0;  // 0 one-byte, 1 0F, 2 0F38, 3 0F3A
    u8 opcode = 0;
    u8 modrm = 0;
    u8 rex = 0;               // effective REX bits (from REX or VEX), 0x4X or 0
    u8 mandatory_prefix = 0;  // 0, 0x66, 0xf2, 0xf3
    u8 vex_vvvv = 0;
    u8 opcode_offset = 0;  // of the opcode byte in the instruction
    u8 displacement_offset = 0, displacement_size = 0;
    u8 immediate_offset = 0, immediate_size = 0;  // of all immediates together
    u8 vsib_size = 0;

    friend bool operator==(const Insn&, const Insn&) = default;

    [[nodiscard]] bool has(InsnFlag f) const { return flags.has(f); }
    [[nodiscard]] bool is(unsigned n, OperandKind kind) const { return operand[n].kind == kind; }
};

inline constexpr unsigned kMaxInsnLength = 15;

enum class DecodeStatus : u8 {
    Ok,
    Invalid,   // #UD
    TooLong,   // more than 15 bytes: #GP(0)
    NeedMore,  // the bytes given end inside the instruction
};

// Decodes the instruction at the start of `bytes` (up to 15 are looked at). On Invalid, `out.length` is the
// number of bytes looked at. Which instructions exist: x86-64-v3 plus AES, PCLMULQDQ, SHA, RDRAND, ADX, XSAVE
// family, FSGSBASE,
// ... as `docs/cpu.md` lists; no AVX-512, 3DNow!, XOP, TSX, VMX or SVM: those are Invalid.
DecodeStatus decode(std::span<const u8> bytes, CodeSize size, Insn& out);

}  // namespace tessera::x86
