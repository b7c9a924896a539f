// Stack instructions at every stack width.
#include <gtest/gtest.h>

#include "cpu/soft/testing/test_machine.h"

namespace tessera::soft {
namespace {

namespace eflags = x86::eflags;
using enum x86::Gpr;
using x86::State;

constexpr u64 kStack = TestMachine::kStack;

class SoftStackTest : public testing::Test {
protected:
    State numbered(State s) {
        for (unsigned i = 0; i < 8; ++i)
            if (i != Rsp) s.gpr[i] = 0x11111111 * (i + 1);
        return s;
    }
    TestMachine machine;
};

TEST_F(SoftStackTest, PushaStoresEightRegistersWithTheOldStackPointer) {
    const State s = numbered(machine.protected_mode_state());
    const State after = machine.run(s, {0x60});
    EXPECT_EQ(after.gpr[Rsp], kStack - 32);
    for (unsigned i = 0; i < 8; ++i) EXPECT_EQ(machine.read<u32>(kStack - 4 - i * 4), s.gpr[i]) << i;
}

TEST_F(SoftStackTest, PopaRestoresAllButTheStackPointer) {
    State s = machine.protected_mode_state();
    s.gpr[Rsp] = kStack - 32;
    for (u32 i = 0; i < 8; ++i) machine.write<u32>(kStack - 32 + i * 4, 0xa0 + i);
    const State after = machine.run(s, {0x61});
    EXPECT_EQ(after.gpr[Rdi], 0xa0U);
    EXPECT_EQ(after.gpr[Rsi], 0xa1U);
    EXPECT_EQ(after.gpr[Rbp], 0xa2U);
    EXPECT_EQ(after.gpr[Rsp], kStack);
    EXPECT_EQ(after.gpr[Rbx], 0xa4U);
    EXPECT_EQ(after.gpr[Rdx], 0xa5U);
    EXPECT_EQ(after.gpr[Rcx], 0xa6U);
    EXPECT_EQ(after.gpr[Rax], 0xa7U);
}

TEST_F(SoftStackTest, SixteenBitPushaAndPopaKeepUpperHalves) {
    State s = numbered(machine.real_mode_state());
    s.gpr[Rsp] = 0xabcd1000;
    State after = machine.run(s, {0x60});
    EXPECT_EQ(after.gpr[Rsp], 0xabcd0ff0U);
    EXPECT_EQ(machine.read<u16>(kStack + 0x0ffe), 0x1111);
    EXPECT_EQ(machine.read<u16>(kStack + 0x0ff6), 0x1000);
    after.gpr[Rax] = 0xeeee0000;
    after.rip = 0;
    after = machine.run(after, {0x61});
    EXPECT_EQ(after.gpr[Rax], 0xeeee1111U);
    EXPECT_EQ(after.gpr[Rsp], 0xabcd1000U);
}

TEST_F(SoftStackTest, SixteenBitStackPointerWraps) {
    State s = machine.real_mode_state();
    s.gpr[Rsp] = 0x12340000;
    s.gpr[Rax] = 0x5678;
    const State after = machine.run(s, {0x50});
    EXPECT_EQ(after.gpr[Rsp], 0x1234fffeU);
    EXPECT_EQ(machine.read<u16>(kStack + 0xfffe), 0x5678);
}

// 32-bit code with a 32-bit stack of one page at kData, then with a 16-bit one. What comes first makes the
// page known to the translation caches. There is no IDT: a fault is a shutdown.
TEST_F(SoftStackTest, ThirtyTwoBitPushAndPopKeepToTheStackSegment) {
    State s = machine.protected_mode_state();
    s.seg[x86::Ss].base = TestMachine::kData;
    s.seg[x86::Ss].limit = 0xfff;
    s.seg[x86::Ss].rights &= ~u32{x86::rights::kGranularity};
    s.gpr[Rax] = 0xcafe'f00d;
    s.gpr[Rsp] = 0x1000;
    State after = machine.run(s, {0x50, 0x5a, 0x50, 0x5b}, 4);  // push %eax; pop %edx; push %eax; pop %ebx
    EXPECT_EQ(after.gpr[Rsp], 0x1000U);
    EXPECT_EQ(after.gpr[Rbx], 0xcafe'f00dU);
    EXPECT_EQ(machine.read<u32>(TestMachine::kData + 0xffc), 0xcafe'f00dU);
    const auto run = [&](u64 rsp, u8 code) {
        s.gpr[Rsp] = rsp;
        (void)machine.run(s, {0x36, 0xff, 0x05, 0x00, 0x08, 0x00, 0x00, code}, 2);  // incl %ss:0x800
        return machine.last_exit;
    };
    EXPECT_NE(run(0x1000, 0x50), ExitReason::Shutdown);
    EXPECT_NE(run(0xffc, 0x58), ExitReason::Shutdown);
    EXPECT_EQ(run(0x1001, 0x50), ExitReason::Shutdown);
    EXPECT_EQ(run(0, 0x50), ExitReason::Shutdown);
    EXPECT_EQ(run(0x2000, 0x50), ExitReason::Shutdown);
    EXPECT_EQ(run(0xffd, 0x58), ExitReason::Shutdown);

    s.seg[x86::Ss].rights &= ~u32{x86::rights::kDb};
    s.gpr[Rsp] = 0xabcd'1000;
    after = machine.run(s, {0x68, 1, 2, 3, 4});  // push $0x04030201
    EXPECT_EQ(after.gpr[Rsp], 0xabcd'0ffcU);
    EXPECT_EQ(machine.read<u32>(TestMachine::kData + 0xffc), 0x0403'0201U);
}

TEST_F(SoftStackTest, PushOfTheStackPointerStoresItsOldValue) {
    EXPECT_EQ(machine.run(machine.protected_mode_state(), {0x54}).gpr[Rsp], kStack - 4);
    EXPECT_EQ(machine.read<u32>(kStack - 4), kStack);
    machine.run(machine.long_mode_state(), {0x54});
    EXPECT_EQ(machine.read<u64>(kStack - 8), kStack);
}

TEST_F(SoftStackTest, PopOfTheStackPointerKeepsTheValue) {
    machine.write<u64>(kStack, 0x1234'5678'9abc);
    EXPECT_EQ(machine.run(machine.long_mode_state(), {0x5c}).gpr[Rsp], 0x1234'5678'9abcU);
}

TEST_F(SoftStackTest, PopToMemoryAddressesWithTheIncrementedStackPointer) {
    machine.write<u64>(kStack, 0xdeadbeef);
    const State after =
        machine.run(machine.long_mode_state(), {0x8f, 0x44, 0x24, 0x10});  // pop qword [rsp+16]
    EXPECT_EQ(after.gpr[Rsp], kStack + 8);
    EXPECT_EQ(machine.read<u64>(kStack + 24), 0xdeadbeefU);
}

TEST_F(SoftStackTest, PopToUnmappedMemoryLeavesTheStackPointer) {
    State s = machine.long_mode_state();
    s.gpr[Rbx] = 0x4000'0000;  // nothing is mapped there
    // No IDT: the fault ends in a shutdown whose state is that of the instruction.
    s.idtr.limit = 0;
    const State after = machine.run(s, {0x8f, 0x03});
    EXPECT_EQ(after.gpr[Rsp], kStack);
    EXPECT_EQ(after.rip, TestMachine::kCode);
    EXPECT_EQ(after.cr2, 0x4000'0000U);
}

TEST_F(SoftStackTest, SixteenBitPushInLongModeMovesByTwo) {
    State s = machine.long_mode_state();
    s.gpr[Rax] = 0x1234;
    EXPECT_EQ(machine.run(s, {0x66, 0x50}).gpr[Rsp], kStack - 2);
    EXPECT_EQ(machine.read<u16>(kStack - 2), 0x1234);
}

TEST_F(SoftStackTest, EnterCopiesTheDisplayOfOuterFrames) {
    State s = machine.protected_mode_state();
    s.gpr[Rbp] = TestMachine::kData + 0x100;
    for (u32 i = 1; i < 4; ++i) machine.write<u32>(TestMachine::kData + 0x100 - i * 4, 0x1000 + i);
    const State after = machine.run(s, {0xc8, 0x20, 0x00, 0x04});  // enter 32, 4
    EXPECT_EQ(machine.read<u32>(kStack - 4), TestMachine::kData + 0x100);
    for (u32 i = 1; i < 4; ++i) EXPECT_EQ(machine.read<u32>(kStack - 4 - i * 4), 0x1000 + i);
    EXPECT_EQ(machine.read<u32>(kStack - 20), kStack - 4);  // the new frame itself
    EXPECT_EQ(after.gpr[Rbp], kStack - 4);
    EXPECT_EQ(after.gpr[Rsp], kStack - 20 - 32);
}

TEST_F(SoftStackTest, EnterTakesItsLevelModuloThirtyTwo) {
    const State after = machine.run(machine.protected_mode_state(), {0xc8, 0x08, 0x00, 0x20});
    EXPECT_EQ(after.gpr[Rsp], kStack - 12);
    EXPECT_EQ(after.gpr[Rbp], kStack - 4);
}

TEST_F(SoftStackTest, SixteenBitEnterAndLeaveUndoEachOther) {
    State s = machine.real_mode_state();
    s.gpr[Rbp] = 0xffff4444;
    const State inside = machine.run(s, {0xc8, 0x10, 0x00, 0x00, 0xc9});
    EXPECT_EQ(inside.gpr[Rbp], 0xffff0ffeU);
    EXPECT_EQ(inside.gpr[Rsp], 0x1000U - 2 - 16);
    const State after = machine.run(s, {0xc8, 0x10, 0x00, 0x00, 0xc9}, 2);
    EXPECT_EQ(after.gpr[Rbp], 0xffff4444U);
    EXPECT_EQ(after.gpr[Rsp], 0x1000U);
}

TEST_F(SoftStackTest, PushfShowsNeitherVmNorRf) {
    State s = machine.protected_mode_state();
    s.rflags = 0x2 | eflags::kCf | eflags::kAc | eflags::kId | eflags::kIf;
    machine.run(s, {0x9c});
    EXPECT_EQ(machine.read<u32>(kStack - 4), s.rflags);
}

// [SDM 2B POPF] table of who may change what.
TEST_F(SoftStackTest, PopfChangesInterruptFlagAndIoplByPrivilege) {
    constexpr u32 kAll = 0x247fd7;  // CF PF AF ZF SF TF IF DF OF IOPL NT AC ID (no TF trap wanted: see below)
    constexpr u32 kPopped = kAll & ~static_cast<u32>(eflags::kTf);
    machine.write<u32>(kStack, kPopped);
    State s = machine.protected_mode_state(0);
    EXPECT_EQ(machine.run(s, {0x9d}).rflags, kPopped | 2);

    s = machine.protected_mode_state(3);
    s.rflags = 0x2;  // IOPL 0
    EXPECT_EQ(machine.run(s, {0x9d}).rflags, (kPopped & ~static_cast<u32>(eflags::kIf | eflags::kIopl)) | 2);
    s.rflags = 0x2 | eflags::kIopl;
    EXPECT_EQ(machine.run(s, {0x9d}).rflags, kPopped | 2);
}

TEST_F(SoftStackTest, SixteenBitPopfLeavesTheUpperFlags) {
    State s = machine.protected_mode_state();
    s.rflags = 0x2 | eflags::kAc | eflags::kId;
    machine.write<u16>(kStack, 0x0001);
    EXPECT_EQ(machine.run(s, {0x66, 0x9d}).rflags, 0x2 | eflags::kAc | eflags::kId | eflags::kCf);
}

}  // namespace
}  // namespace tessera::soft
