// What the VM's process tells its network helper to be, as bytes of the Hello message. Both are the same
// program, so the layout is the compiler's.
#pragma once

#include <array>
#include <optional>
#include <span>
#include <vector>

#include "backends/net/usernet/config.h"

namespace tessera::net {

inline constexpr std::size_t kMostResolvers = 8;
inline constexpr std::size_t kMostForwards = 64;  // each with a socket that comes with the message

struct HelperConfig {
    static constexpr u32 kVersion = 1;
    struct Target {
        u8 udp = 0;
        usernet::Endpoint guest;
    };

    u32 version = kVersion;
    u32 prefix_bits = 24;
    u32 mtu = 1500;
    u8 ipv6 = 1;
    u8 restricted = 0;
    u8 host_loopback = 0;
    u8 resolver_count = 0;
    u8 forward_count = 0;
    usernet::IpAddress gateway;
    usernet::IpAddress resolver;
    usernet::IpAddress first_guest;
    usernet::MacAddress mac;
    std::array<usernet::Endpoint, kMostResolvers> resolvers{};
    std::array<Target, kMostForwards> forwards{};
    std::array<char, 64> guest_name{};
    std::array<char, 64> domain{};
};

// What does not fit (resolvers, forwards, long names) is cut; the caller has checked.
[[nodiscard]] std::vector<u8> to_bytes(const usernet::Config& config);
// None if it is not what to_bytes makes.
[[nodiscard]] std::optional<usernet::Config> from_bytes(std::span<const u8> bytes);

}  // namespace tessera::net
