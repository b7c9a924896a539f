// The values of `--net` and `-p`.
// --net none: no card. Without --net there is one on the user-mode network.
// --net KIND[,SETTING...], KIND one of user, tap=NAME, switch=NAME. The settings:
//   mac=XX:XX:XX:XX:XX:XX       of the guest's card
//   model=virtio|ne2000-pci|ne2000-isa    what the card is (virtio); the others on the machine pc only
//   io=PORT                     ne2000-isa only: 0x240, 0x280, 0x2c0, 0x300, 0x320, 0x340, 0x360 (0x300)
//   irq=N                       ne2000-isa only: 3, 5, 7, 15 (5)
//   queues=N                    pairs of queues, 1 to 8 (1); tap only
//   net=ADDRESS/BITS            user only (10.0.2.0/24): gateway .2, resolver .3, guest .15
//   mtu=N                       user only, 576 to 65520 (1500)
//   ipv6=auto|on|off            user only; auto: if the host has a way to it
//   restrict=on|off             user only; on: the guest reaches nobody, ports given with -p work
//   host-loopback=on|off        user only; on: the gateway's address is the host's 127.0.0.1
//   dns=ADDRESS                 user only, may be repeated; instead of the host's resolvers
//   hostname=NAME               user only; what DHCP calls the guest
// -p [tcp:|udp:][HOSTADDR:]HOSTPORT:GUESTPORT, an IPv6 address in brackets; HOSTADDR is 127.0.0.1 if not
// given.
#pragma once

#include <array>
#include <expected>
#include <optional>
#include <string>
#include <string_view>

#include "backends/net/open/net_options.h"
#include "machines/machine.h"

namespace tessera::app {

struct NetOption {
    net::NetOptions backend;
    std::optional<std::array<u8, 6>> mac;  // none: the machine chooses
    NetModel model = NetModel::Virtio;
    IsaPlace isa;
};

inline constexpr std::string_view kNoNet = "none";

// What a guest has without --net: a card on a user-mode network that starts when the guest uses it.
[[nodiscard]] NetOption default_net();
// The error names the option, the part that is wrong, and what is possible.
[[nodiscard]] std::expected<NetOption, std::string> parse_net(std::string_view text);
[[nodiscard]] std::expected<net::PortForward, std::string> parse_forward(std::string_view text);

}  // namespace tessera::app
