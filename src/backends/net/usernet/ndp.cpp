#include "backends/net/usernet/ndp.h"

#include <algorithm>

namespace tessera::usernet {

namespace {

enum class Kind : u8 { RouterSolicit = 133, RouterAdvert = 134, Solicit = 135, Advert = 136 };

constexpr u8 kHopLimit = 255;  // [RFC 4861 6.1.1, 7.1.1]: MUST, so that no router has passed it on
constexpr IpAddress kAllNodes{{0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}};
constexpr MacAddress kAllNodesMac{{0x33, 0x33, 0, 0, 0, 1}};
constexpr u32 kOptionSource = 0x0101;  // type and length, in units of eight bytes
constexpr u32 kOptionTarget = 0x0201;
constexpr u32 kOptionPrefix = 0x0304;
constexpr u32 kOptionMtu = 0x0501;
constexpr u32 kOptionResolver = 0x1903;  // [RFC 8106 5.1]
constexpr u32 kDaySeconds = 86400;
constexpr u32 kRouterSeconds = 1800;

void advertise_address(Output& output, const Packet& packet) {
    const Config& config = output.config();
    if (packet.message.size() < 24) return;
    const IpAddress target = IpAddress::from_v6(packet.head.subspan(8, 16));
    if (target != config.gateway6 && target != config.resolver6 && target != config.link_local) return;
    const bool probing = packet.from.is_zero();  // duplicate address detection: everybody hears the answer
    std::array<u8, 32> message{};
    put8(message, 0, static_cast<u8>(Kind::Advert));
    put8(message, 4, probing ? 0xa0 : 0xe0);  // router, solicited, override
    put_bytes(message, 8, target.bytes);
    put16(message, 24, kOptionTarget);
    put_bytes(message, 26, config.mac.bytes);
    (void)output.send_to(probing ? kAllNodesMac : packet.mac,
                         {.from = target,
                          .to = probing ? kAllNodes : packet.from,
                          .protocol = Protocol::Icmp6,
                          .hop_limit = kHopLimit},
                         message, 2);
}

void advertise_router(Output& output, const Packet& packet) {
    const Config& config = output.config();
    const bool probing = packet.from.is_zero();
    std::array<u8, 16 + 8 + 8 + 32 + 24> message{};
    put8(message, 0, static_cast<u8>(Kind::RouterAdvert));
    put8(message, 4, 64);
    // Restricted: an address, but no way out.
    put16(message, 6, config.restricted ? 0 : kRouterSeconds);
    put16(message, 16, kOptionSource);
    put_bytes(message, 18, config.mac.bytes);
    put16(message, 24, kOptionMtu);
    put32(message, 28, config.mtu);
    const Room prefix = Room(message).subspan(32, 32);
    put16(prefix, 0, kOptionPrefix);
    put8(prefix, 2, Config::kPrefixBits6);
    put8(prefix, 3, 0xc0);  // on link; addresses are made from it
    put32(prefix, 4, kDaySeconds);
    put32(prefix, 8, kDaySeconds);
    put_bytes(prefix, 16, Bytes(config.gateway6.bytes).first(8));
    std::size_t size = 64;
    if (!config.resolvers.empty() && !config.restricted) {
        const Room resolver = Room(message).subspan(64, 24);
        put16(resolver, 0, kOptionResolver);
        put32(resolver, 4, kDaySeconds);
        put_bytes(resolver, 8, config.resolver6.bytes);
        size += resolver.size();
    }
    (void)output.send_to(probing ? kAllNodesMac : packet.mac,
                         {.from = config.link_local,
                          .to = probing ? kAllNodes : packet.from,
                          .protocol = Protocol::Icmp6,
                          .hop_limit = kHopLimit},
                         Room(message).first(size), 2);
}

}  // namespace

bool answer_ndp(Output& output, const Packet& packet) {
    if (packet.message.size() < kIcmpHeader || packet.head[0] < static_cast<u8>(Kind::RouterSolicit) ||
        packet.head[0] > static_cast<u8>(Kind::Advert))
        return false;
    if (packet.hop_limit != kHopLimit || packet.head[1] != 0 || !checksum_is_right(packet)) return true;
    switch (static_cast<Kind>(packet.head[0])) {
        case Kind::Solicit: advertise_address(output, packet); break;
        case Kind::RouterSolicit: advertise_router(output, packet); break;
        case Kind::RouterAdvert:   // the guest is no router of ours
        case Kind::Advert: break;  // its sender's address has been learnt
    }
    return true;
}

void ask_ndp(Output& output, const IpAddress& address) {
    const Config& config = output.config();
    IpAddress group{{0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 0}};
    std::ranges::copy(Bytes(address.bytes).subspan(13), group.bytes.begin() + 13);
    MacAddress mac{{0x33, 0x33, 0xff, 0, 0, 0}};
    std::ranges::copy(Bytes(address.bytes).subspan(13), mac.bytes.begin() + 3);
    std::array<u8, 32> message{};
    put8(message, 0, static_cast<u8>(Kind::Solicit));
    put_bytes(message, 8, address.bytes);
    put16(message, 24, kOptionSource);
    put_bytes(message, 26, config.mac.bytes);
    (void)output.send_to(
        mac, {.from = config.link_local, .to = group, .protocol = Protocol::Icmp6, .hop_limit = kHopLimit},
        message, 2);
}

}  // namespace tessera::usernet
