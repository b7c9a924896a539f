// Two and four CPUs racing on memory, in translated code: only what total store order allows is seen
// [APM 2 7.1, x86-TSO], and locked instructions are atomic wherever their operand lies.
#include <gtest/gtest.h>
#include <thread>

#include "cpu/soft/testing/test_machine.h"

namespace tessera::soft {
namespace {

using Bytes = std::vector<u8>;

constexpr u64 kSync = 0x90000, kX = 0x100000, kY = 0x180000, kResults = 0x200000;
constexpr u64 kLine = 64;
constexpr unsigned kRounds = 1000;

Bytes operator+(Bytes a, const Bytes& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
}

// What each CPU does in a round. RDI: X, RSI: Y, RBX: where its two results go.
const Bytes kStoreX{0xc7, 0x07, 1, 0, 0, 0}, kStoreY{0xc7, 0x06, 1, 0, 0, 0};
const Bytes kLoadXToFirst{0x8b, 0x07, 0x89, 0x03}, kLoadYToFirst{0x8b, 0x06, 0x89, 0x03};
// Both loads, then both results.
const Bytes kLoadXThenY{0x8b, 0x07, 0x8b, 0x0e, 0x89, 0x03, 0x89, 0x4b, 0x04};
const Bytes kLoadYThenX{0x8b, 0x06, 0x8b, 0x0f, 0x89, 0x03, 0x89, 0x4b, 0x04};
// The load, a store of 1, then the result.
const Bytes kLoadXStoreY{0x8b, 0x07, 0xc7, 0x06, 1, 0, 0, 0, 0x89, 0x03};
const Bytes kLoadYStoreX{0x8b, 0x06, 0xc7, 0x07, 1, 0, 0, 0, 0x89, 0x03};
const Bytes kMfence{0x0f, 0xae, 0xf0};
// mov edx, 1; xchg [X] or [Y], edx
const Bytes kExchangeX{0xba, 1, 0, 0, 0, 0x87, 0x17}, kExchangeY{0xba, 1, 0, 0, 0, 0x87, 0x16};

class Race {
public:
    struct Seen {
        u32 first, second;
    };

    explicit Race(const std::vector<Bytes>& bodies)
        : cpus_(bodies.size()), machine_(static_cast<unsigned>(cpus_)) {
        for (unsigned i = 0; i < cpus_; ++i) machine_.put(code_of(i), loop(bodies[i]));
    }

    // All rounds, from memory of zeros.
    void run() {
        std::memset(machine_.ram(kX), 0, kRounds * kLine);
        std::memset(machine_.ram(kY), 0, kRounds * kLine);
        machine_.write<u64>(kSync, 0);
        std::vector<std::thread> threads;
        for (unsigned i = 0; i < cpus_; ++i) {
            x86::State s = machine_.long_mode_state();
            s.rip = code_of(i);
            s.gpr[x86::Rdi] = kX;
            s.gpr[x86::Rsi] = kY;
            s.gpr[x86::Rbx] = results_of(i);
            s.gpr[x86::Rbp] = kSync;
            s.gpr[8] = kRounds;
            s.gpr[12] = 0;
            machine_.cpu(i).set_state(s);
        }
        for (unsigned i = 0; i < cpus_; ++i)
            threads.emplace_back([this, i] {
                while (machine_.cpu(i).run().reason != ExitReason::Halted) {
                }
            });
        for (auto& thread : threads) thread.join();
    }
    [[nodiscard]] Seen seen(unsigned cpu, unsigned round) {
        return {.first = machine_.read<u32>(results_of(cpu) + round * 16),
                .second = machine_.read<u32>(results_of(cpu) + round * 16 + 4)};
    }
    // Rounds that end in a way `which` names.
    template <typename Which>
    [[nodiscard]] unsigned count(const Which& which) {
        unsigned n = 0;
        for (unsigned round = 0; round < kRounds; ++round) n += which(round) ? 1 : 0;
        return n;
    }

private:
    static u64 code_of(unsigned cpu) { return TestMachine::kCode + cpu * 0x1000; }
    static u64 results_of(unsigned cpu) { return kResults + cpu * 0x20000; }

    // Waits for the others at the start of each round, with PAUSE if they take long.
    [[nodiscard]] Bytes loop(const Bytes& body) const {
        Bytes code{0xf0, 0x48, 0xff, 0x45,
                   0x00,                                      // again: lock inc [rbp]
                   0x49, 0x83, 0xc4, static_cast<u8>(cpus_),  // add r12, cpus
                   0xb9, 20,   0,    0,
                   0,  // wait: mov ecx, 20
                   0x4c, 0x39, 0x65, 0x00,
                   0x73, 0x08,               // look: cmp [rbp], r12; jae go
                   0xff, 0xc9, 0x75, 0xf6,   // dec ecx; jnz look
                   0xf3, 0x90, 0xeb, 0xed};  // pause; jmp wait; go:
        code = code + body;
        code = code + Bytes{0x48, 0x83, 0xc7, kLine, 0x48, 0x83, 0xc6, kLine,  // add rdi, 64; add rsi, 64
                            0x48, 0x83, 0xc3, 16,                              // add rbx, 16
                            0x49, 0xff, 0xc8, 0x0f,  0x85};                    // dec r8; jnz again
        const auto back = static_cast<u32>(-static_cast<s64>(code.size() + 4));
        for (unsigned i = 0; i < 4; ++i) code.push_back(static_cast<u8>(back >> (8 * i)));
        code.push_back(0xf4);
        return code;
    }

    std::size_t cpus_;
    TestMachine machine_;
};

constexpr unsigned kRepeats = 3;

// Also the proof that these tests see reordering where there is some.
TEST(Litmus, StoreBufferingIsSeen) {
    if (std::thread::hardware_concurrency() < 2) GTEST_SKIP() << "one processor reorders nothing";
    Race race({kStoreX + kLoadYToFirst, kStoreY + kLoadXToFirst});
    unsigned relaxed = 0;
    for (unsigned i = 0; i < 200 && relaxed == 0; ++i) {
        race.run();
        relaxed +=
            race.count([&](unsigned r) { return race.seen(0, r).first == 0 && race.seen(1, r).first == 0; });
    }
    EXPECT_GT(relaxed, 0U);
}

TEST(Litmus, FencesForbidStoreBuffering) {
    Race race({kStoreX + kMfence + kLoadYToFirst, kStoreY + kMfence + kLoadXToFirst});
    for (unsigned i = 0; i < kRepeats; ++i) {
        race.run();
        EXPECT_EQ(
            race.count([&](unsigned r) { return race.seen(0, r).first == 0 && race.seen(1, r).first == 0; }),
            0U);
    }
}

TEST(Litmus, ExchangesForbidStoreBuffering) {
    Race race({kExchangeX + kLoadYToFirst, kExchangeY + kLoadXToFirst});
    for (unsigned i = 0; i < kRepeats; ++i) {
        race.run();
        EXPECT_EQ(
            race.count([&](unsigned r) { return race.seen(0, r).first == 0 && race.seen(1, r).first == 0; }),
            0U);
    }
}

TEST(Litmus, MessagePassingKeepsItsOrder) {
    Race race({kStoreX + kStoreY, kLoadYThenX});
    for (unsigned i = 0; i < kRepeats; ++i) {
        race.run();
        EXPECT_EQ(
            race.count([&](unsigned r) { return race.seen(1, r).first == 1 && race.seen(1, r).second == 0; }),
            0U);
    }
}

TEST(Litmus, LoadsAreNotDelayedBeyondLaterStores) {
    Race race({kLoadXStoreY, kLoadYStoreX});
    for (unsigned i = 0; i < kRepeats; ++i) {
        race.run();
        EXPECT_EQ(
            race.count([&](unsigned r) { return race.seen(0, r).first == 1 && race.seen(1, r).first == 1; }),
            0U);
    }
}

TEST(Litmus, AllSeeIndependentStoresInOneOrder) {
    Race race({kStoreX, kStoreY, kLoadXThenY, kLoadYThenX});
    race.run();
    EXPECT_EQ(race.count([&](unsigned r) {
        const auto a = race.seen(2, r), b = race.seen(3, r);
        return a.first == 1 && a.second == 0 && b.first == 1 && b.second == 0;
    }),
              0U);
}

// --- locked instructions. RDI stays where it is: the counter's address; RSI: a spinlock.

struct Counter {
    const char* name;
    Bytes increment;
};

class LockedCounter : public testing::TestWithParam<std::tuple<Counter, u64>> {};

TEST_P(LockedCounter, LosesNothing) {
    constexpr unsigned kTimes = 50000, kCpus = 2;
    const auto& [counter, address] = GetParam();
    TestMachine machine(kCpus);
    machine.write<u32>(address, 0);
    machine.write<u32>(kY, 0);
    Bytes code = counter.increment + Bytes{0x49, 0xff, 0xc8, 0x0f, 0x85};  // dec r8; jnz
    const auto back = static_cast<u32>(-static_cast<s64>(code.size() + 4));
    for (unsigned i = 0; i < 4; ++i) code.push_back(static_cast<u8>(back >> (8 * i)));
    code.push_back(0xf4);
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < kCpus; ++i) {
        x86::State s = machine.long_mode_state();
        s.rip = TestMachine::kCode + i * 0x1000;
        machine.put(s.rip, code);
        s.gpr[x86::Rdi] = address;
        s.gpr[x86::Rsi] = kY;
        s.gpr[8] = kTimes;
        machine.cpu(i).set_state(s);
    }
    for (unsigned i = 0; i < kCpus; ++i)
        threads.emplace_back([&, i] {
            while (machine.cpu(i).run().reason != ExitReason::Halted) {
            }
        });
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(machine.read<u32>(address), kTimes * kCpus);
}

const std::vector<Counter> kCounters{
    {"add", {0xf0, 0x83, 0x07, 0x01}},
    {"inc", {0xf0, 0xff, 0x07}},
    {"xadd", {0xb8, 1, 0, 0, 0, 0xf0, 0x0f, 0xc1, 0x07}},
    // again: mov eax, [rdi]; lea edx, [rax + 1]; lock cmpxchg [rdi], edx; jne again
    {"cmpxchg", {0x8b, 0x07, 0x8d, 0x50, 0x01, 0xf0, 0x0f, 0xb1, 0x17, 0x75, 0xf5}},
    // again: mov eax, 1; xchg [rsi], eax; test eax, eax; jz got; pause; jmp again;
    // got: inc dword [rdi]; mov dword [rsi], 0
    {"xchg_spinlock", {0xb8, 1,    0,    0,    0,    0x87, 0x06, 0x85, 0xc0, 0x74, 0x04, 0xf3,
                       0x90, 0xeb, 0xf1, 0xff, 0x07, 0xc7, 0x06, 0,    0,    0,    0}},
};

INSTANTIATE_TEST_SUITE_P(Litmus, LockedCounter,
                         testing::Combine(testing::ValuesIn(kCounters),
                                          testing::Values(kX, kX + kLine - 2, kX + 0x1000 - 2)),
                         [](const auto& info) {
                             const u64 at = std::get<1>(info.param);
                             return std::string(std::get<0>(info.param).name) + (at == kX ? ""
                                                                                 : at % 0x1000 == 0xffe
                                                                                     ? "_across_pages"
                                                                                     : "_across_lines");
                         });

}  // namespace
}  // namespace tessera::soft
