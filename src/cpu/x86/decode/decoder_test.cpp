// What the decoder makes of single encodings, by the manuals; the sweeps over all opcodes are in
// tests/decoder.
#include <gtest/gtest.h>
#include <initializer_list>
#include <vector>

#include "cpu/x86/insn.h"

namespace tessera::x86 {
namespace {

constexpr auto k16 = CodeSize::Bits16;
constexpr auto k32 = CodeSize::Bits32;
constexpr auto k64 = CodeSize::Bits64;

DecodeStatus status_of(CodeSize size, std::initializer_list<u8> bytes) {
    Insn insn;
    return decode(std::vector<u8>(bytes), size, insn);
}

Insn decoded(CodeSize size, std::initializer_list<u8> bytes) {
    Insn insn;
    EXPECT_EQ(decode(std::vector<u8>(bytes), size, insn), DecodeStatus::Ok);
    EXPECT_EQ(insn.length, bytes.size());
    return insn;
}

Operand gpr(u8 number, u16 size) {
    return {OperandKind::Gpr, number, size};
}
Operand memory(u16 size) {
    return {OperandKind::Memory, 0, size};
}
Operand immediate(u16 size) {
    return {OperandKind::Immediate, 0, size};
}
Operand vector(u8 number, u16 size) {
    return {OperandKind::Vector, number, size};
}

TEST(DecoderTest, OperandSizeFollowsModePrefixAndRexW) {
    EXPECT_EQ(decoded(k16, {0x01, 0xd8}).operand_size, 2);
    EXPECT_EQ(decoded(k16, {0x66, 0x01, 0xd8}).operand_size, 4);
    EXPECT_EQ(decoded(k32, {0x01, 0xd8}).operand_size, 4);
    EXPECT_EQ(decoded(k32, {0x66, 0x01, 0xd8}).operand_size, 2);
    EXPECT_EQ(decoded(k64, {0x01, 0xd8}).operand_size, 4);
    EXPECT_EQ(decoded(k64, {0x66, 0x01, 0xd8}).operand_size, 2);
    EXPECT_EQ(decoded(k64, {0x48, 0x01, 0xd8}).operand_size, 8);
    EXPECT_EQ(decoded(k64, {0x66, 0x48, 0x01, 0xd8}).operand_size, 8);
}

TEST(DecoderTest, StackInstructionsDefaultTo64Bits) {
    EXPECT_EQ(decoded(k64, {0x55}).operand_size, 8);
    EXPECT_EQ(decoded(k64, {0x66, 0x55}).operand_size, 2);
    EXPECT_EQ(decoded(k64, {0xff, 0x30}).operand[0], memory(8));
    EXPECT_EQ(decoded(k64, {0xc3}).operand_size, 8);
    EXPECT_EQ(decoded(k64, {0xcb}).operand_size, 4);  // far returns do not
    EXPECT_EQ(decoded(k32, {0x55}).operand_size, 4);
}

TEST(DecoderTest, RexCountsOnlyRightBeforeTheOpcode) {
    const Insn ignored = decoded(k64, {0x48, 0x66, 0x01, 0xd8});
    EXPECT_EQ(ignored.operand_size, 2);
    EXPECT_EQ(ignored.rex, 0);
    EXPECT_EQ(decoded(k64, {0x4f, 0x48, 0x01, 0xd8}).rex, 0x48);
}

TEST(DecoderTest, RexBytesAreIncAndDecOutside64BitMode) {
    const Insn inc = decoded(k32, {0x41});
    EXPECT_EQ(inc.mnemonic, Mnemonic::Inc);
    EXPECT_EQ(inc.operand[0], gpr(Rcx, 4));
    EXPECT_EQ(decoded(k16, {0x4f}).mnemonic, Mnemonic::Dec);
}

TEST(DecoderTest, ByteRegistersFourToSevenAreHighUnlessRexIsThere) {
    EXPECT_EQ(decoded(k64, {0x88, 0xe0}).operand[1], (Operand{OperandKind::GprHigh, 0, 1}));
    EXPECT_EQ(decoded(k64, {0x40, 0x88, 0xe0}).operand[1], gpr(Rsp, 1));
    EXPECT_EQ(decoded(k64, {0x44, 0x88, 0xe0}).operand[1], gpr(R12, 1));
}

TEST(DecoderTest, LastOfRepAndRepneCounts) {
    EXPECT_EQ(decoded(k64, {0xf2, 0xf3, 0x0f, 0x58, 0xc1}).mnemonic, Mnemonic::Addss);
    EXPECT_EQ(decoded(k64, {0xf3, 0xf2, 0x0f, 0x58, 0xc1}).mnemonic, Mnemonic::Addsd);
    EXPECT_EQ(decoded(k64, {0x66, 0xf3, 0x0f, 0x58, 0xc1}).mnemonic, Mnemonic::Addss);
    EXPECT_FALSE(decoded(k64, {0xf3, 0x0f, 0x58, 0xc1}).has(InsnFlag::Rep));
    EXPECT_TRUE(decoded(k64, {0xf3, 0xa4}).has(InsnFlag::Rep));
    EXPECT_TRUE(decoded(k64, {0xf2, 0xae}).has(InsnFlag::Repne));
}

TEST(DecoderTest, ImmediatesAreExtendedToTheOperand) {
    EXPECT_EQ(decoded(k64, {0x83, 0xc0, 0x80}).immediate, 0xffff'ff80u);
    EXPECT_EQ(decoded(k64, {0x66, 0x83, 0xc0, 0x80}).immediate, 0xff80u);
    EXPECT_EQ(decoded(k64, {0x48, 0x83, 0xc0, 0x80}).immediate, 0xffff'ffff'ffff'ff80u);
    EXPECT_EQ(decoded(k64, {0x48, 0x05, 0, 0, 0, 0x80}).immediate, 0xffff'ffff'8000'0000u);
    EXPECT_EQ(decoded(k64, {0x04, 0x80}).immediate, 0x80u);
    EXPECT_EQ(decoded(k64, {0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 0x88}).immediate, 0x8807'0605'0403'0201u);
    EXPECT_EQ(decoded(k64, {0x6a, 0x80}).operand[0], immediate(8));
}

TEST(DecoderTest, RelativeBranchesCarryASignedDistance) {
    EXPECT_EQ(static_cast<s64>(decoded(k64, {0xeb, 0xfe}).immediate), -2);
    EXPECT_EQ(static_cast<s64>(decoded(k32, {0xe8, 0xfb, 0xff, 0xff, 0xff}).immediate), -5);
    EXPECT_EQ(static_cast<s64>(decoded(k16, {0x0f, 0x84, 0x00, 0x80}).immediate), -0x8000);
    EXPECT_EQ(decoded(k64, {0x0f, 0x8f, 0, 0, 0, 0}).condition, 0xf);
}

TEST(DecoderTest, OperandSizePrefixNarrowsNearBranchesAsOnAmd) {
    const Insn jump = decoded(k64, {0x66, 0xe9, 0x34, 0x12});
    EXPECT_EQ(jump.operand_size, 2);
    EXPECT_EQ(jump.immediate, 0x1234u);
    EXPECT_EQ(decoded(k64, {0x66, 0xff, 0xe0}).operand[0], gpr(Rax, 2));
}

TEST(DecoderTest, SixteenBitAddressesUseTheirRegisterPairs) {
    const Insn pair = decoded(k16, {0x8b, 0x42, 0xfe});  // BP+SI-2
    EXPECT_EQ(pair.base, Rbp);
    EXPECT_EQ(pair.index, Rsi);
    EXPECT_EQ(pair.displacement, -2);
    EXPECT_EQ(pair.segment, Ss);
    const Insn direct = decoded(k16, {0x8b, 0x06, 0x34, 0x92});
    EXPECT_EQ(direct.base, kNoRegister);
    EXPECT_EQ(direct.displacement & 0xffff, 0x9234);
    EXPECT_EQ(direct.segment, Ds);
    EXPECT_EQ(decoded(k32, {0x67, 0x8b, 0x07}).base, Rbx);
    EXPECT_EQ(decoded(k16, {0x67, 0x8b, 0x07}).base, Rdi);
}

TEST(DecoderTest, SibGivesBaseIndexAndScale) {
    const Insn full = decoded(k64, {0x43, 0x8b, 0x44, 0xa5, 0x10});  // [R13+R12*4+0x10]
    EXPECT_EQ(full.base, R13);
    EXPECT_EQ(full.index, R12);
    EXPECT_EQ(full.scale, 2);
    EXPECT_EQ(full.displacement, 0x10);
    EXPECT_EQ(full.displacement_offset, 4);
    EXPECT_EQ(full.displacement_size, 1);
    const Insn no_index = decoded(k64, {0x8b, 0x04, 0x24});
    EXPECT_EQ(no_index.base, Rsp);
    EXPECT_EQ(no_index.index, kNoRegister);
    EXPECT_EQ(no_index.segment, Ss);
    const Insn no_base = decoded(k64, {0x8b, 0x04, 0x25, 0, 0, 0, 0x80});
    EXPECT_EQ(no_base.base, kNoRegister);
    EXPECT_EQ(no_base.displacement, -0x8000'0000ll);
}

TEST(DecoderTest, ModZeroRmFiveIsRipRelativeIn64BitModeOnly) {
    EXPECT_EQ(decoded(k64, {0x8b, 0x05, 0x10, 0, 0, 0}).base, kRipBase);
    EXPECT_EQ(decoded(k64, {0x41, 0x8b, 0x05, 0x10, 0, 0, 0}).base, kRipBase);
    EXPECT_EQ(decoded(k64, {0x67, 0x8b, 0x05, 0x10, 0, 0, 0}).address_size, 4);
    EXPECT_EQ(decoded(k32, {0x8b, 0x05, 0x10, 0, 0, 0}).base, kNoRegister);
}

TEST(DecoderTest, Only64BitModeIgnoresFourSegmentOverrides) {
    EXPECT_EQ(decoded(k32, {0x2e, 0x8b, 0x00}).segment, Cs);
    EXPECT_EQ(decoded(k64, {0x2e, 0x8b, 0x00}).segment, Ds);
    EXPECT_EQ(decoded(k64, {0x64, 0x8b, 0x00}).segment, Fs);
    EXPECT_EQ(decoded(k64, {0x64, 0x3e, 0x8b, 0x00}).segment, Fs);
    EXPECT_EQ(decoded(k32, {0x64, 0x3e, 0x8b, 0x00}).segment, Ds);
    EXPECT_EQ(decoded(k32, {0x65, 0xa4}).segment, Gs);
}

TEST(DecoderTest, MoffsHasAnAddressSizedOffset) {
    EXPECT_EQ(decoded(k64, {0xa1, 1, 2, 3, 4, 5, 6, 7, 0x88}).displacement,
              static_cast<s64>(0x8807'0605'0403'0201u));
    EXPECT_EQ(decoded(k64, {0x67, 0xa1, 1, 2, 3, 0x84}).displacement, 0x8403'0201ll);
    EXPECT_EQ(decoded(k16, {0xa2, 0x34, 0x92}).displacement, 0x9234);
}

TEST(DecoderTest, FarPointersCarrySelectorAndOffset) {
    const Insn call = decoded(k32, {0x9a, 1, 2, 3, 4, 5, 6});
    EXPECT_EQ(call.mnemonic, Mnemonic::Callf);
    EXPECT_EQ(call.immediate, 0x0403'0201u);
    EXPECT_EQ(call.immediate2, 0x0605);
    EXPECT_EQ(decoded(k16, {0xea, 1, 2, 3, 4}).immediate2, 0x0403);
    EXPECT_EQ(decoded(k32, {0xff, 0x28}).operand[0], memory(6));
    EXPECT_EQ(decoded(k64, {0x48, 0xff, 0x28}).operand[0], memory(6));  // AMD: no 64-bit offset
}

TEST(DecoderTest, EnterHasTwoImmediates) {
    const Insn enter = decoded(k64, {0xc8, 0x34, 0x12, 0x05});
    EXPECT_EQ(enter.immediate, 0x1234u);
    EXPECT_EQ(enter.immediate2, 5);
    EXPECT_EQ(enter.immediate_offset, 1);
    EXPECT_EQ(enter.immediate_size, 3);
}

TEST(DecoderTest, LockNeedsAMemoryDestinationOfALockableInstruction) {
    EXPECT_TRUE(decoded(k64, {0xf0, 0x01, 0x00}).has(InsnFlag::Lock));
    EXPECT_TRUE(decoded(k64, {0xf0, 0x0f, 0xc7, 0x08}).has(InsnFlag::Lock));
    EXPECT_EQ(status_of(k64, {0xf0, 0x01, 0xc0}), DecodeStatus::Invalid);        // register
    EXPECT_EQ(status_of(k64, {0xf0, 0x03, 0x00}), DecodeStatus::Invalid);        // memory is the source
    EXPECT_EQ(status_of(k64, {0xf0, 0x38, 0x00}), DecodeStatus::Invalid);        // CMP
    EXPECT_EQ(status_of(k64, {0xf0, 0x89, 0x00}), DecodeStatus::Invalid);        // MOV
    EXPECT_EQ(status_of(k64, {0xf0, 0x0f, 0xa3, 0x00}), DecodeStatus::Invalid);  // BT
    EXPECT_EQ(status_of(k64, {0xf0, 0x90}), DecodeStatus::Invalid);
}

TEST(DecoderTest, LockMovCr0IsMovCr8) {
    EXPECT_EQ(decoded(k32, {0xf0, 0x0f, 0x20, 0xc0}).operand[1], (Operand{OperandKind::Control, 8, 4}));
    EXPECT_EQ(decoded(k64, {0x44, 0x0f, 0x20, 0xc0}).operand[1], (Operand{OperandKind::Control, 8, 8}));
    EXPECT_EQ(status_of(k32, {0xf0, 0x0f, 0x20, 0xd8}), DecodeStatus::Invalid);
}

TEST(DecoderTest, MovToControlAndDebugRegistersIgnoresMod) {
    const Insn insn = decoded(k64, {0x0f, 0x22, 0x18});  // mod 0
    EXPECT_EQ(insn.operand[0], (Operand{OperandKind::Control, 3, 8}));
    EXPECT_EQ(insn.operand[1], gpr(Rax, 8));
    EXPECT_EQ(status_of(k64, {0x0f, 0x20, 0xc8}), DecodeStatus::Invalid);        // CR1
    EXPECT_EQ(status_of(k64, {0x44, 0x0f, 0x23, 0xc0}), DecodeStatus::Invalid);  // DR8
}

TEST(DecoderTest, SegmentRegistersSixAndSevenAndMovToCsAreInvalid) {
    EXPECT_EQ(status_of(k64, {0x8e, 0xf0}), DecodeStatus::Invalid);
    EXPECT_EQ(status_of(k64, {0x8c, 0xf8}), DecodeStatus::Invalid);
    EXPECT_EQ(status_of(k32, {0x8e, 0xc8}), DecodeStatus::Invalid);
    EXPECT_EQ(decoded(k32, {0x8c, 0xc8}).operand[1], (Operand{OperandKind::Segment, Cs, 2}));
    EXPECT_EQ(decoded(k32, {0x8c, 0x08}).operand[0], memory(2));
}

TEST(DecoderTest, SomeOpcodesAreInvalidIn64BitMode) {
    for (const u8 opcode :
         std::initializer_list<u8>{0x06, 0x07, 0x0e, 0x16, 0x17, 0x1e, 0x1f, 0x27, 0x2f, 0x37, 0x3f,
                                   0x60, 0x61, 0x62, 0x82, 0x9a, 0xce, 0xd4, 0xd5, 0xd6, 0xea})
        EXPECT_EQ(status_of(k64, {opcode, 0, 0, 0, 0, 0, 0}), DecodeStatus::Invalid)
            << static_cast<int>(opcode);
}

TEST(DecoderTest, C4AndC5AreVexByModeAndMod) {
    EXPECT_EQ(decoded(k32, {0xc5, 0x07}).mnemonic, Mnemonic::Lds);
    EXPECT_EQ(decoded(k32, {0xc4, 0x07}).mnemonic, Mnemonic::Les);
    EXPECT_EQ(decoded(k32, {0xc5, 0xf8, 0x77}).mnemonic, Mnemonic::Vzeroupper);
    EXPECT_EQ(decoded(k64, {0xc5, 0x78, 0x28, 0xc0}).mnemonic, Mnemonic::Vmovaps);
    EXPECT_EQ(decoded(k64, {0xc5, 0x78, 0x28, 0xc0}).operand[0], vector(8, 16));
}

TEST(DecoderTest, LegacyPrefixesBeforeVexAreInvalid) {
    for (const u8 prefix : std::initializer_list<u8>{0x66, 0xf0, 0xf2, 0xf3, 0x48})
        EXPECT_EQ(status_of(k64, {prefix, 0xc5, 0xf8, 0x28, 0xc0}), DecodeStatus::Invalid)
            << static_cast<int>(prefix);
    EXPECT_EQ(decoded(k64, {0x67, 0x64, 0xc5, 0xf8, 0x28, 0x00}).segment, Fs);
}

TEST(DecoderTest, UnusedVvvvMustBeAllOnes) {
    EXPECT_EQ(status_of(k64, {0xc5, 0xf0, 0x28, 0xc0}), DecodeStatus::Invalid);  // VMOVAPS has two operands
    const Insn add = decoded(k64, {0xc5, 0xf4, 0x58, 0xc2});                     // VADDPS ymm0, ymm1, ymm2
    EXPECT_EQ(add.operand[0], vector(0, 32));
    EXPECT_EQ(add.operand[1], vector(1, 32));
    EXPECT_EQ(add.operand[2], vector(2, 32));
}

TEST(DecoderTest, GathersNeedThreeDifferentRegistersAndSib) {
    const Insn gather =
        decoded(k64, {0xc4, 0xe2, 0xed, 0x92, 0x04, 0x0b});  // VGATHERDPD ymm0, [rbx+xmm1], ymm2
    EXPECT_EQ(gather.mnemonic, Mnemonic::Vgatherdpd);
    EXPECT_EQ(gather.index, 1);
    EXPECT_EQ(gather.vsib_size, 16);
    EXPECT_EQ(gather.operand[1], memory(8));
    EXPECT_EQ(gather.operand[2], vector(2, 32));
    EXPECT_EQ(status_of(k64, {0xc4, 0xe2, 0xf5, 0x92, 0x04, 0x0b}), DecodeStatus::Invalid);  // mask is index
    EXPECT_EQ(status_of(k64, {0xc4, 0xe2, 0xed, 0x92, 0x0c, 0x0b}),
              DecodeStatus::Invalid);  // destination is index
    EXPECT_EQ(status_of(k64, {0xc4, 0xe2, 0xed, 0x92, 0x14, 0x0b}),
              DecodeStatus::Invalid);  // destination is mask
    EXPECT_EQ(status_of(k64, {0xc4, 0xe2, 0xed, 0x92, 0x03, 0x0b}), DecodeStatus::Invalid);  // no SIB
    EXPECT_EQ(status_of(k64, {0xc4, 0xe2, 0xed, 0x92, 0xc3, 0x0b}), DecodeStatus::Invalid);  // no memory
}

TEST(DecoderTest, IndexFourIsARegisterInVsib) {
    EXPECT_EQ(decoded(k64, {0xc4, 0xe2, 0x6d, 0x92, 0x04, 0x23}).index, 4);
}

TEST(DecoderTest, Bits4To7OfTheImmediateNameTheFourthRegister) {
    const Insn blend = decoded(k64, {0xc4, 0xe3, 0x71, 0x4a, 0xc2, 0xf0});
    EXPECT_EQ(blend.operand_count, 4);
    EXPECT_EQ(blend.operand[3], vector(15, 16));
    EXPECT_EQ(decoded(k32, {0xc4, 0xe3, 0x71, 0x4a, 0xc2, 0xf0}).operand[3], vector(7, 16));
}

TEST(DecoderTest, MnemonicsWithMmxAndSseFormsGoByTheirRegisters) {
    EXPECT_EQ(decoded(k64, {0x0f, 0xfc, 0xc1}).insn_class, InsnClass::Mmx);
    EXPECT_EQ(decoded(k64, {0x66, 0x0f, 0xfc, 0xc1}).insn_class, InsnClass::Vector);
    EXPECT_EQ(decoded(k64, {0x45, 0x0f, 0xfc, 0xc1}).operand[0],
              (Operand{OperandKind::Mmx, 0, 8}));  // REX is no help
}

TEST(DecoderTest, FcmovConditionsCountFromBelow) {
    EXPECT_EQ(decoded(k64, {0xda, 0xc1}).condition, 0);  // FCMOVB
    EXPECT_EQ(decoded(k64, {0xda, 0xd9}).condition, 3);  // FCMOVU
    EXPECT_EQ(decoded(k64, {0xdb, 0xc9}).condition, 5);  // FCMOVNE
}

TEST(DecoderTest, ReversedSubtractionsSwapInDcAndDe) {
    EXPECT_EQ(decoded(k64, {0xd8, 0xe1}).mnemonic, Mnemonic::Fsub);
    EXPECT_EQ(decoded(k64, {0xdc, 0xe1}).mnemonic, Mnemonic::Fsubr);
    EXPECT_EQ(decoded(k64, {0xde, 0xe9}).mnemonic, Mnemonic::Fsubp);
    EXPECT_EQ(decoded(k64, {0xde, 0xf9}).mnemonic, Mnemonic::Fdivp);
}

TEST(DecoderTest, X87EnvironmentSizesFollowTheOperandSize) {
    EXPECT_EQ(decoded(k16, {0xd9, 0x37}).operand[0], memory(14));
    EXPECT_EQ(decoded(k64, {0xd9, 0x37}).operand[0], memory(28));
    EXPECT_EQ(decoded(k16, {0xdd, 0x37}).operand[0], memory(94));
    EXPECT_EQ(decoded(k64, {0x48, 0xdd, 0x37}).operand[0], memory(108));
}

TEST(DecoderTest, DescriptorTablesAreSixOrTenBytes) {
    EXPECT_EQ(decoded(k16, {0x0f, 0x01, 0x17}).operand[0], memory(6));
    EXPECT_EQ(decoded(k16, {0x0f, 0x01, 0x17}).operand_size, 2);
    EXPECT_EQ(decoded(k64, {0x0f, 0x01, 0x17}).operand[0], memory(10));
    EXPECT_EQ(decoded(k64, {0x66, 0x0f, 0x01, 0x17}).operand[0], memory(10));
}

TEST(DecoderTest, NopPauseAndXchgShareAnOpcode) {
    EXPECT_EQ(decoded(k64, {0x90}).mnemonic, Mnemonic::Nop);
    EXPECT_EQ(decoded(k64, {0xf3, 0x90}).mnemonic, Mnemonic::Pause);
    EXPECT_EQ(decoded(k64, {0x41, 0x90}).operand[0], gpr(R8, 4));
    EXPECT_EQ(decoded(k64, {0xf3, 0x41, 0x90}).mnemonic, Mnemonic::Xchg);
    EXPECT_EQ(decoded(k64, {0xf3, 0x0f, 0x1e, 0xfa}).mnemonic, Mnemonic::Nop);  // ENDBR64
}

TEST(DecoderTest, LzcntAndTzcntAreNotBsrAndBsf) {
    EXPECT_EQ(decoded(k64, {0xf3, 0x0f, 0xbd, 0xc1}).mnemonic, Mnemonic::Lzcnt);
    EXPECT_EQ(decoded(k64, {0xf3, 0x0f, 0xbc, 0xc1}).mnemonic, Mnemonic::Tzcnt);
    EXPECT_EQ(decoded(k64, {0x0f, 0xbd, 0xc1}).mnemonic, Mnemonic::Bsr);
    EXPECT_EQ(decoded(k64, {0xf2, 0x0f, 0xbc, 0xc1}).mnemonic, Mnemonic::Bsf);
}

TEST(DecoderTest, FeaturesNotOfferedAreInvalid) {
    EXPECT_EQ(status_of(k64, {0x62, 0xf1, 0x7c, 0x48, 0x58, 0xc1}), DecodeStatus::Invalid);  // AVX-512
    EXPECT_EQ(status_of(k64, {0x0f, 0x0f, 0xc1, 0x9e}), DecodeStatus::Invalid);              // 3DNow!
    EXPECT_EQ(status_of(k64, {0xc7, 0xf8, 0, 0, 0, 0}), DecodeStatus::Invalid);              // XBEGIN
    EXPECT_EQ(status_of(k64, {0x0f, 0x01, 0xd8}), DecodeStatus::Invalid);                    // VMRUN
    EXPECT_EQ(status_of(k64, {0xc4, 0xe2, 0x75, 0xdc, 0xc1}), DecodeStatus::Invalid);        // VAES, 256-bit
    EXPECT_EQ(status_of(k64, {0xf2, 0x0f, 0x79, 0xc1}), DecodeStatus::Invalid);              // SSE4a
    EXPECT_EQ(status_of(k64, {0x8f, 0xe9, 0x78, 0x01, 0xc1}), DecodeStatus::Invalid);        // XOP
}

TEST(DecoderTest, MoreThanFifteenBytesAreTooLong) {
    std::vector<u8> bytes(14, 0x66);
    bytes.push_back(0x90);
    Insn insn;
    EXPECT_EQ(decode(bytes, k64, insn), DecodeStatus::Ok);
    EXPECT_EQ(insn.length, 15);
    bytes.insert(bytes.begin(), 0x66);
    EXPECT_EQ(decode(bytes, k64, insn), DecodeStatus::TooLong);
    const std::vector<u8> only_prefixes(15, 0x2e);
    EXPECT_EQ(decode(only_prefixes, k64, insn), DecodeStatus::TooLong);
}

TEST(DecoderTest, EveryShorterPieceNeedsMore) {
    const std::vector<u8> bytes = {0x66, 0x67, 0xf0, 0x81, 0x84, 0x8b, 1,
                                   2,    3,    4,    5,    6};  // LOCK ADD word [ebx+ecx*4+disp32], imm16
    Insn insn;
    ASSERT_EQ(decode(bytes, k64, insn), DecodeStatus::Ok);
    ASSERT_EQ(insn.length, bytes.size());
    for (size_t size = 0; size < bytes.size(); ++size)
        EXPECT_EQ(decode(std::span(bytes).first(size), k64, insn), DecodeStatus::NeedMore) << size;
}

TEST(DecoderTest, ShiftFlagsDependOnTheCount) {
    EXPECT_EQ(decoded(k64, {0xc1, 0xe0, 0x20}).flags_written, 0);  // masked to zero
    EXPECT_EQ(decoded(k64, {0xc1, 0xe0, 0x20}).flags_undefined, 0);
    EXPECT_TRUE(decoded(k64, {0xd1, 0xe0}).flags_written & eflags::kOf);
    EXPECT_TRUE(decoded(k64, {0xc1, 0xe0, 0x02}).flags_undefined & eflags::kOf);
    EXPECT_TRUE(decoded(k64, {0xc0, 0xe0, 0x09}).flags_undefined & eflags::kCf);  // more than the width
    const Insn by_cl = decoded(k64, {0xd3, 0xe0});
    EXPECT_EQ(by_cl.flags_read, eflags::kStatus);  // CL may be zero
    EXPECT_EQ(decoded(k64, {0xd3, 0xc0}).flags_read, eflags::kCf | eflags::kOf);
}

TEST(DecoderTest, ConditionsReadTheirFlags) {
    EXPECT_EQ(decoded(k64, {0x72, 0}).flags_read, eflags::kCf);
    EXPECT_EQ(decoded(k64, {0x0f, 0x4e, 0xc1}).flags_read, eflags::kZf | eflags::kSf | eflags::kOf);
    EXPECT_EQ(decoded(k64, {0x0f, 0x9a, 0xc1}).flags_read, eflags::kPf);
    EXPECT_EQ(decoded(k64, {0x11, 0xc0}).flags_read, eflags::kCf);
    EXPECT_EQ(decoded(k64, {0x01, 0xc0}).flags_read, 0);
}

TEST(DecoderTest, RepeatedComparisonsMayKeepTheFlags) {
    EXPECT_EQ(decoded(k64, {0xa6}).flags_read, 0);
    EXPECT_EQ(decoded(k64, {0xf3, 0xa6}).flags_read, eflags::kStatus);
}

TEST(DecoderTest, InvalidResultsNameNoInstruction) {
    Insn insn;
    const std::vector<u8> bytes = {0x0f, 0xc7, 0xc8};
    EXPECT_EQ(decode(bytes, k64, insn), DecodeStatus::Invalid);
    EXPECT_EQ(insn.mnemonic, Mnemonic::Invalid);
    EXPECT_EQ(insn.length, 3);
}

TEST(MnemonicTest, NamesAndClassesComeFromTheList) {
    EXPECT_STREQ(name(Mnemonic::Vfmadd132ps), "vfmadd132ps");
    EXPECT_STREQ(name(Mnemonic::Invalid), "invalid");
    EXPECT_STREQ(name(static_cast<Mnemonic>(0xffff)), "invalid");
    EXPECT_EQ(insn_class_of(Mnemonic::Lgdt), InsnClass::System);
    EXPECT_EQ(insn_class_of(Mnemonic::Movs), InsnClass::String);
    EXPECT_EQ(insn_class_of(Mnemonic::Movsd), InsnClass::Vector);
}

}  // namespace
}  // namespace tessera::x86
