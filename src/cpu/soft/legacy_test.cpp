// The privileged side outside long mode: real mode, segmentation, gates, task switches, virtual-8086 mode,
// debugging.
#include <gtest/gtest.h>

#include "cpu/soft/testing/kernel_rig.h"
#include "cpu/soft/x86_names.h"

namespace tessera::soft {
namespace {

using Rig = KernelRig;

u32 stack32(Rig& rig, const State& s, unsigned n) {
    return rig.read<u32>((s.gpr[Rsp] & 0xffff'ffff) + 4 * n);
}

// --- real mode

TEST(RealMode, InterruptGoesThroughTheVectorTable) {
    Rig rig;
    State s = rig.real_mode_state();
    rig.write<u32>(0x21 * 4, 0x2000'0010);  // 2000:0010
    rig.put(0x20010, {0xf4});
    s.rflags |= eflags::kIf | eflags::kCf;
    s = rig.go(s, {0xcd, 0x21});
    EXPECT_EQ(s.seg[Cs].selector, 0x2000u);
    EXPECT_EQ(s.rip, 0x11u);
    EXPECT_EQ(s.gpr[Rsp], 0xffau);
    EXPECT_EQ(rig.read<u16>(Rig::kStack + 0xffa), 2u);
    EXPECT_EQ(rig.read<u16>(Rig::kStack + 0xffc), Rig::kCode >> 4);
    EXPECT_EQ(rig.read<u16>(Rig::kStack + 0xffe), 0x203u);
    EXPECT_EQ(s.rflags & eflags::kIf, 0u);
}

TEST(RealMode, SegmentKeepsTheLimitOfProtectedMode) {
    Rig rig;
    State s = rig.real_mode_state();
    s.seg[Ds].limit = ~0u;
    s.gpr[Rbx] = 0x10'0000;
    rig.write<u8>(0x10'0000 + 0x100, 0x77);
    // mov ax,0x10; mov ds,ax; mov al,[ebx] with a 32-bit address; hlt
    s = rig.go(s, {0xb8, 0x10, 0x00, 0x8e, 0xd8, 0x67, 0x8a, 0x03, 0xf4});
    EXPECT_EQ(s.gpr[Rax] & 0xff, 0x77u);
    EXPECT_EQ(s.seg[Ds].base, 0x100u);
    EXPECT_EQ(s.seg[Ds].limit, ~0u);
}

TEST(RealMode, OffsetBeyondTheLimitIsGeneralProtection) {
    Rig rig;
    State s = rig.real_mode_state();
    rig.write<u32>(13 * 4, 0x2000'0000);
    rig.put(0x20000, {0xf4});
    s.gpr[Rbx] = 0xffff;
    s = rig.go(s, {0x8b, 0x07});  // mov ax,[bx]
    EXPECT_EQ(s.seg[Cs].selector, 0x2000u);
    EXPECT_EQ(s.gpr[Rsp], 0xffau) << "no error code in real mode";
    EXPECT_EQ(rig.read<u16>(Rig::kStack + 0xffa), 0u);
}

TEST(RealMode, ProtectedModeIsEnteredByMovCr0AndFarJump) {
    Rig rig;
    (void)rig.kernel32();
    State s = rig.real_mode_state();
    s.gdtr = {.base = Rig::kGdt, .limit = 0xff};
    // mov eax,cr0; or al,1; mov cr0,eax; jmp dword 8:0x11100
    rig.put(0x11100, {0xb8, 1, 2, 3, 4, 0xf4});
    s = rig.go(
        s, {0x0f, 0x20, 0xc0, 0x0c, 0x01, 0x0f, 0x22, 0xc0, 0x66, 0xea, 0x00, 0x11, 0x01, 0x00, 0x08, 0x00});
    EXPECT_EQ(s.rip, 0x11106u);
    EXPECT_EQ(s.gpr[Rax], 0x04030201u);
    EXPECT_EQ(s.seg[Cs].limit, ~0u);
}

// --- segments

TEST(Segments, LoadChecksPrivilegeTypeAndPresence) {
    Rig rig;
    State s = rig.kernel32(3);
    const auto load_ds = [&](u16 selector) {
        State before = s;
        before.gpr[Rax] = selector;
        return rig.go(before, {0x8e, 0xd8, 0x0f, 0x0b});
    };
    State r = load_ds(Rig::kKernelData | 3);
    ASSERT_EQ(Rig::vector_of(r), 13);
    EXPECT_EQ(stack32(rig, r, 0), Rig::kKernelData);
    r = load_ds(0x100 | 3);
    ASSERT_EQ(Rig::vector_of(r), 13);
    EXPECT_EQ(stack32(rig, r, 0), 0x100u) << "outside the table";
    rig.set_descriptor(Rig::kSpare, Rig::descriptor(0, 0xffff, 0x73, 0));
    r = load_ds(Rig::kSpare | 3);
    ASSERT_EQ(Rig::vector_of(r), 11);
    EXPECT_EQ(stack32(rig, r, 0), Rig::kSpare);
    rig.set_descriptor(Rig::kSpare, Rig::descriptor(0, 0xffff, 0xf8, 0));
    r = load_ds(Rig::kSpare | 3);
    ASSERT_EQ(Rig::vector_of(r), 13) << "execute-only code";
    rig.set_descriptor(Rig::kSpare, Rig::descriptor(0x1234, 0xff, 0xf2, 0));
    r = load_ds(Rig::kSpare | 3);
    ASSERT_EQ(Rig::vector_of(r), 6);
    EXPECT_EQ(r.seg[Ds].base, 0x1234u);
    EXPECT_EQ(r.seg[Ds].limit, 0xffu);
    EXPECT_EQ(rig.read<u64>(Rig::kGdt + Rig::kSpare) >> 40 & 1, 1u) << "accessed";
}

TEST(Segments, NullDataSegmentLoadsButCannotBeUsed) {
    Rig rig;
    State s = rig.kernel32();
    s = rig.go(s, {0x31, 0xc0, 0x8e, 0xd8, 0x8a, 0x03});
    ASSERT_EQ(Rig::vector_of(s), 13);
    EXPECT_EQ(stack32(rig, s, 0), 0u);
    EXPECT_EQ(stack32(rig, s, 1), Rig::kCode + 4);
}

TEST(Segments, ExpandDownAllowsWhatLiesAboveItsLimit) {
    Rig rig;
    State s = rig.kernel32();
    rig.set_descriptor(Rig::kSpare, Rig::descriptor(0, 0x0fff, 0x97, 0x4));
    s.gpr[Rax] = Rig::kSpare;
    s.gpr[Rbx] = 0x1000;
    State r = rig.go(s, {0x8e, 0xd8, 0x8a, 0x03, 0x0f, 0x0b});
    EXPECT_EQ(Rig::vector_of(r), 6);
    s.gpr[Rbx] = 0xfff;
    r = rig.go(s, {0x8e, 0xd8, 0x8a, 0x03, 0x0f, 0x0b});
    EXPECT_EQ(Rig::vector_of(r), 13);
    s.gpr[Rax] = Rig::kSpare;
    r = rig.go(s, {0x8e, 0xd0, 0x8b, 0x45, 0x00, 0x0f, 0x0b});  // SS, EBP = 0
    EXPECT_EQ(Rig::vector_of(r), 12);
}

TEST(Segments, WriteToReadOnlyDataIsGeneralProtection) {
    Rig rig;
    State s = rig.kernel32();
    rig.set_descriptor(Rig::kSpare, Rig::descriptor(0, 0xfffff, 0x91, 0xc));
    s.gpr[Rax] = Rig::kSpare;
    s.gpr[Rbx] = Rig::kData;
    s = rig.go(s, {0x8e, 0xd8, 0x8a, 0x0b, 0x88, 0x0b});
    ASSERT_EQ(Rig::vector_of(s), 13);
    EXPECT_EQ(stack32(rig, s, 1), Rig::kCode + 4) << "the read was allowed";
}

TEST(Segments, LarLslVerrTellWithoutFaulting) {
    Rig rig;
    State s = rig.kernel32(3);
    s.gpr[Rbx] = Rig::kKernelData;
    s.gpr[Rdx] = Rig::kUserData;
    // lar eax,ebx; setz cl; lar eax,edx; setz ch; lsl esi,edx; verr dx; setz bl; ud2
    s = rig.go(s, {0x0f, 0x02, 0xc3, 0x0f, 0x94, 0xc1, 0x0f, 0x02, 0xc2, 0x0f, 0x94, 0xc5,
                   0x0f, 0x03, 0xf2, 0x0f, 0x00, 0xe2, 0x0f, 0x94, 0xc3, 0x0f, 0x0b});
    ASSERT_EQ(Rig::vector_of(s), 6);
    EXPECT_EQ(s.gpr[Rcx] & 0xffff, 0x0100u);
    EXPECT_EQ(s.gpr[Rax] & 0x00f0'ff00, 0x00c0'f300u);
    EXPECT_EQ(s.gpr[Rsi], 0xffff'ffffu);
    EXPECT_EQ(s.gpr[Rbx] & 0xff, 1u);
}

// --- gates

TEST(Gates32, InterruptFromUserSwitchesStacks) {
    Rig rig;
    State s = rig.kernel32(3);
    s = rig.go(s, {0x0f, 0x0b});
    ASSERT_EQ(Rig::vector_of(s), 6);
    EXPECT_EQ(s.gpr[Rsp], Rig::kKernelStack - 20);
    EXPECT_EQ(stack32(rig, s, 0), Rig::kUserCode);
    EXPECT_EQ(stack32(rig, s, 1), Rig::kUserCode32);
    EXPECT_EQ(stack32(rig, s, 3), Rig::kUserStack);
    EXPECT_EQ(stack32(rig, s, 4), Rig::kUserData);
    EXPECT_EQ(s.seg[Ss].selector, Rig::kKernelData);
}

TEST(Gates32, CallGateCopiesParametersAndReturnsReleasingThem) {
    Rig rig;
    State s = rig.kernel32(3);
    // Call gate to kCode, DPL 3, two parameters.
    rig.set_descriptor(Rig::kSpare, (Rig::kCode & 0xffff) | (u64{Rig::kKernelCode} << 16) |
                                        (u64{0xec02} << 32) | ((Rig::kCode >> 16) << 48));
    // mov eax,[esp+8]; mov edx,[esp+12]; mov ecx,[esp+16]; retf 8
    rig.put(Rig::kCode,
            {0x8b, 0x44, 0x24, 0x08, 0x8b, 0x54, 0x24, 0x0c, 0x8b, 0x4c, 0x24, 0x10, 0xca, 0x08, 0x00});
    // push 0x11; push 0x22; call far kSpare|3:0; ud2
    s = rig.go(s, {0x6a, 0x11, 0x6a, 0x22, 0x9a, 0, 0, 0, 0, Rig::kSpare | 3, 0, 0x0f, 0x0b});
    ASSERT_EQ(Rig::vector_of(s), 6);
    EXPECT_EQ(s.gpr[Rax], 0x22u);
    EXPECT_EQ(s.gpr[Rdx], 0x11u);
    EXPECT_EQ(s.gpr[Rcx], Rig::kUserStack - 8) << "the caller's ESP";
    EXPECT_EQ(stack32(rig, s, 0), Rig::kUserCode + 11);
    EXPECT_EQ(stack32(rig, s, 3), Rig::kUserStack) << "parameters are gone from the caller's stack";
}

TEST(Gates32, InnerStackThatIsNotWritableIsInvalidTss) {
    Rig rig;
    State s = rig.kernel32(3);
    rig.write<u16>(Rig::kTss + 8, Rig::kKernelCode);
    rig.set_gate32(10, 0x85, Rig::kSpare,
                   0);  // #TS by task gate, to get out at all: not a TSS, so #GP, so #DF
    s = rig.go(s, {0x0f, 0x0b});
    EXPECT_EQ(rig.last_exit, ExitReason::Shutdown) << "every handler needs that stack";
}

TEST(Gates32, IretToOuterLevelDropsKernelSegments) {
    Rig rig;
    State s = rig.kernel32();
    rig.put(Rig::kUserCode, {0x0f, 0x0b});
    u32 frame[] = {static_cast<u32>(Rig::kUserCode), Rig::kUserCode32, 0x202,
                   static_cast<u32>(Rig::kUserStack), Rig::kUserData};
    std::memcpy(rig.ram(Rig::kStack - 20), frame, sizeof frame);
    s.gpr[Rsp] = Rig::kStack - 20;
    s = rig.go(s, {0xcf});
    ASSERT_EQ(Rig::vector_of(s), 6);
    EXPECT_EQ(stack32(rig, s, 3), Rig::kUserStack);
    EXPECT_EQ(s.seg[Ds].selector, 0u);
    EXPECT_NE(s.seg[Ds].rights & rights::kUnusable, 0u);
}

// --- tasks

struct Tasks {
    static constexpr u64 kNewTss = 0x33000;
    static constexpr u16 kSelector = Rig::kSpare;
    static constexpr u64 kNewCode = 0x13000, kNewStack = 0x14000;

    static State prepare(Rig& rig) {
        State s = rig.kernel32();
        s.tr.limit = 0x67;
        rig.set_descriptor(Rig::kTssSelector, Rig::descriptor(Rig::kTss, 0x67, 0x8b, 0));
        rig.set_descriptor(kSelector, Rig::descriptor(kNewTss, 0x67, 0x89, 0));
        rig.write<u32>(kNewTss + 0x20, kNewCode);
        rig.write<u32>(kNewTss + 0x24, 0x202 | 1);
        rig.write<u32>(kNewTss + 0x28, 0xaaaa'5555);
        rig.write<u32>(kNewTss + 0x38, kNewStack);
        for (unsigned i = 0; i < 6; ++i)
            rig.write<u16>(kNewTss + 0x48 + 4 * i, i == Cs ? Rig::kKernelCode : Rig::kKernelData);
        return s;
    }
    static unsigned type(Rig& rig, u16 selector) {
        return static_cast<unsigned>(rig.read<u64>(Rig::kGdt + selector) >> 40) & 0xf;
    }
};

TEST(TaskSwitch, CallSavesLoadsAndLinksBack) {
    Rig rig;
    State s = Tasks::prepare(rig);
    s.gpr[Rax] = 0x1234'5678;
    s.dr7 |= 1;
    rig.put(Tasks::kNewCode, {0xf4});
    s = rig.go(s, {0x9a, 0, 0, 0, 0, Tasks::kSelector, 0});
    EXPECT_EQ(s.rip, Tasks::kNewCode + 1);
    EXPECT_EQ(s.gpr[Rax], 0xaaaa'5555u);
    EXPECT_EQ(s.gpr[Rsp], Tasks::kNewStack);
    EXPECT_EQ(s.rflags, 0x203u | eflags::kNt);
    EXPECT_EQ(s.tr.selector, Tasks::kSelector);
    EXPECT_NE(s.cr0 & cr0::kTs, 0u);
    EXPECT_EQ(rig.read<u16>(Tasks::kNewTss), Rig::kTssSelector);
    EXPECT_EQ(rig.read<u32>(Rig::kTss + 0x20), Rig::kCode + 7);
    EXPECT_EQ(rig.read<u32>(Rig::kTss + 0x28), 0x1234'5678u);
    EXPECT_EQ(rig.read<u16>(Rig::kTss + 0x4c), Rig::kKernelCode);
    EXPECT_EQ(Tasks::type(rig, Rig::kTssSelector), 11u) << "both stay busy";
    EXPECT_EQ(Tasks::type(rig, Tasks::kSelector), 11u);
    EXPECT_EQ(s.dr7 & 0xff, 0u);
}

TEST(TaskSwitch, IretReturnsToTheCaller) {
    Rig rig;
    State s = Tasks::prepare(rig);
    rig.put(Tasks::kNewCode, {0xcf});
    s = rig.go(s, {0x9a, 0, 0, 0, 0, Tasks::kSelector, 0, 0xf4});
    EXPECT_EQ(s.rip, Rig::kCode + 8);
    EXPECT_EQ(s.tr.selector, Rig::kTssSelector);
    EXPECT_EQ(Tasks::type(rig, Tasks::kSelector), 9u);
    EXPECT_EQ(Tasks::type(rig, Rig::kTssSelector), 11u);
    EXPECT_EQ(rig.read<u32>(Tasks::kNewTss + 0x20), Tasks::kNewCode + 1);
    EXPECT_EQ(rig.read<u32>(Tasks::kNewTss + 0x24) & eflags::kNt, 0u);
}

TEST(TaskSwitch, JumpFreesTheOldTaskAndBusyTargetIsRefused) {
    Rig rig;
    State s = Tasks::prepare(rig);
    rig.put(Tasks::kNewCode, {0xf4});
    State r = rig.go(s, {0xea, 0, 0, 0, 0, Tasks::kSelector, 0});
    EXPECT_EQ(r.rip, Tasks::kNewCode + 1);
    EXPECT_EQ(Tasks::type(rig, Rig::kTssSelector), 9u);
    EXPECT_EQ(r.rflags & eflags::kNt, 0u);
    r = rig.go(s, {0xea, 0, 0, 0, 0, Tasks::kSelector, 0});
    ASSERT_EQ(Rig::vector_of(r), 13);
    EXPECT_EQ(stack32(rig, r, 0), Tasks::kSelector);
}

TEST(TaskSwitch, ExceptionThroughTaskGatePushesItsErrorThere) {
    Rig rig;
    State s = Tasks::prepare(rig);
    rig.put(Tasks::kNewCode, {0xf4});
    rig.set_gate32(13, 0x85, Tasks::kSelector, 0);
    s.gpr[Rax] = 0x100;
    s = rig.go(s, {0x8e, 0xd8});
    EXPECT_EQ(s.rip, Tasks::kNewCode + 1);
    EXPECT_EQ(s.gpr[Rsp], Tasks::kNewStack - 4);
    EXPECT_EQ(stack32(rig, s, 0), 0x100u);
    EXPECT_EQ(rig.read<u32>(Rig::kTss + 0x20), Rig::kCode);
}

TEST(TaskSwitch, BadSegmentFaultsInTheNewTask) {
    Rig rig;
    State s = Tasks::prepare(rig);
    rig.write<u16>(Tasks::kNewTss + 0x48 + 4 * Ds, 0x100);
    s = rig.go(s, {0xea, 0, 0, 0, 0, Tasks::kSelector, 0});
    ASSERT_EQ(Rig::vector_of(s), 10);
    EXPECT_EQ(stack32(rig, s, 0), 0x100u);
    EXPECT_EQ(stack32(rig, s, 1), Tasks::kNewCode);
    EXPECT_EQ(s.tr.selector, Tasks::kSelector);
}

TEST(TaskSwitch, TrapBitRaisesDebugInTheNewTask) {
    Rig rig;
    State s = Tasks::prepare(rig);
    rig.write<u16>(Tasks::kNewTss + 0x64, 1);
    s = rig.go(s, {0xea, 0, 0, 0, 0, Tasks::kSelector, 0});
    ASSERT_EQ(Rig::vector_of(s), 1);
    EXPECT_EQ(stack32(rig, s, 0), Tasks::kNewCode);
    EXPECT_NE(s.dr6 & 0x8000, 0u);
}

// --- virtual-8086 mode

State v8086(Rig& rig, unsigned iopl) {
    State s = rig.kernel32();
    s.rflags = eflags::kOne | eflags::kVm | eflags::kIf | (u64{iopl} << 12);
    for (auto& seg : s.seg) seg = {.selector = 0x4000, .base = 0x40000, .limit = 0xffff, .rights = 0xf3};
    s.rip = 0;
    s.gpr[Rsp] = 0x8000;
    return s;
}

TEST(Virtual8086, FaultPushesTheSegmentsAndNullsThem) {
    Rig rig;
    State s = v8086(rig, 0);
    s.seg[Gs].selector = 0x1234;
    s = rig.go(s, {0x0f, 0x0b});
    ASSERT_EQ(Rig::vector_of(s), 6);
    EXPECT_EQ(s.gpr[Rsp], Rig::kKernelStack - 36);
    EXPECT_EQ(stack32(rig, s, 1), 0x4000u);
    EXPECT_NE(stack32(rig, s, 2) & eflags::kVm, 0u);
    EXPECT_EQ(stack32(rig, s, 3), 0x8000u);
    EXPECT_EQ(stack32(rig, s, 8), 0x1234u);
    EXPECT_EQ(s.rflags & eflags::kVm, 0u);
    EXPECT_EQ(s.seg[Ds].selector, 0u);
}

TEST(Virtual8086, IntNeedsIopl3AndRedirectionNeedsVme) {
    Rig rig;
    State r = rig.go(v8086(rig, 0), {0xcd, 0x21});
    ASSERT_EQ(Rig::vector_of(r), 13);
    EXPECT_EQ(stack32(rig, r, 0), 0u);
    r = rig.go(v8086(rig, 3), {0xcd, 0x21});
    ASSERT_EQ(Rig::vector_of(r), 13) << "gate with DPL 0";
    EXPECT_EQ(stack32(rig, r, 0), 0x21u * 8 + 2);
    // With VME and a clear bit in the bitmap the 8086 handler is called.
    State s = v8086(rig, 0);
    s.cr4 |= cr4::kVme;
    rig.write<u16>(Rig::kTss + 0x66, 0x88);
    rig.write<u32>(0x21 * 4, 0x4100'0004);
    rig.put(0x41004, {0x0f, 0x0b});
    s.rflags |= eflags::kVif;
    r = rig.go(s, {0xcd, 0x21});
    ASSERT_EQ(Rig::vector_of(r), 6);
    EXPECT_EQ(stack32(rig, r, 1), 0x4100u);
    EXPECT_EQ(stack32(rig, r, 0), 4u);
    EXPECT_EQ(stack32(rig, r, 2) & (eflags::kVif | eflags::kIf), eflags::kIf) << "VIF is cleared, IF stays";
    EXPECT_EQ(rig.read<u16>(0x47ffe), 0x3202u) << "pushed with IOPL 3 and IF = VIF";
}

TEST(Virtual8086, IretEntersItFromTheKernel) {
    Rig rig;
    State s = rig.kernel32();
    u32 frame[] = {0x10, 0x4000, static_cast<u32>(0x202 | eflags::kVm), 0x7000, 0x4200, 1, 2, 3, 4};
    std::memcpy(rig.ram(Rig::kStack - 36), frame, sizeof frame);
    s.gpr[Rsp] = Rig::kStack - 36;
    rig.put(0x40010, {0x0f, 0x0b});
    s = rig.go(s, {0xcf});
    ASSERT_EQ(Rig::vector_of(s), 6);
    EXPECT_EQ(stack32(rig, s, 0), 0x10u);
    EXPECT_EQ(stack32(rig, s, 3), 0x7000u);
    EXPECT_EQ(stack32(rig, s, 4), 0x4200u);
    EXPECT_EQ(stack32(rig, s, 5), 1u);
    EXPECT_EQ(stack32(rig, s, 6), 2u);
}

// --- ports

TEST(Ports, BitmapDecidesForUsers) {
    Rig rig;
    State s = rig.kernel32(3);
    s.gpr[Rdx] = 0x40;
    State r = rig.go(s, {0xec, 0x0f, 0x0b});
    EXPECT_EQ(Rig::vector_of(r), 6) << "bit clear";
    EXPECT_EQ(r.gpr[Rax] & 0xff, 0xffu) << "nobody there";
    rig.write<u8>(Rig::kTss + 0x68 + 8, 2);
    s.gpr[Rdx] = 0x41;
    r = rig.go(s, {0xec, 0x0f, 0x0b});
    EXPECT_EQ(Rig::vector_of(r), 13);
    s.gpr[Rdx] = 0x40;
    r = rig.go(s, {0xed, 0x0f, 0x0b});
    EXPECT_EQ(Rig::vector_of(r), 13) << "one of four bytes is refused";
    s.rflags |= eflags::kIopl;
    r = rig.go(s, {0xed, 0x0f, 0x0b});
    EXPECT_EQ(Rig::vector_of(r), 6);
}

// --- alignment

TEST(Alignment, UsersAreCheckedOnRequestOperandByOperand) {
    Rig rig;
    State s = rig.kernel32(3);
    s.cr0 |= cr0::kAm;
    s.rflags |= eflags::kAc;
    s.gpr[Rbx] = Rig::kData + 2;
    State r = rig.go(s, {0x66, 0x8b, 0x03, 0x8b, 0x03});  // mov ax,[ebx]; mov eax,[ebx]
    ASSERT_EQ(Rig::vector_of(r), 17);
    EXPECT_EQ(stack32(rig, r, 0), 0u);
    EXPECT_EQ(stack32(rig, r, 1), Rig::kUserCode + 3);
    s.gpr[Rsp] = Rig::kUserStack - 4;  // aligned to 4 but not to the size of PUSHA's frame
    r = rig.go(s, {0x60, 0x61, 0x0f, 0x0b});
    EXPECT_EQ(Rig::vector_of(r), 6);
    s.gpr[Rbx] = Rig::kData + 4;
    rig.write<u16>(Rig::kData + 8, Rig::kUserData);
    r = rig.go(s, {0xc4, 0x03, 0x0f, 0x0b});  // les eax,[ebx]: 4 and 2 bytes
    EXPECT_EQ(Rig::vector_of(r), 6);
}

// --- debugging

TEST(Debug, SingleStepTrapsAfterEachInstruction) {
    Rig rig;
    State s = rig.kernel32();
    s.rflags |= eflags::kTf;
    s = rig.go(s, {0x40, 0x40});
    ASSERT_EQ(Rig::vector_of(s), 1);
    EXPECT_EQ(s.gpr[Rax], 1u);
    EXPECT_EQ(stack32(rig, s, 0), Rig::kCode + 1);
    EXPECT_NE(s.dr6 & 0x4000, 0u);
    EXPECT_EQ(s.rflags & eflags::kTf, 0u);
}

TEST(Debug, PopfThatClearsTfStillTrapsAndIntDoesNot) {
    Rig rig;
    State s = rig.kernel32();
    s.rflags |= eflags::kTf;
    rig.write<u32>(Rig::kStack, 2);
    State r = rig.go(s, {0x9d, 0x40, 0x40});
    ASSERT_EQ(Rig::vector_of(r), 1);
    EXPECT_EQ(stack32(rig, r, 0), Rig::kCode + 1);
    r = rig.go(s, {0xcd, 0x30});
    EXPECT_EQ(Rig::vector_of(r), 0x30) << "the handler runs without a trap";
    EXPECT_NE(stack32(rig, r, 2) & eflags::kTf, 0u);
}

TEST(Debug, InstructionBreakpointIsAFaultAndRfPassesIt) {
    Rig rig;
    State s = rig.kernel32();
    s.dr[0] = Rig::kCode + 1;
    s.dr7 |= 2;
    State r = rig.go(s, {0x40, 0x40, 0xf4});
    ASSERT_EQ(Rig::vector_of(r), 1);
    EXPECT_EQ(stack32(rig, r, 0), Rig::kCode + 1);
    EXPECT_EQ(r.dr6 & 0xf, 1u);
    s.rip = Rig::kCode + 1;
    s.rflags |= eflags::kRf;
    rig.cpu().set_state(s);
    EXPECT_EQ(rig.cpu().run().reason, ExitReason::Halted);
    EXPECT_EQ(rig.cpu().state().rip, Rig::kCode + 3);
}

TEST(Debug, DataBreakpointIsATrapAfterTheAccess) {
    Rig rig;
    State s = rig.kernel32();
    s.dr[1] = Rig::kData + 4;
    s.dr7 |= 8 | (u64{0xd} << 20);  // G1, writes, four bytes
    s.gpr[Rbx] = Rig::kData;
    State r = rig.go(s, {0x8b, 0x43, 0x04, 0x88, 0x43, 0x03, 0x88, 0x43, 0x06, 0xf4});
    ASSERT_EQ(Rig::vector_of(r), 1);
    EXPECT_EQ(stack32(rig, r, 0), Rig::kCode + 9);
    EXPECT_EQ(r.dr6 & 0xf, 2u);
}

TEST(Debug, MovSsHoldsTheTrapForOneInstruction) {
    Rig rig;
    State s = rig.kernel32();
    s.gpr[Rax] = Rig::kKernelData;
    s.rflags |= eflags::kTf;
    s = rig.go(s, {0x8e, 0xd0, 0x40, 0x40});
    ASSERT_EQ(Rig::vector_of(s), 1);
    EXPECT_EQ(stack32(rig, s, 0), Rig::kCode + 3);
}

TEST(Debug, GeneralDetectCatchesMovDr) {
    Rig rig;
    State s = rig.kernel32();
    s.dr7 |= 0x2000;
    s = rig.go(s, {0x0f, 0x21, 0xc0});
    ASSERT_EQ(Rig::vector_of(s), 1);
    EXPECT_EQ(stack32(rig, s, 0), Rig::kCode);
    EXPECT_NE(s.dr6 & 0x2000, 0u);
    EXPECT_EQ(s.dr7 & 0x2000, 0u);
}

// --- several processors

TEST(Startup, ApplicationProcessorStartsAtTheSipiPage) {
    struct Sipi final : CpuInterrupts {
        Events take_events() override { return std::exchange(events, {}); }
        bool interrupt_pending() override { return false; }
        std::optional<u8> acknowledge() override { return std::nullopt; }
        u8 cr8() override { return 0; }
        void set_cr8(u8 /*value*/) override {}
        MsrResult read_msr(u32 /*index*/, u64& /*value*/) override { return MsrResult::NotMine; }
        MsrResult write_msr(u32 /*index*/, u64 /*value*/) override { return MsrResult::NotMine; }
        bool owns_page(u64 /*page*/) const override { return false; }
        u32 read_register(u32 /*offset*/) override { return 0; }
        void write_register(u32 /*offset*/, u32 /*value*/) override {}
        u32 apic_id() const override { return 1; }
        bool is_bootstrap() const override { return false; }
        bool globally_enabled() const override { return true; }
        void set_tsc_offset(s64 /*offset*/) override {}
        void init_reset() override {}
        Events events;
    } apic;
    Rig rig(2);
    rig.engine().connect(1, apic);
    Cpu& cpu = rig.cpu(1);
    EXPECT_EQ(cpu.run().reason, ExitReason::WaitForSipi);
    rig.put(0x9000, {0xb0, 0x42, 0xf4});
    apic.events.sipi = 9;
    EXPECT_EQ(cpu.run().reason, ExitReason::Halted);
    State s = cpu.state();
    EXPECT_EQ(s.seg[Cs].selector, 0x900u);
    EXPECT_EQ(s.rip, 3u);
    EXPECT_EQ(s.gpr[Rax] & 0xff, 0x42u);
    apic.events.init = true;
    EXPECT_EQ(cpu.run().reason, ExitReason::WaitForSipi);
    EXPECT_EQ(cpu.state().rip, 0xfff0u);
}

}  // namespace
}  // namespace tessera::soft
