// The x87 tag word, of which FXSAVE and XSAVE keep one bit for each register [SDM 1 10.5.1.1].
#pragma once

#include <array>
#include <cstring>

#include "base/types.h"

namespace tessera::x86 {

enum class X87Tag : u8 { Valid, Zero, Special, Empty };

// What the tag word says of a register that is not empty [SDM 1 8.1.7].
[[nodiscard]] inline X87Tag x87_tag(const std::array<u8, 10>& reg) {
    u64 mantissa = 0;
    u16 sign_and_exponent = 0;
    std::memcpy(&mantissa, reg.data(), sizeof mantissa);
    std::memcpy(&sign_and_exponent, reg.data() + sizeof mantissa, sizeof sign_and_exponent);
    const unsigned exponent = sign_and_exponent & 0x7fffU;
    if (exponent == 0) return mantissa == 0 ? X87Tag::Zero : X87Tag::Special;
    return exponent == 0x7fff || (mantissa >> 63) == 0 ? X87Tag::Special : X87Tag::Valid;
}

// The whole word. Tags are by physical register, `st` by distance from TOP (which is in `status`).
[[nodiscard]] inline u16 x87_tags(u8 abridged, u16 status, const std::array<std::array<u8, 10>, 8>& st) {
    const unsigned top = (status >> 11) & 7U;
    unsigned tags = 0;
    for (unsigned i = 0; i < 8; ++i) {
        const X87Tag tag = (abridged >> i & 1) != 0 ? x87_tag(st[(i - top) & 7U]) : X87Tag::Empty;
        tags |= static_cast<unsigned>(tag) << (2 * i);
    }
    return static_cast<u16>(tags);
}

// One bit for each register that is not empty.
[[nodiscard]] inline u8 abridged_x87_tags(u16 tags) {
    unsigned present = 0;
    for (unsigned i = 0; i < 8; ++i)
        if (((tags >> (2 * i)) & 3U) != static_cast<unsigned>(X87Tag::Empty)) present |= 1U << i;
    return static_cast<u8>(present);
}

}  // namespace tessera::x86
