// PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM: the SSE4.2 string compares.
#include <bit>
#include <cstring>

#include "cpu/soft/fp/vector_lower.h"

namespace tessera::soft {

namespace {

using x86::Insn;
using x86::InsnFlag;
using x86::Mnemonic;
using x86::OperandKind;

}  // namespace

// One function per immediate, 64 bytes apart. Lengths are EAX and EDX of the instruction. Returns the index
// in the upper half and AX after LAHF and SETO in the lower; the mask goes to *out.
using StringFn = u64 (*)(const void* a, const void* b, u32 length_a, u32 length_b, void* out);

#define TESSERA_STRING_FUNCTIONS(name, op)                                                         \
    extern "C" [[gnu::visibility("hidden")]] u64 name(const void*, const void*, u32, u32, void*);  \
    asm(".pushsection .text\n\t.p2align 6\n" #name                                                 \
        ":\n\t.set IMM, 0\n\t.rept 256\n\t.p2align 6\n\t"                                          \
        "movl %edx, %eax\n\tmovl %ecx, %edx\n\txorl %ecx, %ecx\n\tvmovdqu (%rdi), %xmm1\n\t" op    \
        " $IMM, (%rsi), %xmm1\n\tlahf\n\tseto %al\n\tmovzwl %ax, %eax\n\tvmovdqu %xmm0, (%r8)\n\t" \
        "shlq $32, %rcx\n\torq %rcx, %rax\n\tret\n\t.set IMM, IMM + 1\n\t.endr\n\t.popsection")
TESSERA_STRING_FUNCTIONS(tessera_pcmpestri, "vpcmpestri");
TESSERA_STRING_FUNCTIONS(tessera_pcmpestrm, "vpcmpestrm");
TESSERA_STRING_FUNCTIONS(tessera_pcmpistri, "vpcmpistri");
TESSERA_STRING_FUNCTIONS(tessera_pcmpistrm, "vpcmpistrm");

namespace {

constexpr unsigned kStride = 64;

// Lengths are absolute values, and all from 16 on are the same to a string of 16 bytes: so a 64-bit length
// can be handed to the 32-bit form.
u32 length_of(u64 value, bool wide) {
    const s64 length = wide ? static_cast<s64>(value) : static_cast<s32>(value);
    if (length > 16 || length < -16) return 16;
    return static_cast<u32>(length);
}

// r1 and r3 or memory are the strings. kOperandHint: the lengths are 64 bits.
template <Form F, Source S, bool Mask>
TESSERA_HANDLER void compare_strings(Vcpu& c, const Op* op) {
    c.cur = op;
    check_available(c, kTrapOf<F>);
    const void* b = source<S, 16>(c, op);
    const bool wide = (op->flags & kOperandHint) != 0;
    // Not on the stack: handlers have no frame that a sanitizer could check. The source may be at the
    // scratch's beginning.
    u8* const mask = c.fp_scratch.data() + 64;
    const u64 result = std::bit_cast<StringFn>(op->imm)(
        vector_at(c, op->r1), b, length_of(c.reg[x86::Rax], wide), length_of(c.reg[x86::Rdx], wide), mask);
    c.status = static_cast<u16>(result);
    if constexpr (Mask) {
        std::memcpy(vector_at(c, 0), mask, 16);
        if constexpr (F != Form::Legacy) clear_upper(c, 0);
    } else {
        c.reg[x86::Rcx] = result >> 32;
    }
    TESSERA_NEXT(c, op);
}

template <bool Mask>
Handler pick(const Insn& in, Op& op, StringFn first) {
    const bool vector = in.is(1, OperandKind::Vector);
    op.imm = reinterpret_cast<u64>(first) + (in.immediate & 0xff) * kStride;
    op.r1 = in.operand[0].reg;
    if (vector) op.r3 = in.operand[1].reg;
    if (in.has(InsnFlag::RexW)) op.flags |= kOperandHint;
    if (form_of(in) == Form::Legacy)
        return vector ? compare_strings<Form::Legacy, Source::Vector, Mask>
                      : compare_strings<Form::Legacy, Source::Memory, Mask>;
    return vector ? compare_strings<Form::Vex128, Source::Vector, Mask>
                  : compare_strings<Form::Vex128, Source::Memory, Mask>;
}

}  // namespace

Handler lower_vector_string(const Insn& in, Op& op) {
    switch (in.mnemonic) {
        case Mnemonic::Pcmpestri:
        case Mnemonic::Vpcmpestri: return pick<false>(in, op, tessera_pcmpestri);
        case Mnemonic::Pcmpestrm:
        case Mnemonic::Vpcmpestrm: return pick<true>(in, op, tessera_pcmpestrm);
        case Mnemonic::Pcmpistri:
        case Mnemonic::Vpcmpistri: return pick<false>(in, op, tessera_pcmpistri);
        case Mnemonic::Pcmpistrm:
        case Mnemonic::Vpcmpistrm: return pick<true>(in, op, tessera_pcmpistrm);
        default: return nullptr;
    }
}

}  // namespace tessera::soft
