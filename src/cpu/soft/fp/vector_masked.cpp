// Vector instructions steered by a mask in a register: variable blends, masked moves, gathers.
//
// Elements whose mask is clear are not accessed and cannot fault (but for MASKMOVDQU, see there).
#include <bit>
#include <cstring>

#include "cpu/soft/fp/vector_lower.h"

namespace tessera::soft {

namespace {

using x86::Insn;
using x86::Mnemonic;
using x86::OperandKind;

// --- blends: r1 = r3's elements with the sign set choose between r2 and the source

using BlendFn = void (*)(void* d, const void* a, const void* b, const void* mask);

template <int Kind>
void blend128(void* d, const void* a, const void* b, const void* mask) {
#define TESSERA_BLEND(op, r)                                                                                 \
    asm volatile("vmovups (%1), %%" r "0\n\tvmovups (%3), %%" r "1\n\t" op " %%" r "1, (%2), %%" r "0, %%" r \
                 "0\n\tvmovups %%" r "0, (%0)"                                                               \
                 :                                                                                           \
                 : "r"(d), "r"(a), "r"(b), "r"(mask)                                                         \
                 : "memory", "xmm0", "xmm1")
    if constexpr (Kind == 0) TESSERA_BLEND("vblendvps", "xmm");
    if constexpr (Kind == 1) TESSERA_BLEND("vblendvpd", "xmm");
    if constexpr (Kind == 2) TESSERA_BLEND("vpblendvb", "xmm");
}
template <int Kind>
void blend256(void* d, const void* a, const void* b, const void* mask) {
    if constexpr (Kind == 0) TESSERA_BLEND("vblendvps", "ymm");
    if constexpr (Kind == 1) TESSERA_BLEND("vblendvpd", "ymm");
    if constexpr (Kind == 2) TESSERA_BLEND("vpblendvb", "ymm");
    asm volatile("vzeroupper");
}

// The source register's number is in Op::base when there is no memory operand: r3 is the mask.
template <Form F, Source S>
TESSERA_HANDLER void blend(Vcpu& c, const Op* op) {
    c.cur = op;
    check_available(c, kTrapOf<F>);
    const void* b = nullptr;
    if constexpr (S == Source::Vector)
        b = vector_at(c, op->base);
    else
        b = source < S, F == Form::Vex256 ? 32 : 16 > (c, op);
    std::bit_cast<BlendFn>(op->imm)(vector_at(c, op->r1), vector_at(c, op->r2), b, vector_at(c, op->r3));
    if constexpr (F == Form::Vex128) clear_upper(c, op->r1);
    TESSERA_NEXT(c, op);
}

template <int Kind>
Handler lower_blend(const Insn& in, Op& op) {
    const Form form = form_of(in);
    const bool legacy = form == Form::Legacy;
    const x86::Operand& from = in.operand[legacy ? 1 : 2];
    op.r1 = in.operand[0].reg;
    op.r2 = legacy ? op.r1 : in.operand[1].reg;
    op.r3 = legacy ? 0 : in.operand[3].reg;
    const bool vector = from.kind == OperandKind::Vector;
    if (vector) op.base = from.reg;
    op.imm = reinterpret_cast<u64>(form == Form::Vex256 ? &blend256<Kind> : &blend128<Kind>);
    switch (form) {
        case Form::Legacy:
            return vector ? blend<Form::Legacy, Source::Vector> : blend<Form::Legacy, Source::MemoryAligned>;
        case Form::Vex128:
            return vector ? blend<Form::Vex128, Source::Vector> : blend<Form::Vex128, Source::Memory>;
        case Form::Vex256:
            return vector ? blend<Form::Vex256, Source::Vector> : blend<Form::Vex256, Source::Memory>;
    }
    return nullptr;
}

// --- VMASKMOV, VPMASKMOV: r1 the data, r2 the mask

template <typename T>
T element(Vcpu& c, u8 number, unsigned i) {
    T value = 0;
    std::memcpy(&value, vector_at(c, number) + i * sizeof(T), sizeof(T));
    return value;
}
template <typename T>
bool selected(T mask) {
    return (mask >> (8 * sizeof(T) - 1)) != 0;
}

// Address of an element; one that wraps round the end of the address space is where the address size says.
template <typename T>
u64 element_address(Vcpu& c, const Op& op, u64 first, unsigned i, Access access) {
    u64 offset = first + i * sizeof(T);
    if ((op.flags & kAddress64) == 0)
        offset = (op.flags & kAddress32) != 0 ? static_cast<u32>(offset) : static_cast<u16>(offset);
    return linear_of(c, op.seg, offset, sizeof(T), access);
}

template <typename T, unsigned Width>
void masked_load(Vcpu& c, const Op& op) {
    check_available(c, kTrapAvx);
    const u64 first = effective_address(c, op);
    alignas(32) std::array<u8, 32> result{};
    for (unsigned i = 0; i < Width / sizeof(T); ++i) {
        if (!selected(element<T>(c, op.r2, i))) continue;
        const T value = load<T>(c, element_address<T>(c, op, first, i, Access::Read), op.seg);
        std::memcpy(result.data() + i * sizeof(T), &value, sizeof(T));
    }
    std::memcpy(vector_at(c, op.r1), result.data(), 32);
}

template <typename T, unsigned Width>
void masked_store(Vcpu& c, const Op& op) {
    check_available(c, kTrapAvx);
    const u64 first = effective_address(c, op);
    for (unsigned i = 0; i < Width / sizeof(T); ++i)
        if (selected(element<T>(c, op.r2, i)))
            probe(c, element_address<T>(c, op, first, i, Access::Write), sizeof(T), Access::Write, op.seg);
    for (unsigned i = 0; i < Width / sizeof(T); ++i)
        if (selected(element<T>(c, op.r2, i)))
            store<T>(c, element_address<T>(c, op, first, i, Access::Write), element<T>(c, op.r1, i), op.seg);
}

template <typename T>
Handler lower_masked_move(const Insn& in, Op& op) {
    const bool wide = form_of(in) == Form::Vex256;
    op.r2 = in.operand[1].reg;
    if (in.is(0, OperandKind::Memory)) {
        op.r1 = in.operand[2].reg;
        return wide ? continue_with<masked_store<T, 32>> : continue_with<masked_store<T, 16>>;
    }
    op.r1 = in.operand[0].reg;
    return wide ? continue_with<masked_load<T, 32>> : continue_with<masked_load<T, 16>>;
}

// --- MASKMOVDQU: bytes of r1, chosen by r2, to DS:rDI

template <Form F>
void maskmovdqu(Vcpu& c, const Op& op) {
    check_available(c, kTrapOf<F>);
    const u64 first = effective_address(c, op);
    // The host (AMD family 1Ah) faults for any of the sixteen bytes, chosen or not; so do we.
    probe(c, linear(c, op, 16, Access::Write), 16, Access::Write, op.seg);
    for (unsigned i = 0; i < 16; ++i)
        if (selected(element<u8>(c, op.r2, i)))
            store<u8>(c, element_address<u8>(c, op, first, i, Access::Write), element<u8>(c, op.r1, i),
                      op.seg);
}

// --- gathers: r1 the destination, r2 the mask, Op::index the vector of indices

// Restartable: an element that was fetched has its mask cleared, so a fault leaves what is still to be done
// [SDM 2 VGATHERDPS]. Elements before it have their masks
// cleared whether chosen or not, those after it not, as on the host (AMD family 1Ah).
template <typename T, typename Index, unsigned Width>
void gather(Vcpu& c, const Op& op) {
    check_available(c, kTrapAvx);
    // Width is that of the wider of data and indices.
    constexpr unsigned kCount = Width / (sizeof(T) > sizeof(Index) ? sizeof(T) : sizeof(Index));
    u8* const data = vector_at(c, op.r1);
    u8* const mask = vector_at(c, op.r2);
    for (unsigned i = 0; i < kCount; ++i) {
        if (!selected(element<T>(c, op.r2, i))) {
            std::memset(mask + i * sizeof(T), 0, sizeof(T));
            continue;
        }
        const auto index =
            static_cast<s64>(static_cast<std::make_signed_t<Index>>(element<Index>(c, op.index, i)));
        u64 offset = c.reg[op.base] + (static_cast<u64>(index) << op.scale) +
                     static_cast<u64>(static_cast<s64>(op.disp));
        if ((op.flags & kAddress64) == 0) offset = static_cast<u32>(offset);
        const T value = load<T>(c, linear_of(c, op.seg, offset, sizeof(T), Access::Read), op.seg);
        std::memcpy(data + i * sizeof(T), &value, sizeof(T));
        std::memset(mask + i * sizeof(T), 0, sizeof(T));
    }
    constexpr unsigned kDone = kCount * sizeof(T);
    std::memset(data + kDone, 0, 32 - kDone);
    std::memset(mask, 0, 32);
}

template <typename T, typename Index>
Handler lower_gather(const Insn& in, Op& op) {
    op.r1 = in.operand[0].reg;
    op.r2 = in.operand[2].reg;
    op.index = in.index;
    return form_of(in) == Form::Vex256 ? continue_with<gather<T, Index, 32>>
                                       : continue_with<gather<T, Index, 16>>;
}

Handler lower_maskmovdqu(const Insn& in, Op& op) {
    // Whether or not the decoder names the implied operand, it is [rDI] in DS or the overriding segment.
    op.base = x86::Rdi;
    op.index = kZeroSlot;
    op.scale = 0;
    op.disp = 0;
    op.seg = in.segment;
    const unsigned first = in.is(0, OperandKind::Memory) ? 1 : 0;
    op.r1 = in.operand[first].reg;
    op.r2 = in.operand[first + 1].reg;
    return form_of(in) == Form::Legacy ? continue_with<maskmovdqu<Form::Legacy>>
                                       : continue_with<maskmovdqu<Form::Vex128>>;
}

}  // namespace

Handler lower_vector_masked(const Insn& in, Op& op) {
    switch (in.mnemonic) {
        case Mnemonic::Blendvps:
        case Mnemonic::Vblendvps: return lower_blend<0>(in, op);
        case Mnemonic::Blendvpd:
        case Mnemonic::Vblendvpd: return lower_blend<1>(in, op);
        case Mnemonic::Pblendvb:
        case Mnemonic::Vpblendvb: return lower_blend<2>(in, op);
        case Mnemonic::Vmaskmovps:
        case Mnemonic::Vpmaskmovd: return lower_masked_move<u32>(in, op);
        case Mnemonic::Vmaskmovpd:
        case Mnemonic::Vpmaskmovq: return lower_masked_move<u64>(in, op);
        case Mnemonic::Maskmovdqu:
        case Mnemonic::Vmaskmovdqu: return lower_maskmovdqu(in, op);
        case Mnemonic::Vgatherdps:
        case Mnemonic::Vpgatherdd: return lower_gather<u32, u32>(in, op);
        case Mnemonic::Vgatherdpd:
        case Mnemonic::Vpgatherdq: return lower_gather<u64, u32>(in, op);
        case Mnemonic::Vgatherqps:
        case Mnemonic::Vpgatherqd: return lower_gather<u32, u64>(in, op);
        case Mnemonic::Vgatherqpd:
        case Mnemonic::Vpgatherqq: return lower_gather<u64, u64>(in, op);
        default: return nullptr;
    }
}

}  // namespace tessera::soft
