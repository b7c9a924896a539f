// A set of interrupt vectors: IRR, ISR and TMR.
#pragma once

#include <array>
#include <bit>

#include "base/types.h"

namespace tessera::lapic {

struct VectorSet {
    static constexpr unsigned kWords = 4;

    std::array<u64, kWords> words{};

    [[nodiscard]] bool has(u8 vector) const { return (words[vector / 64] >> (vector % 64) & 1) != 0; }
    void insert(u8 vector) { words[vector / 64] |= u64{1} << (vector % 64); }
    void erase(u8 vector) { words[vector / 64] &= ~(u64{1} << (vector % 64)); }
    // The highest vector, -1 when empty.
    [[nodiscard]] int highest() const {
        for (unsigned i = kWords; i-- > 0;)
            if (words[i] != 0) return static_cast<int>(i * 64 + 63) - std::countl_zero(words[i]);
        return -1;
    }
    // As one of the eight 32-bit registers that show it.
    [[nodiscard]] u32 part(unsigned index) const {
        return static_cast<u32>(words[index / 2] >> (index % 2 * 32));
    }
    friend bool operator==(const VectorSet&, const VectorSet&) = default;
};

}  // namespace tessera::lapic
