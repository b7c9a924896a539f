// Every x87, MMX, vector and XSAVE instruction the decoder knows has a handler (which for those of the vector
// tables also means that decoder and table agree on the size of the memory operand).
#include <functional>
#include <gtest/gtest.h>
#include <set>
#include <string>
#include <vector>

#include "cpu/soft/lower.h"

namespace tessera::soft {
namespace {

using x86::CodeSize;
using x86::Insn;
using x86::InsnClass;
using x86::Mnemonic;

bool is_ours(InsnClass c) {
    return c == InsnClass::X87 || c == InsnClass::Mmx || c == InsnClass::Vector || c == InsnClass::XState;
}

// Calls `see` with every instruction of the opcode maps, once for each ModRM byte that tells forms apart.
void for_each_instruction(CodeSize size, const std::function<void(const Insn&, const std::string&)>& see) {
    const auto try_bytes = [&](std::vector<u8> bytes) {
        std::string text;
        for (const u8 b : bytes) {
            const char* digits = "0123456789abcdef";
            text += digits[b >> 4];
            text += digits[b & 15];
        }
        bytes.resize(15, 0x05);
        Insn in;
        if (x86::decode(bytes, size, in) == x86::DecodeStatus::Ok && is_ours(in.insn_class)) see(in, text);
    };
    const std::vector<u8> modrms = [] {
        std::vector<u8> v;
        for (unsigned reg = 0; reg < 8; ++reg)
            for (unsigned rest : {0x00U, 0x04U, 0x44U, 0xc0U, 0xc1U, 0xc5U})
                v.push_back(static_cast<u8>(reg << 3 | rest));
        for (unsigned m = 0xc0; m < 0x100; ++m) v.push_back(static_cast<u8>(m));
        return v;
    }();
    const std::vector<std::vector<u8>> prefixes = {{}, {0x66}, {0xf2}, {0xf3}, {0x66, 0xf2}};
    const std::vector<std::vector<u8>> escapes = {{}, {0x0f}, {0x0f, 0x38}, {0x0f, 0x3a}};
    for (const auto& prefix : prefixes)
        for (const bool wide : {false, true})
            for (const auto& escape : escapes)
                for (unsigned opcode = 0; opcode < 256; ++opcode)
                    for (const u8 modrm : modrms) {
                        if (wide && size != CodeSize::Bits64) continue;
                        std::vector<u8> bytes = prefix;
                        if (wide) bytes.push_back(0x48);
                        bytes.insert(bytes.end(), escape.begin(), escape.end());
                        bytes.push_back(static_cast<u8>(opcode));
                        bytes.push_back(modrm);
                        try_bytes(bytes);
                    }
    for (unsigned map = 1; map <= 3; ++map)
        for (unsigned wlpp = 0; wlpp < 16; ++wlpp)
            for (const unsigned vvvv : {0xfU, 0x5U})
                for (unsigned opcode = 0; opcode < 256; ++opcode)
                    for (const u8 modrm : modrms)
                        try_bytes({0xc4, static_cast<u8>(0xe0 | map),
                                   static_cast<u8>((wlpp & 8) << 4 | vvvv << 3 | (wlpp & 7)),
                                   static_cast<u8>(opcode), modrm});
}

bool lower(const Insn& in, Op& op, bool* ends) {
    switch (in.insn_class) {
        case InsnClass::X87: return lower_x87(in, op, ends);
        case InsnClass::Mmx: return lower_mmx(in, op, ends);
        case InsnClass::Vector: return lower_vector(in, op, ends);
        case InsnClass::XState: return lower_xstate(in, op, ends);
        default: return false;
    }
}

class FpLoweringTest : public testing::TestWithParam<CodeSize> {};

TEST_P(FpLoweringTest, EveryInstructionTheDecoderAcceptsHasAHandler) {
    std::set<std::string> missing;
    for_each_instruction(GetParam(), [&](const Insn& in, const std::string& bytes) {
        Op op{};
        bool ends = false;
        if (!lower(in, op, &ends) || op.fn == nullptr)
            missing.insert(std::string(x86::name(in.mnemonic)) + " " + bytes);
    });
    std::string text;
    for (const auto& m : missing)
        if (text.size() < 4000) text += m + "\n";
    EXPECT_TRUE(missing.empty()) << text;
}

INSTANTIATE_TEST_SUITE_P(Modes, FpLoweringTest, testing::Values(CodeSize::Bits32, CodeSize::Bits64));

TEST(FpLowering, EveryMnemonicOfTheClassesIsReached) {
    std::set<Mnemonic> seen;
    for_each_instruction(CodeSize::Bits64,
                         [&](const Insn& in, const std::string&) { seen.insert(in.mnemonic); });
    std::string text;
    for (unsigned i = 1; i < x86::kMnemonicCount; ++i) {
        const auto mnemonic = static_cast<Mnemonic>(i);
        if (is_ours(x86::insn_class_of(mnemonic)) && !seen.contains(mnemonic))
            text += std::string(x86::name(mnemonic)) + " ";
    }
    EXPECT_EQ(text, "");
}

}  // namespace
}  // namespace tessera::soft
