// A CPU with a little RAM and no chips, for unit tests: put bytes at an address, set the state, step.
#pragma once

#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <span>
#include <thread>
#include <vector>

#include "base/fake_clock.h"
#include "cpu/soft/soft_cpu.h"

namespace tessera::soft {

class TestMachine {
public:
    static constexpr u64 kRam = 4 * kMiB;
    static constexpr u64 kCode = 0x10000;   // where flat code starts
    static constexpr u64 kStack = 0x80000;  // initial RSP
    static constexpr u64 kTables =
        0x1000;  // identity page tables: PML4, PDPT, one page directory of 2 MiB pages
    static constexpr u64 kData = 0x100000;  // free for the test

    explicit TestMachine(unsigned cpus = 1, CpuModel model = CpuModel::Max)
        : TestMachine(SoftCpuConfig{.model = model, .cpus = cpus, .translate_after = 1}) {}
    explicit TestMachine(const SoftCpuConfig& config)
        : ram_(static_cast<std::byte*>(std::aligned_alloc(kPageSize, kRam))),
          engine_((std::memset(ram_, 0, kRam), prepare(),
                   CpuWorld{memory, ports, mmio, tsc, tracer, std::this_thread::yield}),
                  config) {}
    ~TestMachine() { std::free(ram_); }
    TestMachine(const TestMachine&) = delete;
    TestMachine& operator=(const TestMachine&) = delete;

    [[nodiscard]] Cpu& cpu(unsigned n = 0) { return engine_.cpu(n); }
    [[nodiscard]] SoftEngine& engine() { return engine_; }
    [[nodiscard]] u8* ram(u64 address = 0) { return reinterpret_cast<u8*>(ram_) + address; }
    template <typename T>
    [[nodiscard]] T read(u64 address) {
        T value;
        std::memcpy(&value, ram(address), sizeof(T));
        return value;
    }
    template <typename T>
    void write(u64 address, T value) {
        std::memcpy(ram(address), &value, sizeof(T));
    }
    // Through the memory map, so that decoded code is dropped.
    void put(u64 address, std::span<const u8> bytes) { (void)memory.load(address, std::as_bytes(bytes)); }
    void put(u64 address, std::initializer_list<u8> bytes) {
        put(address, std::span(bytes.begin(), bytes.size()));
    }

    // 64-bit flat code at CPL `cpl` with paging on (identity map of RAM, user accessible), SSE and AVX
    // enabled.
    [[nodiscard]] x86::State long_mode_state(unsigned cpl = 0) {
        constexpr u64 kPresentWritableUser = 7, kLarge = 0x80;
        write<u64>(kTables, (kTables + 0x1000) | kPresentWritableUser);
        write<u64>(kTables + 0x1000, (kTables + 0x2000) | kPresentWritableUser);
        for (u64 i = 0; i < kRam / (2 * kMiB); ++i)
            write<u64>(kTables + 0x2000 + i * 8, (i * 2 * kMiB) | kPresentWritableUser | kLarge);
        x86::State s = x86::reset_state();
        s.cr0 = x86::cr0::kPe | x86::cr0::kMp | x86::cr0::kEt | x86::cr0::kNe | x86::cr0::kWp | x86::cr0::kPg;
        s.cr3 = kTables;
        s.cr4 =
            x86::cr4::kPae | x86::cr4::kOsfxsr | x86::cr4::kOsxmmexcpt | x86::cr4::kOsxsave | x86::cr4::kPge;
        s.msr.efer = x86::efer::kSce | x86::efer::kLme | x86::efer::kLma | x86::efer::kNxe;
        s.xcr0 = 7;
        flat_segments(s, cpl, x86::rights::kLong);
        s.fpu = x86::Fpu{.control = 0x037f, .status = 0, .tag = 0xffff};
        s.rip = kCode;
        s.gpr[x86::Rsp] = kStack;
        return s;
    }
    // 32-bit flat protected mode, no paging.
    [[nodiscard]] x86::State protected_mode_state(unsigned cpl = 0) {
        x86::State s = x86::reset_state();
        s.cr0 = x86::cr0::kPe | x86::cr0::kEt | x86::cr0::kNe;
        s.cr4 = x86::cr4::kOsfxsr | x86::cr4::kOsxmmexcpt;
        flat_segments(s, cpl, x86::rights::kDb);
        s.fpu = x86::Fpu{.control = 0x037f, .status = 0, .tag = 0xffff};
        s.rip = kCode;
        s.gpr[x86::Rsp] = kStack;
        return s;
    }
    // Real mode, CS = 0x1000 (linear kCode), stack at 0x8000:0.
    [[nodiscard]] x86::State real_mode_state() {
        x86::State s = x86::reset_state();
        s.seg[x86::Cs].selector = kCode >> 4;
        s.seg[x86::Cs].base = kCode;
        s.rip = 0;
        s.seg[x86::Ss].selector = kStack >> 4;
        s.seg[x86::Ss].base = kStack;
        s.gpr[x86::Rsp] = 0x1000;
        return s;
    }

    // Puts `code` at kCode, sets `state` (whose RIP it makes kCode), executes `count` instructions.
    x86::State run(x86::State state, std::span<const u8> code, u64 count = 1) {
        put(state.seg[x86::Cs].base + state.rip, code);
        cpu().set_state(state);
        last_exit = cpu().step(count).reason;
        return cpu().state();
    }
    x86::State run(const x86::State& state, std::initializer_list<u8> code, u64 count = 1) {
        return run(state, std::span(code.begin(), code.size()), count);
    }

    FakeClock clock;
    FakeTsc tsc{clock};
    MemoryMap memory;
    IoBus ports, mmio;
    CpuTracer* tracer = nullptr;
    ExitReason last_exit = ExitReason::Failed;

private:
    void prepare() { (void)memory.add("ram", RegionKind::Ram, 0, std::span(ram_, kRam)); }

    static void flat_segments(x86::State& s, unsigned cpl, u32 code_flag) {
        const u32 dpl = cpl << x86::rights::kDplShift;
        const u32 common = x86::rights::kPresent | x86::rights::kS | x86::rights::kAccessed |
                           x86::rights::kGranularity | dpl;
        const auto selector = [&](u16 index) { return static_cast<u16>(index * 8 + cpl); };
        for (auto& seg : s.seg)
            seg = {.selector = selector(2),
                   .base = 0,
                   .limit = ~0U,
                   .rights = common | x86::rights::kWritable | x86::rights::kDb};
        s.seg[x86::Cs] = {.selector = selector(1),
                          .base = 0,
                          .limit = ~0U,
                          .rights = common | x86::rights::kCode | x86::rights::kReadable | code_flag};
    }

    std::byte* ram_;
    SoftEngine engine_;
};

}  // namespace tessera::soft
