// The differences between our decoder and Zydis that have a reason, each with an example that a test runs.
#pragma once

#include <Zydis/Zydis.h>
#include <array>
#include <span>

#include "cpu/x86/insn.h"
#include "tests/decoder/zydis_compare.h"

namespace tessera::x86::test {

struct Zydis {
    DecodeStatus status = DecodeStatus::Ok;
    ZydisDecodedInstruction insn{};
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT]{};
};

struct KnownDifference {
    Disagreement what;
    std::array<Mnemonic, 22> ours;               // Invalid among them only if it is the first
    bool (*applies)(const Insn&, const Zydis&);  // null: always
    CodeSize mode;
    std::array<u8, 8> example;  // the rest is zeros
    const char* reason;
    bool any_mnemonic = false;
};

std::span<const KnownDifference> known_differences();

// The row that explains it, or null.
const KnownDifference* explain(Disagreement what, const Insn& insn, const Zydis& zydis);

}  // namespace tessera::x86::test
