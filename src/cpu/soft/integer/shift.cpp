// SHL SHR SAR ROL ROR RCL RCR, SHLD SHRD.
#include "cpu/soft/integer/handlers.h"

namespace tessera::soft {
namespace {

using x86::Mnemonic;

// With a count of zero, and for rotates always, flags stay from before; OF and AF where they are undefined
// are as the host has them.
#define TESSERA_SHIFT(NAME, MNEMONIC)                                                                       \
    struct NAME {                                                                                           \
        template <typename T>                                                                               \
        static T apply(T a, u8 count, u16& status) {                                                        \
            u32 s = status;                                                                                 \
            asm(TESSERA_LOAD_FLAGS MNEMONIC " %%cl, %[a]" TESSERA_SAVE_FLAGS                                \
                : [a] "+r"(a), "+a"(s)                                                                      \
                : "c"(count)                                                                                \
                : "cc");                                                                                    \
            status = static_cast<u16>(s);                                                                   \
            return a;                                                                                       \
        }                                                                                                   \
        /* count is not zero: nothing is left of the flags before. */                                       \
        template <typename T>                                                                               \
        static T apply_fresh(T a, u8 count, u16& status) {                                                  \
            asm(MNEMONIC " %%cl, %[a]" TESSERA_SAVE_FLAGS : [a] "+r"(a), "=a"(status) : "c"(count) : "cc"); \
            return a;                                                                                       \
        }                                                                                                   \
    }

TESSERA_SHIFT(Shl, "shl");
TESSERA_SHIFT(Shr, "shr");
TESSERA_SHIFT(Sar, "sar");
TESSERA_SHIFT(Rol, "rol");
TESSERA_SHIFT(Ror, "ror");
TESSERA_SHIFT(Rcl, "rcl");
TESSERA_SHIFT(Rcr, "rcr");

enum class Count : u8 { Cl, Imm, Fresh };  // Fresh: immediate, not zero, and not a rotate

template <Count N>
[[nodiscard]] u8 shift_count(Vcpu& c, const Op* op) {
    return N == Count::Cl ? get_gpr<u8>(c, 8 * x86::Rcx) : static_cast<u8>(op->imm);
}

template <typename I, typename T, Place Dst, Count N>
TESSERA_HANDLER void shift(Vcpu& c, const Op* op) {
    const u8 count = shift_count<N>(c, op);
    modify_operand<Dst, T>(c, op, [&c, count](T a) {
        u16 status = c.status;
        const T result = N == Count::Fresh ? I::template apply_fresh<T>(a, count, status)
                                           : I::template apply<T>(a, count, status);
        c.status = status;
        return result;
    });
    TESSERA_NEXT(c, op);
}

template <typename I, Place Dst, Count N>
Handler shift_of(unsigned size) {
    return TESSERA_SIZED(size, shift<I, T, Dst, N>);
}

enum class Kind : u8 { Shift, Rotate };

template <typename I, Kind K>
bool lower_shift_or_rotate(const x86::Insn& in, Op& op) {
    const x86::Operand& dst = in.operand[0];
    const unsigned size = dst.size;
    const bool memory = is_memory(dst);
    if (!memory) op.r1 = gpr_offset(dst);
    if (is_gpr(in.operand[1]))
        return use(
            op, memory ? shift_of<I, Place::Mem, Count::Cl>(size) : shift_of<I, Place::R1, Count::Cl>(size));
    op.imm = in.immediate & (size == 8 ? 63 : 31);
    if constexpr (K == Kind::Shift) {
        if (op.imm != 0)
            return use(op, memory ? shift_of<I, Place::Mem, Count::Fresh>(size)
                                  : shift_of<I, Place::R1, Count::Fresh>(size));
    }
    return use(op,
               memory ? shift_of<I, Place::Mem, Count::Imm>(size) : shift_of<I, Place::R1, Count::Imm>(size));
}

// --- SHLD SHRD

#define TESSERA_DOUBLE_SHIFT(NAME, MNEMONIC)                                       \
    struct NAME {                                                                  \
        template <typename T>                                                      \
        static T apply(T a, T b, u8 count, u16& status) {                          \
            u32 s = status;                                                        \
            asm(TESSERA_LOAD_FLAGS MNEMONIC " %%cl, %[b], %[a]" TESSERA_SAVE_FLAGS \
                : [a] "+&r"(a), "+&a"(s)                                           \
                : [b] "r"(b), "c"(count)                                           \
                : "cc");                                                           \
            status = static_cast<u16>(s);                                          \
            return a;                                                              \
        }                                                                          \
    }
TESSERA_DOUBLE_SHIFT(Shld, "shld");
TESSERA_DOUBLE_SHIFT(Shrd, "shrd");

template <typename I, typename T, Place Dst, Count N>
TESSERA_HANDLER void double_shift(Vcpu& c, const Op* op) {
    const u8 count = shift_count<N>(c, op);
    const T b = get_gpr<T>(c, op->r2);
    modify_operand<Dst, T>(c, op, [&c, b, count](T a) {
        u16 status = c.status;
        const T result = I::template apply<T>(a, b, count, status);
        c.status = status;
        return result;
    });
    TESSERA_NEXT(c, op);
}

template <typename I>
bool lower_double_shift(const x86::Insn& in, Op& op) {
    const x86::Operand& dst = in.operand[0];
    const unsigned size = dst.size;
    op.r2 = gpr_offset(in.operand[1]);
    const bool by_cl = is_gpr(in.operand[2]);
    if (!by_cl) op.imm = in.immediate;
    if (is_memory(dst))
        return use(op, by_cl ? TESSERA_SIZED_WORDS(size, double_shift<I, T, Place::Mem, Count::Cl>)
                             : TESSERA_SIZED_WORDS(size, double_shift<I, T, Place::Mem, Count::Imm>));
    op.r1 = gpr_offset(dst);
    return use(op, by_cl ? TESSERA_SIZED_WORDS(size, double_shift<I, T, Place::R1, Count::Cl>)
                         : TESSERA_SIZED_WORDS(size, double_shift<I, T, Place::R1, Count::Imm>));
}

}  // namespace

bool lower_shift(const x86::Insn& in, Op& op) {
    switch (in.mnemonic) {
        case Mnemonic::Shl: return lower_shift_or_rotate<Shl, Kind::Shift>(in, op);
        case Mnemonic::Shr: return lower_shift_or_rotate<Shr, Kind::Shift>(in, op);
        case Mnemonic::Sar: return lower_shift_or_rotate<Sar, Kind::Shift>(in, op);
        case Mnemonic::Rol: return lower_shift_or_rotate<Rol, Kind::Rotate>(in, op);
        case Mnemonic::Ror: return lower_shift_or_rotate<Ror, Kind::Rotate>(in, op);
        case Mnemonic::Rcl: return lower_shift_or_rotate<Rcl, Kind::Rotate>(in, op);
        case Mnemonic::Rcr: return lower_shift_or_rotate<Rcr, Kind::Rotate>(in, op);
        case Mnemonic::Shld: return lower_double_shift<Shld>(in, op);
        case Mnemonic::Shrd: return lower_double_shift<Shrd>(in, op);
        default: return false;
    }
}

}  // namespace tessera::soft
