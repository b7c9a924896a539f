// What a row of the benchmark program is, and the few things all rows share. A row is one kind of work, cut
// into rounds: every round does the same amount of it and returns the same checksum, which is known
// beforehand.
#pragma once

#include <span>

#include "base/types.h"

namespace tessera::guestbench {

struct Row {
    const char* name;
    const char* unit;  // what `work` counts
    double work;       // in one round
    u64 expected;      // what a right round returns
    u64 (*round)();
    // Called once before the first round; false: this machine cannot do the row. May be null.
    bool (*prepare)() = nullptr;
    // Called once after the last round. May be null.
    void (*finish)() = nullptr;
    // Number of processes that work at the same time; with more than none of them `round` runs in each of
    // them, and the row is skipped on a machine with fewer processors.
    int processes = 0;
};

std::span<const Row> integer_rows();
std::span<const Row> call_rows();
std::span<const Row> mark_rows();
std::span<const Row> memory_rows();
std::span<const Row> float_rows();
std::span<const Row> fma_rows();
std::span<const Row> system_rows();

// A round of the row "mark", which the rows of several processes run too.
u64 mark_round();
inline constexpr u64 kMarkExpected = 0x771b;

// SplitMix64, Sebastiano Vigna, public domain: short, and the same everywhere.
class Random {
public:
    constexpr explicit Random(u64 seed) : state_(seed) {}
    constexpr u64 next() {
        u64 z = state_ += 0x9e3779b97f4a7c15;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
        z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
        return z ^ (z >> 31);
    }

private:
    u64 state_;
};

// Folds a value into a checksum.
constexpr u64 mix(u64 sum, u64 value) {
    return (sum ^ value) * 0x9fb21c651e98df25 + (sum >> 29);
}

// The compiler must take `value` for unknown here, and memory for read and written.
template <typename T>
inline void opaque(T& value) {
    __asm__ volatile("" : "+r"(value)::"memory");
}

}  // namespace tessera::guestbench
