// Rows made of control flow: direct calls (fib), indirect calls (icall), a jump table (switch).
#include <array>

#include "row.h"

namespace tessera::guestbench {
namespace {

// --- fib
// ---------------------------------------------------------------------------------------------------------

[[gnu::noinline]] u64 fib(u64 n) {
    if (n < 2) return n;
    u64 one = fib(n - 1);
    opaque(one);  // keeps the compiler from turning the second call into a loop
    return one + fib(n - 2);
}

constexpr u64 kFibArgument = 18;
constexpr u64 kFibValue = 2584;
constexpr double kFibCalls = 8361;  // 2 * fib(n + 1) - 1

u64 fib_round() {
    u64 n = kFibArgument;
    opaque(n);
    return fib(n);
}

// --- icall: eight functions called through a table, in an order a predictor can learn
// -----------------------------

using Step = u64 (*)(u64);
[[gnu::noinline]] u64 step_add(u64 x) {
    return x + 0x1234567;
}
[[gnu::noinline]] u64 step_xor(u64 x) {
    return x ^ 0x5bd1e995;
}
[[gnu::noinline]] u64 step_rotate(u64 x) {
    return (x << 7) | (x >> 57);
}
[[gnu::noinline]] u64 step_triple(u64 x) {
    return x * 3;
}
[[gnu::noinline]] u64 step_fold(u64 x) {
    return x ^ (x >> 32);
}
[[gnu::noinline]] u64 step_negate(u64 x) {
    return ~x;
}
[[gnu::noinline]] u64 step_subtract(u64 x) {
    return x - 0x89abcdef;
}
[[gnu::noinline]] u64 step_swap(u64 x) {
    return __builtin_bswap64(x);
}

constexpr std::size_t kOrder = 64;
constexpr u64 kPasses = 64;
std::array<Step, kOrder> steps;

bool icall_prepare() {
    constexpr Step kSteps[] = {step_add,  step_xor,    step_rotate,   step_triple,
                               step_fold, step_negate, step_subtract, step_swap};
    Random random(5);
    for (Step& step : steps) step = kSteps[random.next() % std::size(kSteps)];
    return true;
}

u64 icall_round() {
    u64 x = 1;
    for (u64 pass = 0; pass < kPasses; ++pass) {
        for (const Step step : steps) x = step(x);
        opaque(x);
    }
    return x;
}

// --- switch: a machine with sixteen instructions, interpreted
// ------------------------------------------------------

constexpr std::size_t kProgram = 256;
constexpr u64 kRuns = 16;
std::array<u8, kProgram> program;

bool switch_prepare() {
    Random random(6);
    for (u8& op : program) op = static_cast<u8>(random.next() % 16);
    return true;
}

[[gnu::noinline]] u64 interpret(const u8* code, std::size_t count, u64 a) {
    u64 b = 0x9e3779b9, c = 7;
    for (std::size_t i = 0; i < count; ++i) {
        switch (code[i]) {
            case 0: a += b; break;
            case 1: a -= c; break;
            case 2: b ^= a; break;
            case 3: c += a & 0xff; break;
            case 4: a = (a << 5) | (a >> 59); break;
            case 5: b = b * 5 + 1; break;
            case 6: c ^= b >> 3; break;
            case 7: a = ~a; break;
            case 8: b += c; break;
            case 9: c = (c >> 1) + i; break;
            case 10: a ^= 0x55; break;
            case 11: b -= a >> 7; break;
            case 12: c = a + b; break;
            case 13: a *= 9; break;
            case 14: b = (b >> 9) | (b << 55); break;
            case 15: c -= i; break;
            default: return 0;
        }
    }
    return a ^ b ^ c;
}

u64 switch_round() {
    u64 x = 1;
    for (u64 run = 0; run < kRuns; ++run) x = interpret(program.data(), kProgram, x);
    return x;
}

constexpr Row kRows[] = {
    {"fib", "call", kFibCalls, kFibValue, fib_round},
    {"icall", "call", kOrder* kPasses, 0x6c093cb6605d2c2d, icall_round, icall_prepare},
    {"switch", "operation", kProgram* kRuns, 0x9deb6fc2088cd9d8, switch_round, switch_prepare},
};

}  // namespace

std::span<const Row> call_rows() {
    return kRows;
}

}  // namespace tessera::guestbench
