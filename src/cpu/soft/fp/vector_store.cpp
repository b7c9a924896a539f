// Vector instructions whose destination is memory, except the masked ones.
#include <cstring>

#include "cpu/soft/fp/vector_lower.h"
#include "cpu/soft/fp/vector_row.h"

namespace tessera::soft {

namespace {

using x86::Insn;
using x86::Mnemonic;
using x86::OperandKind;

enum class Rule : u8 { Unaligned, Aligned };

template <unsigned Size>
Handler store_handler(Form form, Rule rule) {
    return for_form(form, [&]<Form F>() {
        return rule == Rule::Aligned ? vector_store<F, Size, true> : vector_store<F, Size, false>;
    });
}

Handler store_of(const Insn& in, unsigned size, Form form, Rule rule) {
    if (size != in.operand[0].size) return nullptr;  // the decoder must agree
    switch (size) {
        case 1: return store_handler<1>(form, Rule::Unaligned);
        case 2: return store_handler<2>(form, Rule::Unaligned);
        case 4: return store_handler<4>(form, Rule::Unaligned);
        case 8: return store_handler<8>(form, Rule::Unaligned);
        case 16: return store_handler<16>(form, rule);
        case 32: return store_handler<32>(form, rule);
        default: return nullptr;
    }
}

// VCVTPS2PH to memory. r1 is the source, imm the function.
template <Form F>
void store_half(Vcpu& c, const Op& op) {
    check_available(c, kTrapOf<F>);
    constexpr unsigned kSize = F == Form::Vex256 ? 16 : 8;
    const u64 lin = linear(c, op, kSize, Access::Write);
    probe(c, lin, kSize, Access::Write, op.seg);
    alignas(32) std::array<u8, 32> result{};
    run_unmasked(c, op.imm, result.data(), nullptr, vector_at(c, op.r1), F);
    store_bytes<kSize>(c, lin, result.data(), op.seg);
}

Handler lower_store_half(const Insn& in, Op& op) {
    const bool wide = form_of(in) == Form::Vex256;
    for (const Row& row : immediate_rows())
        if (row.vex == Mnemonic::Vcvtps2ph)
            op.imm = reinterpret_cast<u64>(wide ? row.fn256 : row.fn128) + (in.immediate & 0xff) * kImmStride;
    return wide ? continue_with<store_half<Form::Vex256>> : continue_with<store_half<Form::Vex128>>;
}

}  // namespace

Handler lower_vector_store(const Insn& in, Op& op) {
    if (!in.is(0, OperandKind::Memory) || in.operand_count < 2 || !in.is(1, OperandKind::Vector))
        return nullptr;
    const Form form = form_of(in);
    const unsigned width = form == Form::Vex256 ? 32 : 16;
    op.r1 = in.operand[1].reg;
    op.imm = 0;
    // An element of `size` bytes, chosen by the immediate.
    const auto element = [&](unsigned size) {
        op.imm = (in.immediate & (16 / size - 1)) * size;
        return store_of(in, size, form, Rule::Unaligned);
    };
    switch (in.mnemonic) {
        case Mnemonic::Movaps:
        case Mnemonic::Vmovaps:
        case Mnemonic::Movapd:
        case Mnemonic::Vmovapd:
        case Mnemonic::Movdqa:
        case Mnemonic::Vmovdqa:
        case Mnemonic::Movntdq:
        case Mnemonic::Vmovntdq:
        case Mnemonic::Movntpd:
        case Mnemonic::Vmovntpd:
        case Mnemonic::Movntps:
        case Mnemonic::Vmovntps: return store_of(in, width, form, Rule::Aligned);
        case Mnemonic::Movups:
        case Mnemonic::Vmovups:
        case Mnemonic::Movupd:
        case Mnemonic::Vmovupd:
        case Mnemonic::Movdqu:
        case Mnemonic::Vmovdqu: return store_of(in, width, form, Rule::Unaligned);
        case Mnemonic::Movss:
        case Mnemonic::Vmovss:
        case Mnemonic::Movd:
        case Mnemonic::Vmovd: return store_of(in, 4, form, Rule::Unaligned);
        case Mnemonic::Movhps:
        case Mnemonic::Vmovhps:
        case Mnemonic::Movhpd:
        case Mnemonic::Vmovhpd: op.imm = 8; return store_of(in, 8, form, Rule::Unaligned);
        case Mnemonic::Movsd:
        case Mnemonic::Vmovsd:
        case Mnemonic::Movlps:
        case Mnemonic::Vmovlps:
        case Mnemonic::Movlpd:
        case Mnemonic::Vmovlpd:
        case Mnemonic::Movq:
        case Mnemonic::Vmovq: return store_of(in, 8, form, Rule::Unaligned);
        case Mnemonic::Vextractf128:
        case Mnemonic::Vextracti128:
            op.imm = (in.immediate & 1) * 16;
            return store_of(in, 16, form, Rule::Unaligned);
        case Mnemonic::Pextrb:
        case Mnemonic::Vpextrb: return element(1);
        case Mnemonic::Pextrw:
        case Mnemonic::Vpextrw: return element(2);
        case Mnemonic::Pextrd:
        case Mnemonic::Vpextrd:
        case Mnemonic::Extractps:
        case Mnemonic::Vextractps: return element(4);
        case Mnemonic::Pextrq:
        case Mnemonic::Vpextrq: return element(8);
        case Mnemonic::Vcvtps2ph: return lower_store_half(in, op);
        default: return nullptr;
    }
}

}  // namespace tessera::soft
