// LOCKed instructions of CPUs that run at the same time.
#include <gtest/gtest.h>
#include <thread>
#include <vector>

#include "cpu/soft/testing/test_machine.h"

namespace tessera::soft {
namespace {

namespace eflags = x86::eflags;
using enum x86::Gpr;
using x86::State;

constexpr u64 kData = TestMachine::kData;
constexpr unsigned kCpus = 3;
constexpr u32 kRounds = 20'000;

class SoftAtomicTest : public testing::Test {
protected:
    // All CPUs run `body` kRounds times at once, with RDI = kData and RBX = `rbx`.
    void run_everywhere(std::vector<u8> body, u64 rdi = kData) {
        const u8 back = static_cast<u8>(-(static_cast<int>(body.size()) + 4));
        body.insert(body.end(), {0xff, 0xc9, 0x75, back, 0xf4});  // dec ecx; jnz body; hlt
        machine.put(TestMachine::kCode, body);
        for (unsigned n = 0; n < kCpus; ++n) {
            State s = machine.long_mode_state();
            s.gpr[Rdi] = rdi;
            s.gpr[Rcx] = kRounds;
            s.gpr[Rbx] = n + 1;
            s.gpr[Rsp] -= u64{n} * 0x1000;
            machine.cpu(n).set_state(s);
        }
        std::vector<std::thread> threads;
        threads.reserve(kCpus);
        for (unsigned n = 0; n < kCpus; ++n)
            threads.emplace_back([this, n] { EXPECT_EQ(machine.cpu(n).run().reason, ExitReason::Halted); });
        for (auto& thread : threads) thread.join();
    }

    TestMachine machine{kCpus};
};

TEST_F(SoftAtomicTest, LockIncLosesNothing) {
    run_everywhere({0xf0, 0xff, 0x07});  // lock inc dword [rdi]
    EXPECT_EQ(machine.read<u32>(kData), kCpus * kRounds);
}

TEST_F(SoftAtomicTest, LockXaddGivesEachValueOnce) {
    run_everywhere({0xb8, 1, 0, 0, 0, 0xf0, 0x0f, 0xc1, 0x07});  // mov eax, 1; lock xadd [rdi], eax
    EXPECT_EQ(machine.read<u32>(kData), kCpus * kRounds);
}

TEST_F(SoftAtomicTest, CmpxchgLoopsLoseNothing) {
    // mov eax, [rdi]; again: lea edx, [rax+1]; lock cmpxchg [rdi], edx; jnz again
    run_everywhere({0x8b, 0x07, 0x8d, 0x50, 0x01, 0xf0, 0x0f, 0xb1, 0x17, 0x75, 0xf7});
    EXPECT_EQ(machine.read<u32>(kData), kCpus * kRounds);
}

TEST_F(SoftAtomicTest, XchgIsAtomicWithoutPrefix) {
    // A spin lock around an unlocked increment:
    // acquire: mov eax, 1; xchg [rdi], eax; test eax, eax; jnz acquire; inc dword [rdi+64]; mov dword [rdi],
    // 0
    run_everywhere(
        {0xb8, 1, 0, 0, 0, 0x87, 0x07, 0x85, 0xc0, 0x75, 0xf5, 0xff, 0x47, 0x40, 0xc7, 0x07, 0, 0, 0, 0});
    EXPECT_EQ(machine.read<u32>(kData + 64), kCpus * kRounds);
}

TEST_F(SoftAtomicTest, SplitLocksAreAtomicToo) {
    run_everywhere({0xf0, 0xff, 0x07}, kData + 0x0ffe);  // the dword lies in two pages
    EXPECT_EQ(machine.read<u32>(kData + 0x0ffe), kCpus * kRounds);
}

TEST_F(SoftAtomicTest, BitsOfDifferentCpusStayApart) {
    // lock btc [rdi], ebx: every CPU flips its own bit an even number of times.
    run_everywhere({0xf0, 0x0f, 0xbb, 0x1f});
    EXPECT_EQ(machine.read<u32>(kData), 0U);
}

TEST_F(SoftAtomicTest, Cmpxchg16bNeedsAlignmentAndComparesAllOfIt) {
    State s = machine.long_mode_state();
    s.idtr.limit = 0;
    s.gpr[Rdi] = kData + 8;
    EXPECT_EQ(machine.run(s, {0xf0, 0x48, 0x0f, 0xc7, 0x0f}).rip, TestMachine::kCode);  // #GP: stays there
    EXPECT_EQ(machine.last_exit, ExitReason::Shutdown);

    s.gpr[Rdi] = kData;
    machine.write<u64>(kData, 1);
    machine.write<u64>(kData + 8, 2);
    s.gpr[Rax] = 1;
    s.gpr[Rdx] = 3;
    s.gpr[Rbx] = 7;
    s.gpr[Rcx] = 8;
    State after = machine.run(s, {0xf0, 0x48, 0x0f, 0xc7, 0x0f});
    EXPECT_EQ(after.rflags & eflags::kZf, 0U);
    EXPECT_EQ(after.gpr[Rax], 1U);
    EXPECT_EQ(after.gpr[Rdx], 2U);
    s.gpr[Rdx] = 2;
    after = machine.run(s, {0xf0, 0x48, 0x0f, 0xc7, 0x0f});
    EXPECT_NE(after.rflags & eflags::kZf, 0U);
    EXPECT_EQ(machine.read<u64>(kData), 7U);
    EXPECT_EQ(machine.read<u64>(kData + 8), 8U);
}

}  // namespace
}  // namespace tessera::soft
