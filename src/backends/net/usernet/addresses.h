// Addresses as the stack keeps them: an IPv4 address is the IPv6 address ::ffff:a.b.c.d.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>

#include "backends/net/usernet/bytes.h"

namespace tessera::usernet {

struct MacAddress {
    std::array<u8, 6> bytes{};

    [[nodiscard]] bool is_group() const { return (bytes[0] & 1) != 0; }
    friend bool operator==(const MacAddress&, const MacAddress&) = default;
};

struct IpAddress {
    std::array<u8, 16> bytes{};

    static IpAddress v4(u32 address);
    static IpAddress from_v4(Bytes four);
    static IpAddress from_v6(Bytes sixteen);
    // "192.0.2.1" or "2001:db8::1", without anything before or behind.
    static std::optional<IpAddress> parse(std::string_view text);

    [[nodiscard]] bool is_v4() const;
    [[nodiscard]] u32 as_v4() const { return get32(bytes, 12); }
    [[nodiscard]] bool is_zero() const;  // 0.0.0.0 or ::
    [[nodiscard]] bool is_loopback() const;
    [[nodiscard]] bool is_link_local() const;
    [[nodiscard]] bool is_multicast() const;
    [[nodiscard]] std::string text() const;
    friend bool operator==(const IpAddress&, const IpAddress&) = default;
};

struct Endpoint {
    IpAddress address;
    u16 port = 0;
    friend bool operator==(const Endpoint&, const Endpoint&) = default;
};

// The same upper `bits` bits (of 32 for IPv4, 128 for IPv6).
[[nodiscard]] bool same_network(const IpAddress& a, const IpAddress& b, unsigned bits);

}  // namespace tessera::usernet
