// What the integer handlers are made of: operand access, captured flags, and the lowering functions of the
// families.
//
// A handler is instantiated from an instruction (a struct with apply<T>()), an operand size T and the Places
// of its operands. Hot ones have further forms for "flat" memory operands: of 64-bit code without FS or GS,
// where nothing is to be checked before the TLB, and of 32-bit code, where one comparison with the segment's
// limit is. On a miss these hand over to the first form and so contain no calls.
#pragma once

#include "cpu/soft/access.h"
#include "cpu/soft/conditions.h"
#include "cpu/soft/lower.h"

// The flags of the instruction before it, into Vcpu::status (in AX); and back out of it.
#define TESSERA_SAVE_FLAGS "\n\tlahf\n\tseto %%al"
#define TESSERA_LOAD_FLAGS "addb $0x7f, %%al\n\tsahf\n\t"
#define TESSERA_LOAD_CARRY "btl $8, %%eax\n\t"

namespace tessera::soft {

enum class Place : u8 { R1, R2, Imm, Mem };

// --- flat memory operands

enum class Flat : u8 { Bits64, Bits32 };

// The host address of the op's flat operand, if the TLB has it. Always inline: a chain handler whose local
// variable has an address does not compile with AddressSanitizer.
template <Flat F, typename T, Access A>
[[nodiscard, gnu::always_inline]] inline bool flat_hit(Vcpu& c, const Op* op, u64* host) {
    u64 lin = 0;
    if constexpr (F == Flat::Bits64) {
        lin = uncut_address(c, *op);
    } else {
        if (!segmented32_hit(c, *op, sizeof(T), A, &lin)) [[unlikely]]
            return false;
    }
    const TlbEntry& e = tlb_entry(c, lin);
    *host = lin + static_cast<u64>(e.addend);
    const u64 last_page = (lin + (sizeof(T) - 1)) & ~kPageMask;
    return last_page == (A == Access::Write ? e.tag_w : e.tag_r);
}

template <typename T>
TESSERA_GUEST_RACES [[nodiscard]] inline T host_load(u64 host) {
    T value;
    __builtin_memcpy(&value, reinterpret_cast<const void*>(host), sizeof(T));
    return value;
}
template <typename T>
TESSERA_GUEST_RACES inline void host_store(u64 host, T value) {
    __builtin_memcpy(reinterpret_cast<void*>(host), &value, sizeof(T));
}

// --- operands in any place. Memory operands may raise: these set Vcpu::cur.

template <typename T>
using Unaligned __attribute__((aligned(1), may_alias)) = T;

template <Place P, typename T>
[[nodiscard]] inline T read_operand(Vcpu& c, const Op* op) {
    if constexpr (P == Place::R1) {
        return get_gpr<T>(c, op->r1);
    } else if constexpr (P == Place::R2) {
        return get_gpr<T>(c, op->r2);
    } else if constexpr (P == Place::Imm) {
        return static_cast<T>(op->imm);
    } else {
        c.cur = op;
        return load<T>(c, linear(c, *op, sizeof(T), Access::Read), op->seg);
    }
}

template <Place P, typename T>
inline void write_operand(Vcpu& c, const Op* op, T value) {
    static_assert(P != Place::Imm);
    if constexpr (P == Place::R1) {
        set_gpr<T>(c, op->r1, value);
    } else if constexpr (P == Place::R2) {
        set_gpr<T>(c, op->r2, value);
    } else {
        c.cur = op;
        store<T>(c, linear(c, *op, sizeof(T), Access::Write), value, op->seg);
    }
}

// Calls f(pointer) to change the memory operand; with `locked` f uses a LOCKed instruction.
template <typename T, typename F>
TESSERA_GUEST_RACES inline void modify_memory(Vcpu& c, const Op* op, bool locked, F f) {
    c.cur = op;
    f(static_cast<Unaligned<T>*>(rmw_begin<T>(c, linear(c, *op, sizeof(T), Access::Write), op->seg, locked)));
    rmw_end(c);
}

// Replaces the operand by f(operand). Not atomic.
template <Place P, typename T, typename F>
TESSERA_GUEST_RACES inline void modify_operand(Vcpu& c, const Op* op, F f) {
    if constexpr (P == Place::Mem)
        modify_memory<T>(c, op, false, [&f](Unaligned<T>* p) { *p = f(static_cast<T>(*p)); });
    else
        write_operand<P, T>(c, op, f(read_operand<P, T>(c, op)));
}

// --- lowering

[[nodiscard]] inline bool is_flat64(const Op& op) {
    return (op.flags & kAddress64) != 0 && op.seg != x86::Fs && op.seg != x86::Gs;
}
// flat.operator()<F>() where the op's memory operand is flat in the way of F, else other().
template <typename Fast, typename Other>
[[nodiscard]] Handler flat_or(const Op& op, Fast flat, Other other) {
    if (is_flat64(op)) return flat.template operator()<Flat::Bits64>();
    if (has_segmented32_address(op)) return flat.template operator()<Flat::Bits32>();
    return other();
}
// The handler FLAT, which names F, or else OTHER.
#define TESSERA_FLAT_OR(OP, FLAT, OTHER) \
    flat_or(OP, [&]<Flat F>() -> Handler { return FLAT; }, [&]() -> Handler { return OTHER; })

// f.operator()<T>() for the unsigned type of `size` bytes, from Least up; null for other sizes.
template <unsigned Least = 1, typename F>
[[nodiscard]] Handler by_size(unsigned size, F f) {
    if constexpr (Least <= 1) {
        if (size == 1) return f.template operator()<u8>();
    }
    if constexpr (Least <= 2) {
        if (size == 2) return f.template operator()<u16>();
    }
    if (size == 4) return f.template operator()<u32>();
    if (size == 8) return f.template operator()<u64>();
    return nullptr;
}
// The handler template with T = the type of SIZE bytes; likewise without byte forms, and with 32 and 64 bits
// only.
#define TESSERA_SIZED(SIZE, ...) by_size<1>(SIZE, []<typename T>() -> Handler { return __VA_ARGS__; })
#define TESSERA_SIZED_WORDS(SIZE, ...) by_size<2>(SIZE, []<typename T>() -> Handler { return __VA_ARGS__; })
#define TESSERA_SIZED_LONGS(SIZE, ...) by_size<4>(SIZE, []<typename T>() -> Handler { return __VA_ARGS__; })

[[nodiscard]] inline bool is_gpr(const x86::Operand& o) {
    return o.kind == x86::OperandKind::Gpr || o.kind == x86::OperandKind::GprHigh;
}
[[nodiscard]] inline bool is_memory(const x86::Operand& o) {
    return o.kind == x86::OperandKind::Memory;
}
[[nodiscard]] inline bool is_immediate(const x86::Operand& o) {
    return o.kind == x86::OperandKind::Immediate;
}

// Gives the handler; false when there is none.
inline bool use(Op& op, Handler fn) {
    op.fn = fn;
    return fn != nullptr;
}

// The families: each knows some mnemonics and returns false for the others.
bool lower_alu(const x86::Insn& in, Op& op);
bool lower_move(const x86::Insn& in, Op& op);
bool lower_shift(const x86::Insn& in, Op& op);
bool lower_multiply(const x86::Insn& in, Op& op);
bool lower_bits(const x86::Insn& in, Op& op);
bool lower_bmi(const x86::Insn& in, Op& op);
bool lower_atomic(const x86::Insn& in, Op& op);
bool lower_stack(const x86::Insn& in, Op& op);
bool lower_decimal(const x86::Insn& in, Op& op);
bool lower_flags(const x86::Insn& in, Op& op);

}  // namespace tessera::soft
