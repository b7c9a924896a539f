// The user-mode network: what a guest's frames mean, and what it gets back. A pure protocol engine: sockets
// are the Host's, frames go to a Wire, and time is a number that comes with each call.
#pragma once

#include "backends/net/usernet/datagrams.h"
#include "backends/net/usernet/dhcp.h"
#include "backends/net/usernet/fragments.h"
#include "backends/net/usernet/tcp.h"

namespace tessera::usernet {

class Stack {
public:
    Stack(Config config, Host& host, Wire& wire);
    Stack(const Stack&) = delete;
    Stack& operator=(const Stack&) = delete;
    ~Stack() = default;

    // A frame from the guest, beginning with its NetHeader. The memory may change under our hands: headers
    // are copied before they are looked at.
    void input(Bytes frame, u64 now_ms);
    // What the guest can deal with.
    void guest_takes(const NetOffloads& offloads) { output_.guest_takes = offloads; }

    // What the host's sockets do, by the numbers given to Host, and forwards by their index.
    void tcp_connected(u32 id, ConnectResult result, u64 now_ms) { tcp_.connected(id, result, now_ms); }
    void tcp_ready(u32 id, Tcp::Ready what, u64 now_ms) { tcp_.ready(id, what, now_ms); }
    std::optional<u32> tcp_incoming(u32 forward, const Endpoint& peer, u64 now_ms) {
        return tcp_.incoming(forward, peer, now_ms);
    }
    void datagram_readable(u32 id) { datagrams_.readable(id); }
    void datagram_failed(u32 id) { datagrams_.failed(id); }
    void forward_readable(u32 forward) { datagrams_.forward_readable(forward); }

    // Sends what is due: after a batch of frames or events, and when the wire has room again. True if there
    // is more to do at once.
    bool flush(u64 now_ms);
    // Does what time has made due; returns when to be called again.
    u64 run_due(u64 now_ms);

    [[nodiscard]] std::size_t connections() const { return tcp_.connections(); }
    [[nodiscard]] std::size_t flows() const { return datagrams_.flows(); }

private:
    void ipv4(Packet& packet, Bytes head, Bytes all, u64 now_ms);
    void ipv6(Packet& packet, Bytes head, Bytes all, u64 now_ms);
    void message(const Packet& packet, u64 now_ms);
    void icmp(const Packet& packet, u64 now_ms);
    bool dhcp(const Packet& packet);
    [[nodiscard]] bool is_ours(const IpAddress& address) const;

    const Config config_;
    Output output_;
    Fragments fragments_;
    Dhcp dhcp_;
    Datagrams datagrams_;
    Tcp tcp_;
};

}  // namespace tessera::usernet
