// Compares what our decoder and Zydis say about the same bytes.
#pragma once

#include <span>
#include <string>

#include "cpu/x86/insn.h"

namespace tessera::x86::test {

// The first thing the two disagree on.
enum class Disagreement : u8 {
    None,
    Validity,
    Length,
    Mnemonic,
    OperandCount,
    Operand,
    OperandSize,
    AddressSize,
    Prefix,
    FlagsRead,
    FlagsWritten,
    FlagsUndefined,
};

struct Comparison {
    Disagreement disagreement = Disagreement::None;
    const struct KnownDifference* explanation = nullptr;
    std::string ours, theirs;  // texts, only if there is an unexplained disagreement
    Insn insn;
    DecodeStatus status = DecodeStatus::Ok;
};

const char* name(Disagreement disagreement);

Comparison compare_with_zydis(std::span<const u8> bytes, CodeSize size);

}  // namespace tessera::x86::test
