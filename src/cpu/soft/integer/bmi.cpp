// BMI1 and BMI2: ANDN BEXTR BLSI BLSMSK BLSR BZHI MULX PDEP PEXT RORX SARX SHLX SHRX.
#include <bit>
#include <type_traits>

#include "cpu/soft/integer/handlers.h"

namespace tessera::soft {
namespace {

using x86::Mnemonic;

// VEX encodings do not exist in real and virtual-8086 mode [SDM 2A 2.8].
inline void need_vex(Vcpu& c, const Op* op) {
    if ((op->flags & kLongMode) != 0) [[likely]]
        return;
    c.cur = op;
    if (!c.protected_mode() || c.v8086()) raise_ud(c);
}

// Two sources, flags written: `MNEMONIC r2/m, r3, r1` in AT&T order is a = f(b, a).
#define TESSERA_BMI3(NAME, MNEMONIC)                                          \
    struct NAME {                                                             \
        template <typename T>                                                 \
        static T apply(T first, T second, u16& status) {                      \
            T result;                                                         \
            asm(MNEMONIC " %[second], %[first], %[result]" TESSERA_SAVE_FLAGS \
                : [result] "=&r"(result), "=a"(status)                        \
                : [first] "r"(first), [second] "r"(second)                    \
                : "cc");                                                      \
            return result;                                                    \
        }                                                                     \
    }
TESSERA_BMI3(Andn, "andn");    // second & ~first
TESSERA_BMI3(Bextr, "bextr");  // first is the encoding's r/m operand with these two in AT&T order swapped
TESSERA_BMI3(Bzhi, "bzhi");

// One source, flags written.
#define TESSERA_BMI2(NAME, MNEMONIC)                                \
    struct NAME {                                                   \
        template <typename T>                                       \
        static T apply(T source, u16& status) {                     \
            T result;                                               \
            asm(MNEMONIC " %[source], %[result]" TESSERA_SAVE_FLAGS \
                : [result] "=&r"(result), "=a"(status)              \
                : [source] "r"(source)                              \
                : "cc");                                            \
            return result;                                          \
        }                                                           \
    }
TESSERA_BMI2(Blsi, "blsi");
TESSERA_BMI2(Blsr, "blsr");
TESSERA_BMI2(Blsmsk, "blsmsk");

// Two sources, no flags.
struct Pdep {
    template <typename T>
    static T apply(T value, T mask) {
        T result;
        asm("pdep %[mask], %[value], %[result]"
            : [result] "=r"(result)
            : [value] "r"(value), [mask] "r"(mask));
        return result;
    }
};
struct Pext {
    template <typename T>
    static T apply(T value, T mask) {
        T result;
        asm("pext %[mask], %[value], %[result]"
            : [result] "=r"(result)
            : [value] "r"(value), [mask] "r"(mask));
        return result;
    }
};
struct Sarx {
    template <typename T>
    static T apply(T value, T count) {
        return static_cast<T>(static_cast<std::make_signed_t<T>>(value) >> (count & (8 * sizeof(T) - 1)));
    }
};
struct Shlx {
    template <typename T>
    static T apply(T value, T count) {
        return value << (count & (8 * sizeof(T) - 1));
    }
};
struct Shrx {
    template <typename T>
    static T apply(T value, T count) {
        return value >> (count & (8 * sizeof(T) - 1));
    }
};
struct Rorx {
    template <typename T>
    static T apply(T value, T count) {
        return std::rotr(value, static_cast<int>(count & (8 * sizeof(T) - 1)));
    }
};

// Register r3 is the one in VEX.vvvv; r2 or memory is the r/m operand.
enum class Order : u8 { VvvvFirst, RmFirst };

template <typename I, typename T, Place Rm, Order O, bool Flags>
TESSERA_HANDLER void bmi_two(Vcpu& c, const Op* op) {
    need_vex(c, op);
    const T rm = read_operand<Rm, T>(c, op);
    const T vvvv = get_gpr<T>(c, op->r3);
    const T a = O == Order::VvvvFirst ? vvvv : rm;
    const T b = O == Order::VvvvFirst ? rm : vvvv;
    if constexpr (Flags) {
        u16 status = 0;
        const T result = I::template apply<T>(a, b, status);
        c.status = status;
        set_gpr<T>(c, op->r1, result);
    } else {
        set_gpr<T>(c, op->r1, I::template apply<T>(a, b));
    }
    TESSERA_NEXT(c, op);
}

template <typename I, typename T, Place Rm>
TESSERA_HANDLER void bmi_one(Vcpu& c, const Op* op) {
    need_vex(c, op);
    const T source = read_operand<Rm, T>(c, op);
    u16 status = 0;
    const T result = I::template apply<T>(source, status);
    c.status = status;
    set_gpr<T>(c, op->r1, result);
    TESSERA_NEXT(c, op);
}

template <typename T, Place Rm>
TESSERA_HANDLER void rorx(Vcpu& c, const Op* op) {
    need_vex(c, op);
    set_gpr<T>(c, op->r1, Rorx::apply<T>(read_operand<Rm, T>(c, op), static_cast<T>(op->imm)));
    TESSERA_NEXT(c, op);
}

// r1 receives the upper half, r3 (VEX.vvvv) the lower; if they are the same register, the upper half stays.
template <typename T, Place Rm>
TESSERA_HANDLER void mulx(Vcpu& c, const Op* op) {
    need_vex(c, op);
    const u128 product = static_cast<u128>(get_gpr<T>(c, 8 * x86::Rdx)) * read_operand<Rm, T>(c, op);
    set_gpr<T>(c, op->r3, static_cast<T>(product));
    set_gpr<T>(c, op->r1, static_cast<T>(product >> (8 * sizeof(T))));
    TESSERA_NEXT(c, op);
}

// --- lowering. Operands come in the order of the manuals.

template <typename I, Order O, bool Flags>
bool lower_two(const x86::Insn& in, Op& op) {
    const unsigned size = in.operand[0].size;
    const unsigned rm = O == Order::VvvvFirst ? 2 : 1;
    op.r1 = gpr_offset(in.operand[0]);
    op.r3 = gpr_offset(in.operand[3 - rm]);
    if (is_memory(in.operand[rm]))
        return use(op, TESSERA_SIZED_LONGS(size, bmi_two<I, T, Place::Mem, O, Flags>));
    op.r2 = gpr_offset(in.operand[rm]);
    return use(op, TESSERA_SIZED_LONGS(size, bmi_two<I, T, Place::R2, O, Flags>));
}

template <typename I>
bool lower_one(const x86::Insn& in, Op& op) {
    const unsigned size = in.operand[0].size;
    op.r1 = gpr_offset(in.operand[0]);
    if (is_memory(in.operand[1])) return use(op, TESSERA_SIZED_LONGS(size, bmi_one<I, T, Place::Mem>));
    op.r2 = gpr_offset(in.operand[1]);
    return use(op, TESSERA_SIZED_LONGS(size, bmi_one<I, T, Place::R2>));
}

bool lower_rorx(const x86::Insn& in, Op& op) {
    const unsigned size = in.operand[0].size;
    op.r1 = gpr_offset(in.operand[0]);
    op.imm = in.immediate;
    if (is_memory(in.operand[1])) return use(op, TESSERA_SIZED_LONGS(size, rorx<T, Place::Mem>));
    op.r2 = gpr_offset(in.operand[1]);
    return use(op, TESSERA_SIZED_LONGS(size, rorx<T, Place::R2>));
}

bool lower_mulx(const x86::Insn& in, Op& op) {
    const unsigned size = in.operand[0].size;
    op.r1 = gpr_offset(in.operand[0]);
    op.r3 = gpr_offset(in.operand[1]);
    if (is_memory(in.operand[2])) return use(op, TESSERA_SIZED_LONGS(size, mulx<T, Place::Mem>));
    op.r2 = gpr_offset(in.operand[2]);
    return use(op, TESSERA_SIZED_LONGS(size, mulx<T, Place::R2>));
}

}  // namespace

bool lower_bmi(const x86::Insn& in, Op& op) {
    switch (in.mnemonic) {
        case Mnemonic::Andn: return lower_two<Andn, Order::VvvvFirst, true>(in, op);
        case Mnemonic::Bextr: return lower_two<Bextr, Order::RmFirst, true>(in, op);
        case Mnemonic::Bzhi: return lower_two<Bzhi, Order::RmFirst, true>(in, op);
        case Mnemonic::Pdep: return lower_two<Pdep, Order::VvvvFirst, false>(in, op);
        case Mnemonic::Pext: return lower_two<Pext, Order::VvvvFirst, false>(in, op);
        case Mnemonic::Sarx: return lower_two<Sarx, Order::RmFirst, false>(in, op);
        case Mnemonic::Shlx: return lower_two<Shlx, Order::RmFirst, false>(in, op);
        case Mnemonic::Shrx: return lower_two<Shrx, Order::RmFirst, false>(in, op);
        case Mnemonic::Blsi: return lower_one<Blsi>(in, op);
        case Mnemonic::Blsr: return lower_one<Blsr>(in, op);
        case Mnemonic::Blsmsk: return lower_one<Blsmsk>(in, op);
        case Mnemonic::Rorx: return lower_rorx(in, op);
        case Mnemonic::Mulx: return lower_mulx(in, op);
        default: return false;
    }
}

}  // namespace tessera::soft
