// Vector instructions that read or write integer registers or the status flags.
#include <cstring>

#include "cpu/soft/fp/vector_lower.h"
#include "cpu/soft/fp/vector_row.h"
#include "cpu/soft/lower.h"

namespace tessera::soft {

namespace {

using x86::Insn;
using x86::Mnemonic;
using x86::OperandKind;

// --- results in an integer register: r1 the register's byte offset, r3 or memory the source

using GprFn = u64 (*)(const void* b);

#define TESSERA_TO_GPR(Name, text, type)                                   \
    struct Name {                                                          \
        [[gnu::always_inline]] static u64 run(const void* b) {             \
            u64 result = 0;                                                \
            asm volatile(text : "=r"(result) : "r"(b) : "memory", "xmm0"); \
            return static_cast<type>(result);                              \
        }                                                                  \
    };
TESSERA_TO_GPR(Movmskpd128, "vmovups (%1), %%xmm0\n\tvmovmskpd %%xmm0, %k0", u32)
TESSERA_TO_GPR(Movmskpd256, "vmovups (%1), %%ymm0\n\tvmovmskpd %%ymm0, %k0\n\tvzeroupper", u32)
TESSERA_TO_GPR(Movmskps128, "vmovups (%1), %%xmm0\n\tvmovmskps %%xmm0, %k0", u32)
TESSERA_TO_GPR(Movmskps256, "vmovups (%1), %%ymm0\n\tvmovmskps %%ymm0, %k0\n\tvzeroupper", u32)
TESSERA_TO_GPR(Pmovmskb128, "vmovdqu (%1), %%xmm0\n\tvpmovmskb %%xmm0, %k0", u32)
TESSERA_TO_GPR(Pmovmskb256, "vmovdqu (%1), %%ymm0\n\tvpmovmskb %%ymm0, %k0\n\tvzeroupper", u32)
TESSERA_TO_GPR(Cvtss2siDword, "vcvtss2si (%1), %k0", u32)
TESSERA_TO_GPR(Cvtss2siQword, "vcvtss2si (%1), %0", u64)
TESSERA_TO_GPR(Cvttss2siDword, "vcvttss2si (%1), %k0", u32)
TESSERA_TO_GPR(Cvttss2siQword, "vcvttss2si (%1), %0", u64)
TESSERA_TO_GPR(Cvtsd2siDword, "vcvtsd2si (%1), %k0", u32)
TESSERA_TO_GPR(Cvtsd2siQword, "vcvtsd2si (%1), %0", u64)
TESSERA_TO_GPR(Cvttsd2siDword, "vcvttsd2si (%1), %k0", u32)
TESSERA_TO_GPR(Cvttsd2siQword, "vcvttsd2si (%1), %0", u64)

template <Form F, Source S, unsigned Size, bool Float, class I>
TESSERA_HANDLER void to_gpr_careful(Vcpu& c, const Op* op) {
    c.cur = op;
    check_available(c, kTrapOf<F>);
    const void* b = source<S, Size>(c, op);
    if constexpr (Float) begin_unmasked(c);
    const u64 result = I::run(b);
    if constexpr (Float) finish_unmasked(c, false);
    gpr_at<u64>(c, op->r1) = result;
    TESSERA_NEXT(c, op);
}

template <Form F, Source S, unsigned Size, bool Float, class I>
TESSERA_HANDLER void to_gpr(Vcpu& c, const Op* op) {
    if ((c.fp_traps & (kTrapOf<F> | (Float ? kTrapMxcsr : 0))) != 0) [[unlikely]]
        TESSERA_MUSTTAIL return to_gpr_careful<F, S, Size, Float, I>(c, op);
    gpr_at<u64>(c, op->r1) = I::run(source<S, Size>(c, op));
    TESSERA_NEXT(c, op);
}

template <class I, class I256>
Handler mask_to_gpr(Form form) {
    switch (form) {
        case Form::Legacy: return to_gpr<Form::Legacy, Source::Vector, 16, false, I>;
        case Form::Vex128: return to_gpr<Form::Vex128, Source::Vector, 16, false, I>;
        case Form::Vex256: return to_gpr<Form::Vex256, Source::Vector, 32, false, I256>;
    }
    return nullptr;
}

template <class I, unsigned Size>
Handler convert_to_gpr(Form form, Source source) {
    if (form == Form::Legacy)
        return source == Source::Vector ? to_gpr<Form::Legacy, Source::Vector, Size, true, I>
                                        : to_gpr<Form::Legacy, Source::Memory, Size, true, I>;
    return source == Source::Vector ? to_gpr<Form::Vex128, Source::Vector, Size, true, I>
                                    : to_gpr<Form::Vex128, Source::Memory, Size, true, I>;
}

// An element of r2 at byte offset imm, zero-extended.
template <Form F, typename T>
TESSERA_HANDLER void extract(Vcpu& c, const Op* op) {
    if ((c.fp_traps & kTrapOf<F>) != 0) [[unlikely]] {
        c.cur = op;
        check_available(c, kTrapOf<F>);
    }
    T value = 0;
    std::memcpy(&value, vector_at(c, op->r2) + op->imm, sizeof(T));
    gpr_at<u64>(c, op->r1) = value;
    TESSERA_NEXT(c, op);
}

// The same written into a register: a copy of r2 with the element at imm replaced.
template <Form F, Source S, typename T>
TESSERA_HANDLER void insert(Vcpu& c, const Op* op) {
    c.cur = op;
    if ((c.fp_traps & kTrapOf<F>) != 0) [[unlikely]]
        check_available(c, kTrapOf<F>);
    T value = 0;
    if constexpr (S == Source::Gpr)
        value = get_gpr<T>(c, op->r3);
    else
        value = load<T>(c, linear(c, *op, sizeof(T), Access::Read), op->seg);
    if (op->r1 != op->r2) std::memcpy(vector_at(c, op->r1), vector_at(c, op->r2), 16);
    std::memcpy(vector_at(c, op->r1) + op->imm, &value, sizeof(T));
    if constexpr (F != Form::Legacy) clear_upper(c, op->r1);
    TESSERA_NEXT(c, op);
}

template <typename T>
Handler extract_handler(const Insn& in, Op& op) {
    op.r1 = gpr_offset(in.operand[0]);
    op.r2 = in.operand[1].reg;
    op.imm = has_immediate(in) ? (in.immediate & (16 / sizeof(T) - 1)) * sizeof(T) : 0;
    return form_of(in) == Form::Legacy ? extract<Form::Legacy, T> : extract<Form::Vex128, T>;
}

template <typename T>
Handler insert_handler(const Insn& in, Op& op) {
    const bool legacy = form_of(in) == Form::Legacy;
    const x86::Operand& from = in.operand[legacy ? 1 : 2];
    op.r1 = in.operand[0].reg;
    op.r2 = legacy ? op.r1 : in.operand[1].reg;
    op.imm = (in.immediate & (16 / sizeof(T) - 1)) * sizeof(T);
    if (from.kind == OperandKind::Gpr) {
        op.r3 = gpr_offset(from);
        return legacy ? insert<Form::Legacy, Source::Gpr, T> : insert<Form::Vex128, Source::Gpr, T>;
    }
    return legacy ? insert<Form::Legacy, Source::Memory, T> : insert<Form::Vex128, Source::Memory, T>;
}

// --- results in the status flags: r1 and r3 or memory are compared

#define TESSERA_TO_FLAGS(Name, text)                                          \
    struct Name {                                                             \
        [[gnu::always_inline]] static u16 run(const void* a, const void* b) { \
            u16 status = 0;                                                   \
            asm volatile(text "\n\tlahf\n\tseto %%al"                         \
                         : "=&a"(status)                                      \
                         : "r"(a), "r"(b)                                     \
                         : "memory", "cc", "xmm0");                           \
            return status;                                                    \
        }                                                                     \
    };
TESSERA_TO_FLAGS(Comisd, "vmovsd (%1), %%xmm0\n\tvcomisd (%2), %%xmm0")
TESSERA_TO_FLAGS(Comiss, "vmovss (%1), %%xmm0\n\tvcomiss (%2), %%xmm0")
TESSERA_TO_FLAGS(Ucomisd, "vmovsd (%1), %%xmm0\n\tvucomisd (%2), %%xmm0")
TESSERA_TO_FLAGS(Ucomiss, "vmovss (%1), %%xmm0\n\tvucomiss (%2), %%xmm0")
TESSERA_TO_FLAGS(Ptest128, "vmovdqu (%1), %%xmm0\n\tvptest (%2), %%xmm0")
TESSERA_TO_FLAGS(Ptest256, "vmovdqu (%1), %%ymm0\n\tvptest (%2), %%ymm0\n\tvzeroupper")
TESSERA_TO_FLAGS(Testps128, "vmovups (%1), %%xmm0\n\tvtestps (%2), %%xmm0")
TESSERA_TO_FLAGS(Testps256, "vmovups (%1), %%ymm0\n\tvtestps (%2), %%ymm0\n\tvzeroupper")
TESSERA_TO_FLAGS(Testpd128, "vmovups (%1), %%xmm0\n\tvtestpd (%2), %%xmm0")
TESSERA_TO_FLAGS(Testpd256, "vmovups (%1), %%ymm0\n\tvtestpd (%2), %%ymm0\n\tvzeroupper")

template <Form F, Source S, unsigned Size, bool Float, class I>
TESSERA_HANDLER void to_flags_careful(Vcpu& c, const Op* op) {
    c.cur = op;
    check_available(c, kTrapOf<F>);
    const void* b = source<S, Size>(c, op);
    if constexpr (Float) begin_unmasked(c);
    const u16 status = I::run(vector_at(c, op->r1), b);
    if constexpr (Float) finish_unmasked(c, false);
    c.status = status;
    TESSERA_NEXT(c, op);
}

template <Form F, Source S, unsigned Size, bool Float, class I>
TESSERA_HANDLER void to_flags(Vcpu& c, const Op* op) {
    if ((c.fp_traps & (kTrapOf<F> | (Float ? kTrapMxcsr : 0))) != 0) [[unlikely]]
        TESSERA_MUSTTAIL return to_flags_careful<F, S, Size, Float, I>(c, op);
    c.status = I::run(vector_at(c, op->r1), source<S, Size>(c, op));
    TESSERA_NEXT(c, op);
}

template <class I, unsigned Size>
Handler compare(Form form, Source source) {
    if (form == Form::Legacy)
        return source == Source::Vector ? to_flags<Form::Legacy, Source::Vector, Size, true, I>
                                        : to_flags<Form::Legacy, Source::Memory, Size, true, I>;
    return source == Source::Vector ? to_flags<Form::Vex128, Source::Vector, Size, true, I>
                                    : to_flags<Form::Vex128, Source::Memory, Size, true, I>;
}

template <class I, class I256>
Handler test(Form form, Source source) {
    const bool vector = source == Source::Vector;
    switch (form) {
        case Form::Legacy:
            return vector ? to_flags<Form::Legacy, Source::Vector, 16, false, I>
                          : to_flags<Form::Legacy, Source::MemoryAligned, 16, false, I>;
        case Form::Vex128:
            return vector ? to_flags<Form::Vex128, Source::Vector, 16, false, I>
                          : to_flags<Form::Vex128, Source::Memory, 16, false, I>;
        case Form::Vex256:
            return vector ? to_flags<Form::Vex256, Source::Vector, 32, false, I256>
                          : to_flags<Form::Vex256, Source::Memory, 32, false, I256>;
    }
    return nullptr;
}

Handler lower_to_gpr(const Insn& in, Op& op) {
    const Form form = form_of(in);
    const bool wide = in.operand[0].size == 8;
    const Source source = in.is(1, OperandKind::Vector) ? Source::Vector : Source::Memory;
    op.r1 = gpr_offset(in.operand[0]);
    if (source == Source::Vector) op.r3 = in.operand[1].reg;
    switch (in.mnemonic) {
        case Mnemonic::Movmskpd:
        case Mnemonic::Vmovmskpd: return mask_to_gpr<Movmskpd128, Movmskpd256>(form);
        case Mnemonic::Movmskps:
        case Mnemonic::Vmovmskps: return mask_to_gpr<Movmskps128, Movmskps256>(form);
        case Mnemonic::Pmovmskb:
        case Mnemonic::Vpmovmskb: return mask_to_gpr<Pmovmskb128, Pmovmskb256>(form);
        case Mnemonic::Cvtss2si:
        case Mnemonic::Vcvtss2si:
            return wide ? convert_to_gpr<Cvtss2siQword, 4>(form, source)
                        : convert_to_gpr<Cvtss2siDword, 4>(form, source);
        case Mnemonic::Cvttss2si:
        case Mnemonic::Vcvttss2si:
            return wide ? convert_to_gpr<Cvttss2siQword, 4>(form, source)
                        : convert_to_gpr<Cvttss2siDword, 4>(form, source);
        case Mnemonic::Cvtsd2si:
        case Mnemonic::Vcvtsd2si:
            return wide ? convert_to_gpr<Cvtsd2siQword, 8>(form, source)
                        : convert_to_gpr<Cvtsd2siDword, 8>(form, source);
        case Mnemonic::Cvttsd2si:
        case Mnemonic::Vcvttsd2si:
            return wide ? convert_to_gpr<Cvttsd2siQword, 8>(form, source)
                        : convert_to_gpr<Cvttsd2siDword, 8>(form, source);
        case Mnemonic::Movd:
        case Mnemonic::Vmovd:
        case Mnemonic::Movq:
        case Mnemonic::Vmovq: return wide ? extract_handler<u64>(in, op) : extract_handler<u32>(in, op);
        case Mnemonic::Pextrb:
        case Mnemonic::Vpextrb: return extract_handler<u8>(in, op);
        case Mnemonic::Pextrw:
        case Mnemonic::Vpextrw: return extract_handler<u16>(in, op);
        case Mnemonic::Pextrd:
        case Mnemonic::Vpextrd:
        case Mnemonic::Extractps:
        case Mnemonic::Vextractps: return extract_handler<u32>(in, op);
        case Mnemonic::Pextrq:
        case Mnemonic::Vpextrq: return extract_handler<u64>(in, op);
        default: return nullptr;
    }
}

}  // namespace

Handler lower_vector_gpr(const Insn& in, Op& op) {
    if (in.operand_count >= 2 && in.is(0, OperandKind::Gpr)) return lower_to_gpr(in, op);
    if (in.operand_count < 2 || !in.is(0, OperandKind::Vector)) return nullptr;
    const Form form = form_of(in);
    switch (in.mnemonic) {
        case Mnemonic::Pinsrb:
        case Mnemonic::Vpinsrb: return insert_handler<u8>(in, op);
        case Mnemonic::Pinsrw:
        case Mnemonic::Vpinsrw: return insert_handler<u16>(in, op);
        case Mnemonic::Pinsrd:
        case Mnemonic::Vpinsrd: return insert_handler<u32>(in, op);
        case Mnemonic::Pinsrq:
        case Mnemonic::Vpinsrq: return insert_handler<u64>(in, op);
        default: break;
    }
    const Source source = in.is(1, OperandKind::Vector) ? Source::Vector : Source::Memory;
    const auto set_operands = [&] {
        op.r1 = in.operand[0].reg;
        if (source == Source::Vector) op.r3 = in.operand[1].reg;
    };
    switch (in.mnemonic) {
        case Mnemonic::Comisd:
        case Mnemonic::Vcomisd: set_operands(); return compare<Comisd, 8>(form, source);
        case Mnemonic::Comiss:
        case Mnemonic::Vcomiss: set_operands(); return compare<Comiss, 4>(form, source);
        case Mnemonic::Ucomisd:
        case Mnemonic::Vucomisd: set_operands(); return compare<Ucomisd, 8>(form, source);
        case Mnemonic::Ucomiss:
        case Mnemonic::Vucomiss: set_operands(); return compare<Ucomiss, 4>(form, source);
        case Mnemonic::Ptest:
        case Mnemonic::Vptest: set_operands(); return test<Ptest128, Ptest256>(form, source);
        case Mnemonic::Vtestps: set_operands(); return test<Testps128, Testps256>(form, source);
        case Mnemonic::Vtestpd: set_operands(); return test<Testpd128, Testpd256>(form, source);
        default: return nullptr;
    }
}

}  // namespace tessera::soft
