// Every integer and string instruction the decoder knows has a handler.
#include <array>
#include <gtest/gtest.h>
#include <set>
#include <string>

#include "cpu/soft/lower.h"

namespace tessera::soft {
namespace {

using x86::CodeSize;
using x86::Insn;
using x86::InsnClass;
using x86::InsnFlag;

// What the block builder fills in before it asks for a handler.
Op prepared(const Insn& in) {
    Op op{};
    op.len = in.length;
    op.n = 1;
    op.base = in.base < 16 ? in.base : kZeroSlot;
    op.index = in.index < 16 ? in.index : kZeroSlot;
    op.seg = in.segment;
    unsigned flags = 0;
    if (in.code_size == CodeSize::Bits64) flags |= kLongMode;
    if (in.address_size == 8) flags |= kAddress64;
    if (in.address_size == 4) flags |= kAddress32;
    if (in.has(InsnFlag::Lock)) flags |= kLocked;
    if (in.has(InsnFlag::Rep)) flags |= kRep;
    if (in.has(InsnFlag::Repne)) flags |= kRepne;
    op.flags = static_cast<u8>(flags);
    return op;
}

class Survey {
public:
    void look_at(std::span<const u8> bytes, CodeSize size) {
        Insn in;
        if (x86::decode(bytes, size, in) != x86::DecodeStatus::Ok) return;
        if (in.insn_class != InsnClass::Integer && in.insn_class != InsnClass::String) return;
        seen.insert(in.mnemonic);
        Op op = prepared(in);
        bool ends = false;
        const bool known =
            in.insn_class == InsnClass::Integer ? lower_integer(in, op, &ends) : lower_string(in, op, &ends);
        if (!known || op.fn == nullptr) missing.insert(x86::name(in.mnemonic));
    }

    std::set<x86::Mnemonic> seen;
    std::set<std::string> missing;
};

// All opcodes and ModRM bytes after `lead`.
void all_opcodes(Survey& survey, std::span<const u8> lead, CodeSize size) {
    std::array<u8, 15> bytes{};
    std::copy(lead.begin(), lead.end(), bytes.begin());
    for (unsigned opcode = 0; opcode < 256; ++opcode) {
        for (unsigned modrm = 0; modrm < 256; ++modrm) {
            bytes[lead.size()] = static_cast<u8>(opcode);
            bytes[lead.size() + 1] = static_cast<u8>(modrm);
            survey.look_at(bytes, size);
        }
    }
}

TEST(SoftIntegerCoverageTest, EveryDecodableIntegerAndStringInstructionIsLowered) {
    Survey survey;
    for (const CodeSize size : {CodeSize::Bits16, CodeSize::Bits32, CodeSize::Bits64}) {
        for (const u8 prefix : std::initializer_list<u8>{0x00, 0x66, 0xf2, 0xf3, 0xf0, 0x67, 0x65}) {
            for (const u8 rex : std::initializer_list<u8>{0x00, 0x48}) {
                if (rex != 0 && size != CodeSize::Bits64) continue;
                for (const auto& map : {std::vector<u8>{}, {0x0f}, {0x0f, 0x38}, {0x0f, 0x3a}}) {
                    std::vector<u8> lead;
                    if (prefix != 0) lead.push_back(prefix);
                    if (rex != 0) lead.push_back(rex);
                    lead.insert(lead.end(), map.begin(), map.end());
                    all_opcodes(survey, lead, size);
                }
            }
        }
        // VEX maps 2 and 3; W, vvvv = 1111 or 0000, L = 0, the four mandatory prefixes.
        for (const u8 map : std::initializer_list<u8>{0xe2, 0xe3})
            for (const u8 w_vvvv : std::initializer_list<u8>{0x78, 0xf8, 0x40, 0xc0})
                for (const u8 pp : std::initializer_list<u8>{0, 1, 2, 3})
                    all_opcodes(survey, std::array<u8, 3>{0xc4, map, static_cast<u8>(w_vvvv | pp)}, size);
    }
    EXPECT_TRUE(survey.missing.empty()) << "first: " << *survey.missing.begin();

    std::set<std::string> unseen;
    for (unsigned i = 1; i < x86::kMnemonicCount; ++i) {
        const auto mnemonic = static_cast<x86::Mnemonic>(i);
        const InsnClass insn_class = x86::insn_class_of(mnemonic);
        if ((insn_class == InsnClass::Integer || insn_class == InsnClass::String) &&
            !survey.seen.contains(mnemonic))
            unseen.insert(x86::name(mnemonic));
    }
    EXPECT_TRUE(unseen.empty()) << "never decoded, first: " << *unseen.begin();
}

}  // namespace
}  // namespace tessera::soft
