// TCP with the guest [RFC 9293]: each of its connections ends here and goes on in a socket of the host.
// What the socket does not take waits in a bounded queue, what the guest does not take stays in the socket;
// so windows tell each end of the other's pace. GAP: data out of order is not kept, but asked for again (the
// cable to the guest keeps order); no SACK, time stamps or ECN.
#pragma once

#include <unordered_map>
#include <vector>

#include "backends/net/usernet/chunk_pool.h"
#include "backends/net/usernet/output.h"
#include "backends/net/usernet/tcp_segment.h"

namespace tessera::usernet {

class Tcp {
public:
    Tcp(Host& host, Output& output);

    static constexpr u32 kMostConnections = 2048;
    static constexpr u32 kReceiveWindow = 1024 * 1024;
    static constexpr u32 kMostInFlight = 1024 * 1024;
    static constexpr u32 kMostQueued = 64 * 1024 * 1024;  // bytes, all connections together
    static constexpr u64 kFirstRetryMs = 300;
    static constexpr u64 kLongestRetryMs = 60'000;
    static constexpr unsigned kMostTries = 10;
    static constexpr unsigned kMostHandshakeTries = 6;
    static constexpr u64 kIdleMs = 7'200'000;  // then the guest is asked whether it is there
    static constexpr u64 kProbeMs = 75'000;
    // A guest sends what an acknowledgement makes room for, and pays for each with an interrupt: once a
    // stream flows, it gets few large ones rather than many small ones.
    static constexpr u32 kQuickBytes =
        256 * 1024;  // after a pause: each at once, so that its window can grow
    static constexpr u64 kPauseMs = 200;
    static constexpr u32 kAcknowledgeEvery = 32 * 1024;
    static constexpr u64 kAcknowledgeDelayMs = 2;

    void segment(const Packet& packet, u64 now_ms);

    void connected(u32 id, ConnectResult result, u64 now_ms);
    struct Ready {
        bool readable = false;
        bool writable = false;
        bool finished = false;  // the far end sends no more
        bool failed = false;
    };
    void ready(u32 id, Ready what, u64 now_ms);
    // A connection has come in for a forward: the number of its socket from now on, none to refuse it.
    std::optional<u32> incoming(u32 forward, const Endpoint& peer, u64 now_ms);

    // Sends what is due; true if there is more to do at once.
    bool flush(u64 now_ms);
    u64 run_due(u64 now_ms);

    [[nodiscard]] std::size_t connections() const { return by_key_.size(); }

private:
    enum class State : u8 { Free, Connecting, SynReceived, SynSent, Open };
    struct Key {
        Endpoint guest;
        Endpoint remote;  // as the guest sees it
        friend bool operator==(const Key&, const Key&) = default;
    };
    struct Hash {
        u64 seed;
        std::size_t operator()(const Key& key) const;
    };
    static constexpr u64 kNever = ~u64{0};

    struct Connection {
        State state = State::Free;
        bool listed = false;  // in due_
        bool mac_known = false;
        bool scaled = false;             // both ends scale their windows
        bool acknowledge = false;        // the guest is owed one
        bool acknowledge_later = false;  // in later_
        bool readable = false;           // the socket may have more than was seen
        bool host_finished = false;      // behind what the socket has comes nothing
        bool end_known = false;          // fin_sequence is
        bool guest_finished = false;
        bool host_told = false;  // of it
        u8 guest_scale = 0;
        u8 duplicates = 0;  // acknowledgements
        u8 tries = 0;
        u16 mss = 0;
        MacAddress mac;
        Key key;
        // Guest to host.
        u32 receive_next = 0;
        u32 window_edge = 0;   // the guest has been told that it may send up to here
        u32 acknowledged = 0;  // and that we have all before this
        u32 flow_bytes = 0;    // received without a pause, up to kQuickBytes
        u64 data_ms = 0;       // when the last came
        ByteQueue queue;
        // Host to guest. The socket's first byte is send_unacknowledged.
        u32 send_unacknowledged = 0;
        u32 send_next = 0;
        u32 send_most = 0;
        u32 fin_sequence = 0;
        u32 guest_window = 0;
        u32 window_sequence = 0;  // of the segment that set it, and what that acknowledged
        u32 window_acknowledged = 0;
        u64 heard_ms = 0;
        u64 due_ms = kNever;
    };

    // tcp.cpp: the table, the handshake, segments that come in
    void stranger(const Packet& packet, const Segment& segment, u64 now_ms);
    void refuse(const Packet& packet, const Segment& segment);
    std::optional<u32> take_slot(const Key& key, u64 now_ms);
    void begin(u32 id, const Packet& packet, const Segment& segment);
    void established(u32 id, const Segment& segment, u64 now_ms);
    void syn_sent(u32 id, const Segment& segment, u64 now_ms);
    void in_order(u32 id, const Segment& segment, u64 now_ms);
    bool handshake_done(u32 id, const Segment& segment);
    void take_acknowledgement(u32 id, const Segment& segment, u64 now_ms);
    void take_window(Connection& connection, const Segment& segment);
    void take_data(u32 id, const Segment& segment, u64 now_ms);
    void owe_acknowledgement(u32 id, u32 bytes, u64 now_ms);
    std::size_t to_host(u32 id, Bytes data);
    void drain_queue(u32 id);
    void finish_host(u32 id);
    bool close_if_done(u32 id);
    void release(u32 id, Host::Ending ending);
    void abort(u32 id);
    [[nodiscard]] u32 initial_sequence(const Key& key, u64 now_ms) const;
    [[nodiscard]] u16 our_mss(const IpAddress& guest) const;
    void adopt_options(Connection& connection, const Segment& segment) const;

    // tcp_output.cpp: segments that go out, timers
    void mark(u32 id);
    void service(u32 id, u64 now_ms);
    bool pump(u32 id, u64 now_ms);
    enum class Sent : u8 { All, Some, Blocked, Dead };
    Sent send_data(u32 id, u32 most, u64 now_ms);
    [[nodiscard]] u32 sendable(const Connection& connection) const;
    bool send_control(Connection& connection, u8 flags, u32 sequence);
    bool send_fin(Connection& connection, u64 now_ms);
    struct Header;
    std::size_t write_tcp(Room to, Connection& connection, const Header& header);
    [[nodiscard]] u32 free_window(const Connection& connection) const;
    u16 window_field(Connection& connection, bool syn) const;
    void arm(Connection& connection, u64 now_ms);
    void arm_if_idle(Connection& connection, u64 now_ms);
    void set_due(Connection& connection, u64 due_ms);
    void timeout(u32 id, u64 now_ms);

    Host& host_;
    Output& output_;
    std::vector<Connection> connections_;
    std::vector<u32> free_;
    std::unordered_map<Key, u32, Hash> by_key_;
    ChunkPool pool_;
    std::vector<u32> due_;    // connections with something to send
    std::vector<u32> turn_;   // those of this flush
    std::vector<u32> later_;  // connections that are owed an acknowledgement, but not at once
    u64 later_due_ms_ = kNever;
    bool blocked_ = false;  // the wire has no room
    u64 next_due_ms_ = kNever;
};

}  // namespace tessera::usernet
