// UDP and echo requests of the guest, each flow through a socket of its own; UDP forwards; a bounded number
// of flows, the longest idle one makes room.
#pragma once

#include <unordered_map>
#include <vector>

#include "backends/net/usernet/output.h"

namespace tessera::usernet {

class Datagrams {
public:
    Datagrams(Host& host, Output& output);

    static constexpr u32 kMostFlows = 512;
    static constexpr u64 kIdleMs = 120'000;
    static constexpr u64 kShortIdleMs = 20'000;  // questions to a resolver, echo

    void udp(const Packet& packet, u64 now_ms);
    void echo(const Packet& packet, u64 now_ms);

    void readable(u32 id);
    void failed(u32 id);  // the far end refuses, as the host has heard
    void forward_readable(u32 forward);

    // Passes on what has arrived, as far as there is room; true if it was not all for another reason.
    bool flush(u64 now_ms);
    // Closes what is idle; returns when to be called again.
    u64 run_due(u64 now_ms);

    [[nodiscard]] std::size_t flows() const { return by_key_.size(); }

private:
    struct Key {
        IpAddress guest;
        IpAddress remote;
        u16 guest_port = 0;  // or the echo identifier
        u16 remote_port = 0;
        DatagramKind kind = DatagramKind::Udp;
        friend bool operator==(const Key&, const Key&) = default;
    };
    struct Hash {
        u64 seed;
        std::size_t operator()(const Key& key) const;
    };
    static constexpr u32 kNoForward = ~u32{0};
    struct Flow {
        bool used = false;
        bool listed = false;   // in readable_
        bool answered = true;  // something has come back since the guest's last message
        Key key;
        u64 idle_since_ms = 0;
        u32 forward = kNoForward;
        Endpoint peer;  // of a forward
        std::size_t resolver = 0;
    };

    [[nodiscard]] static u64 patience(const Flow& flow);
    std::optional<u32> find(const Key& key) const;
    u32 take_slot();
    void close(u32 id);
    std::optional<u32> open(const Packet& packet, const Key& key, u64 now_ms);
    std::optional<u32> flow_for(const Packet& packet, const Key& key, u64 now_ms);
    bool try_next_resolver(u32 id);
    void send(u32 id, Bytes message);
    bool receive_flow(u32 id, u64 now_ms);
    bool receive_forward(u32 forward, u64 now_ms);
    std::optional<u32> flow_of_peer(u32 forward, const Endpoint& peer, u64 now_ms);
    [[nodiscard]] bool wire_has_room();

    Host& host_;
    Output& output_;
    std::vector<Flow> flows_;
    std::vector<u32> free_;
    std::unordered_map<Key, u32, Hash> by_key_;
    std::vector<u32> readable_;
    std::vector<u8> forward_readable_;
    std::size_t resolver_ = 0;  // which of the host's resolvers answers
    std::vector<u8> buffer_;
    u64 next_due_ms_ = ~u64{0};
};

}  // namespace tessera::usernet
