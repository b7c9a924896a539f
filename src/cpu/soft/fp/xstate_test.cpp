// FXSAVE and the XSAVE family: formats, checks, initial-state tracking.
#include <gtest/gtest.h>

#include "cpu/soft/testing/fp_machine.h"

namespace tessera::soft {
namespace {

constexpr unsigned kUd = 6, kNm = 7, kGp = 13, kPf = 14;
constexpr u64 kArea = FpMachine::kData;
constexpr u64 kXstateBv = kArea + 512, kXcompBv = kArea + 520;

struct XMachine : FpMachine {
    XMachine() { request(7); }
    void request(u64 mask) {
        s.gpr[x86::Rax] = static_cast<u32>(mask);
        s.gpr[x86::Rdx] = mask >> 32;
    }
    void fill(u8 value, u64 size = 1024) { std::memset(ram(kArea), value, size); }
    void use_everything() {
        s.fpu.control = 0x0c7f;
        for (unsigned i = 0; i < 16; ++i) s.ymm[i] = {i + 1, i + 101, i + 201, i + 301};
    }
};

TEST(XstateTest, FxsaveWritesTheLegacyImage) {
    XMachine m;
    m.use_everything();
    ASSERT_FALSE(m.step({0xd9, 0xe8}));  // fld1
    m.fill(0xee);
    m.s.mxcsr = 0x1fa0;
    ASSERT_FALSE(m.step({0x0f, 0xae, 0x07}));
    EXPECT_EQ(m.read<u16>(kArea), 0x0c7f);
    EXPECT_EQ(m.read<u16>(kArea + 2), 0x3800);
    EXPECT_EQ(m.read<u16>(kArea + 4), 0x0080);  // register 7, abridged
    EXPECT_EQ(m.read<u16>(kArea + 6), 0x1e8);
    EXPECT_EQ(m.read<u32>(kArea + 8), FpMachine::kCode);
    EXPECT_EQ(m.read<u16>(kArea + 12), m.s.seg[x86::Cs].selector);
    EXPECT_EQ(m.read<u32>(kArea + 24), 0x1fa0U);
    EXPECT_EQ(m.read<u32>(kArea + 28), 0xffffU);
    EXPECT_EQ(m.read<u64>(kArea + 32), u64{1} << 63);
    EXPECT_EQ(m.read<u16>(kArea + 40), 0x3fff);
    EXPECT_EQ(m.read<u64>(kArea + 160 + 15 * 16 + 8), 116U);
    EXPECT_EQ(m.read<u64>(kArea + 464), 0xeeee'eeee'eeee'eeeeU);  // software's
}

TEST(XstateTest, WideFxsaveHoldsSixtyFourBitPointers) {
    XMachine m;
    m.s.fpu.ip = 0x1234'5678'9abc;
    m.s.fpu.dp = 0x8765'4321'0fed;
    ASSERT_FALSE(m.step({0x48, 0x0f, 0xae, 0x07}));
    EXPECT_EQ(m.read<u64>(kArea + 8), 0x1234'5678'9abcU);
    EXPECT_EQ(m.read<u64>(kArea + 16), 0x8765'4321'0fedU);
    m.s.fpu.ip = m.s.fpu.dp = 0;
    ASSERT_FALSE(m.step({0x48, 0x0f, 0xae, 0x0f}));
    EXPECT_EQ(m.s.fpu.ip, 0x1234'5678'9abcU);
    EXPECT_EQ(m.s.fpu.dp, 0x8765'4321'0fedU);
}

TEST(XstateTest, FxrstorRebuildsTheFullTags) {
    XMachine m;
    ASSERT_FALSE(m.step({0xd9, 0xe8, 0xd9, 0xee, 0x0f, 0xae, 0x07}, 3));  // fld1; fldz; fxsave
    ASSERT_FALSE(m.step({0xdb, 0xe3}));
    ASSERT_FALSE(m.step({0x0f, 0xae, 0x0f}));
    EXPECT_EQ(m.s.fpu.tag, 0x1fff);
    EXPECT_EQ(m.s.fpu.status, 0x3000);
    EXPECT_EQ(m.s.fpu.st[1], extended(1));
}

TEST(XstateTest, FxrstorRefusesReservedMxcsrBitsAndChangesNothing) {
    XMachine m;
    ASSERT_FALSE(m.step({0x0f, 0xae, 0x07}));
    m.write<u32>(kArea + 24, 0x0002'1f80);
    m.write<u64>(kArea + 160, 0x99);
    EXPECT_EQ(m.step({0x0f, 0xae, 0x0f}), kGp);
    EXPECT_EQ(m.s.ymm[0][0], 0U);
    EXPECT_EQ(m.s.mxcsr, 0x1f80U);
}

TEST(XstateTest, FxsaveOutsideSixtyFourBitModeHasEightRegisters) {
    XMachine m;
    x86::State s = m.protected_mode_state();
    for (unsigned i = 0; i < 16; ++i) s.ymm[i] = {i + 1, 0, 0, 0};
    s.gpr[x86::Rdi] = kArea;
    m.fill(0xee);
    (void)m.run(s, {0x0f, 0xae, 0x07});
    EXPECT_EQ(m.read<u64>(kArea + 160 + 7 * 16), 8U);
    EXPECT_EQ(m.read<u64>(kArea + 160 + 8 * 16), 0xeeee'eeee'eeee'eeeeU);
}

TEST(XstateTest, ImagesMustBeAligned) {
    XMachine m;
    m.s.gpr[x86::Rdi] = kArea + 8;
    EXPECT_EQ(m.step({0x0f, 0xae, 0x07}), kGp);  // fxsave: 16
    m.s.gpr[x86::Rdi] = kArea + 16;
    EXPECT_FALSE(m.step({0x0f, 0xae, 0x07}));
    EXPECT_EQ(m.step({0x0f, 0xae, 0x27}), kGp);  // xsave: 64
    EXPECT_EQ(m.step({0x0f, 0xae, 0x2f}), kGp);  // xrstor
    EXPECT_EQ(m.step({0x0f, 0xc7, 0x27}), kGp);  // xsavec
}

TEST(XstateTest, AvailabilityOfEachFamily) {
    XMachine m;
    m.s.cr0 |= x86::cr0::kTs;
    EXPECT_EQ(m.step({0x0f, 0xae, 0x07}), kNm);
    EXPECT_EQ(m.step({0x0f, 0xae, 0x27}), kNm);
    EXPECT_FALSE(m.step({0x0f, 0x01, 0xd0}));  // xgetbv
    m.s.cr4 &= ~x86::cr4::kOsxsave;
    EXPECT_EQ(m.step({0x0f, 0xae, 0x27}), kUd);
    EXPECT_EQ(m.step({0x0f, 0x01, 0xd0}), kUd);
    EXPECT_EQ(m.step({0x0f, 0x01, 0xd1}), kUd);
}

TEST(XstateTest, XsaveWritesWhatIsAskedForAndKeepsTheOtherBitsOfTheHeader) {
    XMachine m;
    m.use_everything();
    m.fill(0xee);
    m.write<u64>(kXstateBv, 0xf0);
    m.request(5);
    ASSERT_FALSE(m.step({0x0f, 0xae, 0x27}));
    EXPECT_EQ(m.read<u64>(kXstateBv), 0xf5U);
    EXPECT_EQ(m.read<u64>(kXcompBv), 0xeeee'eeee'eeee'eeeeU);
    EXPECT_EQ(m.read<u32>(kArea + 24), 0x1f80U);  // MXCSR goes with AVX
    EXPECT_EQ(m.read<u64>(kArea + 160), 0xeeee'eeee'eeee'eeeeU);
    EXPECT_EQ(m.read<u64>(kArea + 576 + 15 * 16), 216U);
    EXPECT_EQ(m.read<u64>(kArea + 832), 0xeeee'eeee'eeee'eeeeU);
}

TEST(XstateTest, XsaveoptLeavesOutWhatIsInitial) {
    XMachine m;
    m.s.ymm[3] = {1, 0, 0, 0};
    m.fill(0xee);
    m.write<u64>(kXstateBv, 0);
    ASSERT_FALSE(m.step({0x0f, 0xae, 0x37}));
    EXPECT_EQ(m.read<u64>(kXstateBv), 2U);
    EXPECT_EQ(m.read<u16>(kArea), 0xeeee);
    EXPECT_EQ(m.read<u64>(kArea + 160 + 48), 1U);
    EXPECT_EQ(m.read<u64>(kArea + 576), 0xeeee'eeee'eeee'eeeeU);
}

TEST(XstateTest, XsavecWritesACompactedHeaderAndCountsMxcsrAsSse) {
    XMachine m;
    m.s.mxcsr = 0x1fa0;
    m.fill(0xee);
    ASSERT_FALSE(m.step({0x0f, 0xc7, 0x27}));
    EXPECT_EQ(m.read<u64>(kXstateBv), 2U);
    EXPECT_EQ(m.read<u64>(kXcompBv), u64{1} << 63 | 7);
    EXPECT_EQ(m.read<u32>(kArea + 24), 0x1fa0U);
}

TEST(XstateTest, XrstorBringsBackAndInitialises) {
    XMachine m;
    m.use_everything();
    ASSERT_FALSE(m.step({0xd9, 0xe8}));
    m.fill(0);
    ASSERT_FALSE(m.step({0x0f, 0xae, 0x27}));
    const x86::State saved = m.s;
    for (auto& reg : m.s.ymm) reg = {9, 9, 9, 9};
    m.s.fpu = x86::Fpu{.control = 0x037f, .status = 0, .tag = 0xffff};
    ASSERT_FALSE(m.step({0x0f, 0xae, 0x2f}));
    EXPECT_EQ(m.s.ymm, saved.ymm);
    EXPECT_EQ(m.s.fpu.st, saved.fpu.st);
    EXPECT_EQ(m.s.fpu.control, 0x0c7f);
    m.write<u64>(kXstateBv, 1);
    m.request(6);
    ASSERT_FALSE(m.step({0x0f, 0xae, 0x2f}));
    EXPECT_EQ(m.s.ymm[5], (std::array<u64, 4>{}));
    EXPECT_EQ(m.s.fpu.control, 0x0c7f);  // not asked for
}

TEST(XstateTest, XrstorOfTheStandardFormTakesMxcsrFromMemoryAlways) {
    XMachine m;
    m.fill(0);
    m.write<u32>(kArea + 24, 0x3f80);
    m.request(4);
    ASSERT_FALSE(m.step({0x0f, 0xae, 0x2f}));
    EXPECT_EQ(m.s.mxcsr, 0x3f80U);
}

TEST(XstateTest, XrstorOfTheCompactedFormInitialisesMxcsrWithSse) {
    XMachine m;
    m.fill(0);
    m.s.mxcsr = 0x3f80;
    m.write<u64>(kXcompBv, u64{1} << 63 | 7);
    ASSERT_FALSE(m.step({0x0f, 0xae, 0x2f}));
    EXPECT_EQ(m.s.mxcsr, 0x1f80U);
}

TEST(XstateTest, XrstorChecksTheHeader) {
    XMachine m;
    const auto refused = [&](u64 bv, u64 comp, u64 next) {
        m.fill(0);
        m.write<u64>(kXstateBv, bv);
        m.write<u64>(kXcompBv, comp);
        m.write<u64>(kXcompBv + 8, next);
        return m.step({0x0f, 0xae, 0x2f}) == kGp;
    };
    EXPECT_FALSE(refused(7, 0, 0));
    EXPECT_TRUE(refused(8, 0, 0));  // not in XCR0
    EXPECT_TRUE(refused(1, 1, 0));  // XCOMP_BV without bit 63
    EXPECT_TRUE(refused(1, 0, 1));  // reserved
    EXPECT_FALSE(refused(1, u64{1} << 63 | 1, 0));
    EXPECT_TRUE(refused(2, u64{1} << 63 | 1, 0));  // present but not in the format
    EXPECT_TRUE(refused(1, u64{1} << 63 | 9, 0));  // format not in XCR0
    EXPECT_TRUE(refused(1, u64{1} << 63 | 1, 1));
}

TEST(XstateTest, XrstorsTakesOnlyTheCompactedForm) {
    XMachine m;
    m.fill(0);
    EXPECT_EQ(m.step({0x0f, 0xc7, 0x1f}), kGp);
    m.write<u64>(kXcompBv, u64{1} << 63 | 7);
    EXPECT_FALSE(m.step({0x0f, 0xc7, 0x1f}));
}

TEST(XstateTest, SupervisorFormsNeedCplZero) {
    XMachine m;
    m.s = m.fresh(3);
    m.request(7);
    m.fill(0);
    EXPECT_EQ(m.step({0x0f, 0xc7, 0x2f}), kGp);
    m.s = m.fresh(3);
    EXPECT_EQ(m.step({0x0f, 0xc7, 0x1f}), kGp);
    m.s = m.fresh(3);
    m.request(7);
    EXPECT_FALSE(m.step({0x0f, 0xae, 0x27}));
}

TEST(XstateTest, XsaveThatFaultsWritesNothing) {
    XMachine m;
    m.s.gpr[x86::Rdi] = FpMachine::kUnmapped - 640;  // the AVX part reaches beyond
    m.use_everything();
    EXPECT_EQ(m.step({0x0f, 0xae, 0x27}), kPf);
    EXPECT_EQ(m.read<u16>(FpMachine::kUnmapped - 640), 0);
    m.request(3);
    EXPECT_FALSE(m.step({0x0f, 0xae, 0x27}));
}

TEST(XstateTest, XgetbvReportsWhatIsInUse) {
    XMachine m;
    m.s.ymm[0] = {0, 0, 1, 0};
    m.s.gpr[x86::Rcx] = 1;
    ASSERT_FALSE(m.step({0x0f, 0x01, 0xd0}));
    EXPECT_EQ(m.s.gpr[x86::Rax], 4U);
    m.s.gpr[x86::Rcx] = 0;
    ASSERT_FALSE(m.step({0x0f, 0x01, 0xd0}));
    EXPECT_EQ(m.s.gpr[x86::Rax], 7U);
    EXPECT_EQ(m.s.gpr[x86::Rdx], 0U);
    m.s.gpr[x86::Rcx] = 2;
    EXPECT_EQ(m.step({0x0f, 0x01, 0xd0}), kGp);
}

TEST(XstateTest, XsetbvAcceptsOnlySensibleMasks) {
    XMachine m;
    const auto set = [&](u64 value) {
        m.s.gpr[x86::Rcx] = 0;
        m.request(value);
        return !m.step({0x0f, 0x01, 0xd1}).has_value();
    };
    EXPECT_TRUE(set(1));
    EXPECT_TRUE(set(3));
    EXPECT_FALSE(set(5));  // AVX without SSE
    EXPECT_FALSE(set(2));  // without x87
    EXPECT_FALSE(set(0xf));
    EXPECT_EQ(m.s.xcr0, 3U);
    EXPECT_EQ(m.step({0xc5, 0xe9, 0xfe, 0xc9}), kUd);  // AVX is gone
    EXPECT_TRUE(set(7));
    EXPECT_FALSE(m.step({0xc5, 0xe9, 0xfe, 0xc9}));
    m.s.gpr[x86::Rcx] = 1;
    m.request(7);
    EXPECT_EQ(m.step({0x0f, 0x01, 0xd1}), kGp);
}

}  // namespace
}  // namespace tessera::soft
