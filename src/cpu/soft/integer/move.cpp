// Instructions that move data without computing: MOV MOVZX MOVSX MOVSXD LEA CMOVcc SETcc BSWAP CBW CWD MOVBE
// MOVNTI XLAT, and XCHG of registers.
#include <bit>
#include <limits>

#include "cpu/soft/integer/handlers.h"

namespace tessera::soft {
namespace {

using x86::Mnemonic;

// --- MOV

template <typename T, Place Dst, Place Src>
TESSERA_HANDLER void move(Vcpu& c, const Op* op) {
    write_operand<Dst, T>(c, op, read_operand<Src, T>(c, op));
    TESSERA_NEXT(c, op);
}

template <Flat F, typename T>
TESSERA_HANDLER void move_from_flat(Vcpu& c, const Op* op) {
    u64 host = 0;
    if (!flat_hit<F, T, Access::Read>(c, op, &host)) [[unlikely]]
        TESSERA_MUSTTAIL return move<T, Place::R1, Place::Mem>(c, op);
    set_gpr<T>(c, op->r1, host_load<T>(host));
    TESSERA_NEXT(c, op);
}

template <Flat F, typename T, Place Src>
TESSERA_HANDLER void move_to_flat(Vcpu& c, const Op* op) {
    u64 host = 0;
    if (!flat_hit<F, T, Access::Write>(c, op, &host)) [[unlikely]]
        TESSERA_MUSTTAIL return move<T, Place::Mem, Src>(c, op);
    host_store<T>(host, read_operand<Src, T>(c, op));
    TESSERA_NEXT(c, op);
}

// MOV with a 64-bit absolute address, which is in imm.
template <typename T>
TESSERA_HANDLER void move_from_absolute(Vcpu& c, const Op* op) {
    c.cur = op;
    set_gpr<T>(c, op->r1, load<T>(c, linear_of(c, op->seg, op->imm, sizeof(T), Access::Read), op->seg));
    TESSERA_NEXT(c, op);
}
template <typename T>
TESSERA_HANDLER void move_to_absolute(Vcpu& c, const Op* op) {
    c.cur = op;
    store<T>(c, linear_of(c, op->seg, op->imm, sizeof(T), Access::Write), get_gpr<T>(c, op->r2), op->seg);
    TESSERA_NEXT(c, op);
}

bool lower_mov(const x86::Insn& in, Op& op) {
    const x86::Operand& dst = in.operand[0];
    const x86::Operand& src = in.operand[1];
    const unsigned size = dst.size;
    const bool absolute = (is_memory(dst) || is_memory(src)) && (op.flags & kAddress64) != 0 &&
                          in.displacement != static_cast<s32>(in.displacement);
    if (is_gpr(dst)) op.r1 = gpr_offset(dst);
    if (is_gpr(src)) op.r2 = gpr_offset(src);
    if (is_immediate(src)) op.imm = in.immediate;
    if (absolute) {
        op.imm = static_cast<u64>(in.displacement);
        return use(op, is_gpr(dst) ? TESSERA_SIZED(size, move_from_absolute<T>)
                                   : TESSERA_SIZED(size, move_to_absolute<T>));
    }
    if (is_gpr(dst)) {
        if (is_gpr(src)) return use(op, TESSERA_SIZED(size, move<T, Place::R1, Place::R2>));
        if (is_immediate(src)) return use(op, TESSERA_SIZED(size, move<T, Place::R1, Place::Imm>));
        return use(op, TESSERA_FLAT_OR(op, TESSERA_SIZED(size, move_from_flat<F, T>),
                                       TESSERA_SIZED(size, move<T, Place::R1, Place::Mem>)));
    }
    if (is_gpr(src))
        return use(op, TESSERA_FLAT_OR(op, TESSERA_SIZED(size, move_to_flat<F, T, Place::R2>),
                                       TESSERA_SIZED(size, move<T, Place::Mem, Place::R2>)));
    return use(op, TESSERA_FLAT_OR(op, TESSERA_SIZED(size, move_to_flat<F, T, Place::Imm>),
                                   TESSERA_SIZED(size, move<T, Place::Mem, Place::Imm>)));
}

// --- MOVZX MOVSX MOVSXD: S is the source's type, signed for sign extension; D the destination's.

template <typename D, typename S>
[[nodiscard]] D extend(std::make_unsigned_t<S> value) {
    return static_cast<D>(static_cast<S>(value));
}

template <typename D, typename S, Place Src>
TESSERA_HANDLER void move_extended(Vcpu& c, const Op* op) {
    set_gpr<D>(c, op->r1, extend<D, S>(read_operand<Src, std::make_unsigned_t<S>>(c, op)));
    TESSERA_NEXT(c, op);
}

template <Flat F, typename D, typename S>
TESSERA_HANDLER void move_extended_from_flat(Vcpu& c, const Op* op) {
    using U = std::make_unsigned_t<S>;
    u64 host = 0;
    if (!flat_hit<F, U, Access::Read>(c, op, &host)) [[unlikely]]
        TESSERA_MUSTTAIL return move_extended<D, S, Place::Mem>(c, op);
    set_gpr<D>(c, op->r1, extend<D, S>(host_load<U>(host)));
    TESSERA_NEXT(c, op);
}

template <typename S>
bool lower_extend(const x86::Insn& in, Op& op) {
    const unsigned size = in.operand[0].size;
    op.r1 = gpr_offset(in.operand[0]);
    if (is_gpr(in.operand[1])) {
        op.r2 = gpr_offset(in.operand[1]);
        return use(op, TESSERA_SIZED_WORDS(size, move_extended<T, S, Place::R2>));
    }
    return use(op, TESSERA_FLAT_OR(op, TESSERA_SIZED_WORDS(size, move_extended_from_flat<F, T, S>),
                                   TESSERA_SIZED_WORDS(size, move_extended<T, S, Place::Mem>)));
}

bool lower_zero_extend(const x86::Insn& in, Op& op) {
    return in.operand[1].size == 1 ? lower_extend<u8>(in, op) : lower_extend<u16>(in, op);
}
bool lower_sign_extend(const x86::Insn& in, Op& op) {
    return in.operand[1].size == 1 ? lower_extend<s8>(in, op) : lower_extend<s16>(in, op);
}

// --- LEA

template <typename T>
TESSERA_HANDLER void load_address(Vcpu& c, const Op* op) {
    set_gpr<T>(c, op->r1, static_cast<T>(effective_address(c, *op)));
    TESSERA_NEXT(c, op);
}
template <typename T>
TESSERA_HANDLER void load_uncut_address(Vcpu& c, const Op* op) {
    set_gpr<T>(c, op->r1, static_cast<T>(uncut_address(c, *op)));
    TESSERA_NEXT(c, op);
}

bool lower_lea(const x86::Insn& in, Op& op) {
    const unsigned size = in.operand[0].size;
    op.r1 = gpr_offset(in.operand[0]);
    if (size <= in.address_size) return use(op, TESSERA_SIZED_WORDS(size, load_uncut_address<T>));
    return use(op, TESSERA_SIZED_WORDS(size, load_address<T>));
}

// --- CMOVcc SETcc

// [APM 3 CMOVcc] the source is read, and a 32-bit destination zero-extended, whatever the condition.
template <u8 Cond, typename T, Place Src>
TESSERA_HANDLER void move_if(Vcpu& c, const Op* op) {
    const T value = read_operand<Src, T>(c, op);
    set_gpr<T>(c, op->r1, condition<Cond>(c) ? value : get_gpr<T>(c, op->r1));
    TESSERA_NEXT(c, op);
}
template <typename T, Place Src>
struct MoveIf {
    template <u8 Cond>
    struct Of {
        static constexpr auto kHandler = move_if<Cond, T, Src>;
    };
};

bool lower_cmov(const x86::Insn& in, Op& op) {
    const unsigned size = in.operand[0].size;
    const unsigned cond = in.condition;
    op.r1 = gpr_offset(in.operand[0]);
    if (is_gpr(in.operand[1])) {
        op.r2 = gpr_offset(in.operand[1]);
        return use(op, by_size<2>(size, [cond]<typename T>() -> Handler {
                       return for_condition<MoveIf<T, Place::R2>::template Of>(cond);
                   }));
    }
    return use(op, by_size<2>(size, [cond]<typename T>() -> Handler {
                   return for_condition<MoveIf<T, Place::Mem>::template Of>(cond);
               }));
}

template <u8 Cond, Place Dst>
TESSERA_HANDLER void set_if(Vcpu& c, const Op* op) {
    write_operand<Dst, u8>(c, op, condition<Cond>(c) ? 1 : 0);
    TESSERA_NEXT(c, op);
}
template <Place Dst>
struct SetIf {
    template <u8 Cond>
    struct Of {
        static constexpr auto kHandler = set_if<Cond, Dst>;
    };
};

bool lower_setcc(const x86::Insn& in, Op& op) {
    if (is_memory(in.operand[0])) return use(op, for_condition<SetIf<Place::Mem>::Of>(in.condition));
    op.r1 = gpr_offset(in.operand[0]);
    return use(op, for_condition<SetIf<Place::R1>::Of>(in.condition));
}

// --- XCHG of registers; with memory it is in atomic.cpp

template <typename T>
TESSERA_HANDLER void exchange(Vcpu& c, const Op* op) {
    const T a = get_gpr<T>(c, op->r1);
    const T b = get_gpr<T>(c, op->r2);
    set_gpr<T>(c, op->r1, b);
    set_gpr<T>(c, op->r2, a);
    TESSERA_NEXT(c, op);
}

bool lower_xchg(const x86::Insn& in, Op& op) {
    if (!is_gpr(in.operand[0]) || !is_gpr(in.operand[1])) return false;
    op.r1 = gpr_offset(in.operand[0]);
    op.r2 = gpr_offset(in.operand[1]);
    return use(op, TESSERA_SIZED(in.operand[0].size, exchange<T>));
}

// --- BSWAP CBW CWD

template <typename T>
TESSERA_HANDLER void swap_bytes(Vcpu& c, const Op* op) {
    // With a 16-bit operand the result is undefined [SDM 2A BSWAP]; processors give zero.
    if constexpr (sizeof(T) == 2)
        set_gpr<T>(c, op->r1, 0);
    else
        set_gpr<T>(c, op->r1, std::byteswap(get_gpr<T>(c, op->r1)));
    TESSERA_NEXT(c, op);
}

template <typename T>
struct HalfOf;
template <>
struct HalfOf<u16> {
    using Type = s8;
};
template <>
struct HalfOf<u32> {
    using Type = s16;
};
template <>
struct HalfOf<u64> {
    using Type = s32;
};

// CBW CWDE CDQE.
template <typename T>
TESSERA_HANDLER void widen_accumulator(Vcpu& c, const Op* op) {
    set_gpr<T>(c, x86::Rax, static_cast<T>(get_gpr<typename HalfOf<T>::Type>(c, x86::Rax)));
    TESSERA_NEXT(c, op);
}
// CWD CDQ CQO.
template <typename T>
TESSERA_HANDLER void sign_to_rdx(Vcpu& c, const Op* op) {
    const bool negative = (get_gpr<T>(c, x86::Rax) >> (8 * sizeof(T) - 1)) != 0;
    set_gpr<T>(c, 8 * x86::Rdx, negative ? std::numeric_limits<T>::max() : 0);
    TESSERA_NEXT(c, op);
}

// --- MOVBE MOVNTI XLAT

template <typename T>
TESSERA_HANDLER void move_swapped_from(Vcpu& c, const Op* op) {
    set_gpr<T>(c, op->r1, std::byteswap(read_operand<Place::Mem, T>(c, op)));
    TESSERA_NEXT(c, op);
}
template <typename T>
TESSERA_HANDLER void move_swapped_to(Vcpu& c, const Op* op) {
    write_operand<Place::Mem, T>(c, op, std::byteswap(get_gpr<T>(c, op->r2)));
    TESSERA_NEXT(c, op);
}

bool lower_movbe(const x86::Insn& in, Op& op) {
    const unsigned size = in.operand[0].size;
    if (is_gpr(in.operand[0])) {
        op.r1 = gpr_offset(in.operand[0]);
        return use(op, TESSERA_SIZED_WORDS(size, move_swapped_from<T>));
    }
    op.r2 = gpr_offset(in.operand[1]);
    return use(op, TESSERA_SIZED_WORDS(size, move_swapped_to<T>));
}

TESSERA_HANDLER void translate(Vcpu& c, const Op* op) {
    u64 ea = c.reg[x86::Rbx] + get_gpr<u8>(c, x86::Rax);
    if ((op->flags & kAddress64) == 0)
        ea = (op->flags & kAddress32) != 0 ? static_cast<u32>(ea) : static_cast<u16>(ea);
    c.cur = op;
    set_gpr<u8>(c, x86::Rax, load<u8>(c, linear_of(c, op->seg, ea, 1, Access::Read), op->seg));
    TESSERA_NEXT(c, op);
}

}  // namespace

bool lower_move(const x86::Insn& in, Op& op) {
    switch (in.mnemonic) {
        case Mnemonic::Mov:
        case Mnemonic::Movnti: return lower_mov(in, op);
        case Mnemonic::Movzx: return lower_zero_extend(in, op);
        case Mnemonic::Movsx: return lower_sign_extend(in, op);
        // Four bytes are read with every operand size (seen on AMD processors; [APM 3 MOVSXD] is silent).
        case Mnemonic::Movsxd: return lower_extend<s32>(in, op);
        case Mnemonic::Lea: return lower_lea(in, op);
        case Mnemonic::Cmovcc: return lower_cmov(in, op);
        case Mnemonic::Setcc: return lower_setcc(in, op);
        case Mnemonic::Xchg: return lower_xchg(in, op);
        case Mnemonic::Bswap:
            op.r1 = gpr_offset(in.operand[0]);
            return use(op, TESSERA_SIZED_WORDS(in.operand[0].size, swap_bytes<T>));
        case Mnemonic::Cbw: return use(op, TESSERA_SIZED_WORDS(in.operand_size, widen_accumulator<T>));
        case Mnemonic::Cwd: return use(op, TESSERA_SIZED_WORDS(in.operand_size, sign_to_rdx<T>));
        case Mnemonic::Movbe: return lower_movbe(in, op);
        case Mnemonic::Xlat: op.seg = in.segment; return use(op, translate);
        default: return false;
    }
}

}  // namespace tessera::soft
