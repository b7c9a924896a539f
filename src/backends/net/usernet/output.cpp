#include "backends/net/usernet/output.h"

#include <algorithm>

#include "backends/net/usernet/arp.h"
#include "backends/net/usernet/checksum.h"
#include "backends/net/usernet/ndp.h"

namespace tessera::usernet {

void Output::write_ethernet(Room frame, const MacAddress& mac, EtherType type) const {
    std::ranges::fill(frame.first(sizeof(NetHeader)), u8{0});
    put_bytes(frame, sizeof(NetHeader), mac.bytes);
    put_bytes(frame, sizeof(NetHeader) + 6, config_.mac.bytes);
    put16(frame, sizeof(NetHeader) + 12, static_cast<u16>(type));
}

// [RFC 791 3.1]; `fragment` is flags and offset as they stand in the header.
void Output::write_ipv4(Room header, const Envelope& envelope, std::size_t length, u16 id,
                        u16 fragment) const {
    std::array<u8, kIpv4Header> fields{};  // the sum is taken here, not from memory that others can write
    put8(fields, 0, 0x45);
    put16(fields, 2, static_cast<u32>(kIpv4Header + length));
    put16(fields, 4, id);
    put16(fields, 6, fragment);
    put8(fields, 8, envelope.hop_limit);
    put8(fields, 9, static_cast<u8>(envelope.protocol));
    put_bytes(fields, 12, Bytes(envelope.from.bytes).subspan(12));
    put_bytes(fields, 16, Bytes(envelope.to.bytes).subspan(12));
    store_checksum(fields, 10, add_to_sum(0, fields));
    put_bytes(header, 0, fields);
}

void Output::write_headers(Room frame, const MacAddress& mac, const Envelope& envelope, std::size_t length) {
    const Room ip = frame.subspan(sizeof(NetHeader) + kEthernetHeader);
    if (envelope.to.is_v4()) {
        constexpr u16 kDoNotFragment = 0x4000;
        write_ethernet(frame, mac, EtherType::Ipv4);
        write_ipv4(ip, envelope, length, next_id_++, kDoNotFragment);
        return;
    }
    write_ethernet(frame, mac, EtherType::Ipv6);
    put32(ip, 0, 0x60000000);  // [RFC 8200 3]
    put16(ip, 4, static_cast<u32>(length));
    put8(ip, 6, static_cast<u8>(envelope.protocol));
    put8(ip, 7, envelope.hop_limit);
    put_bytes(ip, 8, envelope.from.bytes);
    put_bytes(ip, 24, envelope.to.bytes);
}

bool Output::send(const Envelope& envelope, Room message, std::size_t checksum_at) {
    const auto mac = neighbours.find(envelope.to);
    if (!mac) {
        ask_for(envelope.to);
        return false;
    }
    return send_to(*mac, envelope, message, checksum_at);
}

bool Output::send_to(const MacAddress& mac, const Envelope& envelope, Room message, std::size_t checksum_at) {
    u64 sum = 0;
    if (envelope.protocol != Protocol::Icmp)
        sum = pseudo_sum(envelope.from, envelope.to, envelope.protocol, message.size());
    sum = add_to_sum(sum, message);
    store_checksum(message, checksum_at, sum);
    // [RFC 768]: zero means that there is none.
    if (envelope.protocol == Protocol::Udp && get16(message, checksum_at) == 0)
        put16(message, checksum_at, 0xffff);

    const std::size_t headers = headers_size(envelope.to);
    const std::size_t ip_header = envelope.to.is_v4() ? kIpv4Header : kIpv6Header;
    if (ip_header + message.size() > config_.mtu) return send_fragments(mac, envelope, message);
    std::array<Room, 1> frame;
    const std::size_t size = headers + message.size();
    if (wire_.reserve(size, frame) == 0) return false;
    write_headers(frame[0], mac, envelope, message.size());
    put_bytes(frame[0], headers, message);
    wire_.commit(std::array{size});
    return true;
}

// GAP: IPv6 packets longer than the MTU are not fragmented, but lost.
bool Output::send_fragments(const MacAddress& mac, const Envelope& envelope, Bytes message) {
    if (!envelope.to.is_v4() || message.size() > 65535 - kIpv4Header) return false;
    constexpr u32 kMoreFragments = 0x2000;
    const std::size_t piece_size = (config_.mtu - kIpv4Header) & ~std::size_t{7};
    const std::size_t headers = headers_size(envelope.to);
    const u16 id = next_id_++;
    for (std::size_t at = 0; at < message.size(); at += piece_size) {
        const Bytes piece = message.subspan(at, std::min(piece_size, message.size() - at));
        std::array<Room, 1> frame;
        if (wire_.reserve(headers + piece.size(), frame) == 0) return false;
        write_ethernet(frame[0], mac, EtherType::Ipv4);
        const u32 more = at + piece.size() < message.size() ? kMoreFragments : 0;
        write_ipv4(frame[0].subspan(sizeof(NetHeader) + kEthernetHeader), envelope, piece.size(), id,
                   static_cast<u16>(more | at / 8));
        put_bytes(frame[0], headers, piece);
        wire_.commit(std::array{headers + piece.size()});
    }
    return true;
}

bool Output::send_frame(const MacAddress& mac, EtherType type, Bytes content) {
    std::array<Room, 1> frame;
    const std::size_t size = sizeof(NetHeader) + kEthernetHeader + content.size();
    if (wire_.reserve(size, frame) == 0) return false;
    write_ethernet(frame[0], mac, type);
    put_bytes(frame[0], sizeof(NetHeader) + kEthernetHeader, content);
    wire_.commit(std::array{size});
    return true;
}

void Output::ask_for(const IpAddress& address) {
    if (address.is_v4())
        ask_arp(*this, address);
    else
        ask_ndp(*this, address);
}

}  // namespace tessera::usernet
