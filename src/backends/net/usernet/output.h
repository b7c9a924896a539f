// Frames to the guest: Ethernet and IP headers, fragments, checksums.
#pragma once

#include "backends/net/usernet/config.h"
#include "backends/net/usernet/host.h"
#include "backends/net/usernet/neighbours.h"
#include "backends/net/usernet/packet.h"

namespace tessera::usernet {

// The outside of an IP packet to the guest.
struct Envelope {
    IpAddress from;
    IpAddress to;
    Protocol protocol{};
    u8 hop_limit = 64;
};

class Output {
public:
    Output(const Config& config, Wire& wire) : config_(config), wire_(wire) {}

    Neighbours neighbours;
    NetOffloads guest_takes;

    [[nodiscard]] const Config& config() const { return config_; }
    [[nodiscard]] Wire& wire() { return wire_; }

    // Sends a message whose checksum is still zero, at `checksum_at`; in fragments if it is longer than the
    // MTU allows. Lost if the wire has no room or the receiver's Ethernet address is not known (it is asked
    // for); false then.
    bool send(const Envelope& envelope, Room message, std::size_t checksum_at);
    // The same to a known Ethernet address.
    bool send_to(const MacAddress& mac, const Envelope& envelope, Room message, std::size_t checksum_at);
    // A frame that is not IP.
    bool send_frame(const MacAddress& mac, EtherType type, Bytes content);

    // Asks who has an address.
    void ask_for(const IpAddress& address);

    [[nodiscard]] static std::size_t headers_size(const IpAddress& to) {
        return sizeof(NetHeader) + kEthernetHeader + (to.is_v4() ? kIpv4Header : kIpv6Header);
    }
    // Writes NetHeader (empty), Ethernet and IP header for a message of `length` bytes.
    void write_headers(Room frame, const MacAddress& mac, const Envelope& envelope, std::size_t length);

private:
    void write_ethernet(Room frame, const MacAddress& mac, EtherType type) const;
    void write_ipv4(Room header, const Envelope& envelope, std::size_t length, u16 id, u16 fragment) const;
    bool send_fragments(const MacAddress& mac, const Envelope& envelope, Bytes message);

    const Config& config_;
    Wire& wire_;
    u16 next_id_ = 1;
};

}  // namespace tessera::usernet
