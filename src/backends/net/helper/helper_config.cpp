#include "backends/net/helper/helper_config.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

namespace tessera::net {

static_assert(std::is_trivially_copyable_v<HelperConfig>);

namespace {

template <std::size_t N>
void copy_text(std::array<char, N>& to, const std::string& from) {
    std::copy_n(from.begin(), std::min(from.size(), N - 1), to.begin());
}

template <std::size_t N>
std::string text_of(const std::array<char, N>& from) {
    return {from.begin(), std::ranges::find(from, '\0')};
}

constexpr u32 kLeastMtu = 576;
constexpr u32 kMostMtu = 65520;

}  // namespace

std::vector<u8> to_bytes(const usernet::Config& config) {
    HelperConfig made;
    made.prefix_bits = config.prefix_bits;
    made.mtu = config.mtu;
    made.ipv6 = config.ipv6 ? 1 : 0;
    made.restricted = config.restricted ? 1 : 0;
    made.host_loopback = config.host_loopback ? 1 : 0;
    made.gateway = config.gateway;
    made.resolver = config.resolver;
    made.first_guest = config.first_guest;
    made.mac = config.mac;
    made.resolver_count = static_cast<u8>(std::min(config.resolvers.size(), kMostResolvers));
    std::copy_n(config.resolvers.begin(), made.resolver_count, made.resolvers.begin());
    made.forward_count = static_cast<u8>(std::min(config.forwards.size(), kMostForwards));
    for (std::size_t i = 0; i < made.forward_count; ++i)
        made.forwards[i] = {.udp = config.forwards[i].transport == usernet::Transport::Udp ? u8{1} : u8{0},
                            .guest = config.forwards[i].guest};
    copy_text(made.guest_name, config.guest_name);
    copy_text(made.domain, config.domain);
    std::vector<u8> bytes(sizeof made);
    std::memcpy(bytes.data(), &made, sizeof made);
    return bytes;
}

std::optional<usernet::Config> from_bytes(std::span<const u8> bytes) {
    HelperConfig given;
    if (bytes.size() != sizeof given) return std::nullopt;
    std::memcpy(&given, bytes.data(), sizeof given);
    if (given.version != HelperConfig::kVersion || given.prefix_bits > 30 || given.mtu < kLeastMtu ||
        given.mtu > kMostMtu || given.resolver_count > kMostResolvers || given.forward_count > kMostForwards)
        return std::nullopt;
    usernet::Config config;
    config.prefix_bits = given.prefix_bits;
    config.mtu = static_cast<u16>(given.mtu);
    config.ipv6 = given.ipv6 != 0;
    config.restricted = given.restricted != 0;
    config.host_loopback = given.host_loopback != 0;
    config.gateway = given.gateway;
    config.resolver = given.resolver;
    config.first_guest = given.first_guest;
    config.mac = given.mac;
    config.resolvers.assign(given.resolvers.begin(), given.resolvers.begin() + given.resolver_count);
    for (std::size_t i = 0; i < given.forward_count; ++i)
        config.forwards.push_back(
            {.transport = given.forwards[i].udp != 0 ? usernet::Transport::Udp : usernet::Transport::Tcp,
             .guest = given.forwards[i].guest});
    config.guest_name = text_of(given.guest_name);
    config.domain = text_of(given.domain);
    return config;
}

}  // namespace tessera::net
