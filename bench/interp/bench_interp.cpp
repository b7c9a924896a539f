// bench_interp: million guest instructions per second of the software CPU, by class of instruction.
#include <chrono>
#include <cstdio>
#include <cstring>
#include <string_view>

#include "cpu/soft/testing/test_machine.h"

#define TESSERA_KERNEL(name) extern "C" const tessera::u8 bench_##name[], bench_##name##_end[];
// clang-format off
#define TESSERA_KERNELS(X) \
    X(alu) X(memory) X(stream) X(branch) X(call) X(indirect) X(muldiv) X(bits) X(sse_scalar) X(sse_packed) X(avx) \
    X(x87) X(rep_movs) X(lock)
// clang-format on
TESSERA_KERNELS(TESSERA_KERNEL)

namespace {

using tessera::u64;
using tessera::u8;

struct Kernel {
    const char* name;
    const u8* begin;
    const u8* end;
};

double seconds_of(tessera::soft::TestMachine& machine, const Kernel& kernel, u64 rounds, u64* instructions) {
    tessera::x86::State state = machine.long_mode_state();
    machine.put(tessera::soft::TestMachine::kCode, std::span(kernel.begin, kernel.end));
    state.gpr[tessera::x86::Rcx] = rounds;
    state.gpr[tessera::x86::Rdi] = tessera::soft::TestMachine::kData;
    machine.cpu().set_state(state);
    const u64 before = machine.cpu().instructions();
    const auto start = std::chrono::steady_clock::now();
    const tessera::Exit exit = machine.cpu().run();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    if (exit.reason != tessera::ExitReason::Halted)
        std::printf("%s: ended with exit %d\n", kernel.name, static_cast<int>(exit.reason));
    *instructions = machine.cpu().instructions() - before;
    return took.count();
}

}  // namespace

int main(int argc, char** argv) {
    static constexpr double kEnough = 0.5;  // seconds a measurement must last
    const std::string_view only = argc > 1 ? argv[1] : "";
    const Kernel kernels[] = {
#define TESSERA_ENTRY(name) {#name, bench_##name, bench_##name##_end},
        TESSERA_KERNELS(TESSERA_ENTRY)};
    tessera::soft::TestMachine machine;
    std::printf("%-12s %10s %8s\n", "class", "MIPS", "ns/insn");
    for (const Kernel& kernel : kernels) {
        if (!only.empty() && only != kernel.name) continue;
        u64 rounds = 1000, instructions = 0;
        double took = 0;
        while ((took = seconds_of(machine, kernel, rounds, &instructions)) < kEnough && rounds < u64{1} << 40)
            rounds *= 4;
        std::printf("%-12s %10.1f %8.2f\n", kernel.name, static_cast<double>(instructions) / took / 1e6,
                    took / static_cast<double>(instructions) * 1e9);
    }
    return 0;
}
