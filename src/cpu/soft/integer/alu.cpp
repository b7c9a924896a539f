// ADD OR ADC SBB AND SUB XOR CMP TEST, INC DEC NEG NOT, ADCX ADOX, in all forms, also LOCKed.
#include "cpu/soft/integer/handlers.h"

namespace tessera::soft {
namespace {

using x86::Mnemonic;

enum class Result : u8 { Kept, Dropped };  // CMP and TEST only set flags

// apply: the instruction on values. locked: on memory, atomically. `status` is Vcpu::status.
#define TESSERA_BINARY(NAME, MNEMONIC, RESULT)                                                              \
    struct NAME {                                                                                           \
        static constexpr Result kResult = RESULT;                                                           \
        template <typename T>                                                                               \
        static T apply(T a, T b, u16& status) {                                                             \
            asm(MNEMONIC " %[b], %[a]" TESSERA_SAVE_FLAGS : [a] "+r"(a), "=a"(status) : [b] "r"(b) : "cc"); \
            return a;                                                                                       \
        }                                                                                                   \
        template <typename T>                                                                               \
        static void locked(Unaligned<T>* p, T b, u16& status) {                                             \
            asm volatile("lock " MNEMONIC " %[b], %[p]" TESSERA_SAVE_FLAGS                                  \
                         : [p] "+m"(*p), "=a"(status)                                                       \
                         : [b] "r"(b)                                                                       \
                         : "cc", "memory");                                                                 \
        }                                                                                                   \
    }
#define TESSERA_COMPARE(NAME, MNEMONIC)                                                                    \
    struct NAME {                                                                                          \
        static constexpr Result kResult = Result::Dropped;                                                 \
        template <typename T>                                                                              \
        static T apply(T a, T b, u16& status) {                                                            \
            asm(MNEMONIC " %[b], %[a]" TESSERA_SAVE_FLAGS : "=a"(status) : [a] "r"(a), [b] "r"(b) : "cc"); \
            return a;                                                                                      \
        }                                                                                                  \
    }
#define TESSERA_CARRYING(NAME, MNEMONIC)                                                      \
    struct NAME {                                                                             \
        static constexpr Result kResult = Result::Kept;                                       \
        template <typename T>                                                                 \
        static T apply(T a, T b, u16& status) {                                               \
            u32 s = status;                                                                   \
            asm(TESSERA_LOAD_CARRY MNEMONIC " %[b], %[a]" TESSERA_SAVE_FLAGS                  \
                : [a] "+r"(a), "+a"(s)                                                        \
                : [b] "r"(b)                                                                  \
                : "cc");                                                                      \
            status = static_cast<u16>(s);                                                     \
            return a;                                                                         \
        }                                                                                     \
        template <typename T>                                                                 \
        static void locked(Unaligned<T>* p, T b, u16& status) {                               \
            u32 s = status;                                                                   \
            asm volatile(TESSERA_LOAD_CARRY "lock " MNEMONIC " %[b], %[p]" TESSERA_SAVE_FLAGS \
                         : [p] "+m"(*p), "+a"(s)                                              \
                         : [b] "r"(b)                                                         \
                         : "cc", "memory");                                                   \
            status = static_cast<u16>(s);                                                     \
        }                                                                                     \
    }

TESSERA_BINARY(Add, "add", Result::Kept);
TESSERA_BINARY(Or, "or", Result::Kept);
TESSERA_BINARY(And, "and", Result::Kept);
TESSERA_BINARY(Sub, "sub", Result::Kept);
TESSERA_BINARY(Xor, "xor", Result::Kept);
TESSERA_CARRYING(Adc, "adc");
TESSERA_CARRYING(Sbb, "sbb");
TESSERA_COMPARE(Cmp, "cmp");
TESSERA_COMPARE(Test, "test");

// A memory operand needs the instruction's size spelled out.
#define TESSERA_BY_SUFFIX(T, BEFORE, MNEMONIC, AFTER, ...)                           \
    do {                                                                             \
        if constexpr (sizeof(T) == 1)                                                \
            asm volatile(BEFORE MNEMONIC "b " AFTER TESSERA_SAVE_FLAGS __VA_ARGS__); \
        else if constexpr (sizeof(T) == 2)                                           \
            asm volatile(BEFORE MNEMONIC "w " AFTER TESSERA_SAVE_FLAGS __VA_ARGS__); \
        else if constexpr (sizeof(T) == 4)                                           \
            asm volatile(BEFORE MNEMONIC "l " AFTER TESSERA_SAVE_FLAGS __VA_ARGS__); \
        else                                                                         \
            asm volatile(BEFORE MNEMONIC "q " AFTER TESSERA_SAVE_FLAGS __VA_ARGS__); \
    } while (false)

// INC and DEC keep CF, NOT keeps everything: hence the flags before them.
#define TESSERA_UNARY(NAME, BEFORE, MNEMONIC)                                                        \
    struct NAME {                                                                                    \
        template <typename T>                                                                        \
        static T apply(T a, u16& status) {                                                           \
            u32 s = status;                                                                          \
            asm(BEFORE MNEMONIC " %[a]" TESSERA_SAVE_FLAGS : [a] "+r"(a), "+a"(s) : : "cc");         \
            status = static_cast<u16>(s);                                                            \
            return a;                                                                                \
        }                                                                                            \
        template <typename T>                                                                        \
        static void locked(Unaligned<T>* p, u16& status) {                                           \
            u32 s = status;                                                                          \
            TESSERA_BY_SUFFIX(T, BEFORE "lock ", MNEMONIC, "%[p]", : [p] "+m"(*p), "+a"(s) : : "cc", \
                              "memory");                                                             \
            status = static_cast<u16>(s);                                                            \
        }                                                                                            \
    }

TESSERA_UNARY(Inc, TESSERA_LOAD_CARRY, "inc");
TESSERA_UNARY(Dec, TESSERA_LOAD_CARRY, "dec");
TESSERA_UNARY(Neg, "", "neg");

struct Not {
    template <typename T>
    static T apply(T a, u16&) {
        return static_cast<T>(~a);
    }
    template <typename T>
    static void locked(Unaligned<T>* p, u16& status) {
        u32 s = status;
        TESSERA_BY_SUFFIX(T, TESSERA_LOAD_FLAGS "lock ", "not", "%[p]", : [p] "+m"(*p), "+a"(s) : : "cc",
                          "memory");
        status = static_cast<u16>(s);
    }
};

// --- handlers

template <typename I, typename T, Place Dst, Place Src>
TESSERA_HANDLER void binary(Vcpu& c, const Op* op) {
    if constexpr (I::kResult == Result::Dropped) {
        const T a = read_operand<Dst, T>(c, op);
        u16 status = c.status;
        I::template apply<T>(a, read_operand<Src, T>(c, op), status);
        c.status = status;
    } else {
        const T b = read_operand<Src, T>(c, op);
        modify_operand<Dst, T>(c, op, [&c, b](T a) {
            u16 status = c.status;
            const T result = I::template apply<T>(a, b, status);
            c.status = status;
            return result;
        });
    }
    TESSERA_NEXT(c, op);
}

template <typename I, Flat F, typename T>
TESSERA_HANDLER void binary_from_flat(Vcpu& c, const Op* op) {
    u64 host = 0;
    if (!flat_hit<F, T, Access::Read>(c, op, &host)) [[unlikely]]
        TESSERA_MUSTTAIL return binary<I, T, Place::R1, Place::Mem>(c, op);
    u16 status = c.status;
    const T result = I::template apply<T>(get_gpr<T>(c, op->r1), host_load<T>(host), status);
    c.status = status;
    if constexpr (I::kResult == Result::Kept) set_gpr<T>(c, op->r1, result);
    TESSERA_NEXT(c, op);
}

template <typename I, Flat F, typename T, Place Src>
TESSERA_HANDLER void binary_to_flat(Vcpu& c, const Op* op) {
    constexpr bool kKept = I::kResult == Result::Kept;
    u64 host = 0;
    if (!flat_hit<F, T, kKept ? Access::Write : Access::Read>(c, op, &host)) [[unlikely]]
        TESSERA_MUSTTAIL return binary<I, T, Place::Mem, Src>(c, op);
    u16 status = c.status;
    const T result = I::template apply<T>(host_load<T>(host), read_operand<Src, T>(c, op), status);
    if constexpr (kKept) host_store<T>(host, result);
    c.status = status;
    TESSERA_NEXT(c, op);
}

template <typename I, typename T, Place Src>
TESSERA_HANDLER void binary_locked(Vcpu& c, const Op* op) {
    const T b = read_operand<Src, T>(c, op);
    modify_memory<T>(c, op, true, [&c, b](Unaligned<T>* p) { I::template locked<T>(p, b, c.status); });
    TESSERA_NEXT(c, op);
}

template <typename I, typename T, Place Dst>
TESSERA_HANDLER void unary(Vcpu& c, const Op* op) {
    modify_operand<Dst, T>(c, op, [&c](T a) { return I::template apply<T>(a, c.status); });
    TESSERA_NEXT(c, op);
}

template <typename I, Flat F, typename T>
TESSERA_HANDLER void unary_flat(Vcpu& c, const Op* op) {
    u64 host = 0;
    if (!flat_hit<F, T, Access::Write>(c, op, &host)) [[unlikely]]
        TESSERA_MUSTTAIL return unary<I, T, Place::Mem>(c, op);
    u16 status = c.status;
    host_store<T>(host, I::template apply<T>(host_load<T>(host), status));
    c.status = status;
    TESSERA_NEXT(c, op);
}

template <typename I, typename T>
TESSERA_HANDLER void unary_locked(Vcpu& c, const Op* op) {
    modify_memory<T>(c, op, true, [&c](Unaligned<T>* p) { I::template locked<T>(p, c.status); });
    TESSERA_NEXT(c, op);
}

// XOR and SUB of a register with itself: the compiler's usual zero.
template <typename T>
TESSERA_HANDLER void clear_register(Vcpu& c, const Op* op) {
    c.status = kStatusZf | kStatusPf | 0x0200;
    set_gpr<T>(c, op->r1, 0);
    TESSERA_NEXT(c, op);
}

// [SDM 2A ADCX] one flag is carry in and carry out, the others stay.
template <typename T, u16 Flag, Place Src>
TESSERA_HANDLER void add_with_flag(Vcpu& c, const Op* op) {
    const T b = read_operand<Src, T>(c, op);
    const T a = get_gpr<T>(c, op->r1);
    const u128 sum = static_cast<u128>(a) + b + ((c.status & Flag) != 0 ? 1 : 0);
    c.status = static_cast<u16>(c.status & ~Flag);
    if ((sum >> (8 * sizeof(T))) != 0) c.status |= Flag;
    set_gpr<T>(c, op->r1, static_cast<T>(sum));
    TESSERA_NEXT(c, op);
}

// --- lowering

template <typename I>
bool lower_binary(const x86::Insn& in, Op& op) {
    const x86::Operand& dst = in.operand[0];
    const x86::Operand& src = in.operand[1];
    const unsigned size = dst.size;
    if (is_immediate(src)) op.imm = in.immediate;
    if (is_gpr(src)) op.r2 = gpr_offset(src);
    if (is_gpr(dst)) {
        op.r1 = gpr_offset(dst);
        if (is_gpr(src)) return use(op, TESSERA_SIZED(size, binary<I, T, Place::R1, Place::R2>));
        if (is_immediate(src)) return use(op, TESSERA_SIZED(size, binary<I, T, Place::R1, Place::Imm>));
        return use(op, TESSERA_FLAT_OR(op, TESSERA_SIZED(size, binary_from_flat<I, F, T>),
                                       TESSERA_SIZED(size, binary<I, T, Place::R1, Place::Mem>)));
    }
    if constexpr (I::kResult == Result::Kept) {
        if ((op.flags & kLocked) != 0)
            return use(op, is_gpr(src) ? TESSERA_SIZED(size, binary_locked<I, T, Place::R2>)
                                       : TESSERA_SIZED(size, binary_locked<I, T, Place::Imm>));
    }
    if (is_gpr(src))
        return use(op, TESSERA_FLAT_OR(op, TESSERA_SIZED(size, binary_to_flat<I, F, T, Place::R2>),
                                       TESSERA_SIZED(size, binary<I, T, Place::Mem, Place::R2>)));
    return use(op, TESSERA_FLAT_OR(op, TESSERA_SIZED(size, binary_to_flat<I, F, T, Place::Imm>),
                                   TESSERA_SIZED(size, binary<I, T, Place::Mem, Place::Imm>)));
}

bool is_same_register(const x86::Insn& in) {
    return is_gpr(in.operand[0]) && is_gpr(in.operand[1]) && in.operand[0].size >= 4 &&
           in.operand[0].reg == in.operand[1].reg;
}

template <typename I>
bool lower_binary_or_clear(const x86::Insn& in, Op& op) {
    if (!is_same_register(in)) return lower_binary<I>(in, op);
    op.r1 = gpr_offset(in.operand[0]);
    return use(op, TESSERA_SIZED_LONGS(in.operand[0].size, clear_register<T>));
}

template <typename I>
bool lower_unary(const x86::Insn& in, Op& op) {
    const x86::Operand& dst = in.operand[0];
    if (is_gpr(dst)) {
        op.r1 = gpr_offset(dst);
        return use(op, TESSERA_SIZED(dst.size, unary<I, T, Place::R1>));
    }
    if ((op.flags & kLocked) != 0) return use(op, TESSERA_SIZED(dst.size, unary_locked<I, T>));
    return use(op, TESSERA_FLAT_OR(op, TESSERA_SIZED(dst.size, unary_flat<I, F, T>),
                                   TESSERA_SIZED(dst.size, unary<I, T, Place::Mem>)));
}

template <u16 Flag>
bool lower_add_with_flag(const x86::Insn& in, Op& op) {
    op.r1 = gpr_offset(in.operand[0]);
    if (is_gpr(in.operand[1])) {
        op.r2 = gpr_offset(in.operand[1]);
        return use(op, TESSERA_SIZED_LONGS(in.operand[0].size, add_with_flag<T, Flag, Place::R2>));
    }
    return use(op, TESSERA_SIZED_LONGS(in.operand[0].size, add_with_flag<T, Flag, Place::Mem>));
}

}  // namespace

bool lower_alu(const x86::Insn& in, Op& op) {
    switch (in.mnemonic) {
        case Mnemonic::Add: return lower_binary<Add>(in, op);
        case Mnemonic::Or: return lower_binary<Or>(in, op);
        case Mnemonic::Adc: return lower_binary<Adc>(in, op);
        case Mnemonic::Sbb: return lower_binary<Sbb>(in, op);
        case Mnemonic::And: return lower_binary<And>(in, op);
        case Mnemonic::Sub: return lower_binary_or_clear<Sub>(in, op);
        case Mnemonic::Xor: return lower_binary_or_clear<Xor>(in, op);
        case Mnemonic::Cmp: return lower_binary<Cmp>(in, op);
        case Mnemonic::Test: return lower_binary<Test>(in, op);
        case Mnemonic::Inc: return lower_unary<Inc>(in, op);
        case Mnemonic::Dec: return lower_unary<Dec>(in, op);
        case Mnemonic::Neg: return lower_unary<Neg>(in, op);
        case Mnemonic::Not: return lower_unary<Not>(in, op);
        case Mnemonic::Adcx: return lower_add_with_flag<kStatusCf>(in, op);
        case Mnemonic::Adox: return lower_add_with_flag<kStatusOf>(in, op);
        default: return false;
    }
}

}  // namespace tessera::soft
