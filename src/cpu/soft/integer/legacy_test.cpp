// What the comparison with the processor in 64-bit mode cannot see: 16- and 32-bit code, decimal
// instructions, bit offsets with wrapping addresses, divide errors by mode.
#include <gtest/gtest.h>

#include "cpu/soft/testing/test_machine.h"

namespace tessera::soft {
namespace {

using enum x86::Gpr;
using enum x86::Seg;
using x86::State;

constexpr u64 kCarry = 1 << 0, kParity = 1 << 2, kAdjust = 1 << 4, kZero = 1 << 6, kSign = 1 << 7,
              kDirection = 1 << 10, kOverflow = 1 << 11;

u8 low(u64 value) {
    return static_cast<u8>(value);
}
u8 high(u64 value) {
    return static_cast<u8>(value >> 8);
}

class SoftLegacyTest : public testing::Test {
protected:
    TestMachine machine;
};

// ADD AL, BL; DAA
TEST_F(SoftLegacyTest, DaaAfterAdditionGivesTheDecimalSumOfAllPackedNumbers) {
    State s = machine.protected_mode_state();
    for (unsigned a = 0; a < 100; ++a) {
        for (unsigned b = 0; b < 100; b += 7) {
            s.gpr[Rax] = a / 10 * 16 + a % 10;
            s.gpr[Rbx] = b / 10 * 16 + b % 10;
            const State after = machine.run(s, {0x00, 0xd8, 0x27}, 2);
            const unsigned sum = (a + b) % 100;
            ASSERT_EQ(low(after.gpr[Rax]), sum / 10 * 16 + sum % 10) << a << " + " << b;
            ASSERT_EQ((after.rflags & kCarry) != 0, a + b > 99) << a << " + " << b;
        }
    }
}

// SUB AL, BL; DAS
TEST_F(SoftLegacyTest, DasAfterSubtractionGivesTheDecimalDifferenceOfAllPackedNumbers) {
    State s = machine.protected_mode_state();
    for (unsigned a = 0; a < 100; ++a) {
        for (unsigned b = 0; b < 100; b += 7) {
            s.gpr[Rax] = a / 10 * 16 + a % 10;
            s.gpr[Rbx] = b / 10 * 16 + b % 10;
            const State after = machine.run(s, {0x28, 0xd8, 0x2f}, 2);
            const unsigned difference = (100 + a - b) % 100;
            ASSERT_EQ(low(after.gpr[Rax]), difference / 10 * 16 + difference % 10) << a << " - " << b;
            ASSERT_EQ((after.rflags & kCarry) != 0, a < b) << a << " - " << b;
        }
    }
}

// The examples of [SDM 2A DAA, DAS].
TEST_F(SoftLegacyTest, DaaAndDasSetTheFlagsOfTheManualsExamples) {
    State s = machine.protected_mode_state();
    s.gpr[Rax] = 0xae;
    s.rflags = 0x2 | kParity * 0;
    State after = machine.run(s, {0x27});
    EXPECT_EQ(low(after.gpr[Rax]), 0x14);
    EXPECT_EQ(after.rflags & (kCarry | kAdjust | kZero | kSign | kParity), kCarry | kAdjust | kParity);

    s.gpr[Rax] = 0xee;
    s.rflags = 0x2 | kCarry | kAdjust;
    after = machine.run(s, {0x2f});
    EXPECT_EQ(low(after.gpr[Rax]), 0x88);
    EXPECT_EQ(after.rflags & (kCarry | kAdjust | kZero | kSign | kParity),
              kCarry | kAdjust | kSign | kParity);
}

// ADD AL, BL; AAA
TEST_F(SoftLegacyTest, AaaCarriesDigitsIntoAh) {
    State s = machine.protected_mode_state();
    for (unsigned a = 0; a < 10; ++a) {
        for (unsigned b = 0; b < 10; ++b) {
            s.gpr[Rax] = 0x0300 | (0x30 + a);
            s.gpr[Rbx] = b;
            const State after = machine.run(s, {0x00, 0xd8, 0x37}, 2);
            ASSERT_EQ(low(after.gpr[Rax]), (a + b) % 10);
            ASSERT_EQ(high(after.gpr[Rax]), 3 + (a + b) / 10);
            ASSERT_EQ((after.rflags & kCarry) != 0, a + b > 9);
            ASSERT_EQ((after.rflags & kAdjust) != 0, a + b > 9);
        }
    }
}

// SUB AL, BL; AAS
TEST_F(SoftLegacyTest, AasBorrowsDigitsFromAh) {
    State s = machine.protected_mode_state();
    for (unsigned a = 0; a < 10; ++a) {
        for (unsigned b = 0; b < 10; ++b) {
            s.gpr[Rax] = 0x0300 | a;
            s.gpr[Rbx] = b;
            const State after = machine.run(s, {0x28, 0xd8, 0x3f}, 2);
            ASSERT_EQ(low(after.gpr[Rax]), (10 + a - b) % 10);
            // The subtraction of 6 from AX takes a further borrow only if AL was below 6.
            ASSERT_EQ(high(after.gpr[Rax]), a < b ? 2 : 3);
            ASSERT_EQ((after.rflags & kCarry) != 0, a < b);
        }
    }
}

TEST_F(SoftLegacyTest, AamSplitsByItsBaseAndAadJoins) {
    State s = machine.protected_mode_state();
    for (const unsigned base : {10U, 7U, 255U}) {
        for (unsigned al = 0; al < 256; ++al) {
            s.gpr[Rax] = 0x5500 | al;
            State after = machine.run(s, {0xd4, static_cast<u8>(base)});
            ASSERT_EQ(high(after.gpr[Rax]), al / base);
            ASSERT_EQ(low(after.gpr[Rax]), al % base);
            ASSERT_EQ((after.rflags & kZero) != 0, al % base == 0);
            s.gpr[Rax] = after.gpr[Rax];
            after = machine.run(s, {0xd5, static_cast<u8>(base)});
            ASSERT_EQ(after.gpr[Rax] & 0xffff, al);
            ASSERT_EQ((after.rflags & kSign) != 0, al >= 0x80);
        }
    }
}

TEST_F(SoftLegacyTest, SalcSpreadsTheCarry) {
    State s = machine.protected_mode_state();
    s.gpr[Rax] = 0x1234;
    s.rflags = 0x2 | kCarry;
    EXPECT_EQ(machine.run(s, {0xd6}).gpr[Rax], 0x12ffU);
    s.rflags = 0x2;
    EXPECT_EQ(machine.run(s, {0xd6}).gpr[Rax], 0x1200U);
}

TEST_F(SoftLegacyTest, IncInSixteenBitCodeKeepsTheUpperHalfAndTheCarry) {
    State s = machine.real_mode_state();
    s.gpr[Rcx] = 0xabcdffff;
    s.rflags = 0x2 | kCarry;
    const State after = machine.run(s, {0x41});  // inc cx
    EXPECT_EQ(after.gpr[Rcx], 0xabcd0000U);
    EXPECT_EQ(after.rflags & (kCarry | kZero | kOverflow), kCarry | kZero);
}

TEST_F(SoftLegacyTest, OperandSizePrefixGivesThirtyTwoBitsInRealMode) {
    State s = machine.real_mode_state();
    s.gpr[Rax] = 0xffff'ffff;
    const State after = machine.run(s, {0x66, 0x05, 0x02, 0, 0, 0});  // add eax, 2
    EXPECT_EQ(after.gpr[Rax], 1U);
    EXPECT_NE(after.rflags & kCarry, 0U);
}

TEST_F(SoftLegacyTest, SixteenBitAddressesWrapAtSixtyFourKilobytes) {
    State s = machine.real_mode_state();
    s.gpr[Rbx] = 0xfff0;
    s.gpr[Rsi] = 0x0021;
    s.seg[Ds] = {.selector = 0x2000, .base = 0x20000, .limit = 0xffff, .rights = s.seg[Ds].rights};
    machine.write<u8>(0x20012, 0x77);
    EXPECT_EQ(low(machine.run(s, {0x8a, 0x40, 0x01}).gpr[Rax]), 0x77);       // mov al, [bx+si+1]
    EXPECT_EQ(machine.run(s, {0x8d, 0x40, 0x01}).gpr[Rax] & 0xffff, 0x12U);  // lea ax, [bx+si+1]
}

TEST_F(SoftLegacyTest, XlatUsesTheAddressSize) {
    State s = machine.protected_mode_state();
    s.gpr[Rbx] = TestMachine::kData | 0xff;
    s.gpr[Rax] = 0x55501;
    machine.write<u8>(TestMachine::kData + 0x100, 0x42);
    EXPECT_EQ(machine.run(s, {0xd7}).gpr[Rax], 0x55542U);
    machine.write<u8>(0x100, 0x43);  // BX is 00FF
    EXPECT_EQ(machine.run(s, {0x67, 0xd7}).gpr[Rax], 0x55543U);
}

TEST_F(SoftLegacyTest, MovOffsUsesTheAddressSize) {
    State s = machine.protected_mode_state();
    machine.write<u32>(TestMachine::kData, 0x11223344);
    EXPECT_EQ(machine.run(s, {0xa1, 0x00, 0x00, 0x10, 0x00}).gpr[Rax], 0x11223344U);
    machine.write<u32>(0x1234, 0x55667788);
    EXPECT_EQ(machine.run(s, {0x67, 0xa1, 0x34, 0x12}).gpr[Rax], 0x55667788U);
}

TEST_F(SoftLegacyTest, MovOffsTakesAllSixtyFourBitsOfTheAddress) {
    State s = machine.long_mode_state();
    s.seg[Fs].base = TestMachine::kData - 0x1122334455667788;
    machine.write<u64>(TestMachine::kData, 0xfeedface);
    const State after = machine.run(
        s, {0x64, 0x48, 0xa1, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11});  // mov rax, fs:[...]
    EXPECT_EQ(after.gpr[Rax], 0xfeedfaceU);
}

TEST_F(SoftLegacyTest, BitOffsetsReachFarInBothDirections) {
    State s = machine.protected_mode_state();
    s.gpr[Rbx] = TestMachine::kData;
    s.gpr[Rcx] = 0x8005;  // bit 5 of the byte at +0x1000
    machine.write<u8>(TestMachine::kData + 0x1000, 0);
    State after = machine.run(s, {0x0f, 0xab, 0x0b});  // bts [ebx], ecx
    EXPECT_EQ(machine.read<u8>(TestMachine::kData + 0x1000), 0x20);
    EXPECT_EQ(after.rflags & kCarry, 0U);
    s.gpr[Rcx] = static_cast<u32>(-0x8000 + 3);
    machine.write<u32>(TestMachine::kData - 0x1000, 8);
    after = machine.run(s, {0x0f, 0xb3, 0x0b});  // btr [ebx], ecx
    EXPECT_EQ(machine.read<u32>(TestMachine::kData - 0x1000), 0U);
    EXPECT_NE(after.rflags & kCarry, 0U);
    // A 16-bit offset is signed as 16 bits.
    s.gpr[Rcx] = 0xffff;
    machine.write<u16>(TestMachine::kData - 2, 0x8000);
    after = machine.run(s, {0x66, 0x0f, 0xbb, 0x0b});  // btc [ebx], cx
    EXPECT_EQ(machine.read<u16>(TestMachine::kData - 2), 0);
    EXPECT_NE(after.rflags & kCarry, 0U);
}

TEST_F(SoftLegacyTest, ImmediateBitOffsetsStayInTheOperand) {
    State s = machine.protected_mode_state();
    s.gpr[Rbx] = TestMachine::kData;
    machine.write<u64>(TestMachine::kData, 0);
    machine.run(s, {0x0f, 0xba, 0x2b, 0x21});  // bts dword [ebx], 33
    EXPECT_EQ(machine.read<u64>(TestMachine::kData), 2U);
}

// The vector of a fault in real mode tells which one it was: IVT entry n points to 0:0x4000 + n.
class SoftRealModeFaultTest : public SoftLegacyTest {
protected:
    unsigned vector_of(const State& s, std::initializer_list<u8> code) {
        for (unsigned v = 0; v < 32; ++v) machine.write<u32>(v * 4, 0x4000 + v);
        const State after = machine.run(s, code);
        return after.seg[Cs].selector == 0 ? static_cast<unsigned>(after.rip - 0x4000) : 0xff;
    }
};

constexpr unsigned kNoFault = 0xff, kDivide = 0, kUndefined = 6;

TEST_F(SoftRealModeFaultTest, DivisionsOverflowExactlyWhenTheQuotientDoesNotFit) {
    State s = machine.real_mode_state();
    s.gpr[Rbx] = 0x10;
    s.gpr[Rax] = 0x0fff;
    EXPECT_EQ(vector_of(s, {0xf6, 0xf3}), kNoFault);  // div bl: 0xff
    s.gpr[Rax] = 0x1000;
    EXPECT_EQ(vector_of(s, {0xf6, 0xf3}), kDivide);
    s.gpr[Rax] = 0x07ff;
    EXPECT_EQ(vector_of(s, {0xf6, 0xfb}), kNoFault);  // idiv bl: 0x7f
    s.gpr[Rax] = 0x0800;
    EXPECT_EQ(vector_of(s, {0xf6, 0xfb}), kDivide);
    s.gpr[Rax] = 0x10000 - 0x800;
    EXPECT_EQ(vector_of(s, {0xf6, 0xfb}), kNoFault);  // -0x80
    s.gpr[Rax] = 0x10000 - 0x810;
    EXPECT_EQ(vector_of(s, {0xf6, 0xfb}), kDivide);
    s.gpr[Rax] = 0x8000;
    s.gpr[Rdx] = 0xffff;
    s.gpr[Rbx] = 0xffff;
    EXPECT_EQ(vector_of(s, {0xf7, 0xfb}), kDivide);  // idiv bx: -0x8000 / -1
    s.gpr[Rbx] = 0;
    EXPECT_EQ(vector_of(s, {0xf7, 0xf3}), kDivide);
}

TEST_F(SoftRealModeFaultTest, AamByZeroDividesByZero) {
    EXPECT_EQ(vector_of(machine.real_mode_state(), {0xd4, 0x00}), kDivide);
}

TEST_F(SoftRealModeFaultTest, VexEncodingsAreUndefinedInRealMode) {
    EXPECT_EQ(vector_of(machine.real_mode_state(), {0xc4, 0xe2, 0x60, 0xf2, 0xc1}), kUndefined);  // andn
}

TEST_F(SoftLegacyTest, BmiWorksInThirtyTwoBitProtectedMode) {
    State s = machine.protected_mode_state();
    s.gpr[Rbx] = 0x0f0f;
    s.gpr[Rcx] = 0xffff;
    EXPECT_EQ(machine.run(s, {0xc4, 0xe2, 0x60, 0xf2, 0xc1}).gpr[Rax], 0xf0f0U);  // andn eax, ebx, ecx
}

// A data segment of one page at kData. The instruction before each makes the page known to the translation
// caches. There is no IDT: a fault is a shutdown.
TEST_F(SoftLegacyTest, ThirtyTwoBitOperandsKeepToTheirSegment) {
    State s = machine.protected_mode_state();
    s.seg[Ds].base = TestMachine::kData;
    s.seg[Ds].limit = 0xfff;
    s.seg[Ds].rights &= ~u32{x86::rights::kGranularity};
    const std::vector<std::vector<u8>> instructions{
        {0x8b, 0x44, 0xb3, 0xfc},              // mov -4(%ebx,%esi,4), %eax
        {0x89, 0x44, 0xb3, 0xfc},              // mov %eax, -4(%ebx,%esi,4)
        {0xc7, 0x44, 0xb3, 0xfc, 1, 2, 3, 4},  // movl $0x04030201, -4(%ebx,%esi,4)
        {0x03, 0x44, 0xb3, 0xfc},              // add
        {0x01, 0x44, 0xb3, 0xfc},              // add to memory
        {0x3b, 0x44, 0xb3, 0xfc},              // cmp
        {0xff, 0x44, 0xb3, 0xfc},              // incl
        {0x0f, 0x44, 0x44, 0xb3, 0xfc},        // cmove
        {0xf7, 0x64, 0xb3, 0xfc},              // mull
        {0xd1, 0x64, 0xb3, 0xfc},              // shll
    };
    const auto run = [&](const std::vector<u8>& code) {
        std::vector<u8> both{0xff, 0x05, 0x00, 0x08, 0x00, 0x00};  // incl 0x800
        both.insert(both.end(), code.begin(), code.end());
        return machine.run(s, both, 2);
    };
    s.gpr[Rsi] = 0x40;
    for (const std::vector<u8>& code : instructions) {
        s.gpr[Rbx] = 0xf00;  // the last four bytes: 0xffc
        (void)run(code);
        EXPECT_NE(machine.last_exit, ExitReason::Shutdown) << unsigned{code[0]};
        s.gpr[Rbx] = 0xf01;  // one more
        (void)run(code);
        EXPECT_EQ(machine.last_exit, ExitReason::Shutdown) << unsigned{code[0]};
    }
    // Offsets wrap at 4 GiB, as do linear addresses.
    machine.write<u32>(TestMachine::kData + 0xffc, 0x1234'5678);
    s.gpr[Rbx] = 0xffff'f000;
    s.gpr[Rsi] = 0x0000'0800;  // times 4 and less 4: 0xffc
    EXPECT_EQ(run(instructions[0]).gpr[Rax], 0x1234'5678U);
    s.seg[Ds].base = 0xffff'f000;
    s.seg[Ds].limit = 0xffff'ffff;
    s.gpr[Rbx] = TestMachine::kData + 0x1000 + 0xffc + 4;
    s.gpr[Rsi] = 0;
    EXPECT_EQ(run(instructions[0]).gpr[Rax], 0x1234'5678U);
    // Not writable.
    s.seg[Ds].rights &= ~u32{x86::rights::kWritable};
    (void)machine.run(s, instructions[1]);
    EXPECT_EQ(machine.last_exit, ExitReason::Shutdown);
    EXPECT_EQ(machine.run(s, instructions[0]).gpr[Rax], 0x1234'5678U);
}

TEST_F(SoftLegacyTest, BswapOfSixteenBitsGivesZero) {
    State s = machine.protected_mode_state();
    s.gpr[Rax] = 0x12345678;
    EXPECT_EQ(machine.run(s, {0x66, 0x0f, 0xc8}).gpr[Rax], 0x12340000U);
    EXPECT_EQ(machine.run(s, {0x0f, 0xc8}).gpr[Rax], 0x78563412U);
}

TEST_F(SoftLegacyTest, LahfAndSahfMoveFiveFlags) {
    State s = machine.protected_mode_state();
    s.rflags = 0x2 | kCarry | kZero | kOverflow;
    State after = machine.run(s, {0x9f});
    EXPECT_EQ(high(after.gpr[Rax]), 0x43);
    s.gpr[Rax] = 0xff00;
    s.rflags = 0x2;
    after = machine.run(s, {0x9e});
    EXPECT_EQ(after.rflags, 0x2 | kSign | kZero | kAdjust | kParity | kCarry);
    s.gpr[Rax] = 0;
    s.rflags = 0x2 | kOverflow | kDirection | kSign;
    after = machine.run(s, {0x9e});
    EXPECT_EQ(after.rflags, 0x2 | kOverflow | kDirection);
}

}  // namespace
}  // namespace tessera::soft
