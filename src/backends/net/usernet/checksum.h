// The Internet checksum [RFC 1071]: sums are kept as the processor reads the bytes, in pieces of even size.
#pragma once

#include "backends/net/usernet/bytes.h"

namespace tessera::usernet {

// Adds the bytes to a sum; an odd last byte is followed by a zero.
[[nodiscard]] u64 add_to_sum(u64 sum, Bytes bytes);
// The 16 bits of a sum, not complemented, ready to be stored with store_checksum.
[[nodiscard]] u16 fold_sum(u64 sum);
// Stores what fold_sum gave, or its complement, which is the checksum.
void store_sum(Room to, std::size_t at, u64 sum);
void store_checksum(Room to, std::size_t at, u64 sum);
// True if the bytes, their checksum among them, add up.
[[nodiscard]] inline bool adds_up(u64 sum) {
    return fold_sum(sum) == 0xffff;
}

}  // namespace tessera::usernet
