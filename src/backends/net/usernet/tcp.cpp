// Segments from the guest, events from the host; tcp_output.cpp has what goes out.
#include "backends/net/usernet/tcp.h"

#include <algorithm>

#include "backends/net/usernet/checksum.h"
#include "backends/net/usernet/hash.h"
#include "backends/net/usernet/icmp.h"

namespace tessera::usernet {

namespace {

constexpr u16 kLeastMss = 64;
constexpr u16 kDefaultMss = 536;  // [RFC 9293 3.7.1]

}  // namespace

std::size_t Tcp::Hash::operator()(const Key& key) const {
    const u64 hash = mix(mix(seed, key.guest.address), key.remote.address);
    return mix(hash, u64{key.guest.port} << 16 | key.remote.port);
}

Tcp::Tcp(Host& host, Output& output)
    : host_(host),
      output_(output),
      connections_(kMostConnections),
      by_key_(kMostConnections, Hash{output.config().seed}),
      pool_(kMostQueued / ChunkPool::kChunk) {
    for (u32 id = kMostConnections; id-- > 0;) free_.push_back(id);
    due_.reserve(kMostConnections);
    turn_.reserve(kMostConnections);
    later_.reserve(kMostConnections);
}

// [RFC 6528]: hard to guess, and growing for the same pair.
u32 Tcp::initial_sequence(const Key& key, u64 now_ms) const {
    return static_cast<u32>(Hash{~output_.config().seed}(key)) + static_cast<u32>(now_ms * 250);
}

u16 Tcp::our_mss(const IpAddress& guest) const {
    return static_cast<u16>(output_.config().mtu - (guest.is_v4() ? kIpv4Header : kIpv6Header) - kTcpHeader);
}

void Tcp::adopt_options(Connection& connection, const Segment& segment) const {
    const u16 offered = segment.mss == 0 ? kDefaultMss : std::max(segment.mss, kLeastMss);
    connection.mss = std::min(offered, our_mss(connection.key.guest.address));
    connection.scaled = segment.scale != Segment::kNoScale;
    connection.guest_scale = connection.scaled ? segment.scale : u8{0};
}

// --- The table ---

std::optional<u32> Tcp::take_slot(const Key& key, u64 now_ms) {
    if (free_.empty()) return std::nullopt;
    const u32 id = free_.back();
    free_.pop_back();
    Connection& connection = connections_[id];
    const bool listed = connection.listed;  // its number may be in due_ still, and in later_
    const bool later = connection.acknowledge_later;
    connection = {};
    connection.listed = listed;
    connection.acknowledge_later = later;
    connection.key = key;
    connection.heard_ms = now_ms;
    by_key_.emplace(key, id);
    return id;
}

void Tcp::release(u32 id, Host::Ending ending) {
    Connection& connection = connections_[id];
    host_.tcp_close(id, ending);
    by_key_.erase(connection.key);
    connection.queue.clear(pool_);
    connection.state = State::Free;
    connection.due_ms = kNever;
    free_.push_back(id);
}

// Both ends are told that the connection is no more.
void Tcp::abort(u32 id) {
    Connection& connection = connections_[id];
    if (connection.state != State::Connecting || connection.mac_known)
        (void)send_control(connection, TcpFlags::kRst | TcpFlags::kAck, connection.send_next);
    release(id, Host::Ending::Reset);
}

// --- Handshake ---

void Tcp::segment(const Packet& packet, u64 now_ms) {
    const auto segment = parse_segment(packet);
    if (!segment || packet.to.is_multicast()) return;
    const Key key{.guest = {.address = packet.from, .port = segment->from_port},
                  .remote = {.address = packet.to, .port = segment->to_port}};
    const auto found = by_key_.find(key);
    if (found == by_key_.end()) {
        stranger(packet, *segment, now_ms);
        return;
    }
    const u32 id = found->second;
    Connection& connection = connections_[id];
    connection.mac = packet.mac;
    connection.mac_known = true;
    connection.heard_ms = now_ms;
    switch (connection.state) {
        case State::Connecting:  // the SYN again, or the guest has changed its mind
            if (segment->has(TcpFlags::kRst) && segment->sequence == connection.receive_next)
                release(id, Host::Ending::Reset);
            break;
        case State::SynSent: syn_sent(id, *segment, now_ms); break;
        case State::SynReceived:
        case State::Open: established(id, *segment, now_ms); break;
        case State::Free: break;
    }
}

// A segment of no connection: a new one, or one that has ended here [RFC 9293 3.10.7.1].
void Tcp::stranger(const Packet& packet, const Segment& segment, u64 now_ms) {
    if (segment.has(TcpFlags::kRst)) return;
    if (!segment.has(TcpFlags::kSyn) || segment.has(TcpFlags::kAck)) {
        refuse(packet, segment);
        return;
    }
    const Endpoint remote{.address = packet.to, .port = segment.to_port};
    const Route way = route(output_.config(), remote);
    if (way.verdict == Route::Verdict::Ignored) return;
    const Key key{.guest = {.address = packet.from, .port = segment.from_port}, .remote = remote};
    const auto id = way.verdict == Route::Verdict::Allowed ? take_slot(key, now_ms) : std::nullopt;
    if (!id) {
        refuse(packet, segment);
        return;
    }
    begin(*id, packet, segment);
    const ConnectResult result = host_.tcp_connect(*id, way.to);
    if (result != ConnectResult::InProgress) connected(*id, result, now_ms);
}

void Tcp::begin(u32 id, const Packet& packet, const Segment& segment) {
    Connection& connection = connections_[id];
    connection.state = State::Connecting;
    connection.mac = packet.mac;
    connection.mac_known = true;
    adopt_options(connection, segment);
    connection.receive_next = segment.sequence + 1;
    connection.window_edge = connection.receive_next;
    connection.guest_window = segment.window;  // not scaled in a SYN [RFC 7323 2.2]
    connection.window_sequence = segment.sequence;
    connection.send_unacknowledged = initial_sequence(connection.key, connection.heard_ms);
    connection.send_next = connection.send_unacknowledged;
    connection.send_most = connection.send_unacknowledged;
    connection.window_acknowledged = connection.send_unacknowledged;
}

void Tcp::refuse(const Packet& packet, const Segment& segment) {
    Connection nobody;
    nobody.key = {.guest = {.address = packet.from, .port = segment.from_port},
                  .remote = {.address = packet.to, .port = segment.to_port}};
    nobody.mac = packet.mac;
    nobody.mac_known = true;
    if (segment.has(TcpFlags::kAck)) {
        (void)send_control(nobody, TcpFlags::kRst, segment.acknowledged);
        return;
    }
    nobody.receive_next = segment.sequence + segment.length();
    (void)send_control(nobody, TcpFlags::kRst | TcpFlags::kAck, 0);
}

void Tcp::connected(u32 id, ConnectResult result, u64 now_ms) {
    if (id >= connections_.size() || connections_[id].state != State::Connecting) return;
    Connection& connection = connections_[id];
    switch (result) {
        case ConnectResult::InProgress: return;
        case ConnectResult::Connected:
            connection.state = State::SynReceived;
            connection.send_next = connection.send_unacknowledged + 1;
            connection.send_most = connection.send_next;
            connection.readable = true;
            (void)send_control(connection, TcpFlags::kSyn | TcpFlags::kAck, connection.send_unacknowledged);
            arm(connection, now_ms);
            return;
        case ConnectResult::Refused: abort(id); return;
        case ConnectResult::Unreachable: {
            std::array<u8, 8> header{};
            put16(header, 0, connection.key.guest.port);
            put16(header, 2, connection.key.remote.port);
            put32(header, 4, connection.receive_next - 1);
            send_unreachable(output_, Unreachable::Host,
                             {.from = connection.key.guest.address,
                              .to = connection.key.remote.address,
                              .protocol = Protocol::Tcp},
                             header);
            release(id, Host::Ending::Reset);
            return;
        }
        case ConnectResult::TimedOut: release(id, Host::Ending::Reset); return;  // nobody answers
    }
}

std::optional<u32> Tcp::incoming(u32 forward, const Endpoint& peer, u64 now_ms) {
    const Config& config = output_.config();
    if (forward >= config.forwards.size()) return std::nullopt;
    const Endpoint& guest = config.forwards[forward].guest;
    const Key key{
        .guest = guest,
        .remote = {.address = seen_by_guest(config, peer.address, guest.address), .port = peer.port}};
    if (by_key_.contains(key)) return std::nullopt;
    const auto id = take_slot(key, now_ms);
    if (!id) return std::nullopt;
    Connection& connection = connections_[*id];
    connection.state = State::SynSent;
    connection.readable = true;
    connection.mss = our_mss(guest.address);
    connection.send_unacknowledged = initial_sequence(key, now_ms);
    connection.send_next = connection.send_unacknowledged + 1;
    connection.send_most = connection.send_next;
    (void)send_control(connection, TcpFlags::kSyn, connection.send_unacknowledged);
    arm(connection, now_ms);
    return id;
}

// [RFC 9293 3.10.7.3]
void Tcp::syn_sent(u32 id, const Segment& segment, u64 now_ms) {
    Connection& connection = connections_[id];
    const bool acknowledges =
        segment.has(TcpFlags::kAck) && segment.acknowledged == connection.send_unacknowledged + 1;
    if (segment.has(TcpFlags::kRst)) {
        if (acknowledges) release(id, Host::Ending::Reset);
        return;
    }
    // GAP: both ends opening at once; the guest's SYN waits until it answers ours.
    if (!acknowledges || !segment.has(TcpFlags::kSyn)) return;
    adopt_options(connection, segment);
    connection.state = State::Open;
    connection.tries = 0;
    connection.send_unacknowledged = segment.acknowledged;
    connection.receive_next = segment.sequence + 1;
    connection.window_edge = connection.receive_next;
    connection.guest_window = segment.window;
    connection.window_sequence = segment.sequence;
    connection.window_acknowledged = segment.acknowledged;
    connection.acknowledge = true;
    arm(connection, now_ms);
    mark(id);
}

// The guest's answer to our SYN.
bool Tcp::handshake_done(u32 id, const Segment& segment) {
    Connection& connection = connections_[id];
    if (segment.acknowledged != connection.send_next) {
        (void)send_control(connection, TcpFlags::kRst, segment.acknowledged);
        return false;
    }
    connection.state = State::Open;
    connection.tries = 0;
    connection.send_unacknowledged = connection.send_next;
    connection.window_sequence = segment.sequence;
    connection.window_acknowledged = segment.acknowledged;
    connection.guest_window = u32{segment.window} << connection.guest_scale;
    mark(id);
    return true;
}

// --- A connection's segments, in the order of [RFC 9293 3.10.7.4] ---

void Tcp::established(u32 id, const Segment& segment, u64 now_ms) {
    Connection& connection = connections_[id];
    const auto challenge = [&] {  // [RFC 5961]
        connection.acknowledge = true;
        mark(id);
    };
    const u32 ahead = segment.sequence - connection.receive_next;
    const bool in_window = ahead < std::max(kReceiveWindow, u32{1});
    if (segment.has(TcpFlags::kRst)) {
        if (ahead == 0)
            release(id, Host::Ending::Reset);
        else if (in_window)
            challenge();
        return;
    }
    if (segment.has(TcpFlags::kSyn)) {
        // Its SYN again: our answer was lost.
        if (connection.state == State::SynReceived && segment.sequence + 1 == connection.receive_next)
            (void)send_control(connection, TcpFlags::kSyn | TcpFlags::kAck, connection.send_unacknowledged);
        else
            challenge();
        return;
    }
    if (!segment.has(TcpFlags::kAck)) return;
    if (connection.state == State::SynReceived && !handshake_done(id, segment)) return;
    // Old data may be repeated with something new behind it; what is too far ahead is not ours.
    const bool overlaps = before(segment.sequence, connection.receive_next) &&
                          before(connection.receive_next, segment.sequence + segment.length());
    if (ahead != 0 && !overlaps) {
        if (segment.length() != 0 || !in_window) {
            // At once: three of them make the guest send again what was lost.
            if (!send_control(connection, TcpFlags::kAck, connection.send_next)) challenge();
        }
        if (!in_window) return;
    }
    take_acknowledgement(id, segment, now_ms);
    if (connections_[id].state == State::Free) return;
    if (ahead == 0 || overlaps) in_order(id, segment, now_ms);
}

void Tcp::take_window(Connection& connection, const Segment& segment) {
    const bool newer = before(connection.window_sequence, segment.sequence) ||
                       (connection.window_sequence == segment.sequence &&
                        !before(segment.acknowledged, connection.window_acknowledged));
    if (!newer) return;
    connection.window_sequence = segment.sequence;
    connection.window_acknowledged = segment.acknowledged;
    connection.guest_window = u32{segment.window} << connection.guest_scale;
}

void Tcp::take_acknowledgement(u32 id, const Segment& segment, u64 now_ms) {
    Connection& connection = connections_[id];
    if (before(connection.send_most, segment.acknowledged)) {  // of what was never sent
        connection.acknowledge = true;
        mark(id);
        return;
    }
    const u32 window_before = connection.guest_window;
    if (before(connection.send_unacknowledged, segment.acknowledged)) {
        u32 bytes = segment.acknowledged - connection.send_unacknowledged;
        if (connection.end_known && segment.acknowledged == connection.fin_sequence + 1) --bytes;
        if (bytes != 0) host_.tcp_discard(id, bytes);
        connection.send_unacknowledged = segment.acknowledged;
        if (before(connection.send_next, segment.acknowledged)) connection.send_next = segment.acknowledged;
        connection.duplicates = 0;
        connection.tries = 0;
        take_window(connection, segment);
        arm(connection, now_ms);
        mark(id);
        (void)close_if_done(id);
        return;
    }
    take_window(connection, segment);
    if (connection.guest_window != window_before) {
        connection.tries = 0;
        arm(connection, now_ms);
        mark(id);
    } else if (segment.acknowledged == connection.send_unacknowledged && segment.length() == 0 &&
               connection.send_most != connection.send_unacknowledged && ++connection.duplicates == 3) {
        connection.send_next = connection.send_unacknowledged;  // [RFC 5681 3.2]: it was lost
        mark(id);
    }
}

void Tcp::in_order(u32 id, const Segment& segment, u64 now_ms) {
    Connection& connection = connections_[id];
    if (connection.guest_finished) {
        if (segment.length() != 0) {  // its FIN again
            connection.acknowledge = true;
            mark(id);
        }
        return;
    }
    take_data(id, segment, now_ms);
    if (connections_[id].state == State::Free) return;
    if (segment.has(TcpFlags::kFin) &&
        connection.receive_next == segment.sequence + static_cast<u32>(segment.data.size())) {
        ++connection.receive_next;
        connection.guest_finished = true;
        connection.acknowledge = true;
        mark(id);
        finish_host(id);
        (void)close_if_done(id);
    }
}

void Tcp::take_data(u32 id, const Segment& segment, u64 now_ms) {
    Connection& connection = connections_[id];
    const u32 known = connection.receive_next - segment.sequence;
    if (known >= segment.data.size()) return;
    Bytes data = segment.data.subspan(known);
    const u32 room = free_window(connection);
    data = data.first(std::min(data.size(), std::size_t{room}));
    const std::size_t taken = to_host(id, data);
    if (connections_[id].state == State::Free) return;
    connection.receive_next += static_cast<u32>(taken);
    if (taken == segment.data.size() - known)
        owe_acknowledgement(id, static_cast<u32>(taken), now_ms);
    else
        connection.acknowledge = true;
    if (connection.acknowledge) mark(id);
}

void Tcp::owe_acknowledgement(u32 id, u32 bytes, u64 now_ms) {
    Connection& connection = connections_[id];
    if (now_ms - connection.data_ms > kPauseMs) connection.flow_bytes = 0;
    connection.data_ms = now_ms;
    connection.flow_bytes = std::min(connection.flow_bytes + bytes, kQuickBytes);
    const u32 owed = connection.receive_next - connection.acknowledged;
    const u32 window = connection.scaled ? kReceiveWindow : 65535;
    // Of a socket that is full the guest hears at once.
    if (connection.flow_bytes < kQuickBytes || owed >= std::min(kAcknowledgeEvery, window / 4) ||
        connection.queue.size() != 0) {
        connection.acknowledge = true;
        return;
    }
    if (connection.acknowledge_later) return;
    connection.acknowledge_later = true;
    if (later_.empty()) later_due_ms_ = now_ms + kAcknowledgeDelayMs;
    later_.push_back(id);
}

// Returns how much was taken; the guest sends the rest again.
std::size_t Tcp::to_host(u32 id, Bytes data) {
    Connection& connection = connections_[id];
    std::size_t taken = 0;
    if (connection.queue.size() == 0 && !data.empty()) {
        const Host::Transfer sent = host_.tcp_send(id, data);
        if (sent.failed) {
            abort(id);
            return 0;
        }
        taken = std::min(sent.bytes, data.size());
    }
    if (taken < data.size()) taken += connection.queue.push(pool_, data.subspan(taken));
    return taken;
}

void Tcp::drain_queue(u32 id) {
    Connection& connection = connections_[id];
    while (connection.queue.size() != 0) {
        const Bytes front = connection.queue.front(pool_);
        const Host::Transfer sent = host_.tcp_send(id, front);
        if (sent.failed) {
            abort(id);
            return;
        }
        if (sent.bytes == 0) break;
        connection.queue.pop(pool_, std::min(sent.bytes, front.size()));
    }
    // [RFC 9293 3.8.6.2.2]: told when it has grown by a good part, or the guest may be waiting for it.
    const u32 room = connection.receive_next + free_window(connection) - connection.window_edge;
    const bool stopped = connection.window_edge == connection.receive_next;
    if (!connection.guest_finished &&
        (room >= (connection.scaled ? kReceiveWindow : 65536) / 4 || (stopped && room != 0))) {
        connection.acknowledge = true;
        mark(id);
    }
    finish_host(id);
    (void)close_if_done(id);
}

void Tcp::finish_host(u32 id) {
    Connection& connection = connections_[id];
    if (!connection.guest_finished || connection.host_told || connection.queue.size() != 0) return;
    connection.host_told = true;
    host_.tcp_finish(id);
}

// There is no TIME-WAIT: the cable loses nothing that was put on it, and a late FIN is answered with a reset,
// which ends it as well.
bool Tcp::close_if_done(u32 id) {
    Connection& connection = connections_[id];
    const bool acknowledged =
        connection.end_known && connection.send_unacknowledged == connection.fin_sequence + 1;
    if (!acknowledged || !connection.host_told) return false;
    if (connection.acknowledge && !send_control(connection, TcpFlags::kAck, connection.send_next))
        return false;
    release(id, Host::Ending::Orderly);
    return true;
}

// --- Events of the host ---

void Tcp::ready(u32 id, Ready what, u64 now_ms) {
    if (id >= connections_.size()) return;
    Connection& connection = connections_[id];
    if (connection.state == State::Free || connection.state == State::Connecting) return;
    if (what.failed) {
        abort(id);
        return;
    }
    if (what.finished) connection.host_finished = true;
    if (what.readable || what.finished) {
        connection.readable = true;
        mark(id);
    }
    if (what.writable) drain_queue(id);
    if (connection.state != State::Free) arm_if_idle(connection, now_ms);
}

}  // namespace tessera::usernet
