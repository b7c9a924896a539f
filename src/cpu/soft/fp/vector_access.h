// What all vector handlers share: availability, operands, and the watch over unmasked SIMD exceptions.
#pragma once

#include <bit>

#include "cpu/soft/access.h"
#include "cpu/soft/fp/fp_state.h"
#include "cpu/soft/vcpu.h"

namespace tessera::soft {

enum class Form : u8 {
    Legacy,  // SSE: bits 128 and up of the register are kept
    Vex128,  // and here cleared
    Vex256,
};

enum class Source : u8 {
    Vector,  // Op::r3, a number
    Gpr,     // Op::r3, a byte offset
    Memory,
    MemoryAligned,  // #GP(0) unless aligned to its size
};

template <Form F>
inline constexpr u16 kTrapOf = F == Form::Legacy ? kTrapSse : kTrapAvx;

// Raises #UD or #NM if `traps` (kTrapSse, kTrapAvx, kTrapMmx) says that the instruction is not available.
void check_available(Vcpu& c, u16 traps);

// Between these an instruction computes into a copy; `finish` raises #XM (or #UD) if it met an unmasked
// exception, else adds its flags to MXCSR. `tiny`: there was a denormal result, as underflow when unmasked
// also is without loss of precision [SDM 1 11.5.2.4].
void begin_unmasked(Vcpu& c);
void finish_unmasked(Vcpu& c, bool tiny);
// The same for an instruction of the tables.
void run_unmasked(Vcpu& c, u64 fn, void* d, const void* a, const void* b, Form form);

[[nodiscard]] inline u8* vector_at(Vcpu& c, u8 number) {
    return reinterpret_cast<u8*>(&c.ymm[number]);
}

inline void clear_upper(Vcpu& c, u8 number) {
    c.ymm[number][2] = 0;
    c.ymm[number][3] = 0;
}

// Guest memory as the host sees it, or a copy of it.
template <unsigned Size>
[[nodiscard]] inline const void* read_pointer(Vcpu& c, u64 lin, u8 seg) {
    const TlbEntry& e = tlb_entry(c, lin);
    if (((lin + (Size - 1)) & ~kPageMask) == e.tag_r) [[likely]]
        return std::bit_cast<const void*>(lin + static_cast<u64>(e.addend));
    load_bytes_slow(c, lin, c.fp_scratch.data(), Size, seg);
    return c.fp_scratch.data();
}

// Where the source operand is. For memory Op is made the current instruction.
template <Source S, unsigned Size>
[[nodiscard]] inline const void* source(Vcpu& c, const Op* op) {
    if constexpr (S == Source::Vector) {
        return vector_at(c, op->r3);
    } else if constexpr (S == Source::Gpr) {
        return reinterpret_cast<const u8*>(c.reg.data()) + op->r3;
    } else {
        c.cur = op;
        const u64 lin = linear(c, *op, Size, Access::Read);
        if constexpr (S == Source::MemoryAligned)
            if ((lin & (Size - 1)) != 0) [[unlikely]]
                raise_gp0(c);
        return read_pointer<Size>(c, lin, op->seg);
    }
}

// The same, but of memory always a copy, for those that look more than once.
template <Source S, unsigned Size>
[[nodiscard]] inline const void* source_copy(Vcpu& c, const Op* op) {
    if constexpr (S == Source::Vector || S == Source::Gpr) {
        return source<S, Size>(c, op);
    } else {
        const u64 lin = linear(c, *op, Size, Access::Read);
        if constexpr (S == Source::MemoryAligned)
            if ((lin & (Size - 1)) != 0) raise_gp0(c);
        load_bytes<Size>(c, lin, c.fp_scratch.data(), op->seg);
        return c.fp_scratch.data();
    }
}

// --- the handler of all instructions in the tables

// Calls the function that Op::imm holds.
struct Indirect {
    template <Form F>
    static void run(const Op* op, void* d, const void* a, const void* b) {
        std::bit_cast<void (*)(void*, const void*, const void*)>(op->imm)(d, a, b);
    }
};
// Has the instruction in the handler itself.
template <class I>
struct Inline {
    template <Form F>
    [[gnu::always_inline]] static void run(const Op* /*op*/, void* d, const void* a, const void* b) {
        if constexpr (F == Form::Vex256)
            I::y(d, a, b);
        else
            I::x(d, a, b);
    }
};

template <Form F, Source S, unsigned Size>
TESSERA_HANDLER void vector_op_careful(Vcpu& c, const Op* op) {
    c.cur = op;
    check_available(c, kTrapOf<F>);
    const void* b = source_copy<S, Size>(c, op);
    run_unmasked(c, op->imm, vector_at(c, op->r1), vector_at(c, op->r2), b, F);
    TESSERA_NEXT(c, op);
}

template <Form F, Source S, unsigned Size, bool Float, class How>
TESSERA_HANDLER void vector_op(Vcpu& c, const Op* op) {
    constexpr u16 kTraps = kTrapOf<F> | (Float ? kTrapMxcsr : 0);
    if ((c.fp_traps & kTraps) != 0) [[unlikely]]
        TESSERA_MUSTTAIL return vector_op_careful<F, S, Size>(c, op);
    const void* b = source<S, Size>(c, op);
    How::template run<F>(op, vector_at(c, op->r1), vector_at(c, op->r2), b);
    if constexpr (F == Form::Vex128) clear_upper(c, op->r1);
    TESSERA_NEXT(c, op);
}

template <Form F, unsigned Size, bool Aligned>
TESSERA_HANDLER void vector_store(Vcpu& c, const Op* op) {
    c.cur = op;
    if ((c.fp_traps & kTrapOf<F>) != 0) [[unlikely]]
        check_available(c, kTrapOf<F>);
    const u64 lin = linear(c, *op, Size, Access::Write);
    if constexpr (Aligned)
        if ((lin & (Size - 1)) != 0) [[unlikely]]
            raise_gp0(c);
    store_bytes<Size>(c, lin, vector_at(c, op->r1) + op->imm, op->seg);
    TESSERA_NEXT(c, op);
}

}  // namespace tessera::soft
