// MUL IMUL DIV IDIV. The host's own instruction does the work; #DE is found out before it.
#include <limits>
#include <type_traits>

#include "cpu/soft/integer/handlers.h"

namespace tessera::soft {
namespace {

using x86::Mnemonic;

// IMUL of two and three operands. SF ZF AF PF are undefined: the host may keep what was there before.
template <typename T>
[[nodiscard]] T multiply(T a, T b, u16& status) {
    u32 s = status;
    asm(TESSERA_LOAD_FLAGS "imul %[b], %[a]" TESSERA_SAVE_FLAGS : [a] "+&r"(a), "+&a"(s) : [b] "r"(b) : "cc");
    status = static_cast<u16>(s);
    return a;
}

template <typename T, Place A, Place B>
TESSERA_HANDLER void imul(Vcpu& c, const Op* op) {
    const T a = read_operand<A, T>(c, op);
    set_gpr<T>(c, op->r1, multiply<T>(a, read_operand<B, T>(c, op), c.status));
    TESSERA_NEXT(c, op);
}

// rDX:rAX = rAX * b, or rDX:rAX / b. `rax` and `rdx` are whole registers, of which the instruction uses its
// part.
#define TESSERA_WIDE(NAME, MNEMONIC)                                                \
    struct NAME {                                                                   \
        template <typename T>                                                       \
        static void apply(u64& rax, u64& rdx, T b, u16& status) {                   \
            u32 s = status;                                                         \
            asm(TESSERA_LOAD_FLAGS "movq %[rax], %%rax\n\t" MNEMONIC                \
                                   " %[b]\n\tmovq %%rax, %[rax]" TESSERA_SAVE_FLAGS \
                : [rax] "+&r"(rax), "+&d"(rdx), "+&a"(s)                            \
                : [b] "r"(b)                                                        \
                : "cc");                                                            \
            status = static_cast<u16>(s);                                           \
        }                                                                           \
    }
TESSERA_WIDE(Mul, "mul");
TESSERA_WIDE(Imul, "imul");
TESSERA_WIDE(Div, "div");
TESSERA_WIDE(Idiv, "idiv");

// Whether the unsigned division of high:low by d has a quotient of T's size.
template <typename T>
[[nodiscard]] bool divides_unsigned(T high, T, T d) {
    return high < d;
}

// Whether the signed one has.
template <typename T>
[[nodiscard]] bool divides_signed(T high, T low, T d) {
    constexpr unsigned kBits = 8 * sizeof(T);
    if (d == 0) return false;
    const bool low_negative = (low >> (kBits - 1)) != 0;
    const T sign = low_negative ? std::numeric_limits<T>::max() : 0;
    constexpr T kMin = static_cast<T>(T{1} << (kBits - 1));
    if (high == sign) return low != kMin || d != std::numeric_limits<T>::max();
    // The dividend really is of double width: compare magnitudes. |n| < 2^(2k-1), |d| <= 2^(k-1).
    const bool n_negative = (high >> (kBits - 1)) != 0;
    const bool d_negative = (d >> (kBits - 1)) != 0;
    u128 n = (static_cast<u128>(high) << kBits) | low;
    if (n_negative) n = ((~static_cast<u128>(0) >> (128 - 2 * kBits)) & (~n + 1));
    const T divisor = d_negative ? static_cast<T>(-d) : d;
    // Largest quotient allowed: 2^(k-1) if negative, else one less. It holds iff n < (limit + 1) * |d|.
    const u128 limit = static_cast<u128>(kMin) - (n_negative == d_negative ? 1 : 0);
    return n < (limit + 1) * divisor;
}

template <typename I, typename T, bool Divides>
void wide(Vcpu& c, T b) {
    if constexpr (Divides) {
        const T low = get_gpr<T>(c, 8 * x86::Rax);
        const T high = sizeof(T) == 1 ? get_gpr<T>(c, 8 * x86::Rax + 1) : get_gpr<T>(c, 8 * x86::Rdx);
        const bool ok =
            std::is_same_v<I, Div> ? divides_unsigned<T>(high, low, b) : divides_signed<T>(high, low, b);
        if (!ok) [[unlikely]]
            raise(c, x86::kDe);
    }
    u64 rax = c.reg[x86::Rax];
    u64 rdx = c.reg[x86::Rdx];
    u16 status = c.status;
    I::template apply<T>(rax, rdx, b, status);
    c.status = status;
    c.reg[x86::Rax] = rax;
    if constexpr (sizeof(T) > 1) c.reg[x86::Rdx] = rdx;
}

template <typename I, typename T, Place Src, bool Divides>
TESSERA_HANDLER void wide_op(Vcpu& c, const Op* op) {
    c.cur = op;
    wide<I, T, Divides>(c, read_operand<Src, T>(c, op));
    TESSERA_NEXT(c, op);
}

template <typename I, bool Divides>
bool lower_wide(const x86::Insn& in, Op& op) {
    const unsigned size = in.operand[0].size;
    if (is_gpr(in.operand[0])) {
        op.r2 = gpr_offset(in.operand[0]);
        return use(op, TESSERA_SIZED(size, wide_op<I, T, Place::R2, Divides>));
    }
    return use(op, TESSERA_SIZED(size, wide_op<I, T, Place::Mem, Divides>));
}

bool lower_imul(const x86::Insn& in, Op& op) {
    if (in.operand_count == 1) return lower_wide<Imul, false>(in, op);
    const unsigned size = in.operand[0].size;
    op.r1 = gpr_offset(in.operand[0]);
    if (is_gpr(in.operand[1])) op.r2 = gpr_offset(in.operand[1]);
    if (in.operand_count == 3) {
        op.imm = in.immediate;
        return use(op, is_gpr(in.operand[1]) ? TESSERA_SIZED_WORDS(size, imul<T, Place::R2, Place::Imm>)
                                             : TESSERA_SIZED_WORDS(size, imul<T, Place::Mem, Place::Imm>));
    }
    return use(op, is_gpr(in.operand[1]) ? TESSERA_SIZED_WORDS(size, imul<T, Place::R1, Place::R2>)
                                         : TESSERA_SIZED_WORDS(size, imul<T, Place::R1, Place::Mem>));
}

}  // namespace

bool lower_multiply(const x86::Insn& in, Op& op) {
    switch (in.mnemonic) {
        case Mnemonic::Mul: return lower_wide<Mul, false>(in, op);
        case Mnemonic::Imul: return lower_imul(in, op);
        case Mnemonic::Div: return lower_wide<Div, true>(in, op);
        case Mnemonic::Idiv: return lower_wide<Idiv, true>(in, op);
        default: return false;
    }
}

}  // namespace tessera::soft
