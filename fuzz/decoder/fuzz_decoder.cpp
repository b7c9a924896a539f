// Decodes any bytes in the three code sizes and checks what holds for every result.
#include <cstdlib>
#include <span>

#include "cpu/x86/insn.h"

namespace {

using tessera::x86::CodeSize;
using tessera::x86::DecodeStatus;
using tessera::x86::Insn;
using tessera::x86::kMaxInsnLength;
using tessera::x86::kNoRegister;
using tessera::x86::kRipBase;
using tessera::x86::Mnemonic;
using tessera::x86::OperandKind;

void require(bool holds) {
    if (!holds) std::abort();
}

void check_operands(const Insn& insn, CodeSize size) {
    const unsigned registers = size == CodeSize::Bits64 ? 16 : 8;
    require(insn.operand_count <= insn.operand.size());
    require(insn.base < registers || insn.base == kNoRegister || (insn.base == kRipBase && registers == 16));
    require(insn.index < registers || insn.index == kNoRegister);
    require(insn.segment <= tessera::x86::Gs);
    require(insn.scale <= 3);
    for (unsigned i = 0; i < insn.operand.size(); ++i) {
        const auto& operand = insn.operand[i];
        require((operand.kind != OperandKind::None) == (i < insn.operand_count));
        switch (operand.kind) {
            case OperandKind::Gpr:
            case OperandKind::Vector: require(operand.reg < registers); break;
            case OperandKind::GprHigh: require(operand.reg < 4 && operand.size == 1); break;
            case OperandKind::Segment: require(operand.reg <= tessera::x86::Gs); break;
            case OperandKind::Mmx:
            case OperandKind::St:
            case OperandKind::Debug: require(operand.reg < 8); break;
            case OperandKind::Control: require(operand.reg <= 8); break;
            default: break;
        }
    }
}

void check(std::span<const tessera::u8> bytes, CodeSize size) {
    Insn insn;
    const DecodeStatus status = decode(bytes, size, insn);
    require(insn.length <= kMaxInsnLength && insn.length <= bytes.size());
    require((status == DecodeStatus::Ok) == (insn.mnemonic != Mnemonic::Invalid));
    if (status == DecodeStatus::NeedMore) require(bytes.size() < kMaxInsnLength);
    if (status != DecodeStatus::Ok) return;
    require(insn.length > 0);
    check_operands(insn, size);

    // The bytes beyond the instruction do not matter, and all of its own do.
    Insn again;
    require(decode(bytes.first(insn.length), size, again) == DecodeStatus::Ok);
    require(insn == again);
    for (unsigned shorter = 0; shorter < insn.length; ++shorter)
        require(decode(bytes.first(shorter), size, again) == DecodeStatus::NeedMore);
}

}  // namespace

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer fixes this name.
extern "C" int LLVMFuzzerTestOneInput(const tessera::u8* data, size_t size) {
    const std::span<const tessera::u8> bytes(data, size);
    for (const CodeSize mode : {CodeSize::Bits16, CodeSize::Bits32, CodeSize::Bits64}) check(bytes, mode);
    return 0;
}
