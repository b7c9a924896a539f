// The MMX instructions, and those of SSE that have an MMX operand.
//
// MMX registers are the mantissas of x87 registers. While a guest uses them the x87 state is kept in
// Vcpu::fpu with TOP at 0, so that MMn is there ST(n); each instruction runs on the host's MMX registers and
// leaves them empty again.
#include <array>
#include <bit>
#include <cstring>

#include "cpu/soft/fp/fp.h"
#include "cpu/soft/fp/mmx_row.h"
#include "cpu/soft/fp/vector_access.h"
#include "cpu/soft/fp/vector_lower.h"
#include "cpu/soft/fp/x87_host.h"
#include "cpu/soft/lower.h"

namespace tessera::soft {

namespace {

using x86::Insn;
using x86::Mnemonic;
using x86::OperandKind;

enum class MmxSource : u8 { Register, Memory };

// #UD and #NM, then #MF. Nothing is changed yet: the memory operand may still fault.
void check_mmx(Vcpu& c) {
    check_available(c, kTrapMmx);
    if ((c.fp_traps & kTrapX87Unmasked) != 0 && x87_pending(c)) raise_x87_error(c);
}
inline void begin_mmx(Vcpu& c) {
    if ((c.fp_traps & (kTrapMmx | kTrapX87Unmasked)) != 0) [[unlikely]]
        check_mmx(c);
}

// TOP becomes 0, all registers valid [SDM 3A 13.2].
void make_mmx(Vcpu& c) {
    x87_save(c);
    set_x87_top(c.fpu, 0);
    c.fpu.tag = 0;
    c.fp_traps = static_cast<u16>(c.fp_traps & ~kTrapMmxCold);
}
inline void enter_mmx(Vcpu& c) {
    if ((c.fp_traps & kTrapMmxCold) != 0) [[unlikely]]
        make_mmx(c);
}

u8* mmx_at(Vcpu& c, u8 number) {
    return c.fpu.st[number & 7].data();
}
// A write also sets the exponent and sign [SDM 3A 13.2.1].
void finish_write(Vcpu& c, u8 number) {
    u8* const reg = mmx_at(c, number);
    reg[8] = reg[9] = 0xff;
}
u64 mmx_value(Vcpu& c, u8 number) {
    u64 value = 0;
    std::memcpy(&value, mmx_at(c, number), 8);
    return value;
}
void set_mmx(Vcpu& c, u8 number, u64 value) {
    std::memcpy(mmx_at(c, number), &value, 8);
    finish_write(c, number);
}

// r1 = imm(r1, r3 or memory). The function reads as much of the source as the instruction does.
template <MmxSource S, unsigned Size>
TESSERA_HANDLER void mmx_op(Vcpu& c, const Op* op) {
    c.cur = op;
    begin_mmx(c);
    const void* b = nullptr;
    if constexpr (S == MmxSource::Memory)
        b = read_pointer<Size>(c, linear(c, *op, Size, Access::Read), op->seg);
    enter_mmx(c);
    if constexpr (S == MmxSource::Register) b = mmx_at(c, op->r3);
    std::bit_cast<VectorFn>(op->imm)(mmx_at(c, op->r1), nullptr, b);
    finish_write(c, op->r1);
    TESSERA_NEXT(c, op);
}

Handler lower_row(const Insn& in, Op& op) {
    const bool imm = has_immediate(in);
    const unsigned n = operands_before_immediate(in);
    for (const MmxRow& row : mmx_rows()) {
        if (row.mnemonic != in.mnemonic || row.immediate != imm) continue;
        op.r1 = in.operand[0].reg;
        op.imm = reinterpret_cast<u64>(row.fn) + (imm ? (in.immediate & 0xff) * kMmxStride : 0);
        const x86::Operand& from = in.operand[n - 1];  // of a shift by an immediate, the destination
        if (from.kind != OperandKind::Memory) {
            op.r3 = from.reg;
            return mmx_op<MmxSource::Register, 8>;
        }
        return row.memory == 4 ? mmx_op<MmxSource::Memory, 4> : mmx_op<MmxSource::Memory, 8>;
    }
    return nullptr;
}

// --- moves

template <typename T>
void load_memory(Vcpu& c, const Op& op) {
    begin_mmx(c);
    const T value = load<T>(c, linear(c, op, sizeof(T), Access::Read), op.seg);
    enter_mmx(c);
    set_mmx(c, op.r1, value);
}
template <typename T>
void load_gpr(Vcpu& c, const Op& op) {
    begin_mmx(c);
    enter_mmx(c);
    set_mmx(c, op.r1, get_gpr<T>(c, op.r3));
}
void move_register(Vcpu& c, const Op& op) {
    begin_mmx(c);
    enter_mmx(c);
    set_mmx(c, op.r1, mmx_value(c, op.r3));
}
template <typename T>
void store_memory(Vcpu& c, const Op& op) {
    begin_mmx(c);
    const u64 lin = linear(c, op, sizeof(T), Access::Write);
    check_writable<sizeof(T)>(c, lin, op.seg);
    enter_mmx(c);
    store<T>(c, lin, static_cast<T>(mmx_value(c, op.r1)), op.seg);
}
template <typename T>
void store_gpr(Vcpu& c, const Op& op) {
    begin_mmx(c);
    enter_mmx(c);
    set_gpr<T>(c, op.r3, static_cast<T>(mmx_value(c, op.r1)));
}

Handler lower_move(const Insn& in, Op& op) {
    const x86::Operand& to = in.operand[0];
    const x86::Operand& from = in.operand[1];
    if (to.kind == OperandKind::Mmx) {
        op.r1 = to.reg;
        if (from.kind == OperandKind::Mmx) {
            op.r3 = from.reg;
            return continue_with<move_register>;
        }
        if (from.kind == OperandKind::Memory)
            return from.size == 8 ? continue_with<load_memory<u64>> : continue_with<load_memory<u32>>;
        op.r3 = gpr_offset(from);
        return from.size == 8 ? continue_with<load_gpr<u64>> : continue_with<load_gpr<u32>>;
    }
    op.r1 = from.reg;
    if (to.kind == OperandKind::Memory)
        return to.size == 8 ? continue_with<store_memory<u64>> : continue_with<store_memory<u32>>;
    op.r3 = gpr_offset(to);
    return to.size == 8 ? continue_with<store_gpr<u64>> : continue_with<store_gpr<u32>>;
}

// --- to and from integer registers, element by element

void pextrw(Vcpu& c, const Op& op) {
    begin_mmx(c);
    enter_mmx(c);
    set_gpr<u32>(c, op.r1, static_cast<u16>(mmx_value(c, op.r2) >> (op.imm * 16)));
}

void replace_word(Vcpu& c, const Op& op, u16 word) {
    enter_mmx(c);
    std::memcpy(mmx_at(c, op.r1) + op.imm * 2, &word, 2);
    finish_write(c, op.r1);
}
void pinsrw_gpr(Vcpu& c, const Op& op) {
    begin_mmx(c);
    replace_word(c, op, get_gpr<u16>(c, op.r3));
}
void pinsrw_memory(Vcpu& c, const Op& op) {
    begin_mmx(c);
    replace_word(c, op, load<u16>(c, linear(c, op, 2, Access::Read), op.seg));
}

void pmovmskb(Vcpu& c, const Op& op) {
    begin_mmx(c);
    enter_mmx(c);
    const u64 value = mmx_value(c, op.r2);
    u32 mask = 0;
    for (unsigned i = 0; i < 8; ++i) mask |= static_cast<u32>((value >> (i * 8 + 7)) & 1) << i;
    set_gpr<u32>(c, op.r1, mask);
}

void maskmovq(Vcpu& c, const Op& op) {
    begin_mmx(c);
    // A fault leaves the MMX state behind, as on the host (AMD family 1Ah).
    enter_mmx(c);
    const u64 data = mmx_value(c, op.r1);
    const u64 mask = mmx_value(c, op.r2);
    const u64 first = effective_address(c, op);
    const auto address = [&](unsigned i) {
        u64 offset = first + i;
        if ((op.flags & kAddress64) == 0)
            offset = (op.flags & kAddress32) != 0 ? static_cast<u32>(offset) : static_cast<u16>(offset);
        return linear_of(c, op.seg, offset, 1, Access::Write);
    };
    const auto selected = [&](unsigned i) { return (mask >> (i * 8 + 7) & 1) != 0; };
    // All eight bytes must be writable, chosen or not (likewise).
    probe(c, linear(c, op, 8, Access::Write), 8, Access::Write, op.seg);
    for (unsigned i = 0; i < 8; ++i)
        if (selected(i)) store<u8>(c, address(i), static_cast<u8>(data >> (i * 8)), op.seg);
}

// --- between MMX and XMM registers

void movdq2q(Vcpu& c, const Op& op) {
    check_available(c, kTrapSse);
    begin_mmx(c);
    enter_mmx(c);
    set_mmx(c, op.r1, c.ymm[op.r3][0]);
}
void movq2dq(Vcpu& c, const Op& op) {
    check_available(c, kTrapSse);
    begin_mmx(c);
    enter_mmx(c);
    c.ymm[op.r1][0] = mmx_value(c, op.r3);
    c.ymm[op.r1][1] = 0;
}

// Conversions raise SIMD exceptions; their result is committed only if none is unmasked.
using ConvertFn = void (*)(void* d, const void* b);

#define TESSERA_TO_XMM(Name, op)                                                                 \
    void Name(void* d, const void* b) {                                                          \
        asm volatile("movups (%0), %%xmm0\n\t" op " (%1), %%xmm0\n\tmovups %%xmm0, (%0)\n\temms" \
                     :                                                                           \
                     : "r"(d), "r"(b)                                                            \
                     : "memory", "xmm0");                                                        \
    }
TESSERA_TO_XMM(cvtpi2ps, "cvtpi2ps")
TESSERA_TO_XMM(cvtpi2pd, "cvtpi2pd")
#define TESSERA_TO_MMX(Name, op)                                                                      \
    void Name(void* d, const void* b) {                                                               \
        asm volatile(op "\n\tmovq %%mm0, (%0)\n\temms" : : "r"(d), "r"(b) : "memory", "xmm0", "mm0"); \
    }
TESSERA_TO_MMX(cvtps2pi, "cvtps2pi (%1), %%mm0")
TESSERA_TO_MMX(cvttps2pi, "cvttps2pi (%1), %%mm0")
TESSERA_TO_MMX(cvtpd2pi, "movups (%1), %%xmm0\n\tcvtpd2pi %%xmm0, %%mm0")
TESSERA_TO_MMX(cvttpd2pi, "movups (%1), %%xmm0\n\tcvttpd2pi %%xmm0, %%mm0")

// From a register. From memory CVTPI2PS and CVTPI2PD leave the x87 state alone (as the host does, AMD family
// 19h).
template <ConvertFn F, MmxSource S>
void to_xmm(Vcpu& c, const Op& op) {
    check_available(c, kTrapSse);
    const void* b = nullptr;
    if constexpr (S == MmxSource::Memory) {
        x87_save(c);
        b = read_pointer<8>(c, linear(c, op, 8, Access::Read), op.seg);
    } else {
        begin_mmx(c);
        enter_mmx(c);
        b = mmx_at(c, op.r3);
    }
    alignas(16) std::array<u64, 2> result = {c.ymm[op.r1][0], c.ymm[op.r1][1]};
    begin_unmasked(c);
    F(result.data(), b);
    finish_unmasked(c, false);
    c.ymm[op.r1][0] = result[0];
    c.ymm[op.r1][1] = result[1];
}

template <ConvertFn F, unsigned Size, MmxSource S>
void to_mmx(Vcpu& c, const Op& op) {
    check_available(c, kTrapSse);
    begin_mmx(c);
    x87_save(c);
    const void* b = vector_at(c, op.r3);
    if constexpr (S == MmxSource::Memory) {
        const u64 lin = linear(c, op, Size, Access::Read);
        if (Size == 16 && (lin & 15) != 0) raise_gp0(c);
        b = read_pointer<Size>(c, lin, op.seg);
    }
    enter_mmx(c);
    u64 result = 0;
    begin_unmasked(c);
    F(&result, b);
    finish_unmasked(c, false);
    set_mmx(c, op.r1, result);
}

void emms(Vcpu& c, const Op& /*op*/) {
    begin_mmx(c);
    enter_mmx(c);
    c.fpu.tag = 0xffff;
    c.fp_traps |= kTrapMmxCold;
}

template <ConvertFn F>
Handler lower_to_xmm(const Insn& in, Op& op) {
    op.r1 = in.operand[0].reg;
    if (in.is(1, OperandKind::Memory)) return continue_with<to_xmm<F, MmxSource::Memory>>;
    op.r3 = in.operand[1].reg;
    return continue_with<to_xmm<F, MmxSource::Register>>;
}
template <ConvertFn F, unsigned Size>
Handler lower_to_mmx(const Insn& in, Op& op) {
    op.r1 = in.operand[0].reg;
    if (in.is(1, OperandKind::Memory)) return continue_with<to_mmx<F, Size, MmxSource::Memory>>;
    op.r3 = in.operand[1].reg;
    return continue_with<to_mmx<F, Size, MmxSource::Register>>;
}

Handler lower(const Insn& in, Op& op) {
    switch (in.mnemonic) {
        case Mnemonic::Emms: return continue_with<emms>;
        case Mnemonic::Movd:
        case Mnemonic::Movq:
        case Mnemonic::Movntq: return lower_move(in, op);
        case Mnemonic::Pextrw:
            op.r1 = gpr_offset(in.operand[0]);
            op.r2 = in.operand[1].reg;
            op.imm = in.immediate & 3;
            return continue_with<pextrw>;
        case Mnemonic::Pinsrw:
            op.r1 = in.operand[0].reg;
            op.imm = in.immediate & 3;
            if (in.is(1, OperandKind::Memory)) return continue_with<pinsrw_memory>;
            op.r3 = gpr_offset(in.operand[1]);
            return continue_with<pinsrw_gpr>;
        case Mnemonic::Pmovmskb:
            op.r1 = gpr_offset(in.operand[0]);
            op.r2 = in.operand[1].reg;
            return continue_with<pmovmskb>;
        case Mnemonic::Maskmovq: {
            const unsigned first = in.is(0, OperandKind::Memory) ? 1 : 0;
            op.base = x86::Rdi;
            op.index = kZeroSlot;
            op.scale = 0;
            op.disp = 0;
            op.seg = in.segment;
            op.r1 = in.operand[first].reg;
            op.r2 = in.operand[first + 1].reg;
            return continue_with<maskmovq>;
        }
        case Mnemonic::Movdq2q:
            op.r1 = in.operand[0].reg;
            op.r3 = in.operand[1].reg;
            return continue_with<movdq2q>;
        case Mnemonic::Movq2dq:
            op.r1 = in.operand[0].reg;
            op.r3 = in.operand[1].reg;
            return continue_with<movq2dq>;
        case Mnemonic::Cvtpi2ps: return lower_to_xmm<cvtpi2ps>(in, op);
        case Mnemonic::Cvtpi2pd: return lower_to_xmm<cvtpi2pd>(in, op);
        case Mnemonic::Cvtps2pi: return lower_to_mmx<cvtps2pi, 8>(in, op);
        case Mnemonic::Cvttps2pi: return lower_to_mmx<cvttps2pi, 8>(in, op);
        case Mnemonic::Cvtpd2pi: return lower_to_mmx<cvtpd2pi, 16>(in, op);
        case Mnemonic::Cvttpd2pi: return lower_to_mmx<cvttpd2pi, 16>(in, op);
        default: return lower_row(in, op);
    }
}

}  // namespace

bool lower_mmx(const Insn& in, Op& op, bool* /*ends_block*/) {
    op.fn = lower(in, op);
    return op.fn != nullptr;
}

}  // namespace tessera::soft
