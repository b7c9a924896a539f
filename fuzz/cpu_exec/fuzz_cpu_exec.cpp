// Runs any bytes as guest code, in every mode and at both privilege levels: whatever a guest executes, the
// CPU must come back (here after a bounded number of instructions) and stay inside its memory.
#include <algorithm>
#include <cstring>
#include <fuzzer/FuzzedDataProvider.h>

#include "cpu/soft/testing/test_machine.h"

namespace {

using tessera::u64;
using tessera::u8;
using tessera::soft::TestMachine;

constexpr u64 kInstructions = 400;

tessera::x86::State start_state(TestMachine& machine, unsigned mode) {
    switch (mode) {
        case 0: return machine.long_mode_state(0);
        case 1: return machine.long_mode_state(3);
        case 2: return machine.protected_mode_state(0);
        case 3: return machine.protected_mode_state(3);
        default: return machine.real_mode_state();
    }
}

}  // namespace

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer fixes this name.
extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
    static TestMachine machine;
    FuzzedDataProvider input(data, size);
    std::memset(machine.ram(), 0, TestMachine::kRam);
    tessera::x86::State state = start_state(machine, input.ConsumeIntegralInRange(0U, 4U));
    for (auto& reg : state.gpr) {
        const u64 value = input.ConsumeIntegral<u64>();
        reg = input.ConsumeBool() ? value : value % TestMachine::kRam;
    }
    state.rflags = (input.ConsumeIntegral<u64>() & 0x244dd5) | 2;
    state.idtr = {.base = 0x3000, .limit = 0xfff};
    state.gdtr = {.base = 0x5000, .limit = 0xfff};
    const auto tables = input.ConsumeBytes<u8>(input.ConsumeIntegralInRange<std::size_t>(0, 256));
    std::copy(tables.begin(), tables.end(), machine.ram(0x3000));
    std::copy(tables.begin(), tables.end(), machine.ram(0x5000));
    const auto code = input.ConsumeRemainingBytes<u8>();
    machine.put(state.seg[tessera::x86::Cs].base + state.rip,
                std::span(code).first(std::min<std::size_t>(code.size(), 4096)));
    machine.cpu().set_state(state);
    // Half by half, so that blocks and single steps are both run.
    if (!code.empty() && (code[0] & 1) != 0) (void)machine.cpu().step(kInstructions);
    machine.cpu().set_state(machine.cpu().state());
    (void)machine.cpu().step(kInstructions);
    return 0;
}
