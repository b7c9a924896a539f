#include "backends/net/usernet/arp.h"

#include <algorithm>

namespace tessera::usernet {

namespace {

constexpr std::size_t kArpSize = 28;
constexpr u32 kEthernet = 1;
constexpr u32 kRequest = 1;
constexpr u32 kReply = 2;
constexpr MacAddress kBroadcast{{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}};

struct Arp {
    u32 operation = 0;
    IpAddress sender;
    IpAddress target;
    MacAddress target_mac;
};

void send(Output& output, const MacAddress& mac, const Arp& arp) {
    std::array<u8, kArpSize> content{};
    put16(content, 0, kEthernet);
    put16(content, 2, static_cast<u16>(EtherType::Ipv4));
    put8(content, 4, 6);
    put8(content, 5, 4);
    put16(content, 6, arp.operation);
    put_bytes(content, 8, output.config().mac.bytes);
    put_bytes(content, 14, Bytes(arp.sender.bytes).subspan(12));
    put_bytes(content, 18, arp.target_mac.bytes);
    put_bytes(content, 24, Bytes(arp.target.bytes).subspan(12));
    (void)output.send_frame(mac, EtherType::Arp, content);
}

}  // namespace

void answer_arp(Output& output, Bytes content) {
    if (content.size() < kArpSize || get16(content, 0) != kEthernet ||
        get16(content, 2) != static_cast<u16>(EtherType::Ipv4) || content[4] != 6 || content[5] != 4)
        return;
    const Config& config = output.config();
    MacAddress mac;
    std::ranges::copy(content.subspan(8, 6), mac.bytes.begin());
    const IpAddress sender = IpAddress::from_v4(content.subspan(14, 4));
    const IpAddress target = IpAddress::from_v4(content.subspan(24, 4));
    if (mac.is_group()) return;
    if (is_guest_address(config, sender)) output.neighbours.learn(sender, mac);
    if (get16(content, 6) != kRequest) return;
    if (target != config.gateway && target != config.resolver) return;
    send(output, mac, {.operation = kReply, .sender = target, .target = sender, .target_mac = mac});
}

void ask_arp(Output& output, const IpAddress& address) {
    send(output, kBroadcast,
         {.operation = kRequest, .sender = output.config().gateway, .target = address, .target_mac = {}});
}

}  // namespace tessera::usernet
