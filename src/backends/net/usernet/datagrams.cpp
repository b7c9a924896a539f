#include "backends/net/usernet/datagrams.h"

#include <algorithm>

#include "backends/net/usernet/hash.h"
#include "backends/net/usernet/icmp.h"

namespace tessera::usernet {

namespace {

constexpr std::size_t kMostMessage = 65535 - kIpv4Header;
constexpr std::size_t kMostSegments = 128;  // of one frame, as many as Linux makes
constexpr int kTurn = 32;                   // datagrams of one flow before another's
constexpr u8 kEchoRequest = 8;
constexpr u8 kEchoRequest6 = 128;
constexpr u16 kResolverPort = 53;

}  // namespace

std::size_t Datagrams::Hash::operator()(const Key& key) const {
    u64 hash = mix(seed, key.guest);
    hash = mix(hash, key.remote);
    return mix(hash, u64{key.guest_port} << 32 | u64{key.remote_port} << 8 | static_cast<u64>(key.kind));
}

Datagrams::Datagrams(Host& host, Output& output)
    : host_(host),
      output_(output),
      flows_(kMostFlows),
      by_key_(kMostFlows, Hash{output.config().seed}),
      forward_readable_(output.config().forwards.size()),
      buffer_(65536) {
    for (u32 id = kMostFlows; id-- > 0;) free_.push_back(id);
    readable_.reserve(kMostFlows);
}

u64 Datagrams::patience(const Flow& flow) {
    return flow.key.kind == DatagramKind::Echo || flow.key.remote_port == kResolverPort ? kShortIdleMs
                                                                                        : kIdleMs;
}

std::optional<u32> Datagrams::find(const Key& key) const {
    const auto found = by_key_.find(key);
    return found == by_key_.end() ? std::nullopt : std::optional(found->second);
}

u32 Datagrams::take_slot() {
    if (free_.empty()) {
        const auto oldest = std::ranges::min_element(flows_, {}, &Flow::idle_since_ms);
        close(static_cast<u32>(oldest - flows_.begin()));
    }
    const u32 id = free_.back();
    free_.pop_back();
    return id;
}

void Datagrams::close(u32 id) {
    Flow& flow = flows_[id];
    if (flow.forward == kNoForward) host_.datagram_close(id);
    by_key_.erase(flow.key);
    const bool listed = flow.listed;  // its number is in readable_ still
    flow = {};
    flow.listed = listed;
    free_.push_back(id);
}

std::optional<u32> Datagrams::open(const Packet& packet, const Key& key, u64 now_ms) {
    const Route way = route(output_.config(), {.address = key.remote, .port = key.remote_port}, resolver_);
    const auto refuse = [&](Unreachable why) {
        send_unreachable(output_, why, {.from = packet.from, .to = packet.to, .protocol = packet.protocol},
                         packet.head.first(std::min(packet.head.size(), std::size_t{8})));
        return std::nullopt;
    };
    if (way.verdict == Route::Verdict::Ignored) return std::nullopt;
    if (way.verdict == Route::Verdict::Prohibited) return refuse(Unreachable::Prohibited);
    const u32 id = take_slot();
    if (!host_.datagram_open(id, key.kind, way.to)) {
        free_.push_back(id);
        return refuse(key.kind == DatagramKind::Echo ? Unreachable::Prohibited : Unreachable::Host);
    }
    Flow& flow = flows_[id];
    const bool listed = flow.listed;
    flow = {.used = true, .listed = listed, .key = key, .idle_since_ms = now_ms, .peer = {}};
    flow.resolver = resolver_;
    by_key_.emplace(key, id);
    next_due_ms_ = std::min(next_due_ms_, now_ms + patience(flow));
    return id;
}

// A resolver that leaves a repeated question unanswered is followed by the next.
bool Datagrams::try_next_resolver(u32 id) {
    Flow& flow = flows_[id];
    const Config& config = output_.config();
    const bool to_resolver = flow.key.remote == config.resolver || flow.key.remote == config.resolver6;
    if (!to_resolver || config.resolvers.size() < 2) return false;
    flow.resolver = (flow.resolver + 1) % config.resolvers.size();
    resolver_ = flow.resolver;
    host_.datagram_close(id);
    if (host_.datagram_open(id, flow.key.kind, config.resolvers[flow.resolver])) return true;
    // There is no socket to close any more.
    by_key_.erase(flow.key);
    const bool listed = flow.listed;
    flow = {};
    flow.listed = listed;
    free_.push_back(id);
    return false;
}

std::optional<u32> Datagrams::flow_for(const Packet& packet, const Key& key, u64 now_ms) {
    auto id = find(key);
    if (!id) id = open(packet, key, now_ms);
    if (!id) return std::nullopt;
    if (!flows_[*id].answered) {
        (void)try_next_resolver(*id);
        if (!flows_[*id].used) return std::nullopt;
    }
    flows_[*id].answered = false;
    flows_[*id].idle_since_ms = now_ms;
    return id;
}

void Datagrams::send(u32 id, Bytes message) {
    const Flow& flow = flows_[id];
    if (flow.forward == kNoForward)
        host_.datagram_send(id, message);
    else
        host_.forward_send(flow.forward, flow.peer, message);
}

void Datagrams::udp(const Packet& packet, u64 now_ms) {
    if (packet.message.size() < kUdpHeader) return;
    const std::size_t length = get16(packet.head, 4);
    if (length < kUdpHeader || length > packet.message.size()) return;
    Packet exact = packet;
    exact.message = packet.message.first(length);
    const bool unsummed = packet.from.is_v4() && get16(packet.head, 6) == 0;  // [RFC 768]
    if (!unsummed && !checksum_is_right(exact)) return;
    const Key key{.guest = packet.from,
                  .remote = packet.to,
                  .guest_port = get16(packet.head, 0),
                  .remote_port = get16(packet.head, 2),
                  .kind = DatagramKind::Udp};
    const auto id = flow_for(packet, key, now_ms);
    if (!id) return;
    Bytes rest = exact.message.subspan(kUdpHeader);
    if (packet.net.gso_type != NetHeader::kGsoUdpL4 || packet.net.gso_size == 0) {
        send(*id, rest);
        return;
    }
    for (std::size_t count = 0; !rest.empty() && count < kMostSegments; ++count) {
        const std::size_t size = std::min(rest.size(), std::size_t{packet.net.gso_size});
        send(*id, rest.first(size));
        rest = rest.subspan(size);
    }
}

void Datagrams::echo(const Packet& packet, u64 now_ms) {
    const bool v4 = packet.to.is_v4();
    if (packet.message.size() < kIcmpHeader || packet.message.size() > kMostMessage ||
        packet.head[0] != (v4 ? kEchoRequest : kEchoRequest6) || packet.head[1] != 0 ||
        !checksum_is_right(packet))
        return;
    const Key key{.guest = packet.from,
                  .remote = packet.to,
                  .guest_port = get16(packet.head, 4),
                  .remote_port = 0,
                  .kind = DatagramKind::Echo};
    if (const auto id = flow_for(packet, key, now_ms)) send(*id, packet.message);
}

void Datagrams::readable(u32 id) {
    if (id >= flows_.size() || !flows_[id].used || flows_[id].listed) return;
    flows_[id].listed = true;
    readable_.push_back(id);
}

void Datagrams::failed(u32 id) {
    if (id >= flows_.size() || !flows_[id].used) return;
    const Flow& flow = flows_[id];
    if (try_next_resolver(id) || !flow.used) return;
    std::array<u8, 8> header{};
    const bool v4 = flow.key.guest.is_v4();
    if (flow.key.kind == DatagramKind::Udp) {
        put16(header, 0, flow.key.guest_port);
        put16(header, 2, flow.key.remote_port);
        put16(header, 4, kUdpHeader);
        send_unreachable(output_, Unreachable::Port,
                         {.from = flow.key.guest, .to = flow.key.remote, .protocol = Protocol::Udp}, header);
        return;
    }
    put8(header, 0, v4 ? kEchoRequest : kEchoRequest6);
    put16(header, 4, flow.key.guest_port);
    send_unreachable(
        output_, Unreachable::Host,
        {.from = flow.key.guest, .to = flow.key.remote, .protocol = v4 ? Protocol::Icmp : Protocol::Icmp6},
        header);
}

void Datagrams::forward_readable(u32 forward) {
    if (forward < forward_readable_.size()) forward_readable_[forward] = 1;
}

// For the longest datagram, with all headers of its fragments.
bool Datagrams::wire_has_room() {
    std::array<Room, 1> frame;
    constexpr std::size_t kWorst = std::size_t{68} * 1024;
    const bool room = output_.wire().reserve(kWorst, frame) != 0;
    if (room) output_.wire().commit({});
    return room;
}

// True when the socket is empty.
bool Datagrams::receive_flow(u32 id, u64 now_ms) {
    Flow& flow = flows_[id];
    for (int turn = 0; turn < kTurn; ++turn) {
        if (!wire_has_room()) return false;
        const bool udp = flow.key.kind == DatagramKind::Udp;
        const std::size_t header = udp ? kUdpHeader : 0;
        const auto got =
            host_.datagram_receive(id, Room(buffer_).subspan(header).first(kMostMessage - header));
        if (!got) return true;
        flow.idle_since_ms = now_ms;
        flow.answered = true;
        const Room message = Room(buffer_).first(header + *got);
        Envelope envelope{.from = flow.key.remote, .to = flow.key.guest, .protocol = Protocol::Udp};
        if (udp) {
            put16(message, 0, flow.key.remote_port);
            put16(message, 2, flow.key.guest_port);
            put16(message, 4, static_cast<u32>(message.size()));
            put16(message, 6, 0);
            (void)output_.send(envelope, message, 6);
        } else if (message.size() >= kIcmpHeader) {
            envelope.protocol = flow.key.guest.is_v4() ? Protocol::Icmp : Protocol::Icmp6;
            put16(message, 2, 0);
            put16(message, 4, flow.key.guest_port);
            (void)output_.send(envelope, message, 2);
        }
    }
    return false;
}

// The flow that carries answers back to the peer of a forward. A peer on the host itself has no address that
// the guest could answer to: it appears as the gateway.
std::optional<u32> Datagrams::flow_of_peer(u32 forward, const Endpoint& peer, u64 now_ms) {
    const Config& config = output_.config();
    const Endpoint& guest = config.forwards[forward].guest;
    const Key key{.guest = guest.address,
                  .remote = seen_by_guest(config, peer.address, guest.address),
                  .guest_port = guest.port,
                  .remote_port = peer.port,
                  .kind = DatagramKind::Udp};
    if (const auto known = find(key)) {
        Flow& flow = flows_[*known];
        if (flow.forward != forward || flow.peer != peer) return std::nullopt;
        return known;
    }
    const u32 id = take_slot();
    Flow& flow = flows_[id];
    const bool listed = flow.listed;
    flow = {.used = true,
            .listed = listed,
            .key = key,
            .idle_since_ms = now_ms,
            .forward = forward,
            .peer = peer};
    by_key_.emplace(key, id);
    next_due_ms_ = std::min(next_due_ms_, now_ms + patience(flow));
    return id;
}

bool Datagrams::receive_forward(u32 forward, u64 now_ms) {
    for (int turn = 0; turn < kTurn; ++turn) {
        if (!wire_has_room()) return false;
        const auto arrival = host_.forward_receive(
            forward, Room(buffer_).subspan(kUdpHeader).first(kMostMessage - kUdpHeader));
        if (!arrival) return true;
        const auto id = flow_of_peer(forward, arrival->from, now_ms);
        if (!id) continue;
        Flow& flow = flows_[*id];
        flow.idle_since_ms = now_ms;
        flow.answered = true;
        const Room message = Room(buffer_).first(kUdpHeader + arrival->bytes);
        put16(message, 0, flow.key.remote_port);
        put16(message, 2, flow.key.guest_port);
        put16(message, 4, static_cast<u32>(message.size()));
        put16(message, 6, 0);
        (void)output_.send({.from = flow.key.remote, .to = flow.key.guest, .protocol = Protocol::Udp},
                           message, 6);
    }
    return false;
}

bool Datagrams::flush(u64 now_ms) {
    bool again = false;
    const std::size_t count = readable_.size();
    for (std::size_t i = 0; i < count; ++i) {
        const u32 id = readable_[i];
        flows_[id].listed = false;
        if (flows_[id].used && flows_[id].forward == kNoForward && !receive_flow(id, now_ms)) {
            flows_[id].listed = true;
            readable_.push_back(id);
            again = true;
        }
    }
    readable_.erase(readable_.begin(), readable_.begin() + static_cast<std::ptrdiff_t>(count));
    for (u32 forward = 0; forward < forward_readable_.size(); ++forward) {
        if (forward_readable_[forward] == 0) continue;
        if (receive_forward(forward, now_ms))
            forward_readable_[forward] = 0;
        else
            again = true;
    }
    return again && wire_has_room();
}

u64 Datagrams::run_due(u64 now_ms) {
    if (now_ms < next_due_ms_) return next_due_ms_;
    next_due_ms_ = ~u64{0};
    for (u32 id = 0; id < flows_.size(); ++id) {
        if (!flows_[id].used) continue;
        const u64 due = flows_[id].idle_since_ms + patience(flows_[id]);
        if (due <= now_ms)
            close(id);
        else
            next_due_ms_ = std::min(next_due_ms_, due);
    }
    return next_due_ms_;
}

}  // namespace tessera::usernet
