// The frame check sequence of Ethernet [IEEE-802.3 3.2.9], and the hash of multicast addresses made with it.
#pragma once

#include <span>

#include "base/types.h"

namespace tessera::ne2000 {

inline constexpr std::size_t kFrameCheckSize = 4;

// The sum over pieces of a frame: begin with kCheckStart, end with check_sequence().
inline constexpr u32 kCheckStart = ~u32{0};
[[nodiscard]] u32 check_add(u32 sum, std::span<const u8> bytes);
// As a number whose least significant byte is sent first.
[[nodiscard]] constexpr u32 check_sequence(u32 sum) {
    return ~sum;
}

// What the sum is over a frame and its own check sequence.
inline constexpr u32 kCheckGood = 0xdebb'20e3;

// [DP8390D 9.0] The six most significant bits of the remainder choose one of 64 filter bits.
[[nodiscard]] unsigned multicast_hash(std::span<const u8> address);

}  // namespace tessera::ne2000
