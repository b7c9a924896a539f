// BT BTS BTR BTC, BSF BSR TZCNT LZCNT POPCNT, CRC32.
#include <bit>
#include <type_traits>

#include "cpu/soft/integer/handlers.h"

namespace tessera::soft {
namespace {

using x86::Mnemonic;

// --- BT BTS BTR BTC. Only CF is defined; the rest stays as the host leaves it.

#define TESSERA_BIT_TEST(NAME, MNEMONIC, CHANGES)                                               \
    struct NAME {                                                                               \
        static constexpr bool kChanges = CHANGES;                                               \
        template <typename T>                                                                   \
        static T apply(T a, T bit, u16& status) {                                               \
            u32 s = status;                                                                     \
            asm(TESSERA_LOAD_FLAGS MNEMONIC " %[bit], %[a]" TESSERA_SAVE_FLAGS                  \
                : [a] "+&r"(a), "+&a"(s)                                                        \
                : [bit] "r"(bit)                                                                \
                : "cc");                                                                        \
            status = static_cast<u16>(s);                                                       \
            return a;                                                                           \
        }                                                                                       \
        /* bit is less than T has: the host does not leave *p. */                               \
        template <typename T>                                                                   \
        static void locked(Unaligned<T>* p, T bit, u16& status) {                               \
            u32 s = status;                                                                     \
            asm volatile(TESSERA_LOAD_FLAGS "lock " MNEMONIC " %[bit], %[p]" TESSERA_SAVE_FLAGS \
                         : [p] "+m"(*p), "+&a"(s)                                               \
                         : [bit] "r"(bit)                                                       \
                         : "cc", "memory");                                                     \
            status = static_cast<u16>(s);                                                       \
        }                                                                                       \
    }
struct Bt {
    static constexpr bool kChanges = false;
    template <typename T>
    static T apply(T a, T bit, u16& status) {
        u32 s = status;
        asm(TESSERA_LOAD_FLAGS "bt %[bit], %[a]" TESSERA_SAVE_FLAGS
            : "+&a"(s)
            : [a] "r"(a), [bit] "r"(bit)
            : "cc");
        status = static_cast<u16>(s);
        return a;
    }
};
TESSERA_BIT_TEST(Bts, "bts", true);
TESSERA_BIT_TEST(Btr, "btr", true);
TESSERA_BIT_TEST(Btc, "btc", true);

template <typename I, typename T, Place Src>
TESSERA_HANDLER void bit_in_register(Vcpu& c, const Op* op) {
    u16 status = c.status;
    const T result = I::template apply<T>(get_gpr<T>(c, op->r1), read_operand<Src, T>(c, op), status);
    c.status = status;
    if constexpr (I::kChanges) set_gpr<T>(c, op->r1, result);
    TESSERA_NEXT(c, op);
}

// The linear address of the word that holds bit `offset`: it is a signed distance from the operand [SDM 2A
// BT].
template <typename T, Place Src>
[[nodiscard]] u64 bit_address(Vcpu& c, const Op* op, T* bit, Access access) {
    constexpr unsigned kBits = 8 * sizeof(T);
    const T offset = read_operand<Src, T>(c, op);
    *bit = offset & (kBits - 1);
    if constexpr (Src == Place::Imm) {
        return linear(c, *op, sizeof(T), access);
    } else {
        const s64 words =
            static_cast<s64>(static_cast<std::make_signed_t<T>>(offset)) >> (std::bit_width(kBits) - 1);
        u64 ea = effective_address(c, *op) + static_cast<u64>(words) * sizeof(T);
        if ((op->flags & kAddress64) == 0)
            ea = (op->flags & kAddress32) != 0 ? static_cast<u32>(ea) : static_cast<u16>(ea);
        return linear_of(c, op->seg, ea, sizeof(T), access);
    }
}

enum class Lock : u8 { No, Yes };

template <typename I, typename T, Place Src, Lock L>
TESSERA_GUEST_RACES TESSERA_HANDLER void bit_in_memory(Vcpu& c, const Op* op) {
    c.cur = op;
    T bit = 0;
    u16 status = c.status;
    if constexpr (!I::kChanges) {
        const u64 lin = bit_address<T, Src>(c, op, &bit, Access::Read);
        I::template apply<T>(load<T>(c, lin, op->seg), bit, status);
        c.status = status;
    } else {
        const u64 lin = bit_address<T, Src>(c, op, &bit, Access::Write);
        Unaligned<T>* p = rmw_begin<T>(c, lin, op->seg, L == Lock::Yes);
        if constexpr (L == Lock::Yes)
            I::template locked<T>(p, bit, status);
        else
            *p = I::template apply<T>(*p, bit, status);
        c.status = status;
        rmw_end(c);
    }
    TESSERA_NEXT(c, op);
}

template <typename I, Lock L>
Handler bit_in_memory_of(unsigned size, bool immediate) {
    return immediate ? TESSERA_SIZED_WORDS(size, bit_in_memory<I, T, Place::Imm, L>)
                     : TESSERA_SIZED_WORDS(size, bit_in_memory<I, T, Place::R2, L>);
}

template <typename I>
bool lower_bit_test(const x86::Insn& in, Op& op) {
    const x86::Operand& dst = in.operand[0];
    const bool immediate = is_immediate(in.operand[1]);
    if (immediate)
        op.imm = in.immediate;
    else
        op.r2 = gpr_offset(in.operand[1]);
    if (is_gpr(dst)) {
        op.r1 = gpr_offset(dst);
        return use(op, immediate ? TESSERA_SIZED_WORDS(dst.size, bit_in_register<I, T, Place::Imm>)
                                 : TESSERA_SIZED_WORDS(dst.size, bit_in_register<I, T, Place::R2>));
    }
    if constexpr (I::kChanges) {
        if ((op.flags & kLocked) != 0) return use(op, bit_in_memory_of<I, Lock::Yes>(dst.size, immediate));
    }
    return use(op, bit_in_memory_of<I, Lock::No>(dst.size, immediate));
}

// --- BSF BSR TZCNT LZCNT POPCNT. The destination is a whole register: BSF and BSR leave it alone when the
// source is zero, its upper half included.

#define TESSERA_BIT_COUNT(NAME, MNEMONIC)                                              \
    struct NAME {                                                                      \
        template <typename T>                                                          \
        static u64 apply(u64 dst, T src, u16& status) {                                \
            u32 s = status;                                                            \
            if constexpr (sizeof(T) == 2)                                              \
                asm(TESSERA_LOAD_FLAGS MNEMONIC " %w[src], %w[dst]" TESSERA_SAVE_FLAGS \
                    : [dst] "+&r"(dst), "+&a"(s)                                       \
                    : [src] "r"(src)                                                   \
                    : "cc");                                                           \
            else if constexpr (sizeof(T) == 4)                                         \
                asm(TESSERA_LOAD_FLAGS MNEMONIC " %k[src], %k[dst]" TESSERA_SAVE_FLAGS \
                    : [dst] "+&r"(dst), "+&a"(s)                                       \
                    : [src] "r"(src)                                                   \
                    : "cc");                                                           \
            else                                                                       \
                asm(TESSERA_LOAD_FLAGS MNEMONIC " %q[src], %q[dst]" TESSERA_SAVE_FLAGS \
                    : [dst] "+&r"(dst), "+&a"(s)                                       \
                    : [src] "r"(src)                                                   \
                    : "cc");                                                           \
            status = static_cast<u16>(s);                                              \
            return dst;                                                                \
        }                                                                              \
    }
TESSERA_BIT_COUNT(Bsf, "bsf");
TESSERA_BIT_COUNT(Bsr, "bsr");
TESSERA_BIT_COUNT(Tzcnt, "tzcnt");
TESSERA_BIT_COUNT(Lzcnt, "lzcnt");
TESSERA_BIT_COUNT(Popcnt, "popcnt");

template <typename I, typename T, Place Src>
TESSERA_HANDLER void bit_count(Vcpu& c, const Op* op) {
    const T src = read_operand<Src, T>(c, op);
    u16 status = c.status;
    u64& dst = gpr_at<u64>(c, op->r1);
    dst = I::template apply<T>(dst, src, status);
    c.status = status;
    TESSERA_NEXT(c, op);
}

template <typename I>
bool lower_bit_count(const x86::Insn& in, Op& op) {
    const unsigned size = in.operand[0].size;
    op.r1 = gpr_offset(in.operand[0]);
    if (is_gpr(in.operand[1])) {
        op.r2 = gpr_offset(in.operand[1]);
        return use(op, TESSERA_SIZED_WORDS(size, bit_count<I, T, Place::R2>));
    }
    return use(op, TESSERA_SIZED_WORDS(size, bit_count<I, T, Place::Mem>));
}

// --- CRC32: the upper half of a 64-bit destination is cleared in any case.

template <typename T, Place Src>
TESSERA_HANDLER void crc32(Vcpu& c, const Op* op) {
    const T src = read_operand<Src, T>(c, op);
    u64 crc = get_gpr<u32>(c, op->r1);
    if constexpr (sizeof(T) == 1)
        asm("crc32b %b[src], %k[crc]" : [crc] "+r"(crc) : [src] "r"(src));
    else if constexpr (sizeof(T) == 2)
        asm("crc32w %w[src], %k[crc]" : [crc] "+r"(crc) : [src] "r"(src));
    else if constexpr (sizeof(T) == 4)
        asm("crc32l %k[src], %k[crc]" : [crc] "+r"(crc) : [src] "r"(src));
    else
        asm("crc32q %q[src], %q[crc]" : [crc] "+r"(crc) : [src] "r"(src));
    set_gpr<u64>(c, op->r1, crc);
    TESSERA_NEXT(c, op);
}

bool lower_crc32(const x86::Insn& in, Op& op) {
    const unsigned size = in.operand[1].size;
    op.r1 = gpr_offset(in.operand[0]);
    if (is_gpr(in.operand[1])) {
        op.r2 = gpr_offset(in.operand[1]);
        return use(op, TESSERA_SIZED(size, crc32<T, Place::R2>));
    }
    return use(op, TESSERA_SIZED(size, crc32<T, Place::Mem>));
}

}  // namespace

bool lower_bits(const x86::Insn& in, Op& op) {
    switch (in.mnemonic) {
        case Mnemonic::Bt: return lower_bit_test<Bt>(in, op);
        case Mnemonic::Bts: return lower_bit_test<Bts>(in, op);
        case Mnemonic::Btr: return lower_bit_test<Btr>(in, op);
        case Mnemonic::Btc: return lower_bit_test<Btc>(in, op);
        case Mnemonic::Bsf: return lower_bit_count<Bsf>(in, op);
        case Mnemonic::Bsr: return lower_bit_count<Bsr>(in, op);
        case Mnemonic::Tzcnt: return lower_bit_count<Tzcnt>(in, op);
        case Mnemonic::Lzcnt: return lower_bit_count<Lzcnt>(in, op);
        case Mnemonic::Popcnt: return lower_bit_count<Popcnt>(in, op);
        case Mnemonic::Crc32: return lower_crc32(in, op);
        default: return false;
    }
}

}  // namespace tessera::soft
