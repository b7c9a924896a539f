// Random user-mode instructions with random state, arranged so that their memory accesses land in the test
// areas.
#pragma once

#include <optional>
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
    u64 code_offset = 0;   // from kCodeBase
    std::vector<x86::Insn> insns;
    Registers in;
    u32 fixed_gprs = 0;  // that addresses are made of: a bit each
    u64 data_seed = 0;
    u64 counter = 0;          // what kCounter holds at first
    u32 undefined_flags = 0;  // of the last writer of each flag
    u32 ever_undefined = 0;   // anywhere in the code
    bool changes_code = false;
};

// One way to encode an instruction, for cases that are to have no other.
struct Encoding {
    x86::Mnemonic mnemonic = x86::Mnemonic::Invalid;
    bool vex = false;
    u8 map = 0, opcode = 0;  // as in x86::Insn
    u8 prefix = 0;           // 66, F2, F3 or none
};
// The first one that random bytes give; nothing if a million of them give none.
[[nodiscard]] std::optional<Encoding> encoding_of(x86::Mnemonic mnemonic);

struct Wish {
    unsigned length = 1;  // instructions, less what branches and addresses take
    x86::CodeSize code_size = x86::CodeSize::Bits64;
    // Between the instructions: loops, calls and returns, indirect jumps, changes of the code. (Without,
    // branches only jump over one instruction.)
    bool flow = false;
    bool fs = false;               // FS may be used
    std::optional<Encoding> insn;  // they are all of that kind
};
Case generate(u64 seed, const Wish& wish);
// The same code with other registers and flags.
void vary(Case& test, u64 seed);
void fill_data(u64 seed, std::span<u8> data);

}  // namespace tessera::oracle
