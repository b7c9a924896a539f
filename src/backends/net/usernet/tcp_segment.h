// TCP segments [RFC 9293 3.1] as they are read and written.
#pragma once

#include "backends/net/usernet/packet.h"

namespace tessera::usernet {

// Sequence numbers wrap: "before" is within half of their space.
[[nodiscard]] constexpr bool before(u32 a, u32 b) {
    return static_cast<s32>(a - b) < 0;
}

struct TcpFlags {
    static constexpr u8 kFin = 0x01;
    static constexpr u8 kSyn = 0x02;
    static constexpr u8 kRst = 0x04;
    static constexpr u8 kPsh = 0x08;
    static constexpr u8 kAck = 0x10;
};

struct Segment {
    u16 from_port = 0;
    u16 to_port = 0;
    u32 sequence = 0;
    u32 acknowledged = 0;
    u8 flags = 0;
    u16 window = 0;
    u16 mss = 0;          // 0: the option is not there
    u8 scale = kNoScale;  // the window scale option [RFC 7323 2.2]
    Bytes data;           // where the packet is: may be memory that others write to

    static constexpr u8 kNoScale = 0xff;
    [[nodiscard]] bool has(u8 flag) const { return (flags & flag) != 0; }
    // What it takes up in the sequence.
    [[nodiscard]] u32 length() const {
        return static_cast<u32>(data.size()) + (has(TcpFlags::kSyn) ? 1U : 0U) +
               (has(TcpFlags::kFin) ? 1U : 0U);
    }
};

// None if it is malformed or damaged. Urgent data is data like any other.
[[nodiscard]] std::optional<Segment> parse_segment(const Packet& packet);

}  // namespace tessera::usernet
