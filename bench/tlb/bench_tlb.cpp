// bench_tlb: what it costs to miss the first table of translations, to switch address spaces and to flush, in
// nanoseconds per round of a guest's loop.
#include <chrono>
#include <cstdio>
#include <cstring>
#include <string_view>
#include <sys/mman.h>

#include "base/fake_clock.h"
#include "cpu/soft/soft_cpu.h"

#define TESSERA_LOOPS(X) X(stride) X(stride_write) X(random) X(cr3) X(cr3_work) X(invlpg)
#define TESSERA_LOOP(name) extern "C" const tessera::u8 loop_##name[], loop_##name##_end[];
TESSERA_LOOPS(TESSERA_LOOP)

namespace {

using namespace tessera;  // NOLINT(google-build-using-namespace)

constexpr u64 kAll = 7, kLarge = 0x80, kGlobal = 0x100, kKeep = u64{1} << 63;

// 128 MiB of RAM. Linear 0-2 MiB is the kernel's, in global 4 KiB pages. The upper 64 MiB are data: at kSmall
// by 4 KiB pages, at kBig by 2 MiB pages.
class Machine {
public:
    static constexpr u64 kRam = 128 * kMiB, kData = 64 * kMiB, kTables = 0x100000, kCode = 0x10000;
    static constexpr u64 kSmall = u64{1} << 39, kBig = u64{2} << 39;

    Machine()
        : ram_(static_cast<std::byte*>(
              ::mmap(nullptr, kRam, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))),
          engine_((prepare(), CpuWorld{memory_, ports_, mmio_, tsc_, nullptr, nullptr}),
                  soft::SoftCpuConfig{}) {}
    ~Machine() { ::munmap(ram_, kRam); }
    Machine(const Machine&) = delete;
    Machine& operator=(const Machine&) = delete;

    // Seconds for `rounds` of a loop.
    double run(std::span<const u8> loop, u64 data, u64 size, u64 rounds, u64 cr3_a, u64 cr3_b) {
        (void)memory_.load(kCode, std::as_bytes(loop));
        x86::State s = x86::reset_state();
        s.cr0 = x86::cr0::kPe | x86::cr0::kEt | x86::cr0::kNe | x86::cr0::kWp | x86::cr0::kPg;
        s.cr3 = kTables;
        s.cr4 = x86::cr4::kPae | x86::cr4::kPge | x86::cr4::kPcide;
        s.msr.efer = x86::efer::kLme | x86::efer::kLma | x86::efer::kNxe;
        for (auto& segment : s.seg) segment = {.selector = 8, .base = 0, .limit = ~0U, .rights = 0xc093};
        s.seg[x86::Cs].rights = 0xa09b;
        s.rip = kCode;
        s.gpr[x86::Rdi] = data;
        s.gpr[x86::Rsi] = size;
        s.gpr[x86::Rcx] = rounds;
        s.gpr[x86::Rbx] = 12345;
        s.gpr[x86::R8] = kTables | cr3_a;
        s.gpr[x86::R9] = kTables | cr3_b;
        engine_.cpu(0).set_state(s);
        const auto start = std::chrono::steady_clock::now();
        const Exit exit = engine_.cpu(0).run();
        const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
        if (exit.reason != ExitReason::Halted) std::printf("ended with exit %d\n", int(exit.reason));
        return took.count();
    }

private:
    void put(u64 address, u64 value) { std::memcpy(ram_ + address, &value, sizeof(value)); }
    void prepare() {
        (void)::madvise(ram_, kRam, MADV_HUGEPAGE);  // the host's own misses are not the matter here
        (void)memory_.add("ram", RegionKind::Ram, 0, std::span(ram_, kRam));
        u64 next = kTables + 0x1000;
        const auto table = [&](u64 entry) {
            put(entry, next | kAll);
            return std::exchange(next, next + 0x1000);
        };
        const u64 low = table(table(table(kTables)));
        const u64 small = table(table(kTables + 8));
        const u64 big = table(table(kTables + 16));
        for (u64 page = 0; page < 512; ++page) put(low + page * 8, (page << 12) | kAll | kGlobal);
        for (u64 chunk = 0; chunk < kData / (2 * kMiB); ++chunk) {
            const u64 at = kRam - kData + chunk * 2 * kMiB;
            put(big + chunk * 8, at | kAll | kLarge);
            const u64 pages = table(small + chunk * 8);
            for (u64 page = 0; page < 512; ++page) put(pages + page * 8, (at + (page << 12)) | kAll);
        }
    }

    std::byte* ram_;
    FakeClock clock_;
    FakeTsc tsc_{clock_};
    MemoryMap memory_;
    IoBus ports_, mmio_;
    soft::SoftEngine engine_;
};

struct Case {
    const char* name;
    std::span<const u8> loop;
    u64 data, size, cr3_a = 0, cr3_b = 0;
};

}  // namespace

int main(int argc, char** argv) {
    static constexpr double kEnough = 0.3;  // seconds a measurement must last
    const std::string_view only = argc > 1 ? argv[1] : "";
#define TESSERA_SPAN(name) const std::span name(loop_##name, loop_##name##_end);
    TESSERA_LOOPS(TESSERA_SPAN)
    const Case cases[] = {
        {"read, 2 MiB by 4 KiB pages", stride, Machine::kSmall, 2 * kMiB},
        {"read, 16 MiB by 4 KiB pages", stride, Machine::kSmall, 16 * kMiB},
        {"read, 32 MiB by 4 KiB pages", stride, Machine::kSmall, 32 * kMiB},
        {"read, 64 MiB by 4 KiB pages", stride, Machine::kSmall, 64 * kMiB},
        {"read, 64 MiB by 2 MiB pages", stride, Machine::kBig, 64 * kMiB},
        {"write, 16 MiB by 4 KiB pages", stride_write, Machine::kSmall, 16 * kMiB},
        {"write, 64 MiB by 4 KiB pages", stride_write, Machine::kSmall, 64 * kMiB},
        {"random, 16 MiB by 4 KiB pages", random, Machine::kSmall, 16 * kMiB},
        {"random, 64 MiB by 4 KiB pages", random, Machine::kSmall, 64 * kMiB},
        {"random, 64 MiB by 2 MiB pages", random, Machine::kBig, 64 * kMiB},
        {"2 MOV CR3, the same PCID kept", cr3, 0, 1, kKeep | 1, kKeep | 1},
        {"2 MOV CR3, two PCIDs kept", cr3, 0, 1, kKeep | 1, kKeep | 2},
        {"2 MOV CR3, two PCIDs flushed", cr3, 0, 1, 1, 2},
        {"two PCIDs kept, 16 reads of 8 pages", cr3_work, Machine::kSmall, 1, kKeep | 1, kKeep | 2},
        {"two PCIDs flushed, 16 reads of 8 pages", cr3_work, Machine::kSmall, 1, 1, 2},
        {"INVLPG and read, 4 KiB pages", invlpg, Machine::kSmall, 2 * kMiB},
    };
    Machine machine;
    for (const Case& c : cases) {
        if (std::string_view(c.name).find(only) == std::string_view::npos) continue;
        u64 rounds = 10000;
        double took = 0;
        while ((took = machine.run(c.loop, c.data, c.size, rounds, c.cr3_a, c.cr3_b)) < kEnough) rounds *= 4;
        std::printf("%-40s %8.1f ns\n", c.name, took / static_cast<double>(rounds) * 1e9);
    }
    return 0;
}
