// Segments to the guest, and what happens when it does not answer.
#include <algorithm>

#include "backends/net/usernet/checksum.h"
#include "backends/net/usernet/tcp.h"

namespace tessera::usernet {

namespace {

constexpr u8 kOurScale = 7;              // of windows: in units of 128 bytes
constexpr int kTurn = 4;                 // batches of one connection before another's
constexpr std::size_t kMostFrames = 32;  // of one batch
constexpr std::size_t kMostMessage = 65535 - kIpv6Header - kTcpHeader;
constexpr std::size_t kSynOptions = 8;
constexpr std::size_t kChecksumAt = 16;

}  // namespace

struct Tcp::Header {
    u8 flags = 0;
    u32 sequence = 0;
    std::size_t size = kTcpHeader;
};

void Tcp::mark(u32 id) {
    if (connections_[id].listed) return;
    connections_[id].listed = true;
    due_.push_back(id);
}

bool Tcp::flush(u64 now_ms) {
    blocked_ = false;
    turn_.swap(due_);
    for (const u32 id : turn_) {
        connections_[id].listed = false;
        if (connections_[id].state != State::Free) service(id, now_ms);
    }
    turn_.clear();
    return !due_.empty() && !blocked_;
}

void Tcp::service(u32 id, u64 now_ms) {
    Connection& connection = connections_[id];
    if (connection.state == State::Open && pump(id, now_ms)) mark(id);
    if (connection.state != State::Open || !connection.acknowledge) return;
    if (send_control(connection, TcpFlags::kAck, connection.send_next)) {
        (void)close_if_done(id);
    } else {
        blocked_ = true;
        mark(id);
    }
}

// --- Windows ---

u32 Tcp::free_window(const Connection& connection) const {
    const u32 most = connection.scaled ? kReceiveWindow : 65535;
    const auto queued = static_cast<u32>(connection.queue.size());
    return queued >= most ? 0 : most - queued;
}

u16 Tcp::window_field(Connection& connection, bool syn) const {
    u32 window = free_window(connection);
    const u32 scale = connection.scaled && !syn ? kOurScale : 0;
    // [RFC 9293 3.8.6.2.1]: the right edge never moves back.
    if (before(connection.receive_next + window, connection.window_edge))
        window = connection.window_edge - connection.receive_next;
    const u32 field = std::min(window >> scale, u32{65535});
    connection.window_edge = connection.receive_next + (field << scale);
    return static_cast<u16>(field);
}

// --- Segments ---

// All but the checksum; returns the header's size.
std::size_t Tcp::write_tcp(Room to, Connection& connection, const Header& header) {
    const bool syn = (header.flags & TcpFlags::kSyn) != 0;
    std::ranges::fill(to.first(header.size), u8{0});
    put16(to, 0, connection.key.remote.port);
    put16(to, 2, connection.key.guest.port);
    put32(to, 4, header.sequence);
    if ((header.flags & TcpFlags::kAck) != 0) {
        put32(to, 8, connection.receive_next);
        connection.acknowledged = connection.receive_next;
    }
    put8(to, 12, static_cast<u32>(header.size / 4 << 4));
    put8(to, 13, header.flags);
    if ((header.flags & TcpFlags::kRst) == 0) put16(to, 14, window_field(connection, syn));
    if (!syn) return header.size;
    put16(to, 20, 0x0204);
    put16(to, 22, our_mss(connection.key.guest.address));
    if (header.size == kTcpHeader + kSynOptions) put32(to, 24, 0x01030300 | kOurScale);
    return header.size;
}

// A segment without data; false if there was no room.
bool Tcp::send_control(Connection& connection, u8 flags, u32 sequence) {
    if (!connection.mac_known) {
        const auto mac = output_.neighbours.find(connection.key.guest.address);
        if (!mac) {
            output_.ask_for(connection.key.guest.address);
            return false;
        }
        connection.mac = *mac;
        connection.mac_known = true;
    }
    const bool syn = (flags & TcpFlags::kSyn) != 0;
    // To a SYN without scaling none is answered; our own SYN offers it.
    const bool offers = syn && (connection.scaled || connection.state == State::SynSent);
    std::array<u8, kTcpHeader + kSynOptions> message{};
    const std::size_t size = kTcpHeader + (offers ? kSynOptions : syn ? 4U : 0U);
    (void)write_tcp(message, connection, {.flags = flags, .sequence = sequence, .size = size});
    const bool sent = output_.send_to(connection.mac,
                                      {.from = connection.key.remote.address,
                                       .to = connection.key.guest.address,
                                       .protocol = Protocol::Tcp},
                                      Room(message).first(size), kChecksumAt);
    if (sent) connection.acknowledge = false;
    return sent;
}

bool Tcp::send_fin(Connection& connection, u64 now_ms) {
    if (!send_control(connection, TcpFlags::kFin | TcpFlags::kAck, connection.fin_sequence)) return false;
    connection.send_next = connection.fin_sequence + 1;
    if (before(connection.send_most, connection.send_next)) connection.send_most = connection.send_next;
    arm(connection, now_ms);
    return true;
}

// Bytes the guest's window allows from send_next on.
u32 Tcp::sendable(const Connection& connection) const {
    const u32 in_flight = connection.send_next - connection.send_unacknowledged;
    const u32 window = std::min(connection.guest_window, kMostInFlight);
    u32 allowed = in_flight >= window ? 0 : window - in_flight;
    if (connection.end_known) allowed = std::min(allowed, connection.fin_sequence - connection.send_next);
    // [RFC 9293 3.8.6.2.1]: no small segments while an acknowledgement is to come.
    if (allowed < connection.mss && in_flight != 0 && !connection.end_known) return 0;
    return allowed;
}

// Sends what the socket has and the guest takes; true if there is more to do.
bool Tcp::pump(u32 id, u64 now_ms) {
    Connection& connection = connections_[id];
    for (int turn = 0; turn < kTurn; ++turn) {
        if (connection.end_known && connection.send_next == connection.fin_sequence + 1) return false;
        if (connection.end_known && connection.send_next == connection.fin_sequence) {
            if (send_fin(connection, now_ms)) return false;
            blocked_ = true;
            return true;
        }
        const bool again = before(connection.send_next, connection.send_most);
        if (!connection.readable && !again) return false;
        const u32 most = sendable(connection);
        if (most == 0) {
            arm_if_idle(connection, now_ms);
            return false;
        }
        switch (send_data(id, most, now_ms)) {
            case Sent::All: break;
            case Sent::Some:
                if (!connection.end_known) return false;
                break;
            case Sent::Blocked: blocked_ = true; return true;
            case Sent::Dead: return false;
        }
    }
    return true;
}

// One batch: a large frame for the guest to cut, or several of one segment each, filled by one read.
Tcp::Sent Tcp::send_data(u32 id, u32 most, u64 now_ms) {
    Connection& connection = connections_[id];
    const Envelope envelope{
        .from = connection.key.remote.address, .to = connection.key.guest.address, .protocol = Protocol::Tcp};
    const bool v4 = envelope.to.is_v4();
    const NetOffloads& takes = output_.guest_takes;
    const bool large = takes.checksum && (v4 ? takes.tso4 : takes.tso6);
    const std::size_t piece =
        large ? std::min(std::size_t{most}, kMostMessage / connection.mss * connection.mss)
              : std::min(std::size_t{most}, std::size_t{connection.mss});
    const std::size_t headers = Output::headers_size(envelope.to) + kTcpHeader;
    std::array<Room, kMostFrames> frames;
    const std::size_t wanted = large ? 1 : std::min((most + piece - 1) / piece, kMostFrames);
    const std::size_t count = output_.wire().reserve(headers + piece, std::span(frames).first(wanted));
    if (count == 0) return Sent::Blocked;

    std::array<iovec, kMostFrames> room{};
    std::size_t asked = 0;
    for (std::size_t i = 0; i < count; ++i) {
        const std::size_t size = std::min(piece, most - asked);
        room[i] = {.iov_base = frames[i].subspan(headers).data(), .iov_len = size};
        asked += size;
    }
    const u32 offset = connection.send_next - connection.send_unacknowledged;
    const Host::Transfer got = host_.tcp_peek(id, offset, std::span(room).first(count));
    const std::size_t bytes = std::min(got.bytes, asked);
    if (got.failed) {
        output_.wire().commit({});
        abort(id);
        return Sent::Dead;
    }
    std::array<std::size_t, kMostFrames> sizes{};
    std::size_t used = 0;
    for (std::size_t done = 0; done < bytes; ++used) {
        const std::size_t size = std::min(room[used].iov_len, bytes - done);
        done += size;
        const Room frame = frames[used];
        output_.write_headers(frame, connection.mac, envelope, kTcpHeader + size);
        std::array<u8, kTcpHeader> header{};
        const u8 flags = done == bytes ? TcpFlags::kAck | TcpFlags::kPsh : TcpFlags::kAck;
        (void)write_tcp(header, connection, {.flags = flags, .sequence = connection.send_next});
        u64 sum = pseudo_sum(envelope.from, envelope.to, Protocol::Tcp, kTcpHeader + size);
        if (takes.checksum) {
            store_sum(header, kChecksumAt, sum);
            NetHeader net{.flags = NetHeader::kNeedsChecksum};
            net.checksum_start = static_cast<u16>(headers - kTcpHeader - sizeof(NetHeader));
            net.checksum_offset = kChecksumAt;
            if (size > connection.mss) {
                net.gso_type = v4 ? NetHeader::kGsoTcp4 : NetHeader::kGsoTcp6;
                net.gso_size = connection.mss;
                net.header_length = static_cast<u16>(headers - sizeof(NetHeader));
            }
            std::memcpy(frame.data(), &net, sizeof net);
        } else {
            sum = add_to_sum(add_to_sum(sum, header), frame.subspan(headers, size));
            store_checksum(header, kChecksumAt, sum);
        }
        put_bytes(frame, headers - kTcpHeader, header);
        sizes[used] = headers + size;
        connection.send_next += static_cast<u32>(size);
    }
    output_.wire().commit(std::span(sizes).first(used));
    if (bytes != 0) connection.acknowledge = false;
    if (before(connection.send_most, connection.send_next)) connection.send_most = connection.send_next;
    if (bytes != 0) arm_if_idle(connection, now_ms);
    if (bytes == asked) return Sent::All;
    connection.readable = false;
    if (connection.host_finished && !connection.end_known) {
        connection.end_known = true;
        connection.fin_sequence = connection.send_next;
    }
    return Sent::Some;
}

// --- Time ---

void Tcp::set_due(Connection& connection, u64 due_ms) {
    connection.due_ms = due_ms;
    next_due_ms_ = std::min(next_due_ms_, due_ms);
}

// From now: when something has to be sent again, or the guest asked whether it is there.
void Tcp::arm(Connection& connection, u64 now_ms) {
    const bool waits = connection.send_most != connection.send_unacknowledged ||
                       connection.state == State::SynReceived || connection.state == State::SynSent ||
                       (connection.guest_window < connection.mss && connection.readable);
    if (waits)
        set_due(connection,
                now_ms + std::min(kFirstRetryMs << std::min(connection.tries, u8{10}), kLongestRetryMs));
    else
        set_due(connection, connection.heard_ms + kIdleMs);
}

// Unless it is to happen soon anyway.
void Tcp::arm_if_idle(Connection& connection, u64 now_ms) {
    if (connection.due_ms > now_ms + kLongestRetryMs) arm(connection, now_ms);
}

u64 Tcp::run_due(u64 now_ms) {
    if (now_ms >= later_due_ms_) {
        later_due_ms_ = kNever;
        for (const u32 id : later_) {
            Connection& connection = connections_[id];
            connection.acknowledge_later = false;
            if (connection.state != State::Open || connection.acknowledged == connection.receive_next)
                continue;
            connection.acknowledge = true;
            mark(id);
        }
        later_.clear();
    }
    if (now_ms < next_due_ms_) return std::min(next_due_ms_, later_due_ms_);
    next_due_ms_ = kNever;
    for (u32 id = 0; id < connections_.size(); ++id) {
        Connection& connection = connections_[id];
        if (connection.state == State::Free) continue;
        if (connection.due_ms <= now_ms) timeout(id, now_ms);
        if (connection.state != State::Free) next_due_ms_ = std::min(next_due_ms_, connection.due_ms);
    }
    return std::min(next_due_ms_, later_due_ms_);
}

void Tcp::timeout(u32 id, u64 now_ms) {
    Connection& connection = connections_[id];
    const bool handshake = connection.state == State::SynReceived || connection.state == State::SynSent;
    const bool waits = connection.send_most != connection.send_unacknowledged;
    // A guest that does not fetch its frames (stopped, paused) has lost none.
    if (!output_.wire().drained()) {
        set_due(connection, now_ms + kFirstRetryMs);
        return;
    }
    if (connection.tries < 255) ++connection.tries;
    // A guest that answers probes may keep its window closed for as long as it likes [RFC 9293 3.8.6.1].
    const bool silent =
        handshake ? connection.tries > kMostHandshakeTries
                  : connection.tries > kMostTries && now_ms - connection.heard_ms > 2 * kLongestRetryMs;
    if (silent) {
        abort(id);
        return;
    }
    if (handshake) {
        const u8 flags =
            connection.state == State::SynSent ? TcpFlags::kSyn : TcpFlags::kSyn | TcpFlags::kAck;
        (void)send_control(connection, flags, connection.send_unacknowledged);
    } else if (waits || (connection.guest_window < connection.mss && connection.readable)) {
        connection.send_next = connection.send_unacknowledged;  // all of it again: it was one gap or a stall
        connection.duplicates = 0;
        mark(id);
        // [RFC 9293 3.8.6.1]: a closed window is probed with what it may be open for.
        const bool data = !connection.end_known || connection.send_next != connection.fin_sequence;
        const bool closed = sendable(connection) == 0 && data;
        if (closed && send_data(id, std::max(connection.guest_window, u32{1}), now_ms) == Sent::Dead) return;
    } else if (now_ms - connection.heard_ms >= kIdleMs) {
        (void)send_control(connection, TcpFlags::kAck, connection.send_unacknowledged - 1);
        set_due(connection, now_ms + kProbeMs);
        return;
    } else {
        connection.tries = 0;
    }
    if (connection.state != State::Free) arm(connection, now_ms);
}

}  // namespace tessera::usernet
