// Vector instructions: what a comparison with the host cannot show (availability, faults, unmasked
// exceptions).
#include <bit>
#include <gtest/gtest.h>
#include <limits>

#include "cpu/soft/testing/fp_machine.h"

namespace tessera::soft {
namespace {

using Lanes = std::array<u64, 4>;

constexpr unsigned kUd = 6, kNm = 7, kGp = 13, kPf = 14, kXm = 19;

Lanes doubles(double a, double b) {
    return {std::bit_cast<u64>(a), std::bit_cast<u64>(b), 0x1111, 0x2222};
}
Lanes floats(float a, float b, float c, float d) {
    const auto pair = [](float lo, float hi) {
        return u64{std::bit_cast<u32>(hi)} << 32 | std::bit_cast<u32>(lo);
    };
    return {pair(a, b), pair(c, d), 0x1111, 0x2222};
}

// --- register halves and alignment

TEST(VectorTest, LegacyFormsKeepTheUpperHalfAndVexFormsClearIt) {
    FpMachine m;
    m.s.ymm[1] = {1, 2, 3, 4};
    m.s.ymm[2] = {10, 20, 30, 40};
    ASSERT_FALSE(m.step({0x66, 0x0f, 0xd4, 0xca}));  // paddq xmm1, xmm2
    EXPECT_EQ(m.s.ymm[1], (Lanes{11, 22, 3, 4}));
    ASSERT_FALSE(m.step({0xc5, 0xf1, 0xd4, 0xca}));  // vpaddq xmm1, xmm1, xmm2
    EXPECT_EQ(m.s.ymm[1], (Lanes{21, 42, 0, 0}));
    ASSERT_FALSE(m.step({0xc5, 0xf5, 0xd4, 0xca}));  // vpaddq ymm1, ymm1, ymm2
    EXPECT_EQ(m.s.ymm[1], (Lanes{31, 62, 30, 40}));
}

TEST(VectorTest, LegacyMemoryOperandsOf16BytesMustBeAligned) {
    FpMachine m;
    m.s.gpr[x86::Rdi] = FpMachine::kData + 8;
    EXPECT_EQ(m.step({0x66, 0x0f, 0xfe, 0x0f}), kGp);         // paddd xmm1, [rdi]
    EXPECT_EQ(m.step({0x0f, 0x29, 0x0f}), kGp);               // movaps [rdi], xmm1
    EXPECT_FALSE(m.step({0x0f, 0x10, 0x0f}));                 // movups xmm1, [rdi]
    EXPECT_FALSE(m.step({0x0f, 0x11, 0x0f}));                 // movups [rdi], xmm1
    EXPECT_FALSE(m.step({0x66, 0x0f, 0x3a, 0x63, 0x0f, 0}));  // pcmpistri xmm1, [rdi], 0
    EXPECT_FALSE(m.step({0xf2, 0x0f, 0x58, 0x0f}));           // addsd xmm1, [rdi]
}

TEST(VectorTest, VexMemoryOperandsAreUnalignedExceptInAlignedMoves) {
    FpMachine m;
    m.s.gpr[x86::Rdi] = FpMachine::kData + 16;
    EXPECT_FALSE(m.step({0xc5, 0xed, 0xfe, 0x0f}));    // vpaddd ymm1, ymm2, [rdi]
    EXPECT_EQ(m.step({0xc5, 0xfd, 0x6f, 0x0f}), kGp);  // vmovdqa ymm1, [rdi]
    EXPECT_FALSE(m.step({0xc5, 0xf9, 0x6f, 0x0f}));    // vmovdqa xmm1, [rdi]
    EXPECT_EQ(m.step({0xc5, 0xfd, 0xe7, 0x0f}), kGp);  // vmovntdq [rdi], ymm1
    EXPECT_FALSE(m.step({0xc5, 0xfe, 0x7f, 0x0f}));    // vmovdqu [rdi], ymm1
}

TEST(VectorTest, InstructionsReadNoMoreMemoryThanTheirOperand) {
    FpMachine m;
    const auto at_end = [&](u64 size) { m.s.gpr[x86::Rdi] = FpMachine::kUnmapped - size; };
    at_end(2);
    EXPECT_FALSE(m.step({0x66, 0x0f, 0x38, 0x32, 0x0f}));  // pmovzxbq xmm1, m16
    at_end(1);
    EXPECT_EQ(m.step({0x66, 0x0f, 0x38, 0x32, 0x0f}), kPf);
    at_end(4);
    EXPECT_FALSE(m.step({0xf3, 0x0f, 0x58, 0x0f}));  // addss xmm1, m32
    at_end(3);
    EXPECT_EQ(m.step({0xf3, 0x0f, 0x58, 0x0f}), kPf);
    at_end(8);
    EXPECT_FALSE(m.step({0x0f, 0x5a, 0x0f}));              // cvtps2pd xmm1, m64
    EXPECT_FALSE(m.step({0xc4, 0xe2, 0x7d, 0x19, 0x0f}));  // vbroadcastsd ymm1, m64
    EXPECT_FALSE(m.step({0x0f, 0x16, 0x0f}));              // movhps xmm1, m64
    at_end(1);
    EXPECT_FALSE(m.step({0x66, 0x0f, 0x3a, 0x20, 0x0f, 5}));  // pinsrb xmm1, m8, 5
    EXPECT_FALSE(m.step({0x66, 0x0f, 0x3a, 0x14, 0x0f, 5}));  // pextrb m8, xmm1, 5
}

// --- availability

TEST(VectorTest, SseNeedsOsfxsrAndComesBeforeTheMemoryFault) {
    FpMachine m;
    m.s.gpr[x86::Rdi] = FpMachine::kUnmapped;
    m.s.cr0 |= x86::cr0::kTs;
    EXPECT_EQ(m.step({0x0f, 0x10, 0x0f}), kNm);
    m.s.cr0 |= x86::cr0::kEm;
    EXPECT_EQ(m.step({0x0f, 0x10, 0x0f}), kUd);
    m.s.cr0 &= ~(x86::cr0::kTs | x86::cr0::kEm);
    m.s.cr4 &= ~x86::cr4::kOsfxsr;
    EXPECT_EQ(m.step({0x0f, 0x10, 0x0f}), kUd);
    EXPECT_EQ(m.step({0x66, 0x0f, 0xfe, 0xca}), kUd);
    m.s.cr4 |= x86::cr4::kOsfxsr;
    EXPECT_EQ(m.step({0x0f, 0x10, 0x0f}), kPf);
}

TEST(VectorTest, AvxNeedsOsxsaveAndBothStateComponentsButNotOsfxsr) {
    FpMachine m;
    m.s.cr4 &= ~x86::cr4::kOsfxsr;
    EXPECT_FALSE(m.step({0xc5, 0xe9, 0xfe, 0xc9}));  // vpaddd xmm1, xmm2, xmm1
    m.s.xcr0 = 3;
    EXPECT_EQ(m.step({0xc5, 0xe9, 0xfe, 0xc9}), kUd);
    m.s.xcr0 = 7;
    m.s.cr0 |= x86::cr0::kTs;
    EXPECT_EQ(m.step({0xc5, 0xe9, 0xfe, 0xc9}), kNm);
    m.s.cr4 &= ~x86::cr4::kOsxsave;
    EXPECT_EQ(m.step({0xc5, 0xe9, 0xfe, 0xc9}), kUd);
}

// --- MXCSR

TEST(VectorTest, MaskedExceptionsAccumulateInMxcsr) {
    FpMachine m;
    m.s.ymm[1] = doubles(1, 0);
    m.s.ymm[2] = doubles(0, 0);
    ASSERT_FALSE(m.step({0xf2, 0x0f, 0x5e, 0xca}));  // divsd xmm1, xmm2
    EXPECT_EQ(m.s.mxcsr, 0x1f84U);
    EXPECT_EQ(m.s.ymm[1][0], std::bit_cast<u64>(std::numeric_limits<double>::infinity()));
    m.s.ymm[1] = doubles(1, 0);
    m.s.ymm[2] = doubles(3, 0);
    ASSERT_FALSE(m.step({0xf2, 0x0f, 0x5e, 0xca}));
    EXPECT_EQ(m.s.mxcsr, 0x1fa4U);  // PE joins ZE
}

TEST(VectorTest, GuestRoundingModeApplies) {
    FpMachine m;
    const auto third = [&](u32 mxcsr) {
        m.s.mxcsr = mxcsr;
        m.s.ymm[1] = doubles(1, 0);
        m.s.ymm[2] = doubles(3, 0);
        EXPECT_FALSE(m.step({0xf2, 0x0f, 0x5e, 0xca}));
        return m.s.ymm[1][0];
    };
    EXPECT_EQ(third(0x1f80 | 0x2000) + 1, third(0x1f80 | 0x4000));  // down, up
}

TEST(VectorTest, UnmaskedDivideByZeroRaisesXmAndLeavesTheDestination) {
    FpMachine m;
    m.s.mxcsr = 0x1f80 & ~0x0200U;
    m.s.ymm[1] = doubles(1, 7);
    m.s.ymm[2] = doubles(0, 0);
    const Lanes before = m.s.ymm[1];
    EXPECT_EQ(m.step({0xf2, 0x0f, 0x5e, 0xca}), kXm);
    EXPECT_EQ(m.s.ymm[1], before);
    EXPECT_EQ(m.s.mxcsr, (0x1f80U & ~0x0200U) | 4);
}

TEST(VectorTest, UnmaskedExceptionWithoutOsxmmexcptIsUd) {
    FpMachine m;
    m.s.cr4 &= ~x86::cr4::kOsxmmexcpt;
    m.s.mxcsr = 0x1f80 & ~0x0200U;
    m.s.ymm[1] = doubles(1, 0);
    m.s.ymm[2] = doubles(0, 0);
    EXPECT_EQ(m.step({0xf2, 0x0f, 0x5e, 0xca}), kUd);
}

// [SDM 1 11.5.3.2]: the masked overflow of element 0 is not reported when element 1 has an unmasked invalid.
TEST(VectorTest, UnmaskedPreComputationExceptionHidesPostComputationFlags) {
    FpMachine m;
    const float big = std::numeric_limits<float>::max();
    const float snan = std::bit_cast<float>(0x7f80'0001U);
    m.s.mxcsr = 0x1f80 & ~0x0080U;
    m.s.ymm[1] = floats(big, 1, 1, 1);
    m.s.ymm[2] = floats(big, 1, 1, 1);
    m.s.ymm[1][0] = (m.s.ymm[1][0] & 0xffff'ffff) | u64{std::bit_cast<u32>(snan)} << 32;
    EXPECT_EQ(m.step({0x0f, 0x58, 0xca}), kXm);  // addps xmm1, xmm2
    EXPECT_EQ(m.s.mxcsr, (0x1f80U & ~0x0080U) | 1);
}

TEST(VectorTest, UnmaskedUnderflowIsRaisedForExactTinyResults) {
    FpMachine m;
    const double tiny = std::numeric_limits<double>::min();
    m.s.ymm[1] = doubles(tiny, 0);
    m.s.ymm[2] = doubles(0.5, 0);
    ASSERT_FALSE(m.step({0xf2, 0x0f, 0x59, 0xca}));  // mulsd: masked, exact: no flag
    EXPECT_EQ(m.s.mxcsr, 0x1f80U);
    m.s.mxcsr = 0x1f80 & ~0x0800U;
    m.s.ymm[1] = doubles(tiny, 0);
    EXPECT_EQ(m.step({0xf2, 0x0f, 0x59, 0xca}), kXm);
    EXPECT_EQ(m.s.mxcsr, (0x1f80U & ~0x0800U) | 0x10);
}

// [SDM 1 4.9.1.5]: the trapped result is rounded without a limit to its exponent, and PE says whether that is
// exact.
TEST(VectorTest, UnmaskedUnderflowAndOverflowReportPrecisionOfTheUnboundedResult) {
    FpMachine m;
    const auto flags = [&](u32 unmasked, double a, double b) {
        m.s.mxcsr = 0x1f80 & ~unmasked;
        m.s.ymm[1] = doubles(a, 0);
        m.s.ymm[2] = doubles(b, 0);
        EXPECT_EQ(m.step({0xf2, 0x0f, 0x59, 0xca}), kXm);  // mulsd xmm1, xmm2
        return m.s.mxcsr & 0x3f;
    };
    EXPECT_EQ(flags(0x800, 0x1.123456789abcdp-600, 0x1p-440), 0x10U);  // loses bits only as a denormal
    EXPECT_EQ(flags(0x800, 0x1.123456789abcdp-600, 0x1.fedcba9876543p-600), 0x30U);
    EXPECT_EQ(flags(0x400, 0x1p600, 0x1p600), 0x08U);
    EXPECT_EQ(flags(0x400, 0x1.123456789abcdp600, 0x1.fedcba9876543p600), 0x28U);
}

TEST(VectorTest, DotProductStopsBeforeTheSumWhenAProductIsUnmasked) {
    FpMachine m;
    const float tiny = std::numeric_limits<float>::min();
    // Products: an inexact one, and two denormals whose sum would set DE.
    m.s.mxcsr = 0x1f80 & ~0x1000U;
    m.s.ymm[1] = floats(1.0F / 3, tiny, tiny, 0);
    m.s.ymm[2] = floats(1.0F / 3, 0.5F, 0.5F, 0);
    EXPECT_EQ(m.step({0x66, 0x0f, 0x3a, 0x40, 0xca, 0x7f}), kXm);
    EXPECT_EQ(m.s.mxcsr & 0x3f, 0x20U);
}

TEST(VectorTest, UnmaskedInvalidCompareLeavesTheFlags) {
    FpMachine m;
    m.s.mxcsr = 0x1f80 & ~0x0080U;
    m.s.ymm[1] = {0x7ff0'0000'0000'0001, 0, 0, 0};
    m.s.rflags |= x86::eflags::kStatus;
    EXPECT_EQ(m.step({0x66, 0x0f, 0x2e, 0xca}), kXm);  // ucomisd xmm1, xmm2
    EXPECT_EQ(m.s.rflags & x86::eflags::kStatus, x86::eflags::kStatus);
}

TEST(VectorTest, LdmxcsrRefusesReservedBits) {
    FpMachine m;
    m.write<u32>(FpMachine::kData, 0x1f80 | 1 << 16);
    EXPECT_EQ(m.step({0x0f, 0xae, 0x17}), kGp);
    EXPECT_EQ(m.s.mxcsr, 0x1f80U);
    m.write<u32>(FpMachine::kData, 0xffff);
    ASSERT_FALSE(m.step({0x0f, 0xae, 0x17}));
    EXPECT_EQ(m.s.mxcsr, 0xffffU);
    m.s.gpr[x86::Rdi] += 8;
    ASSERT_FALSE(m.step({0x0f, 0xae, 0x1f}));
    EXPECT_EQ(m.read<u32>(FpMachine::kData + 8), 0xffffU);
}

// --- masks and gathers

TEST(VectorTest, MaskedOffElementsAreNotAccessed) {
    FpMachine m;
    m.s.gpr[x86::Rdi] = FpMachine::kUnmapped - 16;
    for (u64 i = 0; i < 4; ++i) m.write<u32>(FpMachine::kUnmapped - 16 + i * 4, static_cast<u32>(100 + i));
    m.s.ymm[2] = {0xffff'ffff'8000'0000, 0x8000'0000'7fff'ffff, 0, 0};
    ASSERT_FALSE(m.step({0xc4, 0xe2, 0x6d, 0x8c, 0x0f}));  // vpmaskmovd ymm1, ymm2, [rdi]
    EXPECT_EQ(m.s.ymm[1], (Lanes{u64{101} << 32 | 100, u64{103} << 32, 0, 0}));
    m.s.ymm[2][2] = 0x8000'0000;
    EXPECT_EQ(m.step({0xc4, 0xe2, 0x6d, 0x8c, 0x0f}), kPf);
    EXPECT_EQ(m.s.cr2, FpMachine::kUnmapped);
}

TEST(VectorTest, MaskedStoreThatFaultsWritesNothing) {
    FpMachine m;
    m.s.gpr[x86::Rdi] = FpMachine::kUnmapped - 16;
    m.write<u64>(FpMachine::kUnmapped - 16, 0x77);
    m.s.ymm[1] = {1, 2, 3, 4};
    m.s.ymm[2] = {~0ULL, 0, ~0ULL, 0};
    EXPECT_EQ(m.step({0xc4, 0xe2, 0x6d, 0x8e, 0x0f}), kPf);  // vpmaskmovd [rdi], ymm2, ymm1
    EXPECT_EQ(m.read<u64>(FpMachine::kUnmapped - 16), 0x77U);
    m.s.ymm[2][2] = 0;
    ASSERT_FALSE(m.step({0xc4, 0xe2, 0x6d, 0x8e, 0x0f}));
    EXPECT_EQ(m.read<u64>(FpMachine::kUnmapped - 16), 1U);
}

TEST(VectorTest, MaskmovdquWritesOnlyTheChosenBytes) {
    FpMachine m;
    m.write<u64>(FpMachine::kData, 0);
    m.write<u64>(FpMachine::kData + 8, 0);
    m.s.ymm[1] = {0x0807'0605'0403'0201, 0x100f'0e0d'0c0b'0a09, 0, 0};
    m.s.ymm[2] = {0x0000'0000'8000'0080, 0x8000'0000'0000'0000, 0, 0};
    ASSERT_FALSE(m.step({0x66, 0x0f, 0xf7, 0xca}));
    EXPECT_EQ(m.read<u64>(FpMachine::kData), 0x0400'0001U);
    EXPECT_EQ(m.read<u64>(FpMachine::kData + 8), 0x1000'0000'0000'0000U);
}

TEST(VectorTest, GatherThatFaultsKeepsWhatItHasFetched) {
    FpMachine m;
    m.write<u32>(FpMachine::kData, 11);
    m.write<u32>(FpMachine::kData + 4, 22);
    const u64 far = (FpMachine::kUnmapped - FpMachine::kData) / 4;
    m.s.ymm[1] = {5, 6, 7, 8};
    m.s.ymm[2] = {~0ULL, ~0ULL, 0, 0};
    m.s.ymm[3] = {u64{1} << 32, far << 32 | 1, 0, 0};              // indices 0, 1, 1, far
    EXPECT_EQ(m.step({0xc4, 0xe2, 0x6d, 0x90, 0x0c, 0x9f}), kPf);  // vpgatherdd ymm1, [rdi+ymm3*4], ymm2
    EXPECT_EQ(m.s.ymm[1], (Lanes{u64{22} << 32 | 11, 22, 7, 8}));
    EXPECT_EQ(m.s.ymm[2], (Lanes{0, 0xffff'ffff'0000'0000, 0, 0}));
    m.s.ymm[3][1] = u64{0} << 32 | 1;
    m.write<u32>(FpMachine::kData, 99);
    ASSERT_FALSE(m.step({0xc4, 0xe2, 0x6d, 0x90, 0x0c, 0x9f}));
    EXPECT_EQ(m.s.ymm[1], (Lanes{u64{22} << 32 | 11, u64{99} << 32 | 22, 7, 8}));
    EXPECT_EQ(m.s.ymm[2], (Lanes{0, 0, 0, 0}));
}

TEST(VectorTest, GatherTakesRegisterFourAsItsIndex) {
    FpMachine m;
    m.write<u32>(FpMachine::kData, 11);
    m.write<u32>(FpMachine::kData + 4, 22);
    m.s.ymm[2] = {~0ULL, 0, 0, 0};
    m.s.ymm[4] = {u64{0} << 32 | 1, 0, 0, 0};
    ASSERT_FALSE(m.step({0xc4, 0xe2, 0x69, 0x90, 0x0c, 0xa7}));  // vpgatherdd xmm1, [rdi+xmm4*4], xmm2
    EXPECT_EQ(m.s.ymm[1], (Lanes{u64{11} << 32 | 22, 0, 0, 0}));
}

// --- forms that differ between memory and register

TEST(VectorTest, MovssFromMemoryClearsAndFromARegisterMerges) {
    FpMachine m;
    m.write<u32>(FpMachine::kData, 0x1234);
    m.s.ymm[1] = {~0ULL, ~0ULL, 3, 4};
    ASSERT_FALSE(m.step({0xf3, 0x0f, 0x10, 0x0f}));
    EXPECT_EQ(m.s.ymm[1], (Lanes{0x1234, 0, 3, 4}));
    m.s.ymm[1] = {~0ULL, ~0ULL, 3, 4};
    m.s.ymm[2] = {0x5678, 0, 0, 0};
    ASSERT_FALSE(m.step({0xf3, 0x0f, 0x10, 0xca}));
    EXPECT_EQ(m.s.ymm[1], (Lanes{0xffff'ffff'0000'5678, ~0ULL, 3, 4}));
}

TEST(VectorTest, InsertpsChoosesTheSourceElementOnlyInARegister) {
    FpMachine m;
    m.s.ymm[1] = {0, 0, 0, 0};
    m.s.ymm[2] = {u64{0xb} << 32 | 0xa, 0, 0, 0};
    ASSERT_FALSE(m.step({0x66, 0x0f, 0x3a, 0x21, 0xca, 0x50}));  // count_s 1, count_d 1
    EXPECT_EQ(m.s.ymm[1][0], u64{0xb} << 32);
    m.write<u64>(FpMachine::kData, u64{0xd} << 32 | 0xc);
    ASSERT_FALSE(m.step({0x66, 0x0f, 0x3a, 0x21, 0x0f, 0x50}));
    EXPECT_EQ(m.s.ymm[1][0], u64{0xc} << 32);
}

TEST(VectorTest, LegacyComparePredicatesHaveThreeBits) {
    FpMachine m;
    m.s.ymm[1] = m.s.ymm[2] = doubles(1, 2);
    ASSERT_FALSE(m.step({0x66, 0x0f, 0xc2, 0xca, 0x08}));  // 8 & 7 is EQ; EQ_UQ would be the same, so:
    EXPECT_EQ(m.s.ymm[1][0], ~0ULL);
    m.s.ymm[1] = doubles(1, 2);
    ASSERT_FALSE(m.step({0x66, 0x0f, 0xc2, 0xca, 0x0b}));  // 11 is FALSE in VEX, 3 is UNORD
    EXPECT_EQ(m.s.ymm[1][0], 0U);
    m.s.ymm[1] = doubles(1, 2);
    ASSERT_FALSE(m.step({0x66, 0x0f, 0xc2, 0xca, 0x0c}));  // 12 is NEQ_OQ in VEX, and 4 NEQ_UQ
    EXPECT_EQ(m.s.ymm[1][0], 0U);
    m.s.ymm[1] = doubles(1, 2);
    ASSERT_FALSE(m.step({0x66, 0x0f, 0xc2, 0xca, 0x0f}));  // 15 is TRUE in VEX, 7 is ORD
    EXPECT_EQ(m.s.ymm[1][0], ~0ULL);
    m.s.ymm[1] = {0x7ff8'0000'0000'0000, 0, 0, 0};
    ASSERT_FALSE(m.step({0x66, 0x0f, 0xc2, 0xca, 0x0f}));
    EXPECT_EQ(m.s.ymm[1][0], 0U);
}

TEST(VectorTest, PcmpestriWithRexWTakesSixtyFourBitLengths) {
    FpMachine m;
    m.s.ymm[1] = {'a', 0, 0, 0};
    m.s.ymm[2] = {u64{'a'} << 24, 0, 0, 0};
    m.s.gpr[x86::Rax] = (u64{1} << 32) | 1;
    m.s.gpr[x86::Rdx] = u64{1} << 40;
    ASSERT_FALSE(m.step({0x66, 0x48, 0x0f, 0x3a, 0x61, 0xca, 0x00}));  // equal any, lengths both 16 or more
    EXPECT_EQ(m.s.gpr[x86::Rcx], 0U);                                  // a zero byte is one of the set
    ASSERT_FALSE(m.step({0x66, 0x0f, 0x3a, 0x61, 0xca, 0x00}));        // lengths 1 and 0: nothing there
    EXPECT_EQ(m.s.gpr[x86::Rcx], 16U);
}

TEST(VectorTest, VzeroupperOutsideSixtyFourBitModeLeavesTheHighRegisters) {
    FpMachine m;
    x86::State s = m.protected_mode_state();
    s.cr4 |= x86::cr4::kOsxsave;
    s.xcr0 = 7;
    for (auto& reg : s.ymm) reg = {1, 2, 3, 4};
    const x86::State after = m.run(s, {0xc5, 0xf8, 0x77});
    EXPECT_EQ(after.ymm[7], (Lanes{1, 2, 0, 0}));
    EXPECT_EQ(after.ymm[8], (Lanes{1, 2, 3, 4}));
}

}  // namespace
}  // namespace tessera::soft
