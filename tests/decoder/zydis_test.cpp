// Our decoder against Zydis: every opcode of every map with every modrm byte, and random bytes, in all three
// modes.
#include <algorithm>
#include <array>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "tests/decoder/known_differences.h"
#include "tests/decoder/zydis_compare.h"

namespace tessera::x86::test {
namespace {

// Gathers disagreements, one example per place in the tables.
class Differ {
public:
    void check(std::span<const u8> bytes, CodeSize size) {
        ++cases_;
        const Comparison c = compare_with_zydis(bytes, size);
        if (c.disagreement == Disagreement::None) return;
        if (c.explanation != nullptr) {
            ++known_;
            return;
        }
        ++unknown_;
        const std::string where =
            fmt::format("{} {}", name(c.disagreement), c.theirs.substr(0, c.theirs.find(' ')));
        auto& found = found_[where];
        if (found.first++ == 0) {
            found.second = fmt::format("{}-bit", 16 << static_cast<int>(size));
            for (const u8 b : bytes.first(std::min<size_t>(bytes.size(), 15)))
                found.second += fmt::format(" {:02x}", b);
            found.second += fmt::format("\n    ours:   {}\n    theirs: {}", c.ours, c.theirs);
        }
    }

    void expect_agreement() {
        fmt::print("{} cases, {} explained differences\n", cases_, known_);
        std::string text;
        unsigned shown = 0;
        for (const auto& [where, found] : found_) {
            if (++shown > 150) break;
            text += fmt::format("{}: {} times, e.g. {}\n", where, found.first, found.second);
        }
        EXPECT_EQ(unknown_, 0u) << text;
    }

private:
    u64 cases_ = 0, known_ = 0, unknown_ = 0;
    std::map<std::string, std::pair<u64, std::string>> found_;
};

constexpr CodeSize kModes[] = {CodeSize::Bits16, CodeSize::Bits32, CodeSize::Bits64};
// SIB, displacement, immediates.
constexpr u8 kTail[] = {0x51, 0x82, 0x93, 0x24, 0x45, 0xa6, 0xb7, 0x08, 0x19, 0x3a};

void append(std::vector<u8>& bytes, std::initializer_list<u8> more) {
    bytes.insert(bytes.end(), more);
}

void sweep_legacy(const std::vector<u8>& escape) {
    Differ differ;
    std::vector<u8> bytes;
    for (const CodeSize mode : kModes) {
        const unsigned rex_variants = mode == CodeSize::Bits64 ? 3 : 1;
        for (unsigned prefix = 0; prefix < 4; ++prefix)
            for (unsigned rex = 0; rex < rex_variants; ++rex)
                for (unsigned opcode = 0; opcode < 256; ++opcode)
                    for (unsigned modrm = 0; modrm < 256; ++modrm) {
                        bytes.clear();
                        if (prefix != 0) append(bytes, {std::array<u8, 4>{0, 0x66, 0xf3, 0xf2}[prefix]});
                        if (rex != 0) append(bytes, {std::array<u8, 3>{0, 0x48, 0x47}[rex]});
                        bytes.insert(bytes.end(), escape.begin(), escape.end());
                        append(bytes, {static_cast<u8>(opcode), static_cast<u8>(modrm)});
                        bytes.insert(bytes.end(), std::begin(kTail), std::end(kTail));
                        differ.check(bytes, mode);
                    }
    }
    differ.expect_agreement();
}

TEST(DecoderAgainstZydisTest, OneByteOpcodesAgree) {
    sweep_legacy({});
}
TEST(DecoderAgainstZydisTest, TwoByteOpcodesAgree) {
    sweep_legacy({0x0f});
}
TEST(DecoderAgainstZydisTest, ThreeByte38OpcodesAgree) {
    sweep_legacy({0x0f, 0x38});
}
TEST(DecoderAgainstZydisTest, ThreeByte3aOpcodesAgree) {
    sweep_legacy({0x0f, 0x3a});
}

// REX, VEX and legacy prefixes in odd numbers and orders, cut off anywhere, otherwise random bytes.
void make_random(std::mt19937_64& random, std::vector<u8>& bytes) {
    constexpr u8 kPrefixBytes[] = {0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x26, 0x2e, 0x36,
                                   0x3e, 0x64, 0x65, 0x48, 0x41, 0x44, 0x42, 0x4f};
    bytes.clear();
    const u64 dice = random();
    const unsigned prefixes = dice % 16 == 0 ? (dice >> 8) % 16 : (dice >> 8) % 4;
    for (unsigned i = 0; i < prefixes; ++i) append(bytes, {kPrefixBytes[random() % std::size(kPrefixBytes)]});
    switch (dice >> 16 & 7) {
        case 0: append(bytes, {0x0f}); break;
        case 1: append(bytes, {0x0f, 0x38}); break;
        case 2: append(bytes, {0x0f, 0x3a}); break;
        case 3: append(bytes, {0xc5, static_cast<u8>(random())}); break;
        case 4: append(bytes, {0xc4, static_cast<u8>((random() & 0xe3)), static_cast<u8>(random())}); break;
        default: break;
    }
    for (unsigned i = 0; i < 16; ++i) append(bytes, {static_cast<u8>(random())});
    if ((dice >> 20 & 3) == 0) bytes.resize((dice >> 32) % bytes.size());
}

TEST(DecoderAgainstZydisTest, RandomBytesAgree) {
    Differ differ;
    std::mt19937_64 random(20260727);
    std::vector<u8> bytes;
    for (unsigned i = 0; i < 3'000'000; ++i) {
        make_random(random, bytes);
        for (const CodeSize mode : kModes) differ.check(bytes, mode);
    }
    differ.expect_agreement();
}

TEST(DecoderAgainstZydisTest, FifteenBytesAreTheLimit) {
    Differ differ;
    std::vector<u8> bytes;
    for (const CodeSize mode : kModes)
        for (unsigned prefixes = 0; prefixes < 18; ++prefixes)
            for (const std::vector<u8>& insn : {std::vector<u8>{0x90},
                                                {0x00, 0x00},
                                                {0x0f, 0xa2},
                                                {0x0f, 0x38, 0x00, 0x00},
                                                {0x05, 1, 2, 3, 4},
                                                {0xf7, 0x84, 0x24, 1, 2, 3, 4, 5, 6, 7, 8}}) {
                bytes.assign(prefixes, 0x2e);
                bytes.insert(bytes.end(), insn.begin(), insn.end());
                for (unsigned size = 0; size <= bytes.size(); ++size)
                    differ.check(std::span(bytes).first(size), mode);
            }
    differ.expect_agreement();
}

TEST(DecoderAgainstZydisTest, LockIsLegalForTheSameInstructions) {
    Differ differ;
    for (const CodeSize mode : kModes)
        for (const std::vector<u8>& escape : {std::vector<u8>{}, {0x0f}, {0x0f, 0x38}, {0x0f, 0x3a}})
            for (unsigned opcode = 0; opcode < 256; ++opcode)
                for (unsigned modrm = 0; modrm < 256; ++modrm) {
                    std::vector<u8> bytes = {0xf0};
                    bytes.insert(bytes.end(), escape.begin(), escape.end());
                    append(bytes, {static_cast<u8>(opcode), static_cast<u8>(modrm)});
                    bytes.insert(bytes.end(), std::begin(kTail), std::end(kTail));
                    differ.check(bytes, mode);
                }
    differ.expect_agreement();
}

// A difference that no longer exists is to leave the table.
TEST(DecoderAgainstZydisTest, EveryExplainedDifferenceHasAnExample) {
    for (const KnownDifference& known : known_differences()) {
        std::array<u8, 16> bytes{};
        std::copy(known.example.begin(), known.example.end(), bytes.begin());
        std::span<const u8> used(bytes);
        if (known.what == Disagreement::Validity && known.ours[0] != Mnemonic::Invalid) used = used.first(4);
        const Comparison c = compare_with_zydis(used, known.mode);
        EXPECT_EQ(c.explanation, &known)
            << known.reason << ": " << name(c.disagreement) << " " << c.ours << " " << c.theirs;
    }
}

// RXB as in the second byte of C4 (inverted), vvvv as in the third (inverted).
void sweep_vex(unsigned map) {
    Differ differ;
    std::vector<u8> bytes;
    struct Registers {
        u8 rxb, vvvv;
    };
    for (const CodeSize mode : kModes)
        for (const Registers r :
             {Registers{0xe0, 0x78}, Registers{0xe0, 0x58}, Registers{0xc0, 0x38}, Registers{0x00, 0x78}}) {
            if (mode != CodeSize::Bits64 && (r.rxb & 0xc0) != 0xc0) continue;
            for (unsigned w_l_pp = 0; w_l_pp < 16; ++w_l_pp)
                for (unsigned opcode = 0; opcode < 256; ++opcode)
                    for (unsigned modrm = 0; modrm < 256; ++modrm) {
                        bytes.clear();
                        const u8 last = static_cast<u8>((w_l_pp & 8) << 4 | r.vvvv | (w_l_pp & 7));
                        append(bytes, {0xc4, static_cast<u8>(r.rxb | map), last, static_cast<u8>(opcode),
                                       static_cast<u8>(modrm)});
                        bytes.insert(bytes.end(), std::begin(kTail), std::end(kTail));
                        differ.check(bytes, mode);
                    }
        }
    differ.expect_agreement();
}

TEST(DecoderAgainstZydisTest, Vex0fOpcodesAgree) {
    sweep_vex(1);
}
TEST(DecoderAgainstZydisTest, Vex0f38OpcodesAgree) {
    sweep_vex(2);
}
TEST(DecoderAgainstZydisTest, Vex0f3aOpcodesAgree) {
    sweep_vex(3);
}

}  // namespace
}  // namespace tessera::x86::test
