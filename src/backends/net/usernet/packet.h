// A packet from the guest, as far as the layers below TCP, UDP and ICMP have understood it.
#pragma once

#include "backends/net/net_backend.h"
#include "backends/net/usernet/addresses.h"

namespace tessera::usernet {

inline constexpr std::size_t kEthernetHeader = 14;
inline constexpr std::size_t kIpv4Header = 20;
inline constexpr std::size_t kIpv6Header = 40;
inline constexpr std::size_t kTcpHeader = 20;
inline constexpr std::size_t kUdpHeader = 8;
inline constexpr std::size_t kIcmpHeader = 8;

enum class EtherType : u16 { Ipv4 = 0x0800, Arp = 0x0806, Ipv6 = 0x86dd };
enum class Protocol : u8 { Icmp = 1, Tcp = 6, Udp = 17, Icmp6 = 58 };

struct Packet {
    MacAddress mac;  // of the sender
    IpAddress from;
    IpAddress to;
    Protocol protocol{};
    u8 traffic_class = 0;
    u8 hop_limit = 0;
    NetHeader net;
    // The copied beginning of the message: headers are looked at only here, because `message` may be memory
    // that the guest's side still writes to. At least as long as the message or kCopied.
    Bytes head;
    Bytes message;  // all of it: TCP, UDP or ICMP header and what follows

    static constexpr std::size_t kCopied = 128;
};

// The sum over the pseudo header [RFC 9293 3.1, RFC 8200 8.1].
[[nodiscard]] u64 pseudo_sum(const IpAddress& from, const IpAddress& to, Protocol protocol,
                             std::size_t length);

// False if the message carries a wrong checksum and the card did not promise to fill it in.
[[nodiscard]] bool checksum_is_right(const Packet& packet);

}  // namespace tessera::usernet
