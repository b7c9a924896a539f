// A machine for the tests of fp/: 64-bit code with an IDT, which says what exception an instruction raised.
#pragma once

#include <bit>
#include <optional>

#include "cpu/soft/testing/test_machine.h"

namespace tessera::soft {

class FpMachine : public TestMachine {
public:
    static constexpr u64 kGdt = 0x5000, kTss = 0x5800, kIdt = 0x6000, kHandlers = 0x7000,
                         kExceptionStack = 0x90000;
    static constexpr u64 kUnmapped = kRam;  // the first linear address without a page

    FpMachine() { s = fresh(); }

    [[nodiscard]] x86::State fresh(unsigned cpl = 0) {
        x86::State state = long_mode_state(cpl);
        write<u64>(kGdt + 8, 0x0020'9b00'0000'0000);
        write<u64>(kGdt + 16, 0x00cf'9300'0000'ffff);
        state.gdtr = {.base = kGdt, .limit = 0xff};
        write<u64>(kTss + 4, kExceptionStack);
        state.tr = {.selector = 0x18, .base = kTss, .limit = 0x67, .rights = x86::rights::kPresent | 11};
        for (unsigned v = 0; v < 32; ++v) {
            write<u64>(kIdt + v * 16, 0x0000'8e00'0008'0000ULL | (kHandlers + v * 16));
            write<u64>(kIdt + v * 16 + 8, 0);
        }
        state.idtr = {.base = kIdt, .limit = 0x1ff};
        state.gpr[x86::Rdi] = kData;
        return state;
    }

    // Executes `count` instructions from state `s` into `s`. The vector of the exception the last one raised.
    std::optional<unsigned> step(std::initializer_list<u8> code, u64 count = 1) {
        s.rip = kCode;
        const x86::State after = run(s, code, count);
        const u64 distance = after.rip - kHandlers;
        if (distance < 32 * 16) {
            const u64 rip = s.rip, rsp = s.gpr[x86::Rsp];
            const auto segments = s.seg;
            s = after;
            s.rip = rip;
            s.gpr[x86::Rsp] = rsp;
            s.seg = segments;
            return static_cast<unsigned>(distance / 16);
        }
        s = after;
        return std::nullopt;
    }

    x86::State s;  // before and after step
};

// An 80-bit value from a double that has no denormals, infinities or NaNs to care for.
[[nodiscard]] inline std::array<u8, 10> extended(double value) {
    const u64 bits = std::bit_cast<u64>(value);
    std::array<u8, 10> out{};
    if (value == 0) return out;
    const u64 mantissa = u64{1} << 63 | (bits & ((u64{1} << 52) - 1)) << 11;
    const u16 exponent = static_cast<u16>((bits >> 63 << 15) | (((bits >> 52) & 0x7ff) - 1023 + 16383));
    std::memcpy(out.data(), &mantissa, 8);
    std::memcpy(out.data() + 8, &exponent, 2);
    return out;
}

}  // namespace tessera::soft
