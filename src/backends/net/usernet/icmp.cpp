#include "backends/net/usernet/icmp.h"

#include <algorithm>

namespace tessera::usernet {

namespace {

constexpr u8 kEchoReply = 0;
constexpr u8 kEchoRequest = 8;
constexpr u8 kEchoRequest6 = 128;
constexpr u8 kEchoReply6 = 129;
constexpr std::size_t kMostEcho = 65535 - kIpv4Header;

struct TypeAndCode {
    u8 type;
    u8 code;
};

TypeAndCode type_of(Unreachable why, bool v4) {
    switch (why) {
        case Unreachable::Host: return v4 ? TypeAndCode{3, 1} : TypeAndCode{1, 3};
        case Unreachable::Port: return v4 ? TypeAndCode{3, 3} : TypeAndCode{1, 4};
        case Unreachable::Prohibited: return v4 ? TypeAndCode{3, 13} : TypeAndCode{1, 1};
    }
    return {3, 1};
}

}  // namespace

void answer_echo(Output& output, const Packet& packet) {
    const bool v4 = packet.to.is_v4();
    const std::size_t size = packet.message.size();
    if (size < kIcmpHeader || size > kMostEcho || packet.head[0] != (v4 ? kEchoRequest : kEchoRequest6) ||
        packet.head[1] != 0 || !checksum_is_right(packet))
        return;
    // All of it is copied to. NOLINTNEXTLINE(cppcoreguidelines-pro-type-member-init)
    std::array<u8, kMostEcho> reply;
    const Room used = Room(reply).first(size);
    put_bytes(used, 0, packet.message);
    put8(used, 0, v4 ? kEchoReply : kEchoReply6);
    put16(used, 2, 0);
    (void)output.send_to(packet.mac, {.from = packet.to, .to = packet.from, .protocol = packet.protocol},
                         used, 2);
}

void send_unreachable(Output& output, Unreachable why, const Envelope& refused, Bytes message) {
    const bool v4 = refused.to.is_v4();
    const auto [type, code] = type_of(why, v4);
    const std::size_t inner = v4 ? kIpv4Header : kIpv6Header;
    const std::size_t copied = std::min(message.size(), std::size_t{8});
    std::array<u8, kIcmpHeader + kIpv6Header + 8> content{};
    put8(content, 0, type);
    put8(content, 1, code);
    // The packet's own header, as far as receivers look at it.
    const Room header = Room(content).subspan(kIcmpHeader);
    if (v4) {
        put8(header, 0, 0x45);
        put16(header, 2, static_cast<u32>(kIpv4Header + message.size()));
        put8(header, 8, 64);
        put8(header, 9, static_cast<u8>(refused.protocol));
        put_bytes(header, 12, Bytes(refused.from.bytes).subspan(12));
        put_bytes(header, 16, Bytes(refused.to.bytes).subspan(12));
    } else {
        put32(header, 0, 0x60000000);
        put16(header, 4, static_cast<u32>(message.size()));
        put8(header, 6, static_cast<u8>(refused.protocol));
        put8(header, 7, 64);
        put_bytes(header, 8, refused.from.bytes);
        put_bytes(header, 24, refused.to.bytes);
    }
    put_bytes(header, inner, message.first(copied));
    const Config& config = output.config();
    (void)output.send({.from = v4 ? config.gateway : config.gateway6,
                       .to = refused.from,
                       .protocol = v4 ? Protocol::Icmp : Protocol::Icmp6},
                      Room(content).first(kIcmpHeader + inner + copied), 2);
}

}  // namespace tessera::usernet
