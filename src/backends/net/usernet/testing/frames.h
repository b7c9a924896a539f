// Packets by hand: what a guest sends, and a reader of what it gets. A second reading of the RFCs, which
// shares no code with the stack.
#pragma once

#include <cstring>
#include <gtest/gtest.h>
#include <string>
#include <string_view>
#include <vector>

#include "backends/net/net_backend.h"

namespace tessera::usernet::testing {

using Buffer = std::vector<u8>;

inline const Buffer kGuestMac{0x52, 0x54, 0x00, 0x12, 0x34, 0x56};
inline const Buffer kGatewayMac{0x52, 0x55, 0x0a, 0x00, 0x02, 0x02};
inline const Buffer kGuest{10, 0, 2, 15};
inline const Buffer kGateway{10, 0, 2, 2};
inline const Buffer kResolver{10, 0, 2, 3};
inline const Buffer kServer{192, 0, 2, 80};
inline const Buffer kGuest6{0xfd, 0x54, 0x65, 0x73, 0x73, 0x65, 0x72, 0x61, 0, 0, 0, 0, 0, 0, 0, 0x15};
inline const Buffer kServer6{0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80};

inline Buffer operator+(Buffer a, const Buffer& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
}
inline Buffer be16(u32 value) {
    return {static_cast<u8>(value >> 8), static_cast<u8>(value)};
}
inline Buffer be32(u32 value) {
    return be16(value >> 16) + be16(value & 0xffff);
}
inline Buffer text(std::string_view characters) {
    return {characters.begin(), characters.end()};
}
inline u32 read16(const Buffer& bytes, std::size_t at) {
    return at + 2 <= bytes.size() ? u32{bytes[at]} << 8 | bytes[at + 1] : 0;
}
inline u32 read32(const Buffer& bytes, std::size_t at) {
    return read16(bytes, at) << 16 | read16(bytes, at + 2);
}

// RFC 1071, word by word.
inline u16 checksum_of(const Buffer& bytes) {
    u32 sum = 0;
    for (std::size_t i = 0; i < bytes.size(); i += 2)
        sum += u32{bytes[i]} << 8 | (i + 1 < bytes.size() ? bytes[i + 1] : 0U);
    while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
    return static_cast<u16>(~sum);
}
inline void patch16(Buffer& bytes, std::size_t at, u32 value) {
    bytes.at(at) = static_cast<u8>(value >> 8);
    bytes.at(at + 1) = static_cast<u8>(value);
}
inline Buffer pseudo(const Buffer& from, const Buffer& to, u8 protocol, std::size_t length) {
    return from + to + be32(static_cast<u32>(length)) + Buffer{0, 0, 0, protocol};
}

// --- Layers, from the inside out ---

inline Buffer with_sum(const Buffer& from, const Buffer& to, u8 protocol, Buffer message, std::size_t at) {
    const u16 sum = checksum_of(pseudo(from, to, protocol, message.size()) + message);
    patch16(message, at, sum);
    return message;
}
inline Buffer udp(const Buffer& from, const Buffer& to, u32 source, u32 target, const Buffer& payload) {
    const Buffer message =
        be16(source) + be16(target) + be16(static_cast<u32>(8 + payload.size())) + be16(0) + payload;
    return with_sum(from, to, 17, message, 6);
}
struct TcpFields {
    u32 source = 0;
    u32 target = 0;
    u32 sequence = 0;
    u32 acknowledged = 0;
    u8 flags = 0;
    u32 window = 65535;
    Buffer options{};
    Buffer data{};
};
inline constexpr u8 kFin = 1, kSyn = 2, kRst = 4, kPsh = 8, kAck = 16, kUrg = 32;
inline Buffer tcp(const Buffer& from, const Buffer& to, const TcpFields& f) {
    const Buffer message = be16(f.source) + be16(f.target) + be32(f.sequence) + be32(f.acknowledged) +
                           Buffer{static_cast<u8>((5 + f.options.size() / 4) << 4), f.flags} +
                           be16(f.window) + be32(0) + f.options + f.data;
    return with_sum(from, to, 6, message, 16);
}
inline Buffer icmp_echo(u8 type, u32 id, u32 sequence, const Buffer& payload) {
    Buffer message = Buffer{type, 0, 0, 0} + be16(id) + be16(sequence) + payload;
    patch16(message, 2, checksum_of(message));
    return message;
}
inline Buffer ipv4(const Buffer& from, const Buffer& to, u8 protocol, const Buffer& message,
                   u32 fragment = 0x4000, u32 id = 7) {
    Buffer header = Buffer{0x45, 0} + be16(static_cast<u32>(20 + message.size())) + be16(id) +
                    be16(fragment) + Buffer{64, protocol, 0, 0} + from + to;
    patch16(header, 10, checksum_of(header));
    return header + message;
}
inline Buffer ipv6(const Buffer& from, const Buffer& to, u8 protocol, const Buffer& message, u8 hops = 64) {
    return Buffer{0x60, 0, 0, 0} + be16(static_cast<u32>(message.size())) + Buffer{protocol, hops} + from +
           to + message;
}
inline Buffer ip(const Buffer& from, const Buffer& to, u8 protocol, const Buffer& message) {
    return from.size() == 4 ? ipv4(from, to, protocol, message) : ipv6(from, to, protocol, message);
}
// With a NetHeader before it.
inline Buffer frame(u32 type, const Buffer& content, const Buffer& to = kGatewayMac) {
    return Buffer(sizeof(NetHeader)) + to + kGuestMac + be16(type) + content;
}
inline Buffer ip_frame(const Buffer& packet) {
    return frame((packet[0] >> 4) == 4 ? 0x0800 : 0x86dd, packet);
}
inline Buffer arp(u32 operation, const Buffer& sender, const Buffer& target) {
    return frame(
        0x0806,
        be16(1) + be16(0x0800) + Buffer{6, 4} + be16(operation) + kGuestMac + sender + Buffer(6) + target,
        Buffer(6, 0xff));
}

// --- What comes back ---

struct Received {
    Buffer whole;  // with the NetHeader
    NetHeader net;
    Buffer to_mac, from_mac;
    u32 type = 0;
    Buffer packet;  // behind the Ethernet header
    Buffer from, to;
    u8 protocol = 0;
    u32 fragment = 0;
    Buffer message;  // behind the IP header
};

inline Buffer cut(const Buffer& bytes, std::size_t at, std::size_t size = ~std::size_t{0}) {
    if (at > bytes.size()) return {};
    const auto begin = bytes.begin() + static_cast<std::ptrdiff_t>(at);
    return {begin, begin + static_cast<std::ptrdiff_t>(std::min(size, bytes.size() - at))};
}

inline Received receive(const Buffer& bytes) {
    Received r;
    r.whole = bytes;
    EXPECT_GE(bytes.size(), 26U);
    if (bytes.size() < 26) return r;
    std::memcpy(&r.net, bytes.data(), sizeof r.net);
    r.to_mac = cut(bytes, 12, 6);
    r.from_mac = cut(bytes, 18, 6);
    r.type = read16(bytes, 24);
    r.packet = cut(bytes, 26);
    if (r.type == 0x0800) {
        EXPECT_EQ(checksum_of(cut(r.packet, 0, 20)), 0) << "the IPv4 header's checksum";
        EXPECT_EQ(read16(r.packet, 2), r.packet.size());
        r.protocol = r.packet.at(9);
        r.fragment = read16(r.packet, 6);
        r.from = cut(r.packet, 12, 4);
        r.to = cut(r.packet, 16, 4);
        r.message = cut(r.packet, 20);
    } else if (r.type == 0x86dd) {
        EXPECT_EQ(read16(r.packet, 4), r.packet.size() - 40);
        r.protocol = r.packet.at(6);
        r.from = cut(r.packet, 8, 16);
        r.to = cut(r.packet, 24, 16);
        r.message = cut(r.packet, 40);
    }
    return r;
}

// Of a whole message, as the receiver checks it.
inline bool sum_is_right(const Received& r) {
    if (r.protocol == 1) return checksum_of(r.message) == 0;
    return checksum_of(pseudo(r.from, r.to, r.protocol, r.message.size()) + r.message) == 0;
}

struct ReceivedTcp {
    u32 source = 0, target = 0, sequence = 0, acknowledged = 0, window = 0;
    u8 flags = 0;
    Buffer options, data;
};
inline ReceivedTcp as_tcp(const Received& r) {
    EXPECT_EQ(r.protocol, 6);
    ReceivedTcp t;
    if (r.message.size() < 20) {
        ADD_FAILURE() << "no TCP header";
        return t;
    }
    const std::size_t header = r.message[12] / 16U * 4U;
    t.source = read16(r.message, 0);
    t.target = read16(r.message, 2);
    t.sequence = read32(r.message, 4);
    t.acknowledged = read32(r.message, 8);
    t.flags = r.message[13];
    t.window = read16(r.message, 14);
    t.options = cut(r.message, 20, header - 20);
    t.data = cut(r.message, header);
    return t;
}

}  // namespace tessera::usernet::testing
