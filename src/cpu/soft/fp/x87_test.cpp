// x87 and MMX: environments, exceptions that the guest unmasks, faults, aliasing.
#include <bit>
#include <gtest/gtest.h>
#include <limits>

#include "cpu/soft/testing/fp_machine.h"

namespace tessera::soft {
namespace {

constexpr unsigned kUd = 6, kNm = 7, kPf = 14, kMf = 16;
using Extended = std::array<u8, 10>;

constexpr u64 kData = FpMachine::kData;

// FLD1 and FLDZ, on an initialised x87.
struct OneAndZero : FpMachine {
    OneAndZero() { EXPECT_FALSE(step({0xd9, 0xe8, 0xd9, 0xee}, 2)); }
};

TEST(X87Test, ComputesWithEightyBits) {
    FpMachine m;
    m.write<u64>(kData, std::bit_cast<u64>(1.0));
    m.write<u64>(kData + 8, std::bit_cast<u64>(3.0));
    ASSERT_FALSE(m.step({0xdd, 0x07, 0xdc, 0x77, 0x08}, 2));  // fld qword [rdi]; fdiv qword [rdi+8]
    EXPECT_EQ(m.s.fpu.st[0], (Extended{0xab, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xfd, 0x3f}));
    EXPECT_EQ(m.s.fpu.status & 0x20, 0x20);
}

TEST(X87Test, GuestPrecisionControlApplies) {
    FpMachine m;
    m.s.fpu.control = 0x007f;  // 24 bits
    m.write<u64>(kData, std::bit_cast<u64>(1.0));
    m.write<u64>(kData + 8, std::bit_cast<u64>(3.0));
    ASSERT_FALSE(m.step({0xdd, 0x07, 0xdc, 0x77, 0x08}, 2));
    EXPECT_EQ(m.s.fpu.st[0], (Extended{0, 0, 0, 0, 0, 0xab, 0xaa, 0xaa, 0xfd, 0x3f}));
}

TEST(X87Test, NotAvailableIsReportedBeforeAnythingElse) {
    FpMachine m;
    m.s.gpr[x86::Rdi] = FpMachine::kUnmapped;
    m.s.cr0 |= x86::cr0::kTs;
    EXPECT_EQ(m.step({0xdd, 0x07}), kNm);
    EXPECT_EQ(m.step({0xdb, 0xe3}), kNm);  // fninit
    EXPECT_EQ(m.step({0x9b}), kNm);        // wait, with MP
    m.s.cr0 &= ~x86::cr0::kMp;
    EXPECT_FALSE(m.step({0x9b}));
    m.s.cr0 = (m.s.cr0 & ~x86::cr0::kTs) | x86::cr0::kEm;
    EXPECT_EQ(m.step({0xdd, 0x07}), kNm);
    EXPECT_FALSE(m.step({0x9b}));
    m.s.cr0 &= ~x86::cr0::kEm;
    EXPECT_EQ(m.step({0xdd, 0x07}), kPf);
}

TEST(X87Test, UnmaskedDivideByZeroIsReportedByTheNextWaitingInstruction) {
    OneAndZero m;
    m.s.fpu.control = 0x037b;
    ASSERT_FALSE(m.step({0xd8, 0xf9}));  // fdivr st, st1 = 1 / 0
    EXPECT_EQ(m.s.fpu.status & 0x80ff, 0x8084);
    EXPECT_EQ(m.s.fpu.st[0], extended(0));  // the result was not stored
    EXPECT_FALSE(m.step({0xdf, 0xe0}));     // fnstsw ax does not wait
    EXPECT_EQ(m.s.gpr[x86::Rax] & 0x80ff, 0x8084U);
    EXPECT_EQ(m.step({0xd9, 0xe8}), kMf);  // fld1 does
    EXPECT_EQ(m.step({0x9b}), kMf);
    EXPECT_EQ(m.step({0x0f, 0xfc, 0xd1}), kMf);  // and so does paddb mm2, mm1
    EXPECT_FALSE(m.step({0xdb, 0xe2}));          // fnclex
    EXPECT_FALSE(m.step({0xd9, 0xe8}));
}

TEST(X87Test, MaskedDivideByZeroGivesInfinity) {
    OneAndZero m;
    ASSERT_FALSE(m.step({0xd8, 0xf9}));
    EXPECT_EQ(m.s.fpu.st[0], (Extended{0, 0, 0, 0, 0, 0, 0, 0x80, 0xff, 0x7f}));
    EXPECT_EQ(m.s.fpu.status & 0x80ff, 0x0004);
}

TEST(X87Test, LoadingAControlWordThatUnmasksAPendingFlagSetsEs) {
    OneAndZero m;
    ASSERT_FALSE(m.step({0xd8, 0xf9}));
    m.write<u16>(kData, 0x037b);
    ASSERT_FALSE(m.step({0xd9, 0x2f}));  // fldcw [rdi]
    EXPECT_EQ(m.s.fpu.status & 0x8080, 0x8080);
    EXPECT_EQ(m.step({0x9b}), kMf);
}

TEST(X87Test, UnmaskedOverflowInAStoreNeitherStoresNorPops) {
    FpMachine m;
    m.write<u64>(kData, std::bit_cast<u64>(1e300));
    m.write<u32>(kData + 8, 0x5555);
    m.s.fpu.control = 0x0377;
    ASSERT_FALSE(m.step({0xdd, 0x07}));        // fld qword [rdi]
    ASSERT_FALSE(m.step({0xd9, 0x5f, 0x08}));  // fstp dword [rdi+8]
    EXPECT_EQ(m.read<u32>(kData + 8), 0x5555U);
    EXPECT_EQ(m.s.fpu.status & 0x3800, 0x3800);  // TOP is still 7
    EXPECT_EQ(m.s.fpu.status & 0x8088, 0x8088);
    EXPECT_EQ(m.step({0x9b}), kMf);
}

TEST(X87Test, UnmaskedPrecisionInAStoreStillStoresAndPops) {
    FpMachine m;
    m.write<u64>(kData, std::bit_cast<u64>(1.0 / 3));
    m.s.fpu.control = 0x035f;
    ASSERT_FALSE(m.step({0xdd, 0x07}));
    ASSERT_FALSE(m.step({0xd9, 0x5f, 0x08}));
    EXPECT_EQ(m.read<u32>(kData + 8), std::bit_cast<u32>(1.0F / 3));
    EXPECT_EQ(m.s.fpu.status & 0x3800, 0);
    EXPECT_EQ(m.s.fpu.status & 0x80a0, 0x80a0);
}

TEST(X87Test, AStoreThatFaultsDoesNotPop) {
    OneAndZero m;
    m.s.gpr[x86::Rdi] = FpMachine::kUnmapped - 4;
    const x86::Fpu before = m.s.fpu;
    EXPECT_EQ(m.step({0xdd, 0x1f}), kPf);  // fstp qword [rdi]
    EXPECT_EQ(m.step({0xdb, 0x3f}), kPf);  // fstp tbyte [rdi]
    EXPECT_EQ(m.step({0xdf, 0x37}), kPf);  // fbstp [rdi]
    EXPECT_EQ(m.s.fpu.status, before.status);
    EXPECT_EQ(m.s.fpu.tag, before.tag);
    EXPECT_EQ(m.s.cr2, FpMachine::kUnmapped);
}

TEST(X87Test, PackedDecimalStoresEighteenDigits) {
    FpMachine m;
    m.write<u64>(kData, static_cast<u64>(-123456789012345678));
    ASSERT_FALSE(m.step({0xdf, 0x2f, 0xdf, 0x77, 0x10}, 2));  // fild qword [rdi]; fbstp [rdi+16]
    EXPECT_EQ(m.read<u64>(kData + 16), 0x3456'7890'1234'5678U);
    EXPECT_EQ(m.read<u16>(kData + 24), 0x8012U);
}

TEST(X87Test, FcmovReadsTheGuestsFlags) {
    OneAndZero m;
    m.s.rflags |= x86::eflags::kCf;
    ASSERT_FALSE(m.step({0xda, 0xc1}));  // fcmovb st, st1
    EXPECT_EQ(m.s.fpu.st[0], extended(1));
    ASSERT_FALSE(m.step({0xd9, 0xee, 0xda, 0xd1}, 2));  // fldz; fcmovbe st, st1: CF
    EXPECT_EQ(m.s.fpu.st[0], extended(1));
    m.s.rflags &= ~x86::eflags::kCf;
    ASSERT_FALSE(m.step({0xd9, 0xee, 0xda, 0xc1}, 2));
    EXPECT_EQ(m.s.fpu.st[0], extended(0));
}

TEST(X87Test, FcomiSetsCarryForLessAndClearsTheOthers) {
    OneAndZero m;
    m.s.rflags |= x86::eflags::kStatus;
    ASSERT_FALSE(m.step({0xdb, 0xf1}));  // fcomi st, st1: 0 < 1
    EXPECT_EQ(m.s.rflags & x86::eflags::kStatus, x86::eflags::kCf);
}

// --- environments

TEST(X87Test, ProtectedEnvironmentOf32Bits) {
    OneAndZero m;
    ASSERT_FALSE(m.step({0xd9, 0xe8, 0xd9, 0x37}, 2));  // fld1; fnstenv [rdi]
    EXPECT_EQ(m.read<u16>(kData), 0x037f);
    EXPECT_EQ(m.read<u16>(kData + 4), 0x2800);  // TOP 5
    EXPECT_EQ(m.read<u16>(kData + 8), 0x13ff);  // 7 valid, 6 zero, 5 valid
    EXPECT_EQ(m.read<u32>(kData + 12), FpMachine::kCode);
    EXPECT_EQ(m.read<u16>(kData + 16), m.s.seg[x86::Cs].selector);
    EXPECT_EQ(m.read<u16>(kData + 18), 0x1e8);
}

TEST(X87Test, FnstenvMasksAllExceptionsAndFldenvBringsThemBack) {
    OneAndZero m;
    m.s.fpu.control = 0x037b;
    ASSERT_FALSE(m.step({0xd9, 0x37}));
    EXPECT_EQ(m.read<u16>(kData), 0x037b);
    EXPECT_EQ(m.s.fpu.control, 0x037f);
    ASSERT_FALSE(m.step({0xd9, 0x27}));
    EXPECT_EQ(m.s.fpu.control, 0x037b);
}

TEST(X87Test, FldenvMovesTopWithoutMovingRegisters) {
    OneAndZero m;  // register 7 is 1, register 6 is 0, TOP 6
    ASSERT_FALSE(m.step({0xd9, 0x37}));
    m.write<u16>(kData + 4, 0x3800);  // TOP 7
    ASSERT_FALSE(m.step({0xd9, 0x27}));
    EXPECT_EQ(m.s.fpu.st[0], extended(1));
    EXPECT_EQ(m.s.fpu.st[7], extended(0));
}

TEST(X87Test, FnsaveInitialisesAndFrstorRestores) {
    OneAndZero m;
    const x86::Fpu before = m.s.fpu;
    ASSERT_FALSE(m.step({0xdd, 0x37}));
    EXPECT_EQ(m.s.fpu.control, 0x037f);
    EXPECT_EQ(m.s.fpu.status, 0);
    EXPECT_EQ(m.s.fpu.tag, 0xffff);
    Extended first;
    std::memcpy(first.data(), m.ram(kData + 28), 10);
    EXPECT_EQ(first, extended(0));
    ASSERT_FALSE(m.step({0xdd, 0x27}));
    EXPECT_EQ(m.s.fpu.status, before.status);
    EXPECT_EQ(m.s.fpu.tag, before.tag);
    EXPECT_EQ(m.s.fpu.st, before.st);
}

TEST(X87Test, FninitMovesTopButNotTheRegisters) {
    OneAndZero m;  // register 7 is 1, register 6 is 0
    ASSERT_FALSE(m.step({0xdb, 0xe3}));
    EXPECT_EQ(m.s.fpu.st[7], extended(1));
    EXPECT_EQ(m.s.fpu.st[6], extended(0));
}

TEST(X87Test, SixteenBitProtectedEnvironmentHasFourteenBytes) {
    OneAndZero m;
    m.write<u64>(kData + 14, 0x7777'7777'7777'7777);
    ASSERT_FALSE(m.step({0x66, 0xd9, 0x37}));
    EXPECT_EQ(m.read<u16>(kData), 0x037f);
    EXPECT_EQ(m.read<u16>(kData + 2), 0x3000);
    EXPECT_EQ(m.read<u16>(kData + 4), 0x1fff);
    EXPECT_EQ(m.read<u16>(kData + 8), m.s.seg[x86::Cs].selector);
    EXPECT_EQ(m.read<u64>(kData + 14), 0x7777'7777'7777'7777U);
}

// [SDM 1 figures 8-10 and 8-12]
TEST(X87Test, RealModeEnvironmentsHoldLinearAddressesAndTheOpcode) {
    FpMachine m;
    x86::State s = m.real_mode_state();
    s.fpu = x86::Fpu{.control = 0x037f, .status = 0, .tag = 0xffff};
    s.seg[x86::Ds].selector = 0x2000;
    s.seg[x86::Ds].base = 0x20000;
    s.gpr[x86::Rbx] = 0x100;
    // fld dword [bx]; fnstenv [bx+10h]
    (void)m.run(s, {0xd9, 0x07, 0xd9, 0x77, 0x10}, 2);
    EXPECT_EQ(m.read<u16>(0x20110 + 6), 0x0000);             // linear 0x10000, low half
    EXPECT_EQ(m.read<u16>(0x20110 + 8), 0x1 << 12 | 0x107);  // high bits and the opcode D9 07
    EXPECT_EQ(m.read<u16>(0x20110 + 10), 0x0100);            // linear 0x20100
    EXPECT_EQ(m.read<u16>(0x20110 + 12), 0x2 << 12);
    // The same with 32-bit operand size: 66 before FNSTENV.
    (void)m.run(s, {0xd9, 0x07, 0x66, 0xd9, 0x77, 0x10}, 2);
    EXPECT_EQ(m.read<u16>(0x20110 + 12), 0x0000);
    EXPECT_EQ(m.read<u32>(0x20110 + 16), 0x1U << 12 | 0x107);
    EXPECT_EQ(m.read<u16>(0x20110 + 20), 0x0100);
    EXPECT_EQ(m.read<u32>(0x20110 + 24), 0x2U << 12);
}

TEST(X87Test, ReservedControlBitsDoNotStick) {
    FpMachine m;
    m.write<u16>(kData, 0xffff);
    ASSERT_FALSE(m.step({0xd9, 0x2f}));
    EXPECT_EQ(m.s.fpu.control, 0x1f7f);
    m.write<u16>(kData, 0);
    ASSERT_FALSE(m.step({0xd9, 0x2f}));
    EXPECT_EQ(m.s.fpu.control, 0x0040);
}

// --- MMX

TEST(MmxTest, RegistersAreTheMantissasAndWritesSetTheExponent) {
    OneAndZero m;  // TOP is 6: register 7 holds 1, register 6 holds 0
    m.write<u64>(kData, 0x0123'4567'89ab'cdef);
    ASSERT_FALSE(m.step({0x0f, 0x6f, 0x0f}));  // movq mm1, [rdi]
    EXPECT_EQ(m.s.fpu.status & 0x3800, 0);
    EXPECT_EQ(m.s.fpu.tag & (m.s.fpu.tag >> 1) & 0x5555, 0);
    EXPECT_EQ(m.s.fpu.st[1], (Extended{0xef, 0xcd, 0xab, 0x89, 0x67, 0x45, 0x23, 0x01, 0xff, 0xff}));
    EXPECT_EQ(m.s.fpu.st[7], extended(1));     // now by physical number
    ASSERT_FALSE(m.step({0x0f, 0xfc, 0xc9}));  // paddb mm1, mm1
    ASSERT_FALSE(m.step({0x0f, 0x7f, 0x4f, 0x08}));
    EXPECT_EQ(m.read<u64>(kData + 8), 0x0246'8ace'1256'9adeU);
    ASSERT_FALSE(m.step({0x0f, 0x77}));  // emms
    EXPECT_EQ(m.s.fpu.tag, 0xffff);
}

TEST(MmxTest, AFaultLeavesTheX87State) {
    OneAndZero m;
    m.s.gpr[x86::Rdi] = FpMachine::kUnmapped;
    const x86::Fpu before = m.s.fpu;
    EXPECT_EQ(m.step({0x0f, 0x6f, 0x0f}), kPf);
    EXPECT_EQ(m.step({0x0f, 0x7f, 0x0f}), kPf);
    EXPECT_EQ(m.step({0x0f, 0xfc, 0x0f}), kPf);
    EXPECT_EQ(m.s.fpu.status, before.status);
    EXPECT_EQ(m.s.fpu.tag, before.tag);
    EXPECT_EQ(m.s.fpu.st, before.st);
}

TEST(MmxTest, EmulationIsUndefinedAndTaskSwitchedNotAvailable) {
    FpMachine m;
    m.s.cr0 |= x86::cr0::kTs;
    EXPECT_EQ(m.step({0x0f, 0xfc, 0xd1}), kNm);
    m.s.cr0 |= x86::cr0::kEm;
    EXPECT_EQ(m.step({0x0f, 0xfc, 0xd1}), kUd);
    m.s.cr0 &= ~(x86::cr0::kTs | x86::cr0::kEm);
    m.s.cr4 &= ~x86::cr4::kOsfxsr;
    EXPECT_FALSE(m.step({0x0f, 0xfc, 0xd1}));          // paddb needs no OSFXSR
    EXPECT_EQ(m.step({0xf2, 0x0f, 0xd6, 0xc9}), kUd);  // movdq2q does
}

TEST(MmxTest, UnpackLowReadsFourBytes) {
    FpMachine m;
    m.s.gpr[x86::Rdi] = FpMachine::kUnmapped - 4;
    m.write<u32>(FpMachine::kUnmapped - 4, 0x4433'2211);
    ASSERT_FALSE(m.step({0x0f, 0x60, 0x0f}));  // punpcklbw mm1, m32
    m.s.gpr[x86::Rdi] = FpMachine::kUnmapped - 3;
    EXPECT_EQ(m.step({0x0f, 0x60, 0x0f}), kPf);
}

TEST(MmxTest, X87AfterMmxSeesTheValuesAgain) {
    OneAndZero m;
    // pxor mm0, mm0; emms; fld1; fadd st, st0
    ASSERT_FALSE(m.step({0x0f, 0xef, 0xc0, 0x0f, 0x77, 0xd9, 0xe8, 0xd8, 0xc0}, 4));
    EXPECT_EQ(m.s.fpu.st[0], extended(2));
    EXPECT_EQ(m.s.fpu.status & 0x3800, 0x3800);
}

}  // namespace
}  // namespace tessera::soft
