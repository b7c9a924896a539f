// The sixteen conditions of Jcc, SETcc and CMOVcc, read from Vcpu::status.
#pragma once

#include <array>
#include <utility>

#include "cpu/soft/vcpu.h"

namespace tessera::soft {

// Where the flags are in Vcpu::status (LAHF in the high byte, SETO in the low one).
inline constexpr u16 kStatusOf = 1 << 0, kStatusCf = 1 << 8, kStatusPf = 1 << 10, kStatusAf = 1 << 12,
                     kStatusZf = 1 << 14, kStatusSf = 1 << 15;

// Cond is the low four opcode bits [SDM 1 table B-1].
template <u8 Cond>
[[nodiscard]] inline bool condition(const Vcpu& c) {
    static_assert(Cond < 16);
    const u32 s = c.status;
    constexpr unsigned kKind = Cond >> 1;
    bool holds = false;
    if constexpr (kKind == 0)
        holds = (s & kStatusOf) != 0;
    else if constexpr (kKind == 1)
        holds = (s & kStatusCf) != 0;
    else if constexpr (kKind == 2)
        holds = (s & kStatusZf) != 0;
    else if constexpr (kKind == 3)
        holds = (s & (kStatusCf | kStatusZf)) != 0;
    else if constexpr (kKind == 4)
        holds = (s & kStatusSf) != 0;
    else if constexpr (kKind == 5)
        holds = (s & kStatusPf) != 0;
    else if constexpr (kKind == 6)
        holds = (((s >> 15) ^ s) & 1) != 0;
    else
        holds = (((s >> 15) ^ s) & 1) != 0 || (s & kStatusZf) != 0;
    return holds != ((Cond & 1) != 0);
}

// For lowering: F<cond>::kHandler.
template <template <u8> typename F>
[[nodiscard]] inline Handler for_condition(unsigned cond) {
    return [cond]<u8... C>(std::integer_sequence<u8, C...>) {
        static constexpr std::array<Handler, 16> kTable{F<C>::kHandler...};
        return kTable[cond & 15];
    }(std::make_integer_sequence<u8, 16>{});
}

}  // namespace tessera::soft
