// The privileged side in 64-bit mode: delivery, returns, system calls, paging, MSRs, CPUID.
#include <gtest/gtest.h>

#include "cpu/soft/lower.h"
#include "cpu/soft/testing/kernel_rig.h"
#include "cpu/soft/x86_names.h"

namespace tessera::soft {
namespace {

TEST(LowerSystem, KnowsEveryMnemonicOfItsClass) {
    for (unsigned i = 1; i < x86::kMnemonicCount; ++i) {
        const auto mnemonic = static_cast<x86::Mnemonic>(i);
        if (x86::insn_class_of(mnemonic) != x86::InsnClass::System) continue;
        x86::Insn in;
        in.mnemonic = mnemonic;
        in.insn_class = x86::InsnClass::System;
        in.operand_size = 4;
        in.operand_count = 2;
        in.operand[0] = {.kind = x86::OperandKind::Gpr, .reg = 0, .size = 4};
        in.operand[1] = {.kind = x86::OperandKind::Memory, .reg = 0, .size = 6};
        Op op{};
        bool ends = false;
        EXPECT_TRUE(lower_system(in, op, &ends)) << x86::name(mnemonic);
        EXPECT_NE(op.fn, nullptr) << x86::name(mnemonic);
    }
}

TEST(Delivery64, DivideErrorFromUserSwitchesToTheKernelStack) {
    KernelRig rig;
    State s = rig.kernel64(3);
    s.rflags |= eflags::kIf;
    s = rig.go(s, {0x31, 0xc9, 0xf7, 0xf1});  // xor ecx,ecx; div ecx
    ASSERT_EQ(KernelRig::vector_of(s), 0);
    EXPECT_EQ(s.gpr[Rsp], KernelRig::kKernelStack - 40);
    const auto f = rig.frame64(s, false);
    EXPECT_EQ(f.rip, KernelRig::kUserCode + 2);
    EXPECT_EQ(f.cs, KernelRig::kUserCode64);
    EXPECT_EQ(f.rsp, KernelRig::kUserStack);
    EXPECT_EQ(f.ss, KernelRig::kUserData);
    EXPECT_NE(f.rflags & eflags::kRf, 0u);
    EXPECT_NE(f.rflags & eflags::kIf, 0u);
    EXPECT_EQ(s.rflags & eflags::kIf, 0u) << "an interrupt gate clears IF";
    EXPECT_EQ(s.seg[Ss].selector, 0u);
    EXPECT_EQ(s.seg[Cs].selector, KernelRig::kKernelCode);
}

// docs/cpu.md: what CPUID of a model does not show does not execute.
TEST(Models, InstructionsBeyondTheModelAreUndefined) {
    constexpr int kUndefined = 6;
    KernelRig v2(1, CpuModel::X86_64_V2);
    KernelRig max(1, CpuModel::Max);
    const std::initializer_list<u8> movbe{0x0f, 0x38, 0xf0, 0x04, 0x24, 0xcc};
    const std::initializer_list<u8> rorx{0xc4, 0xe3, 0x7b, 0xf0, 0xc2, 1, 0xcc};
    const std::initializer_list<u8> rdrand{0x0f, 0xc7, 0xf0, 0xcc};
    for (const auto& code : {movbe, rorx, rdrand}) {
        EXPECT_EQ(KernelRig::vector_of(v2.go(v2.kernel64(), code)), kUndefined);
        EXPECT_EQ(KernelRig::vector_of(max.go(max.kernel64(), code)), 3);
    }
}

TEST(Models, LzcntIsBsrWhereCpuidDoesNotShowIt) {
    const std::initializer_list<u8> lzcnt_of_16{0xb9, 0x10, 0, 0, 0, 0xf3, 0x0f, 0xbd, 0xc1, 0xcc};
    KernelRig v2(1, CpuModel::X86_64_V2);
    EXPECT_EQ(v2.go(v2.kernel64(), lzcnt_of_16).gpr[Rax], 4U) << "the number of the highest bit";
    KernelRig v3(1, CpuModel::X86_64_V3);
    EXPECT_EQ(v3.go(v3.kernel64(), lzcnt_of_16).gpr[Rax], 27U) << "the number of zeros above it";
}

TEST(Delivery64, PageFaultTellsAddressAndCause) {
    KernelRig rig;
    State s = rig.kernel64(3);
    s.gpr[Rbx] = 0x10008;         // supervisor page
    s = rig.go(s, {0x88, 0x03});  // mov [rbx],al
    ASSERT_EQ(KernelRig::vector_of(s), 14);
    EXPECT_EQ(s.cr2, 0x10008u);
    const auto f = rig.frame64(s, true);
    EXPECT_EQ(f.error, 7u) << "present, write, user";
    EXPECT_EQ(f.rip, KernelRig::kUserCode);
}

TEST(Delivery64, NotPresentReadInTheKernelHasErrorZero) {
    KernelRig rig;
    State s = rig.kernel64();
    rig.set_pte(0x60000, 0);
    s.gpr[Rbx] = 0x60123;
    s = rig.go(s, {0x8a, 0x03});  // mov al,[rbx]
    ASSERT_EQ(KernelRig::vector_of(s), 14);
    EXPECT_EQ(s.cr2, 0x60123u);
    EXPECT_EQ(rig.frame64(s, true).error, 0u);
    EXPECT_EQ(s.gpr[Rsp], KernelRig::kStack - 48) << "stays on the stack, aligned to 16";
}

TEST(Delivery64, StackIsAlignedAndIstUsed) {
    KernelRig rig;
    State s = rig.kernel64();
    s.gpr[Rsp] = KernelRig::kStack - 5;
    s = rig.go(s, {0x0f, 0x0b});
    ASSERT_EQ(KernelRig::vector_of(s), 6);
    EXPECT_EQ(s.gpr[Rsp], KernelRig::kStack - 16 - 40);
    s = rig.kernel64();
    rig.set_gate64(6, 0x8e, 1);
    s = rig.go(s, {0x0f, 0x0b});
    ASSERT_EQ(KernelRig::vector_of(s), 6);
    EXPECT_EQ(s.gpr[Rsp], KernelRig::kIstStack - 40);
}

TEST(Delivery64, SoftwareInterruptNeedsGatePrivilege) {
    KernelRig rig;
    State s = rig.kernel64(3);
    s = rig.go(s, {0xcd, 0x30});
    ASSERT_EQ(KernelRig::vector_of(s), 13);
    EXPECT_EQ(rig.frame64(s, true).error, 0x30u * 8 + 2);
    EXPECT_EQ(rig.frame64(s, true).rip, KernelRig::kUserCode);
    s = rig.kernel64(3);
    rig.set_gate64(0x30, 0xef, 0);  // trap gate, DPL 3
    s.rflags |= eflags::kIf;
    s = rig.go(s, {0xcd, 0x30});
    ASSERT_EQ(KernelRig::vector_of(s), 0x30);
    EXPECT_EQ(rig.frame64(s, false).rip, KernelRig::kUserCode + 2);
    EXPECT_NE(s.rflags & eflags::kIf, 0u) << "a trap gate leaves IF";
}

TEST(Delivery64, FaultWhileDeliveringContributoryFaultIsDouble) {
    KernelRig rig;
    State s = rig.kernel64();
    rig.set_gate64(13, 0x0e, 0);  // #GP's gate is not present: #NP on the way
    s = rig.go(s,
               {0x31, 0xc9, 0x0f, 0x32, 0xb9, 0x34, 0x12, 0, 0, 0x0f, 0x32});  // rdmsr of unknown registers
    ASSERT_EQ(KernelRig::vector_of(s), 8);
    EXPECT_EQ(rig.frame64(s, true).error, 0u);
}

TEST(Delivery64, FaultWhileDeliveringDoubleFaultIsShutdown) {
    KernelRig rig;
    State s = rig.kernel64();
    s.idtr.limit = 0;
    s = rig.go(s, {0x0f, 0x0b});
    EXPECT_EQ(rig.last_exit, ExitReason::Shutdown);
    EXPECT_EQ(s.activity, Activity::Shutdown);
}

TEST(Iretq, ReturnsToUserAndRestoresFlags) {
    KernelRig rig;
    State s = rig.kernel64();
    const u64 sp = KernelRig::kStack - 40;
    rig.write<u64>(sp, KernelRig::kUserCode);
    rig.write<u64>(sp + 8, KernelRig::kUserCode64);
    rig.write<u64>(sp + 16, 0x202 | eflags::kDf);
    rig.write<u64>(sp + 24, KernelRig::kUserStack);
    rig.write<u64>(sp + 32, KernelRig::kUserData);
    s.gpr[Rsp] = sp;
    rig.put(KernelRig::kUserCode, {0x0f, 0x0b});
    s = rig.go(s, {0x48, 0xcf});
    ASSERT_EQ(KernelRig::vector_of(s), 6);
    const auto f = rig.frame64(s, false);
    EXPECT_EQ(f.cs, KernelRig::kUserCode64);
    EXPECT_EQ(f.ss, KernelRig::kUserData);
    EXPECT_EQ(f.rsp, KernelRig::kUserStack);
    EXPECT_EQ(f.rflags & ~eflags::kRf, 0x202 | eflags::kDf);
}

TEST(Syscall, EntersAtLstarAndSysretComesBack) {
    KernelRig rig;
    State s = rig.kernel64(3);
    s.msr.lstar = KernelRig::kCode;
    s.msr.fmask = eflags::kIf | eflags::kDf;
    s.rflags |= eflags::kIf | eflags::kCf;
    rig.put(KernelRig::kCode, {0x48, 0x0f, 0x07});  // sysretq
    s = rig.go(s, {0x0f, 0x05, 0x0f, 0x0b});        // syscall; ud2
    ASSERT_EQ(KernelRig::vector_of(s), 6);
    const auto f = rig.frame64(s, false);
    EXPECT_EQ(f.rip, KernelRig::kUserCode + 2);
    EXPECT_EQ(f.cs, KernelRig::kUserCode64);
    EXPECT_EQ(f.ss, KernelRig::kUserData);
    EXPECT_EQ(f.rflags & ~eflags::kRf, 0x202 | eflags::kCf);
    EXPECT_EQ(s.gpr[Rcx], KernelRig::kUserCode + 2);
}

TEST(Paging, AccessedAndDirtyBitsAreSetAsUsed) {
    KernelRig rig;
    State s = rig.kernel64();
    rig.set_pte(0x60000, 0x60003);
    s.gpr[Rbx] = 0x60000;
    rig.go(s, {0x8a, 0x03, 0xf4});
    EXPECT_EQ(rig.pte(0x60000), 0x60023u);
    rig.go(s, {0x88, 0x03, 0xf4});
    EXPECT_EQ(rig.pte(0x60000), 0x60063u);
    EXPECT_EQ(rig.read<u64>(KernelRig::kPages) & 0x60, 0x20u) << "upper levels have no dirty bit";
}

TEST(Paging, ReservedBitAndNoExecute) {
    KernelRig rig;
    State s = rig.kernel64();
    rig.set_pte(0x60000, 0x60003 | (u64{1} << 48));
    s.gpr[Rbx] = 0x60000;
    s = rig.go(s, {0x8a, 0x03});
    ASSERT_EQ(KernelRig::vector_of(s), 14);
    EXPECT_EQ(rig.frame64(s, true).error, 9u);
    s = rig.kernel64();
    rig.set_pte(0x60000, 0x60003 | (u64{1} << 63));
    s.gpr[Rbx] = 0x60000;
    s = rig.go(s, {0xff, 0xe3});
    ASSERT_EQ(KernelRig::vector_of(s), 14);
    EXPECT_EQ(rig.frame64(s, true).error, 0x11u);
    EXPECT_EQ(rig.frame64(s, true).rip, 0x60000u);
}

TEST(Paging, SmepAndSmapGuardUserPages) {
    KernelRig rig;
    State s = rig.kernel64();
    s.cr4 |= cr4::kSmap;
    s.gpr[Rbx] = KernelRig::kUserCode;
    State r = rig.go(s, {0x8a, 0x03});
    ASSERT_EQ(KernelRig::vector_of(r), 14);
    EXPECT_EQ(rig.frame64(r, true).error, 1u);
    r = rig.go(s, {0x0f, 0x01, 0xcb, 0x8a, 0x03, 0x0f, 0x01, 0xca, 0x8a, 0x03});  // stac; read; clac; read
    ASSERT_EQ(KernelRig::vector_of(r), 14);
    EXPECT_EQ(rig.frame64(r, true).rip, KernelRig::kCode + 8);
    s.cr4 |= cr4::kSmep;
    r = rig.go(s, {0xff, 0xe3});
    ASSERT_EQ(KernelRig::vector_of(r), 14);
    EXPECT_EQ(rig.frame64(r, true).error, 0x11u);
}

TEST(Paging, WriteProtectHoldsForTheKernelOnlyWithWp) {
    KernelRig rig;
    State s = rig.kernel64();
    rig.set_pte(0x60000, 0x60001);
    s.gpr[Rbx] = 0x60000;
    State r = rig.go(s, {0x88, 0x03, 0xf4});
    ASSERT_EQ(KernelRig::vector_of(r), 14);
    EXPECT_EQ(rig.frame64(r, true).error, 3u);
    s.cr0 &= ~cr0::kWp;
    r = rig.go(s, {0x88, 0x03, 0xf4});
    EXPECT_EQ(r.rip, KernelRig::kCode + 3);
}

TEST(Paging, InvlpgShowsAChangedMapping) {
    KernelRig rig;
    State s = rig.kernel64();
    rig.write<u8>(0x60000, 1);
    rig.write<u8>(0x61000, 2);
    s.gpr[Rbx] = 0x60000;
    s.gpr[Rdi] = KernelRig::pte_address(0x60000);
    s.gpr[Rdx] = 0x61003;
    // mov al,[rbx]; mov [rdi],rdx; invlpg [rbx]; mov ah,[rbx]; hlt
    s = rig.go(s, {0x8a, 0x03, 0x48, 0x89, 0x17, 0x0f, 0x01, 0x3b, 0x8a, 0x23, 0xf4});
    EXPECT_EQ(s.gpr[Rax] & 0xffff, 0x0201u);
}

TEST(Msr, UnknownFaultsAndKnownRoundTrips) {
    KernelRig rig;
    State s = rig.kernel64();
    s.gpr[Rcx] = 0x1a0;  // IA32_MISC_ENABLE: not on this vendor's processors
    State r = rig.go(s, {0x0f, 0x32});
    EXPECT_EQ(KernelRig::vector_of(r), 13);
    s.gpr[Rcx] = 0xc000'0102;
    s.gpr[Rax] = 0x1234'5678;
    s.gpr[Rdx] = 0xffff'8000;
    r = rig.go(s, {0x0f, 0x30, 0x31, 0xc0, 0x31, 0xd2, 0x0f, 0x32, 0xf4});
    EXPECT_EQ(r.gpr[Rax], 0x1234'5678u);
    EXPECT_EQ(r.gpr[Rdx], 0xffff'8000u);
    s.gpr[Rdx] = 0x8000;  // not canonical
    r = rig.go(s, {0x0f, 0x30});
    EXPECT_EQ(KernelRig::vector_of(r), 13);
}

TEST(Msr, TscAdjustMovesTheCounter) {
    KernelRig rig;
    State s = rig.kernel64();
    s.gpr[Rcx] = 0x3b;
    s.gpr[Rax] = 1000;
    s.gpr[Rdx] = 5;
    s = rig.go(s, {0x0f, 0x30, 0x0f, 0x31, 0xf4});
    EXPECT_EQ(s.msr.tsc_offset, static_cast<s64>((u64{5} << 32) + 1000));
    EXPECT_EQ(s.gpr[Rdx], 5u);
}

TEST(Cpuid, VendorAndLevel) {
    KernelRig rig;
    State s = rig.kernel64();
    s = rig.go(s, {0x31, 0xc0, 0x0f, 0xa2, 0xf4});
    EXPECT_EQ(s.gpr[Rbx], 0x68747541u);
    EXPECT_EQ(s.gpr[Rdx], 0x69746e65u);
    EXPECT_EQ(s.gpr[Rcx], 0x444d4163u);
}

TEST(LongMode, IsEnteredAndLeftByTheBook) {
    KernelRig rig;
    (void)rig.kernel64();  // tables
    State s = rig.protected_mode_state();
    s.gdtr = {.base = KernelRig::kGdt, .limit = 0xff};
    s.idtr = {.base = KernelRig::kIdt, .limit = 0xfff};
    s.tr = {.selector = KernelRig::kTssSelector, .base = KernelRig::kTss, .limit = 0x2067, .rights = 0x8b};
    rig.put(KernelRig::kCode, {
                                  0x0f, 0x20, 0xe0, 0x83, 0xc8, 0x20, 0x0f, 0x22, 0xe0,        // CR4.PAE
                                  0xb8, 0x00, 0x00, 0x05, 0x00, 0x0f, 0x22, 0xd8,              // CR3
                                  0xb9, 0x80, 0x00, 0x00, 0xc0, 0x0f, 0x32, 0x0d, 0x00, 0x01,  // EFER.LME
                                  0x00, 0x00, 0x0f, 0x30,                                      //
                                  0x0f, 0x20, 0xc0, 0x0d, 0x00, 0x00, 0x00, 0x80, 0x0f, 0x22, 0xc0,  // CR0.PG
                                  0xea, 0x00, 0x11, 0x01, 0x00, 0x08, 0x00,  // ljmp 8:0x11100
                              });
    rig.put(0x11100, {0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8, 0xf4});
    rig.cpu().set_state(s);
    EXPECT_EQ(rig.cpu().run().reason, ExitReason::Halted);
    s = rig.cpu().state();
    EXPECT_EQ(s.rip, 0x1110bu);
    EXPECT_EQ(s.gpr[Rax], 0x0807060504030201u);
    EXPECT_EQ(s.msr.efer, efer::kLme | efer::kLma);
}

TEST(Halt, InterruptWakesAndIsDelivered) {
    struct OneInterrupt final : CpuInterrupts {
        Events take_events() override { return {}; }
        bool interrupt_pending() override { return pending; }
        std::optional<u8> acknowledge() override {
            pending = false;
            return 0x41;
        }
        u8 cr8() override { return 0; }
        void set_cr8(u8 /*value*/) override {}
        MsrResult read_msr(u32 /*index*/, u64& /*value*/) override { return MsrResult::NotMine; }
        MsrResult write_msr(u32 /*index*/, u64 /*value*/) override { return MsrResult::NotMine; }
        bool owns_page(u64 /*page*/) const override { return false; }
        u32 read_register(u32 /*offset*/) override { return 0; }
        void write_register(u32 /*offset*/, u32 /*value*/) override {}
        u32 apic_id() const override { return 0; }
        bool is_bootstrap() const override { return true; }
        bool globally_enabled() const override { return true; }
        void set_tsc_offset(s64 /*offset*/) override {}
        void init_reset() override {}
        bool pending = false;
    } interrupts;
    KernelRig rig;
    rig.engine().connect(0, interrupts);
    State s = rig.kernel64();
    s = rig.go(s, {0xfb, 0xf4, 0x90, 0x90});
    EXPECT_EQ(s.rip, KernelRig::kCode + 2);
    EXPECT_EQ(rig.last_exit, ExitReason::Halted);
    interrupts.pending = true;
    EXPECT_EQ(rig.cpu().run().reason, ExitReason::Halted);
    s = rig.cpu().state();
    ASSERT_EQ(KernelRig::vector_of(s), 0x41);
    EXPECT_EQ(rig.frame64(s, false).rip, KernelRig::kCode + 2);
}

}  // namespace
}  // namespace tessera::soft
