#include "backends/net/usernet/config.h"

namespace tessera::usernet {

namespace {

bool in_our_networks(const Config& config, const IpAddress& address) {
    return same_network(address, config.gateway, config.prefix_bits) ||
           same_network(address, config.gateway6, Config::kPrefixBits6);
}

bool is_limited_broadcast(const Config& config, const IpAddress& address) {
    if (!address.is_v4()) return false;
    const u32 host_bits = config.prefix_bits >= 32 ? 0 : ~u32{0} >> config.prefix_bits;
    return address.as_v4() == 0xffffffff || (same_network(address, config.gateway, config.prefix_bits) &&
                                             (address.as_v4() & host_bits) == host_bits);
}

// Never to be handed to the host's sockets: they mean the host itself, its own links, or nobody.
// Link-local among them: that is where clouds keep the host's credentials (169.254.169.254).
bool is_special(const IpAddress& address) {
    if (address.is_loopback() || address.is_link_local() || address.is_zero()) return true;
    if (address.is_v4()) return address.bytes[12] == 0 || address.bytes[12] >= 240;
    // [RFC 4291 2.5.5.1]: ::a.b.c.d, deprecated. Mapped addresses are refused where packets are parsed.
    return get32(address.bytes, 0) == 0 && get32(address.bytes, 4) == 0 && get32(address.bytes, 8) == 0;
}

}  // namespace

Route route(const Config& config, const Endpoint& to, std::size_t resolver) {
    using Verdict = Route::Verdict;
    if (to.address.is_multicast() || is_limited_broadcast(config, to.address))
        return {.verdict = Verdict::Ignored, .to = {}};
    if (config.restricted) return {};
    if (to.address == config.resolver || to.address == config.resolver6) {
        if (to.port != 53 || config.resolvers.empty()) return {};
        return {.verdict = Verdict::Allowed, .to = config.resolvers[resolver % config.resolvers.size()]};
    }
    if (to.address == config.gateway || to.address == config.gateway6) {
        if (!config.host_loopback) return {};
        IpAddress loopback = IpAddress::v4(0x7f000001);
        if (!to.address.is_v4()) {
            loopback = {};
            loopback.bytes[15] = 1;
        }
        return {.verdict = Verdict::Allowed, .to = {.address = loopback, .port = to.port}};
    }
    if (is_special(to.address) || in_our_networks(config, to.address)) return {};
    return {.verdict = Verdict::Allowed, .to = to};
}

IpAddress seen_by_guest(const Config& config, const IpAddress& peer, const IpAddress& guest) {
    const bool usable = peer.is_v4() == guest.is_v4() && !is_special(peer) && !peer.is_multicast() &&
                        !in_our_networks(config, peer);
    if (usable) return peer;
    return guest.is_v4() ? config.gateway : config.gateway6;
}

bool is_guest_address(const Config& config, const IpAddress& address) {
    if (address == config.gateway || address == config.resolver || address == config.gateway6 ||
        address == config.resolver6 || address == config.link_local)
        return false;
    if (address.is_v4())
        return same_network(address, config.gateway, config.prefix_bits) &&
               !is_limited_broadcast(config, address) && address.as_v4() != 0;
    return same_network(address, config.gateway6, Config::kPrefixBits6) || address.is_link_local();
}

}  // namespace tessera::usernet
