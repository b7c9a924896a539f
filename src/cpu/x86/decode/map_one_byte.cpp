// The one-byte opcodes [SDM 2D table A-2]. LES, LDS, BOUND and the prefixes' places in 64-bit mode are the
// decoder's business.
#include "cpu/x86/decode/row.h"

namespace tessera::x86::tables {

namespace {

using enum Mnemonic;

// clang-format off

// The six forms of an arithmetic instruction. `lock` is empty for CMP.
#define ALU(op, id, lock, flags)        \
    {(op) + 0, lock, id, "Eb Gb", flags}, \
    {(op) + 1, lock, id, "Ev Gv", flags}, \
    {(op) + 2, "", id, "Gb Eb", flags},   \
    {(op) + 3, "", id, "Gv Ev", flags},   \
    {(op) + 4, "", id, "al Ib", flags},   \
    {(op) + 5, "", id, "ax Iz", flags}

// Group 1.
#define ALU_GROUP(op, more, operands)                   \
    {op, more "/0 lock", Add, operands, "w oszapc"},      \
    {op, more "/1 lock", Or, operands, "w oszpc u a"},    \
    {op, more "/2 lock", Adc, operands, "r c w oszapc"},  \
    {op, more "/3 lock", Sbb, operands, "r c w oszapc"},  \
    {op, more "/4 lock", And, operands, "w oszpc u a"},   \
    {op, more "/5 lock", Sub, operands, "w oszapc"},      \
    {op, more "/6 lock", Xor, operands, "w oszpc u a"},   \
    {op, more "/7", Cmp, operands, "w oszapc"}

// Group 2. /6 is SHL's undocumented twin. The flags are those of a count of one; ShiftCount and MaybeFlags refine them.
#define SHIFT_GROUP(op, more, operands)                \
    {op, more "/0", Rol, operands, "w oc"},              \
    {op, more "/1", Ror, operands, "w oc"},              \
    {op, more "/2", Rcl, operands, "r c w oc"},          \
    {op, more "/3", Rcr, operands, "r c w oc"},          \
    {op, more "/4", Shl, operands, "w oszpc u a"},       \
    {op, more "/5", Shr, operands, "w oszpc u a"},       \
    {op, more "/6", Shl, operands, "w oszpc u a"},       \
    {op, more "/7", Sar, operands, "w oszpc u a"}

constexpr Row kRows[] = {
    ALU(0x00, Add, "lock", "w oszapc"),
    {0x06, "!64", PushSeg, "es"},
    {0x07, "!64", PopSeg, "es"},
    ALU(0x08, Or, "lock", "w oszpc u a"),
    {0x0e, "!64", PushSeg, "cs"},
    ALU(0x10, Adc, "lock", "r c w oszapc"),
    {0x16, "!64", PushSeg, "ss"},
    {0x17, "!64", PopSeg, "ss"},
    ALU(0x18, Sbb, "lock", "r c w oszapc"),
    {0x1e, "!64", PushSeg, "ds"},
    {0x1f, "!64", PopSeg, "ds"},
    ALU(0x20, And, "lock", "w oszpc u a"),
    {0x27, "!64", Daa, "", "r ac w szapc u o"},
    ALU(0x28, Sub, "lock", "w oszapc"),
    {0x2f, "!64", Das, "", "r ac w szapc u o"},
    ALU(0x30, Xor, "lock", "w oszpc u a"),
    {0x37, "!64", Aaa, "", "r a w ac u oszp"},
    ALU(0x38, Cmp, "", "w oszapc"),
    {0x3f, "!64", Aas, "", "r a w ac u oszp"},
    {0x40, "!64", Inc, "Zv", "w oszap", 8},
    {0x48, "!64", Dec, "Zv", "w oszap", 8},
    {0x50, "d64", Push, "Zv", "", 8},
    {0x58, "d64", Pop, "Zv", "", 8},
    {0x60, "!64", Pusha},
    {0x61, "!64", Popa},
    {0x62, "!64", Bound, "Gv Ma"},
    {0x63, "!64", Arpl, "Ew Gw", "w z"},
    {0x63, "64", Movsxd, "Gv Ed"},  // with 66 AMD processors still read four bytes [measured]
    {0x68, "d64", Push, "Iz"},
    {0x69, "", Imul, "Gv Ev Iz", "w oc u szap"},
    {0x6a, "d64", Push, "sIb"},
    {0x6b, "", Imul, "Gv Ev sIb", "w oc u szap"},
    {0x6c, "b", Ins},
    {0x6d, "z", Ins},
    {0x6e, "b", Outs},
    {0x6f, "z", Outs},
    {0x70, "d64 cc", Jcc, "Jb", "", 16},
    ALU_GROUP(0x80, "", "Eb Ib"),
    ALU_GROUP(0x81, "", "Ev Iz"),
    ALU_GROUP(0x82, "!64 ", "Eb Ib"),
    ALU_GROUP(0x83, "", "Ev sIb"),
    {0x84, "", Test, "Eb Gb", "w oszpc u a"},
    {0x85, "", Test, "Ev Gv", "w oszpc u a"},
    {0x86, "lock", Xchg, "Eb Gb"},
    {0x87, "lock", Xchg, "Ev Gv"},
    {0x88, "", Mov, "Eb Gb"},
    {0x89, "", Mov, "Ev Gv"},
    {0x8a, "", Mov, "Gb Eb"},
    {0x8b, "", Mov, "Gv Ev"},
    {0x8c, "", MovSeg, "Rv Sw"},
    {0x8c, "", MovSeg, "Mw Sw"},
    {0x8d, "", Lea, "Gv M0"},
    {0x8e, "", MovSeg, "Sw Ew"},
    {0x8f, "/0 d64", Pop, "Ev"},
    {0x90, "f3 rexb0", Pause},
    {0x90, "rexb0", Nop},
    {0x90, "", Xchg, "Zv ax"},
    {0x91, "", Xchg, "Zv ax", "", 7},
    {0x98, "", Cbw},
    {0x99, "", Cwd},
    {0x9a, "!64", Callf, "Ap"},
    {0x9b, "", Fwait},
    {0x9c, "d64", Pushf, "", "r oszapc"},
    {0x9d, "d64", Popf, "", "w oszapc"},
    {0x9e, "", Sahf, "", "w szapc"},
    {0x9f, "", Lahf, "", "r szapc"},
    {0xa0, "", Mov, "al Ob"},
    {0xa1, "", Mov, "ax Ov"},
    {0xa2, "", Mov, "Ob al"},
    {0xa3, "", Mov, "Ov ax"},
    {0xa4, "b", Movs},
    {0xa5, "", Movs},
    {0xa6, "b rflags", Cmps, "", "w oszapc"},
    {0xa7, "rflags", Cmps, "", "w oszapc"},
    {0xa8, "", Test, "al Ib", "w oszpc u a"},
    {0xa9, "", Test, "ax Iz", "w oszpc u a"},
    {0xaa, "b", Stos},
    {0xab, "", Stos},
    {0xac, "b", Lods},
    {0xad, "", Lods},
    {0xae, "b rflags", Scas, "", "w oszapc"},
    {0xaf, "rflags", Scas, "", "w oszapc"},
    {0xb0, "", Mov, "Zb Ib", "", 8},
    {0xb8, "", Mov, "Zv Iv", "", 8},
    SHIFT_GROUP(0xc0, "shift ", "Eb Ib"),
    SHIFT_GROUP(0xc1, "shift ", "Ev Ib"),
    {0xc2, "d64", Ret, "Iw"},
    {0xc3, "d64", Ret},
    {0xc4, "!64", Les, "Gv Mp"},
    {0xc5, "!64", Lds, "Gv Mp"},
    {0xc6, "/0", Mov, "Eb Ib"},
    {0xc7, "/0", Mov, "Ev Iz"},
    {0xc8, "d64", Enter, "Iw I2b"},
    {0xc9, "d64", Leave},
    {0xca, "", Retf, "Iw"},
    {0xcb, "", Retf},
    {0xcc, "", Int3, "", "r oszapc"},
    {0xcd, "v", Int, "Ib", "r oszapc"},
    {0xce, "!64", Into, "", "r oszapc"},
    {0xcf, "", Iret, "", "w oszapc"},
    SHIFT_GROUP(0xd0, "shift ", "Eb I1"),
    SHIFT_GROUP(0xd1, "shift ", "Ev I1"),
    SHIFT_GROUP(0xd2, "shift maybe ", "Eb cl"),
    SHIFT_GROUP(0xd3, "shift maybe ", "Ev cl"),
    {0xd4, "!64", Aam, "Ib", "w szp u oac"},
    {0xd5, "!64", Aad, "Ib", "w szp u oac"},
    {0xd6, "!64 b", Salc, "", "r c"},
    {0xd7, "b", Xlat},
#include "cpu/x86/decode/rows_x87.inc"
    {0xe0, "d64", Loopne, "Jb", "r z"},
    {0xe1, "d64", Loope, "Jb", "r z"},
    {0xe2, "d64", Loop, "Jb"},
    {0xe3, "d64", Jcxz, "Jb"},
    {0xe4, "", In, "al Ib"},
    {0xe5, "z", In, "ax Ib"},
    {0xe6, "b", Out, "Ib al"},
    {0xe7, "z", Out, "Ib ax"},
    {0xe8, "d64", Call, "Jz"},
    {0xe9, "d64", Jmp, "Jz"},
    {0xea, "!64", Jmpf, "Ap"},
    {0xeb, "d64", Jmp, "Jb"},
    {0xec, "", In, "al dx"},
    {0xed, "z", In, "ax dx"},
    {0xee, "b", Out, "dx al"},
    {0xef, "z", Out, "dx ax"},
    {0xf1, "", Int1, "", "r oszapc"},
    {0xf4, "", Hlt},
    {0xf5, "", Cmc, "", "r c w c"},
    {0xf6, "/0", Test, "Eb Ib", "w oszpc u a"},
    {0xf6, "/1", Test, "Eb Ib", "w oszpc u a"},
    {0xf6, "/2 lock", Not, "Eb"},
    {0xf6, "/3 lock", Neg, "Eb", "w oszapc"},
    {0xf6, "/4", Mul, "Eb", "w oc u szap"},
    {0xf6, "/5", Imul, "Eb", "w oc u szap"},
    {0xf6, "/6", Div, "Eb", "u oszapc"},
    {0xf6, "/7", Idiv, "Eb", "u oszapc"},
    {0xf7, "/0", Test, "Ev Iz", "w oszpc u a"},
    {0xf7, "/1", Test, "Ev Iz", "w oszpc u a"},
    {0xf7, "/2 lock", Not, "Ev"},
    {0xf7, "/3 lock", Neg, "Ev", "w oszapc"},
    {0xf7, "/4", Mul, "Ev", "w oc u szap"},
    {0xf7, "/5", Imul, "Ev", "w oc u szap"},
    {0xf7, "/6", Div, "Ev", "u oszapc"},
    {0xf7, "/7", Idiv, "Ev", "u oszapc"},
    {0xf8, "", Clc, "", "w c"},
    {0xf9, "", Stc, "", "w c"},
    {0xfa, "", Cli},
    {0xfb, "", Sti},
    {0xfc, "", Cld},
    {0xfd, "", Std},
    {0xfe, "/0 lock", Inc, "Eb", "w oszap"},
    {0xfe, "/1 lock", Dec, "Eb", "w oszap"},
    {0xff, "/0 lock", Inc, "Ev", "w oszap"},
    {0xff, "/1 lock", Dec, "Ev", "w oszap"},
    {0xff, "/2 d64", Call, "Ev"},
    {0xff, "/3", Callf, "Mp"},
    {0xff, "/4 d64", Jmp, "Ev"},
    {0xff, "/5", Jmpf, "Mp"},
    {0xff, "/6 d64", Push, "Ev"},
};

// clang-format on

#undef ALU
#undef ALU_GROUP
#undef SHIFT_GROUP

constexpr IndexedRows kIndexed(kRows);

}  // namespace

constinit const OpcodeMap one_byte_map = kIndexed.map();

}  // namespace tessera::x86::tables
