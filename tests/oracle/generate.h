// Random user-mode instructions with random state, arranged so that their memory accesses land in the test
// areas.
#pragma once

#include <vector>

#include "cpu/x86/insn.h"
#include "tests/oracle/native.h"

namespace tessera::oracle {

// xorshift64*: small, fast, the same everywhere.
class Random {
public:
    explicit Random(u64 seed) : state_(seed * 0x9e37'79b9'7f4a'7c15 + 1) {}
    u64 next() {
        state_ ^= state_ >> 12;
        state_ ^= state_ << 25;
        state_ ^= state_ >> 27;
        return state_ * 0x2545'f491'4f6c'dd1d;
    }
    u64 below(u64 n) { return (next() >> 11) % n; }
    bool chance(unsigned percent) { return below(100) < percent; }
    // Boundary values as often as plain ones.
    u64 value();

private:
    u64 state_;
};

struct Case {
    std::vector<u8> code;  // ends with the jump through kExitSlot
    std::vector<x86::Insn> insns;
    Registers in;
    u64 data_seed = 0;
    u32 undefined_flags = 0;  // of the last writer of each flag
};

// `length` instructions from `seed`.
Case generate(u64 seed, unsigned length);
void fill_data(u64 seed, std::span<u8> data);

}  // namespace tessera::oracle
