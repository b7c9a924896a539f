#include "backends/net/usernet/stack.h"

#include <algorithm>

#include "backends/net/usernet/arp.h"
#include "backends/net/usernet/checksum.h"
#include "backends/net/usernet/icmp.h"
#include "backends/net/usernet/ndp.h"

namespace tessera::usernet {

namespace {

constexpr std::size_t kMostCopied = kEthernetHeader + 60 + Packet::kCopied;
constexpr u16 kDhcpServer = 67;
constexpr std::size_t kMostDhcp = 1500;

}  // namespace

Stack::Stack(Config config, Host& host, Wire& wire)
    : config_(std::move(config)), output_(config_, wire), datagrams_(host, output_), tcp_(host, output_) {}

void Stack::input(Bytes frame, u64 now_ms) {
    if (frame.size() < sizeof(NetHeader) + kEthernetHeader || frame.size() > sizeof(NetHeader) + kMaxFrame)
        return;
    Packet packet;
    std::memcpy(&packet.net, frame.data(), sizeof packet.net);
    const Bytes ethernet = frame.subspan(sizeof(NetHeader));
    std::array<u8, kMostCopied> copy;  // NOLINT(cppcoreguidelines-pro-type-member-init): filled next
    const Room head = Room(copy).first(std::min(ethernet.size(), copy.size()));
    put_bytes(head, 0, ethernet.first(head.size()));

    MacAddress to;
    std::ranges::copy(head.first(6), to.bytes.begin());
    std::ranges::copy(head.subspan(6, 6), packet.mac.bytes.begin());
    if (packet.mac.is_group() || (to != config_.mac && !to.is_group())) return;
    switch (static_cast<EtherType>(get16(head, 12))) {
        case EtherType::Arp: answer_arp(output_, head.subspan(kEthernetHeader)); break;
        case EtherType::Ipv4:
            ipv4(packet, head.subspan(kEthernetHeader), ethernet.subspan(kEthernetHeader), now_ms);
            break;
        case EtherType::Ipv6:
            if (config_.ipv6)
                ipv6(packet, head.subspan(kEthernetHeader), ethernet.subspan(kEthernetHeader), now_ms);
            break;
    }
}

// [RFC 791 3.1]
void Stack::ipv4(Packet& packet, Bytes head, Bytes all, u64 now_ms) {
    if (head.size() < kIpv4Header || head[0] >> 4 != 4) return;
    const std::size_t header = std::size_t{head[0] & 0xfU} * 4;
    const std::size_t total = get16(head, 2);
    if (header < kIpv4Header || header > head.size() || total < header || total > all.size()) return;
    if (!adds_up(add_to_sum(0, head.first(header)))) return;
    packet.from = IpAddress::from_v4(head.subspan(12, 4));
    packet.to = IpAddress::from_v4(head.subspan(16, 4));
    packet.protocol = static_cast<Protocol>(head[9]);
    packet.traffic_class = head[1];
    packet.hop_limit = head[8];
    packet.message = all.subspan(header, total - header);
    packet.head = head.subspan(header).first(std::min(packet.message.size(), head.size() - header));

    const u32 fragment = get16(head, 6);
    const bool more = (fragment & 0x2000) != 0;
    const std::size_t offset = std::size_t{fragment & 0x1fff} * 8;
    if (more || offset != 0) {
        const auto whole =
            fragments_.add({.from = packet.from, .to = packet.to, .id = get16(head, 4), .protocol = head[9]},
                           {.offset = offset, .last = !more, .content = packet.message}, now_ms);
        if (!whole) return;
        packet.message = *whole;
        packet.head = whole->first(std::min(whole->size(), Packet::kCopied));
        packet.net = {};  // promises of the card were about the fragment
    }
    if (dhcp(packet)) return;
    if (!is_guest_address(config_, packet.from)) return;
    output_.neighbours.learn(packet.from, packet.mac);
    message(packet, now_ms);
}

// [RFC 8200 3]. GAP: extension headers, and with them fragments: such packets are dropped.
void Stack::ipv6(Packet& packet, Bytes head, Bytes all, u64 now_ms) {
    if (head.size() < kIpv6Header || head[0] >> 4 != 6) return;
    const std::size_t length = get16(head, 4);
    if (length > all.size() - kIpv6Header) return;
    packet.from = IpAddress::from_v6(head.subspan(8, 16));
    packet.to = IpAddress::from_v6(head.subspan(24, 16));
    // An IPv4 address in disguise would reach what IPv4 packets may not.
    if (packet.from.is_v4() || packet.to.is_v4()) return;
    packet.protocol = static_cast<Protocol>(head[6]);
    packet.hop_limit = head[7];
    packet.message = all.subspan(kIpv6Header, length);
    packet.head = head.subspan(kIpv6Header).first(std::min(length, head.size() - kIpv6Header));
    const bool probing = packet.from.is_zero();
    if (!probing && !is_guest_address(config_, packet.from)) return;
    if (!probing) output_.neighbours.learn(packet.from, packet.mac);
    if (packet.protocol == Protocol::Icmp6 && answer_ndp(output_, packet)) return;
    if (!probing) message(packet, now_ms);
}

bool Stack::is_ours(const IpAddress& address) const {
    return address == config_.gateway || address == config_.resolver || address == config_.gateway6 ||
           address == config_.resolver6 || address == config_.link_local;
}

void Stack::message(const Packet& packet, u64 now_ms) {
    const bool v4 = packet.from.is_v4();
    switch (packet.protocol) {
        case Protocol::Tcp: tcp_.segment(packet, now_ms); break;
        case Protocol::Udp: datagrams_.udp(packet, now_ms); break;
        case Protocol::Icmp:
            if (v4) icmp(packet, now_ms);
            break;
        case Protocol::Icmp6:
            if (!v4) icmp(packet, now_ms);
            break;
    }
}

void Stack::icmp(const Packet& packet, u64 now_ms) {
    if (is_ours(packet.to))
        answer_echo(output_, packet);
    else
        datagrams_.echo(packet, now_ms);
}

// True if the packet was for the DHCP server.
bool Stack::dhcp(const Packet& packet) {
    if (packet.protocol != Protocol::Udp || packet.message.size() < kUdpHeader ||
        get16(packet.head, 2) != kDhcpServer)
        return false;
    const bool for_us = packet.to == config_.gateway || packet.to == IpAddress::v4(0xffffffff);
    if (!for_us) return false;
    const std::size_t length = get16(packet.head, 4);
    if (length < kUdpHeader || length > packet.message.size() || length > kMostDhcp) return true;
    Packet exact = packet;
    exact.message = packet.message.first(length);
    if (get16(packet.head, 6) != 0 && !checksum_is_right(exact)) return true;
    std::array<u8, kMostDhcp> request;  // NOLINT(cppcoreguidelines-pro-type-member-init): filled next
    const Room copy = Room(request).first(length - kUdpHeader);
    put_bytes(copy, 0, exact.message.subspan(kUdpHeader));
    dhcp_.answer(output_, packet.mac, copy);
    return true;
}

bool Stack::flush(u64 now_ms) {
    const bool datagrams = datagrams_.flush(now_ms);
    const bool tcp = tcp_.flush(now_ms);
    return datagrams || tcp;
}

u64 Stack::run_due(u64 now_ms) {
    const u64 datagrams = datagrams_.run_due(now_ms);
    return std::min(datagrams, tcp_.run_due(now_ms));
}

}  // namespace tessera::usernet
