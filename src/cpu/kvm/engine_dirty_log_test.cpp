// The log of written pages, as a machine has it: by its engine, whose CPUs answer for full rings themselves.
#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <gtest/gtest.h>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "base/fake_clock.h"
#include "bus/io_bus.h"
#include "cpu/kvm/kvm_engine.h"
#include "cpu/soft/testing/test_machine.h"
#include "memory/memory_map.h"

namespace tessera::kvm {
namespace {

using Pages = std::set<u64>;  // numbers

// The guest's programs are 64-bit ones at CPL 3, which every KVM executes by the processor; what is not a
// page of theirs is as they find it. They end by a HLT, which is not theirs to use: without an IDT that is a
// shutdown.
constexpr u64 kRam = 8 * kMiB;
constexpr unsigned kCpus = 2;
constexpr u32 kTestEntries = 1024;
constexpr u64 kTables = 0x1000;   // a page of each level
constexpr u64 kOnce = 0x5000;     // RAX: where, ECX: how many pages. A byte of each is counted up
constexpr u64 kForever = 0x6000;  // RSI: where, EDX: how many pages; over and over
constexpr u64 kStop = 0x7000;     // a byte, RDI points to it: not 0 ends that
constexpr u64 kFirst = 0x10;      // page
constexpr u64 kEach = 1000;       // pages of each CPU: more than a ring takes before it is full

constexpr std::array<u8, 12> kOnceCode{0xfe, 0x00,                       // inc byte [rax]
                                       0x05, 0x00, 0x10, 0x00, 0x00,     // add eax, 0x1000
                                       0xff, 0xc9,                       // dec ecx
                                       0x75, 0xf5,                       // jnz to the first
                                       0xf4};                            // hlt
constexpr std::array<u8, 21> kForeverCode{0x89, 0xf0,                    // mov eax, esi
                                          0x89, 0xd1,                    // mov ecx, edx
                                          0xfe, 0x00,                    // inc byte [rax]
                                          0x05, 0x00, 0x10, 0x00, 0x00,  // add eax, 0x1000
                                          0xff, 0xc9,                    // dec ecx
                                          0x75, 0xf5,                    // jnz to the inc
                                          0x80, 0x3f, 0x00,              // cmp byte [rdi], 0
                                          0x74, 0xec,                    // je to the first
                                          0xf4};                         // hlt

Pages range(u64 first, u64 count) {
    Pages pages;
    for (u64 page = first; page < first + count; ++page) pages.insert(page);
    return pages;
}

class KvmEngineDirtyLogTest : public testing::TestWithParam<DirtyLogKind> {
protected:
    void SetUp() override {
        if (const auto host = Host::open(); !host) GTEST_SKIP() << host.error().message;
        ASSERT_NE(ram_, nullptr);
        std::memset(ram_.get(), 0, kRam);
        ASSERT_TRUE(memory_.add("ram", RegionKind::Ram, 0, std::span(ram_.get(), kRam)));
        ASSERT_TRUE(memory_.load(kOnce, std::as_bytes(std::span(kOnceCode))));
        ASSERT_TRUE(memory_.load(kForever, std::as_bytes(std::span(kForeverCode))));
        map_all();
        auto engine = KvmEngine::create(
            CpuWorld{.memory = memory_, .ports = ports_, .mmio = mmio_, .tsc = tsc_},
            {.cpus = kCpus, .apic_ids = {0, 1}, .dirty = GetParam(), .dirty_ring_entries = kTestEntries});
        if (!engine && engine.error().message.find("no dirty rings") != std::string::npos)
            GTEST_SKIP() << engine.error().message;
        ASSERT_TRUE(engine) << engine.error().message;
        engine_ = *std::move(engine);
        ASSERT_NE(log(), nullptr);
    }

    [[nodiscard]] DirtyLog* log() { return engine_->dirty_log(); }
    void run(unsigned cpu, u64 code, u64 first, u64 count) {
        x86::State state = soft::TestMachine().long_mode_state(3);
        state.cr3 = kTables;
        state.rip = code;
        state.gpr[x86::Rax] = state.gpr[x86::Rsi] = first * kPageSize;
        state.gpr[x86::Rcx] = state.gpr[x86::Rdx] = count;
        state.gpr[x86::Rdi] = kStop;
        engine_->cpu(cpu).set_state(state);
        const Exit exit = engine_->cpu(cpu).run();
        EXPECT_EQ(exit.reason, ExitReason::Shutdown) << engine_->cpu(cpu).failure();
    }
    void write_pages(unsigned cpu, u64 first, u64 count) { run(cpu, kOnce, first, count); }
    // Without those of the programs, which KVM may map for writing, and so count, when they are only read.
    [[nodiscard]] Pages take() {
        Pages pages;
        const Status taken = log()->take([&](u64 base, std::span<const u64> words) {
            for (u64 page = 0; page < words.size() * 64; ++page)
                if ((words[page / 64] >> page % 64 & 1) != 0) pages.insert(base / kPageSize + page);
        });
        pages.erase(pages.begin(), pages.lower_bound(kFirst));
        EXPECT_TRUE(taken) << taken.error().message;
        return pages;
    }
    // What the guest counts in a page, or tells to it there.
    [[nodiscard]] std::atomic_ref<u8> byte_at(u64 address) {
        return std::atomic_ref(*reinterpret_cast<u8*>(memory_.ram_at(address, 1).data()));
    }
    [[nodiscard]] u64 rings_full(unsigned cpu) {
        std::vector<Statistic> all;
        engine_->cpu(cpu).statistics(all);
        const auto it = std::ranges::find(all, "log of written pages", &Statistic::name);
        return it == all.end() ? 0 : it->value;
    }

private:
    // One to one, with nothing left for the processor to note in the tables: accessed, dirty.
    void map_all() {
        constexpr u64 kAll = 0x67, kLarge = 0x80;
        const auto put = [&](u64 address, u64 entry) {
            std::memcpy(memory_.ram_at(address, sizeof entry).data(), &entry, sizeof entry);
        };
        put(kTables, (kTables + kPageSize) | kAll);
        put(kTables + kPageSize, (kTables + 2 * kPageSize) | kAll);
        for (u64 i = 0; i < kRam / (2 * kMiB); ++i)
            put(kTables + 2 * kPageSize + i * sizeof(u64), (i * 2 * kMiB) | kAll | kLarge);
    }

    std::unique_ptr<std::byte, decltype(&std::free)> ram_{
        static_cast<std::byte*>(std::aligned_alloc(kPageSize, kRam)), &std::free};
    FakeClock clock_;
    FakeTsc tsc_{clock_};
    MemoryMap memory_;
    IoBus ports_;
    IoBus mmio_;
    std::unique_ptr<KvmEngine> engine_;
};

TEST_P(KvmEngineDirtyLogTest, TellsWhatEachCpuWroteWhileItStands) {
    write_pages(0, 0x50, 1);
    ASSERT_TRUE(log()->start());
    EXPECT_EQ(take(), Pages{});
    write_pages(0, 0x100, 5);
    write_pages(1, 0x200, 3);
    Pages expected = range(0x100, 5);
    expected.merge(range(0x200, 3));
    EXPECT_EQ(take(), expected);
    EXPECT_EQ(take(), Pages{}) << "told once";
    ASSERT_TRUE(log()->stop());
    write_pages(1, 0x300, 2);
    ASSERT_TRUE(log()->start());
    write_pages(0, 0x301, 2);
    EXPECT_EQ(take(), range(0x301, 2)) << "not what was written while it was off";
}

TEST_P(KvmEngineDirtyLogTest, AFullRingIsEmptiedAndNothingIsLost) {
    ASSERT_TRUE(log()->start());
    write_pages(0, kFirst, kEach);
    write_pages(0, kFirst, 1);
    EXPECT_EQ(take(), range(kFirst, kEach));
    EXPECT_EQ(rings_full(0) > 0, GetParam() == DirtyLogKind::Ring);
    EXPECT_EQ(rings_full(1), 0u);
}

// What a migration does: whoever copies each page he is told, has all of the memory when the guest stands
// still and he has asked once more. The log goes off and on meanwhile, and everything is copied anew then.
TEST_P(KvmEngineDirtyLogTest, ACopyThatFollowsTheLogIsTheMemory) {
    const auto all = range(kFirst, kCpus * kEach);
    std::vector<u8> copies(kFirst + all.size());
    const auto copy = [&](const Pages& pages) {
        for (const u64 page : pages)
            if (all.contains(page)) copies[page] = byte_at(page * kPageSize).load();
    };
    ASSERT_TRUE(log()->start());
    std::atomic<unsigned> ended = 0;
    std::vector<std::thread> threads;
    threads.reserve(kCpus);
    for (unsigned cpu = 0; cpu < kCpus; ++cpu)
        threads.emplace_back([&, cpu] {
            run(cpu, kForever, kFirst + cpu * kEach, kEach);
            ++ended;
        });
    constexpr unsigned kRounds = 3;
    for (unsigned round = 0; round < kRounds; ++round) {
        Pages told;
        while (told != all && ended == 0) {
            Pages pages = take();
            copy(pages);
            told.merge(pages);
        }
        EXPECT_EQ(told, all) << "the CPUs write every page, again and again";
        if (round != 0) continue;
        EXPECT_TRUE(log()->stop());
        EXPECT_TRUE(log()->start());
        copy(all);
    }
    byte_at(kStop).store(1);
    for (std::thread& thread : threads) thread.join();
    copy(take());
    EXPECT_EQ(take(), Pages{});
    for (const u64 page : all) ASSERT_EQ(copies[page], byte_at(page * kPageSize).load()) << page;
}

INSTANTIATE_TEST_SUITE_P(Ways, KvmEngineDirtyLogTest,
                         testing::Values(DirtyLogKind::Bitmap, DirtyLogKind::Ring), [](const auto& info) {
                             return info.param == DirtyLogKind::Ring ? "Ring" : "Bitmap";
                         });

TEST(KvmEngineWithoutALogTest, HasNone) {
    if (const auto host = Host::open(); !host) GTEST_SKIP() << host.error().message;
    FakeClock clock;
    const FakeTsc tsc{clock};
    MemoryMap memory;
    IoBus ports, mmio;
    const auto engine = KvmEngine::create(
        CpuWorld{.memory = memory, .ports = ports, .mmio = mmio, .tsc = tsc}, {.cpus = 1, .apic_ids = {0}});
    ASSERT_TRUE(engine) << engine.error().message;
    EXPECT_EQ((*engine)->dirty_log(), nullptr);
}

}  // namespace
}  // namespace tessera::kvm
