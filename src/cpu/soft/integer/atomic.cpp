// XCHG with memory, XADD, CMPXCHG, CMPXCHG8B and CMPXCHG16B.
#include <type_traits>

#include "cpu/soft/integer/handlers.h"

namespace tessera::soft {
namespace {

using x86::Mnemonic;

enum class Lock : u8 { No, Yes };

// --- XCHG: always locked [SDM 2A XCHG].

template <typename T>
TESSERA_HANDLER void exchange_memory(Vcpu& c, const Op* op) {
    T value = get_gpr<T>(c, op->r2);
    modify_memory<T>(c, op, true, [&value](Unaligned<T>* p) {
        asm volatile("xchg %[value], %[p]" : [value] "+r"(value), [p] "+m"(*p) : : "memory");
    });
    set_gpr<T>(c, op->r2, value);
    TESSERA_NEXT(c, op);
}

bool lower_xchg_memory(const x86::Insn& in, Op& op) {
    const unsigned r = is_memory(in.operand[0]) ? 1 : 0;
    op.r2 = gpr_offset(in.operand[r]);
    return use(op, TESSERA_SIZED(in.operand[r].size, exchange_memory<T>));
}

// --- XADD

template <typename T>
TESSERA_HANDLER void exchange_add_register(Vcpu& c, const Op* op) {
    const T a = get_gpr<T>(c, op->r1);
    T sum = a;
    u16 status = 0;
    asm("add %[b], %[a]" TESSERA_SAVE_FLAGS
        : [a] "+r"(sum), "=a"(status)
        : [b] "r"(get_gpr<T>(c, op->r2))
        : "cc");
    c.status = status;
    // The sum is written last: XADD of a register with itself leaves it there [SDM 2B XADD].
    set_gpr<T>(c, op->r2, a);
    set_gpr<T>(c, op->r1, sum);
    TESSERA_NEXT(c, op);
}

template <typename T, Lock L>
TESSERA_HANDLER void exchange_add_memory(Vcpu& c, const Op* op) {
    T value = get_gpr<T>(c, op->r2);
    u16 status = 0;
    modify_memory<T>(c, op, L == Lock::Yes, [&value, &status](Unaligned<T>* p) {
        if constexpr (L == Lock::Yes)
            asm volatile("lock xadd %[value], %[p]" TESSERA_SAVE_FLAGS
                         : [value] "+&r"(value), [p] "+m"(*p), "=a"(status)
                         :
                         : "cc", "memory");
        else
            asm volatile("xadd %[value], %[p]" TESSERA_SAVE_FLAGS
                         : [value] "+&r"(value), [p] "+m"(*p), "=a"(status)
                         :
                         : "cc", "memory");
    });
    c.status = status;
    set_gpr<T>(c, op->r2, value);
    TESSERA_NEXT(c, op);
}

bool lower_xadd(const x86::Insn& in, Op& op) {
    const unsigned size = in.operand[0].size;
    op.r2 = gpr_offset(in.operand[1]);
    if (is_gpr(in.operand[0])) {
        op.r1 = gpr_offset(in.operand[0]);
        return use(op, TESSERA_SIZED(size, exchange_add_register<T>));
    }
    return use(op, (op.flags & kLocked) != 0 ? TESSERA_SIZED(size, exchange_add_memory<T, Lock::Yes>)
                                             : TESSERA_SIZED(size, exchange_add_memory<T, Lock::No>));
}

// --- CMPXCHG. The accumulator is the whole of RAX: what becomes of its upper half (kept if the comparison
// succeeds, else cleared by a 32-bit one) is the host's business.

#define TESSERA_COMPARE_EXCHANGE(LOCK)                                                \
    asm volatile(LOCK "cmpxchg %[src], %[p]\n\tmovq %%rax, %[old]" TESSERA_SAVE_FLAGS \
                 : [p] "+m"(*p), [old] "=&r"(old), "+&a"(rax)                         \
                 : [src] "r"(src)                                                     \
                 : "cc", "memory")

template <typename T, Lock L>
TESSERA_HANDLER void compare_exchange_memory(Vcpu& c, const Op* op) {
    const T src = get_gpr<T>(c, op->r2);
    u64 rax = c.reg[x86::Rax];
    u64 old = 0;
    modify_memory<T>(c, op, L == Lock::Yes, [&rax, &old, src](Unaligned<T>* p) {
        if constexpr (L == Lock::Yes)
            TESSERA_COMPARE_EXCHANGE("lock ");
        else
            TESSERA_COMPARE_EXCHANGE("");
    });
    c.status = static_cast<u16>(rax);
    c.reg[x86::Rax] = old;
    TESSERA_NEXT(c, op);
}

template <typename T>
TESSERA_HANDLER void compare_exchange_register(Vcpu& c, const Op* op) {
    const T src = get_gpr<T>(c, op->r2);
    T scratch = get_gpr<T>(c, op->r1);
    T* const p = &scratch;
    u64 rax = c.reg[x86::Rax];
    u64 old = 0;
    TESSERA_COMPARE_EXCHANGE("");
    c.status = static_cast<u16>(rax);
    // Exactly one of the two registers is written; the other keeps its upper half too.
    if ((c.status & kStatusZf) != 0)
        set_gpr<T>(c, op->r1, src);
    else
        c.reg[x86::Rax] = old;
    TESSERA_NEXT(c, op);
}

bool lower_cmpxchg(const x86::Insn& in, Op& op) {
    const unsigned size = in.operand[0].size;
    op.r2 = gpr_offset(in.operand[1]);
    if (is_gpr(in.operand[0])) {
        op.r1 = gpr_offset(in.operand[0]);
        return use(op, TESSERA_SIZED(size, compare_exchange_register<T>));
    }
    return use(op, (op.flags & kLocked) != 0 ? TESSERA_SIZED(size, compare_exchange_memory<T, Lock::Yes>)
                                             : TESSERA_SIZED(size, compare_exchange_memory<T, Lock::No>));
}

// --- CMPXCHG8B CMPXCHG16B. Half is the type of one register of the pairs; only ZF changes.

template <typename Half, Lock L>
void compare_exchange_pair(Vcpu& c, const Op& op) {
    using Whole = std::conditional_t<sizeof(Half) == 4, u64, u128>;
    const u64 lin = linear(c, op, sizeof(Whole), Access::Write);
    if (sizeof(Whole) == 16 && (lin & 15) != 0) raise_gp0(c);
    Half low = get_gpr<Half>(c, 8 * x86::Rax);
    Half high = get_gpr<Half>(c, 8 * x86::Rdx);
    const Half new_low = get_gpr<Half>(c, 8 * x86::Rbx);
    const Half new_high = get_gpr<Half>(c, 8 * x86::Rcx);
    bool equal = false;
    auto* p = static_cast<Unaligned<Whole>*>(rmw_begin<Whole>(c, lin, op.seg, L == Lock::Yes));
    if constexpr (sizeof(Whole) == 16 && L == Lock::Yes)
        asm volatile("lock cmpxchg16b %[p]"
                     : [p] "+m"(*p), "+a"(low), "+d"(high), "=@ccz"(equal)
                     : "b"(new_low), "c"(new_high)
                     : "memory");
    else if constexpr (sizeof(Whole) == 16)
        asm volatile("cmpxchg16b %[p]"
                     : [p] "+m"(*p), "+a"(low), "+d"(high), "=@ccz"(equal)
                     : "b"(new_low), "c"(new_high)
                     : "memory");
    else if constexpr (L == Lock::Yes)
        asm volatile("lock cmpxchg8b %[p]"
                     : [p] "+m"(*p), "+a"(low), "+d"(high), "=@ccz"(equal)
                     : "b"(new_low), "c"(new_high)
                     : "memory");
    else
        asm volatile("cmpxchg8b %[p]"
                     : [p] "+m"(*p), "+a"(low), "+d"(high), "=@ccz"(equal)
                     : "b"(new_low), "c"(new_high)
                     : "memory");
    rmw_end(c);
    if (equal) {
        c.status |= kStatusZf;
    } else {
        c.status = static_cast<u16>(c.status & ~kStatusZf);
        set_gpr<Half>(c, 8 * x86::Rax, low);
        set_gpr<Half>(c, 8 * x86::Rdx, high);
    }
}

}  // namespace

bool lower_atomic(const x86::Insn& in, Op& op) {
    const bool locked = (op.flags & kLocked) != 0;
    switch (in.mnemonic) {
        case Mnemonic::Xchg: return lower_xchg_memory(in, op);
        case Mnemonic::Xadd: return lower_xadd(in, op);
        case Mnemonic::Cmpxchg: return lower_cmpxchg(in, op);
        case Mnemonic::Cmpxchg8b:
            return use(op, locked ? continue_with<compare_exchange_pair<u32, Lock::Yes>>
                                  : continue_with<compare_exchange_pair<u32, Lock::No>>);
        case Mnemonic::Cmpxchg16b:
            return use(op, locked ? continue_with<compare_exchange_pair<u64, Lock::Yes>>
                                  : continue_with<compare_exchange_pair<u64, Lock::No>>);
        default: return false;
    }
}

}  // namespace tessera::soft
