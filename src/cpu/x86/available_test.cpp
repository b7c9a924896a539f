// What each feature level executes, against the "#UD if" lines of the manuals [SDM 2], [APM 3].
#include "cpu/x86/available.h"

#include <gtest/gtest.h>
#include <vector>

namespace tessera::x86 {
namespace {

using enum FeatureLevel;

struct Example {
    const char* name;
    std::vector<u8> bytes;
    FeatureLevel first;  // the lowest level that has it
};

const std::vector<Example>& examples() {
    static const std::vector<Example> list{
        {"popcnt", {0xf3, 0x0f, 0xb8, 0xc1}, V2},
        {"crc32", {0xf2, 0x0f, 0x38, 0xf1, 0xc1}, V2},
        {"pcmpistri", {0x66, 0x0f, 0x3a, 0x63, 0xc1, 0}, V2},
        {"cmpxchg16b", {0x48, 0x0f, 0xc7, 0x0e}, V2},
        {"rdfsbase", {0xf3, 0x0f, 0xae, 0xc0}, V2},
        {"rdpid", {0xf3, 0x0f, 0xc7, 0xf8}, V2},
        {"fxsave", {0x0f, 0xae, 0x06}, V2},
        {"prefetchw", {0x0f, 0x0d, 0x0e}, V2},
        {"movbe load", {0x0f, 0x38, 0xf0, 0x06}, V3},
        {"movbe store", {0x0f, 0x38, 0xf1, 0x06}, V3},
        {"andn", {0xc4, 0xe2, 0x70, 0xf2, 0xc2}, V3},
        {"blsr", {0xc4, 0xe2, 0x70, 0xf3, 0xc9}, V3},
        {"bextr", {0xc4, 0xe2, 0x70, 0xf7, 0xc2}, V3},
        {"bzhi", {0xc4, 0xe2, 0x70, 0xf5, 0xc2}, V3},
        {"mulx", {0xc4, 0xe2, 0x73, 0xf6, 0xc2}, V3},
        {"pext", {0xc4, 0xe2, 0x72, 0xf5, 0xc2}, V3},
        {"rorx", {0xc4, 0xe3, 0x7b, 0xf0, 0xc2, 1}, V3},
        {"shlx", {0xc4, 0xe2, 0x71, 0xf7, 0xc2}, V3},
        {"vaddps", {0xc5, 0xf0, 0x58, 0xc2}, V3},
        {"vzeroupper", {0xc5, 0xf8, 0x77}, V3},
        {"vpaddd ymm", {0xc5, 0xf5, 0xfe, 0xc2}, V3},
        {"vldmxcsr", {0xc5, 0xf8, 0xae, 0x16}, V3},
        {"vfmadd132pd", {0xc4, 0xe2, 0xf1, 0x98, 0xc2}, V3},
        {"vfnmsub231ss", {0xc4, 0xe2, 0x71, 0xbf, 0xc2}, V3},
        {"vcvtph2ps", {0xc4, 0xe2, 0x79, 0x13, 0xc1}, V3},
        {"xgetbv", {0x0f, 0x01, 0xd0}, V3},
        {"xsave", {0x0f, 0xae, 0x26}, V3},
        {"xsaveopt", {0x0f, 0xae, 0x36}, V3},
        {"xsavec", {0x0f, 0xc7, 0x26}, V3},
        {"xsaves", {0x0f, 0xc7, 0x2e}, V3},
        {"aesenc", {0x66, 0x0f, 0x38, 0xdc, 0xc1}, Max},
        {"vaesenc", {0xc4, 0xe2, 0x71, 0xdc, 0xc2}, Max},
        {"pclmulqdq", {0x66, 0x0f, 0x3a, 0x44, 0xc1, 0}, Max},
        {"vpclmulqdq", {0xc4, 0xe3, 0x71, 0x44, 0xc2, 0}, Max},
        {"sha1rnds4", {0x0f, 0x3a, 0xcc, 0xc1, 0}, Max},
        {"sha256rnds2", {0x0f, 0x38, 0xcb, 0xc1}, Max},
        {"adcx", {0x66, 0x0f, 0x38, 0xf6, 0xc1}, Max},
        {"adox", {0xf3, 0x0f, 0x38, 0xf6, 0xc1}, Max},
        {"rdrand", {0x0f, 0xc7, 0xf0}, Max},
        {"rdseed", {0x0f, 0xc7, 0xf8}, Max},
        {"clflushopt", {0x66, 0x0f, 0xae, 0x3e}, Max},
        {"clwb", {0x66, 0x0f, 0xae, 0x36}, Max},
        {"clzero", {0x0f, 0x01, 0xfc}, Max},
    };
    return list;
}

TEST(AvailableTest, InstructionsExistFromTheirLevelOn) {
    for (const Example& e : examples()) {
        for (const FeatureLevel level : {V2, V3, Max}) {
            Insn in;
            const auto status = decode(e.bytes, CodeSize::Bits64, level, in);
            EXPECT_EQ(status, level >= e.first ? DecodeStatus::Ok : DecodeStatus::Invalid)
                << e.name << " at level " << static_cast<int>(level);
            EXPECT_EQ(in.length, e.bytes.size()) << e.name;
        }
    }
}

// [APM 3 LZCNT, TZCNT]: without the feature the prefix means nothing.
TEST(AvailableTest, LzcntAndTzcntAreBsrAndBsfBelowV3) {
    const std::vector<u8> lzcnt{0xf3, 0x48, 0x0f, 0xbd, 0xc1};
    const std::vector<u8> tzcnt{0xf3, 0x48, 0x0f, 0xbc, 0xc1};
    // As the same bytes without the prefix, but for the prefix.
    const auto expect_plain = [](const std::vector<u8>& bytes, Mnemonic mnemonic) {
        Insn plain, adapted;
        ASSERT_EQ(decode(std::span(bytes).subspan(1), CodeSize::Bits64, plain), DecodeStatus::Ok);
        ASSERT_EQ(decode(bytes, CodeSize::Bits64, V2, adapted), DecodeStatus::Ok);
        EXPECT_EQ(adapted.mnemonic, mnemonic);
        plain.length += 1;
        plain.opcode_offset += 1;
        plain.flags.set(InsnFlag::Rep);
        EXPECT_EQ(adapted, plain);
    };
    expect_plain(lzcnt, Mnemonic::Bsr);
    expect_plain(tzcnt, Mnemonic::Bsf);
    Insn in;
    ASSERT_EQ(decode(lzcnt, CodeSize::Bits64, V3, in), DecodeStatus::Ok);
    EXPECT_EQ(in.mnemonic, Mnemonic::Lzcnt);
    ASSERT_EQ(decode(tzcnt, CodeSize::Bits64, V3, in), DecodeStatus::Ok);
    EXPECT_EQ(in.mnemonic, Mnemonic::Tzcnt);
}

// adapt_to does not tell AVX2 from AVX.
TEST(AvailableTest, AvxAndAvx2ComeTogether) {
    for (const FeatureLevel level : {V2, V3, Max})
        EXPECT_EQ(has_feature(level, Feature::Avx), has_feature(level, Feature::Avx2));
}

}  // namespace
}  // namespace tessera::x86
