// The decoded-and-lowered instruction the interpreter executes, and how handlers hand over to each other.
#pragma once

#include "base/types.h"

namespace tessera::soft {

struct Vcpu;
struct Op;

// All of a handler's registers are its own: calls in slow paths cost nothing on the fast path.
#define TESSERA_HANDLER __attribute__((preserve_none))
#define TESSERA_MUSTTAIL [[clang::musttail]]

using Handler = void(TESSERA_HANDLER*)(Vcpu& c, const Op* op);
// A whole instruction as an ordinary function, for everything that is not hot; see continue_with and
// end_with.
using PlainHandler = void (*)(Vcpu& c, const Op& op);

enum OpFlag : u8 {
    kAddress64 = 1 << 0,  // address is 64 bits in 64-bit mode: no segment checks, only FS/GS bases
    kAddress32 = 1 << 1,  // else 32 bits; neither: 16 bits
    kLocked = 1 << 2,
    kRep = 1 << 3,
    kRepne = 1 << 4,
    kLongMode = 1 << 5,     // the instruction was decoded as 64-bit code
    kOperandHint = 1 << 6,  // free for the family that lowered it
};

// Register operands of integer instructions are byte offsets into Vcpu::reg (so that AH is 1); vector, MMX,
// x87 and segment registers are numbers. base and index are slots of Vcpu::reg (kZeroSlot when absent).
struct Op {
    Handler fn;
    u64 imm;
    s32 disp;
    u8 r1, r2, r3;
    u8 base, index, scale, seg;
    u8 flags;  // OpFlag
    u16 ip;    // offset in the page of the instruction's first byte
    u8 len;    // bytes
    u8 n;      // position in its block, from 1: what has been executed when a block is left here
};
static_assert(sizeof(Op) == 32);

#define TESSERA_NEXT(c, op) TESSERA_MUSTTAIL return (op)[1].fn((c), (op) + 1)

}  // namespace tessera::soft
