// A keyed hash for the tables of flows: the guest chooses ports and addresses, but does not know the seed.
#pragma once

#include <cstring>

#include "backends/net/usernet/addresses.h"

namespace tessera::usernet {

// One round of the multiply-and-fold kind.
[[nodiscard]] inline u64 mix(u64 hash, u64 value) {
    const u128 product = u128{hash ^ value ^ 0x9e3779b97f4a7c15} * 0xd6e8feb86659fd93;
    return static_cast<u64>(product) ^ static_cast<u64>(product >> 64);
}

[[nodiscard]] inline u64 mix(u64 hash, const IpAddress& address) {
    u64 low = 0;
    u64 high = 0;
    std::memcpy(&low, address.bytes.data(), sizeof low);
    std::memcpy(&high, Bytes(address.bytes).subspan(8).data(), sizeof high);
    return mix(mix(hash, low), high);
}

}  // namespace tessera::usernet
