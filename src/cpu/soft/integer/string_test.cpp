// String instructions: order, direction, widths, progress at faults and interruptions.
#include <gtest/gtest.h>
#include <numeric>

#include "cpu/soft/testing/test_machine.h"

namespace tessera::soft {
namespace {

namespace eflags = x86::eflags;
using enum x86::Gpr;
using enum x86::Seg;
using x86::State;

constexpr u64 kData = TestMachine::kData;
constexpr u64 kNowhere = 0x4000'0000;  // not mapped in long mode

class SoftStringTest : public testing::Test {
protected:
    SoftStringTest() { std::iota(machine.ram(kData), machine.ram(kData + 0x10000), u8{1}); }

    State strings(State s, u64 rsi, u64 rdi, u64 rcx) {
        s.gpr[Rsi] = rsi;
        s.gpr[Rdi] = rdi;
        s.gpr[Rcx] = rcx;
        return s;
    }

    TestMachine machine;
};

TEST_F(SoftStringTest, RepMovsMovesOverManyPages) {
    const State s = strings(machine.long_mode_state(), kData + 3, kData + 0x20005, 0x5001);
    const State after = machine.run(s, {0xf3, 0xa4});
    EXPECT_EQ(std::memcmp(machine.ram(kData + 3), machine.ram(kData + 0x20005), 0x5001), 0);
    EXPECT_EQ(machine.read<u8>(kData + 0x20005 + 0x5001), 0);
    EXPECT_EQ(after.gpr[Rcx], 0U);
    EXPECT_EQ(after.gpr[Rsi], kData + 3 + 0x5001);
    EXPECT_EQ(after.gpr[Rdi], kData + 0x20005 + 0x5001);
    EXPECT_EQ(after.rip, TestMachine::kCode + 2);
}

TEST_F(SoftStringTest, RepMovsElementsMayCrossPages) {
    const State s = strings(machine.long_mode_state(), kData + 5, kData + 0x20003, 0x800);
    machine.run(s, {0xf3, 0x48, 0xa5});
    EXPECT_EQ(std::memcmp(machine.ram(kData + 5), machine.ram(kData + 0x20003), 0x4000), 0);
}

TEST_F(SoftStringTest, RepMovsUpwardsIntoItselfRepeatsTheFirstElement) {
    const State s = strings(machine.long_mode_state(), kData, kData + 1, 0x1800);
    machine.run(s, {0xf3, 0xa4});
    for (u64 i = 0; i <= 0x1800; ++i) ASSERT_EQ(machine.read<u8>(kData + i), 1) << i;
}

TEST_F(SoftStringTest, RepMovsDownwardsWithOverlapMovesAll) {
    std::vector<u8> before(machine.ram(kData), machine.ram(kData + 0x1800));
    State s = strings(machine.long_mode_state(), kData + 0x17ff, kData + 0x1803, 0x1800);
    s.rflags |= eflags::kDf;
    const State after = machine.run(s, {0xf3, 0xa4});
    EXPECT_EQ(std::memcmp(machine.ram(kData + 4), before.data(), before.size()), 0);
    EXPECT_EQ(after.gpr[Rsi], kData - 1);
    EXPECT_EQ(after.gpr[Rcx], 0U);
}

TEST_F(SoftStringTest, RepWithZeroCountTouchesNothing) {
    const State s = strings(machine.long_mode_state(), kNowhere, kNowhere, 0);
    const State after = machine.run(s, {0xf3, 0xa4});
    EXPECT_EQ(after.rip, TestMachine::kCode + 2);
    EXPECT_EQ(after.gpr[Rsi], kNowhere);
}

TEST_F(SoftStringTest, SixteenBitAddressesCountInTheLowHalvesAndWrap) {
    State s = machine.protected_mode_state();
    s.seg[Es].base = s.seg[Ds].base = kData;
    s = strings(s, 0xaaaafffe, 0xbbbb1000, 0xcccc0004);
    machine.write<u16>(kData + 0xfffe, 0x2211);
    machine.write<u16>(kData, 0x4433);
    const State after = machine.run(s, {0x67, 0xf3, 0xa4});
    EXPECT_EQ(machine.read<u32>(kData + 0x1000), 0x44332211U);
    EXPECT_EQ(after.gpr[Rsi], 0xaaaa0002U);
    EXPECT_EQ(after.gpr[Rdi], 0xbbbb1004U);
    EXPECT_EQ(after.gpr[Rcx], 0xcccc0000U);
}

TEST_F(SoftStringTest, ThirtyTwoBitAddressesInLongModeClearTheUpperHalves) {
    State s = machine.long_mode_state();
    s = strings(s, 0xffff'ffff'0000'0000 | kData, 0xffff'ffff'0000'0000 | (kData + 0x8000), 0x7'0000'0003);
    const State after = machine.run(s, {0x67, 0xf3, 0xa4});
    EXPECT_EQ(after.gpr[Rsi], kData + 3);
    EXPECT_EQ(after.gpr[Rdi], kData + 0x8003);
    EXPECT_EQ(after.gpr[Rcx], 0U);
}

TEST_F(SoftStringTest, SegmentOverrideAppliesToTheSourceOnly) {
    State s = strings(machine.long_mode_state(), 0x10, kData + 0x3000, 1);
    s.seg[Fs].base = kData;
    machine.run(s, {0x64, 0xa4});
    EXPECT_EQ(machine.read<u8>(kData + 0x3000), machine.read<u8>(kData + 0x10));
}

TEST_F(SoftStringTest, RepneScasStopsBehindTheElementFound) {
    State s = strings(machine.long_mode_state(), 0, kData, ~u64{0});
    s.gpr[Rax] = 0;  // the 256th byte is the first zero
    const State after = machine.run(s, {0xf2, 0xae});
    EXPECT_EQ(after.gpr[Rdi], kData + 256);
    EXPECT_EQ(after.gpr[Rcx], ~u64{0} - 256);
    EXPECT_NE(after.rflags & eflags::kZf, 0U);
}

TEST_F(SoftStringTest, RepeCmpsStopsAtTheFirstDifferenceWithItsFlags) {
    std::memcpy(machine.ram(kData + 0x20000), machine.ram(kData), 0x4000);
    machine.write<u8>(kData + 0x20000 + 0x1234, 0xff);  // the source has 0x35 there
    const State s = strings(machine.long_mode_state(), kData, kData + 0x20000, 0x4000);
    const State after = machine.run(s, {0xf3, 0xa6});
    EXPECT_EQ(after.gpr[Rsi], kData + 0x1235);
    EXPECT_EQ(after.gpr[Rcx], 0x4000U - 0x1235);
    EXPECT_EQ(after.rflags & (eflags::kZf | eflags::kCf), eflags::kCf);  // 0x35 - 0xff borrows
}

TEST_F(SoftStringTest, RepLodsLeavesTheLastElement) {
    const State s = strings(machine.long_mode_state(), kData, 0, 0x1100);
    EXPECT_EQ(machine.run(s, {0xf3, 0xac}).gpr[Rax] & 0xff, machine.read<u8>(kData + 0x10ff));
}

TEST_F(SoftStringTest, AFaultShowsTheProgressAndRestartsTheInstruction) {
    // The identity map ends at 4 MiB: the last 0x123 bytes of it are the last that can be stored to.
    State s = strings(machine.long_mode_state(), kData, TestMachine::kRam - 0x123, 0x1000);
    s.idtr.limit = 0;  // shutdown, at the instruction
    const State after = machine.run(s, {0xf3, 0xa4});
    EXPECT_EQ(machine.last_exit, ExitReason::Shutdown);
    EXPECT_EQ(after.rip, TestMachine::kCode);
    EXPECT_EQ(after.cr2, TestMachine::kRam);
    EXPECT_EQ(after.gpr[Rcx], 0x1000U - 0x123);
    EXPECT_EQ(after.gpr[Rsi], kData + 0x123);
    EXPECT_EQ(after.gpr[Rdi], TestMachine::kRam);
}

// A device that asks the CPU to leave run() at the third store.
class Interrupter final : public IoDevice {
public:
    explicit Interrupter(Cpu& cpu) : cpu_(cpu) {}
    IoStatus read(u64, std::span<std::byte> out) override {
        for (auto& b : out) b = static_cast<std::byte>(0x40 + reads++);
        return IoStatus::Ok;
    }
    IoStatus write(u64 offset, std::span<const std::byte> in) override {
        last_offset = offset;
        for (const auto b : in) bytes.push_back(static_cast<u8>(b));
        if (++writes == 3) cpu_.kick();
        return IoStatus::Ok;
    }
    unsigned reads = 0, writes = 0;
    u64 last_offset = 0;
    std::vector<u8> bytes;

private:
    Cpu& cpu_;
};

TEST_F(SoftStringTest, RepCanBeInterruptedBetweenElementsAndGoesOn) {
    Interrupter device(machine.cpu());
    NullLock lock;
    ASSERT_TRUE(machine.mmio.add("device", 0x1000'0000, 0x1000, device, lock));
    State s = strings(machine.protected_mode_state(), kData, 0x1000'0000, 8);
    machine.put(TestMachine::kCode, {0xf3, 0xa4, 0xf4});  // rep movsb; hlt
    machine.cpu().set_state(s);
    EXPECT_EQ(machine.cpu().run().reason, ExitReason::Kicked);
    s = machine.cpu().state();
    EXPECT_EQ(s.rip, TestMachine::kCode);
    EXPECT_EQ(s.gpr[Rcx], 5U);
    EXPECT_EQ(s.gpr[Rdi], 0x1000'0003U);
    EXPECT_EQ(machine.cpu().run().reason, ExitReason::Halted);
    EXPECT_EQ(machine.cpu().state().gpr[Rcx], 0U);
    EXPECT_EQ(device.bytes, (std::vector<u8>{1, 2, 3, 4, 5, 6, 7, 8}));
}

TEST_F(SoftStringTest, InsAndOutsMoveBetweenPortAndMemory) {
    Interrupter device(machine.cpu());
    NullLock lock;
    ASSERT_TRUE(machine.ports.add("device", 0x300, 8, device, lock));
    State s = strings(machine.protected_mode_state(), kData, kData + 0x8000, 2);
    s.gpr[Rdx] = 0x300;
    State after = machine.run(s, {0xf3, 0x66, 0x6f});  // rep outsw
    EXPECT_EQ(device.bytes, (std::vector<u8>{1, 2, 3, 4}));
    EXPECT_EQ(after.gpr[Rsi], kData + 4);
    after = machine.run(s, {0xf3, 0x6d});  // rep insd
    EXPECT_EQ(machine.read<u32>(kData + 0x8000), 0x43424140U);
    EXPECT_EQ(machine.read<u32>(kData + 0x8004), 0x47464544U);
    EXPECT_EQ(after.gpr[Rdi], kData + 0x8008);
}

TEST_F(SoftStringTest, InsReadsThePortOnlyIfTheMemoryCanBeWritten) {
    Interrupter device(machine.cpu());
    NullLock lock;
    ASSERT_TRUE(machine.ports.add("device", 0x300, 8, device, lock));
    State s = strings(machine.long_mode_state(), 0, kNowhere, 1);
    s.gpr[Rdx] = 0x300;
    s.idtr.limit = 0;
    const State after = machine.run(s, {0x6c});
    EXPECT_EQ(after.cr2, kNowhere);
    EXPECT_EQ(device.reads, 0U);
}

TEST_F(SoftStringTest, StringsWriteOverDecodedCodeAndTheNewCodeRuns) {
    // rep stosb writes INC EAX (40) over the NOPs that come right after it; then HLT.
    State s = strings(machine.protected_mode_state(), 0, TestMachine::kCode + 2, 4);
    s.gpr[Rax] = 0x40;
    machine.put(TestMachine::kCode, {0xf3, 0xaa, 0x90, 0x90, 0x90, 0x90, 0xf4});
    machine.cpu().set_state(s);
    EXPECT_EQ(machine.cpu().run().reason, ExitReason::Halted);
    EXPECT_EQ(machine.cpu().state().gpr[Rax], 0x44U);
}

}  // namespace
}  // namespace tessera::soft
