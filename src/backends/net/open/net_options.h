// Which network a card is plugged into, as its user has chosen.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backends/net/cable/linked_net.h"
#include "backends/net/usernet/config.h"

namespace tessera::net {

enum class NetKind : u8 { User, Tap, Switch };

// A port of the host whose connections or datagrams go to the guest.
struct PortForward {
    usernet::Transport transport = usernet::Transport::Tcp;
    usernet::Endpoint host{.address = usernet::IpAddress::v4(0x7f000001)};
    u16 guest_port = 0;
    std::string typed;  // for messages
};

enum class Choice : u8 { Auto, On, Off };

struct NetOptions {
    NetKind kind = NetKind::User;
    std::string name;     // of the TAP interface or the switch
    unsigned queues = 1;  // pairs; TAP only

    std::string switch_directory;  // of the switches' sockets; this user's run-time directory if empty

    // User-mode network.
    std::optional<usernet::IpAddress>
        network;  // such as 10.0.2.0; the gateway is .2, the resolver .3, the guest .15
    unsigned prefix_bits = 24;
    u16 mtu = 1500;
    Choice ipv6 = Choice::Auto;
    bool restricted = false;
    bool host_loopback = false;
    std::string guest_name;
    std::vector<usernet::IpAddress> resolvers;  // those of /etc/resolv.conf if empty
    std::vector<PortForward> forwards;

    // The tessera command. It must be named: another program started in its place would be a second one of
    // itself.
    std::string helper_program;
    // User-mode network without forwards only: WhenUsed costs nothing until the guest sends a frame. If the
    // helper does not start then, the cable is unplugged until it does, and on_trouble is told why, once, on
    // the loop's thread.
    Start start = Start::AtOnce;
    std::function<void(std::string_view)> on_trouble;
    u64 restart_pause_ms = 100;  // before a helper that has died is started again; it grows hundredfold
};

}  // namespace tessera::net
