// One row per vector instruction that is a pure function of its operands: the host instruction that computes
// it.
#pragma once

#include <span>

#include "cpu/soft/op.h"
#include "cpu/x86/mnemonic.h"

namespace tessera::soft {

// *d = f(*d, *a, *b). Writes 16 bytes (the 128-bit function) or 32; reads of a and b what the instruction
// reads, so that b may point into guest memory. d may be the same as a or b.
using VectorFn = void (*)(void* d, const void* a, const void* b);

enum RowFlag : u16 {
    kRowUnaligned = 1 << 0,   // legacy 16-byte memory operand without the alignment rule
    kRowAligned = 1 << 1,     // VEX memory operand with it
    kRowFloat = 1 << 2,       // raises SIMD floating-point exceptions
    kRowTiny32 = 1 << 3,      // its result, of floats, may be tiny (decides unmasked underflow)
    kRowTiny64 = 1 << 4,      // likewise of doubles
    kRowTiny16 = 1 << 5,      // likewise of half floats, and FTZ does not apply
    kRowScalar = 1 << 6,      // only the lowest element is computed
    kRowImm = 1 << 7,         // 256 functions at distance kImmStride, one per immediate
    kRowImm3 = 1 << 8,        // of the legacy form's immediate only three bits count
    kRowMemoryOnly = 1 << 9,  // the row is for a memory operand; kRowRegisterOnly the one for a register
    kRowRegisterOnly = 1 << 10,
    kRowImplicitXmm0 = 1 << 11,  // a is XMM0
    kRowAes = 1 << 12,           // only if the host has it: AES, PCLMULQDQ, SHA
    kRowPclmul = 1 << 13,
    kRowSha = 1 << 14,
    kRowWide = 1 << 15,  // the integer source is a quadword
};

inline constexpr unsigned kImmStride = 32;

struct Row {
    x86::Mnemonic legacy;     // Invalid: there is only a VEX form
    x86::Mnemonic vex;        // Invalid: there is only a legacy form
    u8 memory128, memory256;  // bytes of the memory (or GPR) operand; 0: no such form
    u16 flags;
    VectorFn fn128, fn256;
};

// The tables: vector_int.cpp, vector_float.cpp, vector_imm.cpp.
std::span<const Row> integer_rows();
std::span<const Row> float_rows();
std::span<const Row> immediate_rows();

// --- how the tables are written. `x` and `y` are the 128- and 256-bit function.

#define TESSERA_VECTOR_ASM(text) \
    asm volatile(text : : [d] "r"(d), [a] "r"(a), [b] "r"(b) : "memory", "xmm0", "xmm1", "xmm2")

#define TESSERA_VECTOR_TYPE(Name, text_x, text_y)                                                      \
    struct Name {                                                                                      \
        [[gnu::always_inline]] static void x([[maybe_unused]] void* d, [[maybe_unused]] const void* a, \
                                             [[maybe_unused]] const void* b) {                         \
            TESSERA_VECTOR_ASM(text_x);                                                                \
        }                                                                                              \
        [[gnu::always_inline]] static void y([[maybe_unused]] void* d, [[maybe_unused]] const void* a, \
                                             [[maybe_unused]] const void* b) {                         \
            TESSERA_VECTOR_ASM(text_y);                                                                \
        }                                                                                              \
    };

// d = op(a, b)
#define TESSERA_BINARY(Name, op)                                                                   \
    TESSERA_VECTOR_TYPE(                                                                           \
        Name, "vmovups (%[a]), %%xmm0\n\t" op " (%[b]), %%xmm0, %%xmm0\n\tvmovups %%xmm0, (%[d])", \
        "vmovups (%[a]), %%ymm0\n\t" op " (%[b]), %%ymm0, %%ymm0\n\tvmovups %%ymm0, (%[d])\n\tvzeroupper")
// d = op(a, b), only 128 bits wide
#define TESSERA_BINARY128(Name, op) \
    TESSERA_VECTOR_TYPE(            \
        Name, "vmovups (%[a]), %%xmm0\n\t" op " (%[b]), %%xmm0, %%xmm0\n\tvmovups %%xmm0, (%[d])", "ud2")
// d = op(a, b), only 256 bits wide
#define TESSERA_BINARY256(Name, op)                     \
    TESSERA_VECTOR_TYPE(Name, "ud2",                    \
                        "vmovups (%[a]), %%ymm0\n\t" op \
                        " (%[b]), %%ymm0, %%ymm0\n\tvmovups %%ymm0, (%[d])\n\tvzeroupper")
// d = op(b); the 256-bit form's source is of the size the row says
#define TESSERA_UNARY(Name, op)                                               \
    TESSERA_VECTOR_TYPE(Name, op " (%[b]), %%xmm0\n\tvmovups %%xmm0, (%[d])", \
                        op " (%[b]), %%ymm0\n\tvmovups %%ymm0, (%[d])\n\tvzeroupper")
#define TESSERA_UNARY128(Name, op) \
    TESSERA_VECTOR_TYPE(Name, op " (%[b]), %%xmm0\n\tvmovups %%xmm0, (%[d])", "ud2")
#define TESSERA_UNARY256(Name, op) \
    TESSERA_VECTOR_TYPE(Name, "ud2", op " (%[b]), %%ymm0\n\tvmovups %%ymm0, (%[d])\n\tvzeroupper")

template <class I>
void row128(void* d, const void* a, const void* b) {
    I::x(d, a, b);
}
template <class I>
void row256(void* d, const void* a, const void* b) {
    I::y(d, a, b);
}

}  // namespace tessera::soft
