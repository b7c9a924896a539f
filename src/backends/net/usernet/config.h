// What the network looks like that the guest is put into, and what of the world it may reach.
#pragma once

#include <string>
#include <vector>

#include "backends/net/usernet/addresses.h"

namespace tessera::usernet {

enum class Transport : u8 { Tcp, Udp };

// A port of the host whose traffic goes to the guest. The host's socket is open already.
struct Forward {
    Transport transport = Transport::Tcp;
    Endpoint guest;
};

struct Config {
    // The addresses QEMU's users know [QEMU: user networking].
    unsigned prefix_bits = 24;
    IpAddress gateway = IpAddress::v4(0x0a000202);
    IpAddress resolver = IpAddress::v4(0x0a000203);
    IpAddress first_guest = IpAddress::v4(0x0a00020f);

    bool ipv6 = true;
    static constexpr unsigned kPrefixBits6 = 64;
    // A unique local prefix [RFC 4193] of our own; the rest is as in IPv4.
    IpAddress gateway6{{0xfd, 0x54, 0x65, 0x73, 0x73, 0x65, 0x72, 0x61, 0, 0, 0, 0, 0, 0, 0, 2}};
    IpAddress resolver6{{0xfd, 0x54, 0x65, 0x73, 0x73, 0x65, 0x72, 0x61, 0, 0, 0, 0, 0, 0, 0, 3}};
    IpAddress link_local{{0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2}};

    MacAddress mac{{0x52, 0x55, 0x0a, 0x00, 0x02, 0x02}};
    u16 mtu = 1500;
    std::string guest_name;  // for DHCP, none if empty
    std::string domain;      // for DHCP, none if empty

    bool restricted = false;     // nothing leaves; forwards still come in
    bool host_loopback = false;  // the gateway's address is the host's loopback
    std::vector<Endpoint> resolvers;
    std::vector<Forward> forwards;

    u64 seed = 0;  // random: initial sequence numbers and the table's hash
};

// Where on the host's side something goes that the guest sends to `to`.
struct Route {
    enum class Verdict : u8 { Allowed, Prohibited, Ignored };
    Verdict verdict = Verdict::Prohibited;
    Endpoint to;
};
// `resolver` chooses among the host's resolvers.
[[nodiscard]] Route route(const Config& config, const Endpoint& to, std::size_t resolver = 0);

// Addresses a guest may send from, and be sent to by a forward.
[[nodiscard]] bool is_guest_address(const Config& config, const IpAddress& address);

// The address under which the guest sees a peer of a forward: its own if the guest can answer to it.
[[nodiscard]] IpAddress seen_by_guest(const Config& config, const IpAddress& peer, const IpAddress& guest);

}  // namespace tessera::usernet
