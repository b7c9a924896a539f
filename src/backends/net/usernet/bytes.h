// Numbers in packets: big-endian, unaligned; the caller has checked that they are inside.
#pragma once

#include <cstring>
#include <span>

#include "base/assert.h"
#include "base/types.h"

namespace tessera::usernet {

using Bytes = std::span<const u8>;
using Room = std::span<u8>;

inline u16 get16(Bytes from, std::size_t at) {
    TESSERA_ASSERT(at + 2 <= from.size(), "parsers check sizes before they look at fields");
    return static_cast<u16>(from[at] << 8 | from[at + 1]);
}

inline u32 get32(Bytes from, std::size_t at) {
    return u32{get16(from, at)} << 16 | get16(from, at + 2);
}

inline void put8(Room to, std::size_t at, u32 value) {
    TESSERA_ASSERT(at < to.size(), "builders make room before they fill fields in");
    to[at] = static_cast<u8>(value);
}

inline void put16(Room to, std::size_t at, u32 value) {
    put8(to, at, value >> 8);
    put8(to, at + 1, value);
}

inline void put32(Room to, std::size_t at, u32 value) {
    put16(to, at, value >> 16);
    put16(to, at + 2, value);
}

inline void put_bytes(Room to, std::size_t at, Bytes bytes) {
    TESSERA_ASSERT(at <= to.size() && bytes.size() <= to.size() - at, "builders make room first");
    if (!bytes.empty()) std::memcpy(to.subspan(at).data(), bytes.data(), bytes.size());
}

}  // namespace tessera::usernet
