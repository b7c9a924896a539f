#include "devices/virtio_vsock/virtio_vsock.h"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstring>
#include <limits>
#include <utility>

namespace tessera::virtio_vsock {

namespace {

constexpr Flags<ShutdownFlag> kBothWays = Flags<ShutdownFlag>(ShutdownFlag::NoReceive) | ShutdownFlag::NoSend;

// The structure has padding at its end that the packet has not.
static_assert(offsetof(Header, forwarded) + sizeof(u32) == kHeaderSize);

std::span<const std::byte> bytes_of(const Header& header) {
    return std::as_bytes(std::span(&header, 1)).first(kHeaderSize);
}

}  // namespace

void VirtioVsock::read_config(u32 offset, std::span<std::byte> out) {
    std::memcpy(out.data(), std::as_bytes(std::span(&guest_cid_, 1)).subspan(offset).data(), out.size());
}

bool VirtioVsock::service(unsigned queue) {
    switch (queue) {
        case kReceiveQueue: return receive(queue);
        case kTransmitQueue: return transmit(queue);
        case kEventQueue: return tell_event(queue);
        default: return false;
    }
}

// --- Connections ---

VirtioVsock::Connection* VirtioVsock::find(u32 guest_port, u32 host_port) {
    for (Connection& connection : *connections_)
        if (connection.phase != Phase::Free && connection.guest_port == guest_port &&
            connection.host_port == host_port)
            return &connection;
    return nullptr;
}

VirtioVsock::Connection* VirtioVsock::find(VsockId id) {
    for (Connection& connection : *connections_)
        if (connection.phase != Phase::Free && connection.phase != Phase::Dying && connection.id == id)
            return &connection;
    return nullptr;
}

VirtioVsock::Connection* VirtioVsock::free_connection() {
    auto* const found = std::ranges::find(*connections_, Phase::Free, &Connection::phase);
    return found == connections_->end() ? nullptr : found;
}

unsigned VirtioVsock::connections() const {
    return static_cast<unsigned>(kMostConnections -
                                 std::ranges::count(*connections_, Phase::Free, &Connection::phase));
}

u32 VirtioVsock::choose_host_port(u32 guest_port) {
    u32 port = 0;
    do {
        port = state_.next_host_port;
        // All ones is no port.
        state_.next_host_port = port >= std::numeric_limits<u32>::max() - 1 ? kFirstHostPort : port + 1;
    } while (find(guest_port, port) != nullptr);
    return port;
}

// [VIRTIO-1.2 5.10.6.3] A guest that says it has passed on more than it was sent, or has shrunk its buffer,
// has no room.
u32 VirtioVsock::credit(const Connection& connection) {
    const u32 on_the_way = connection.sent - connection.guest_forwarded;
    return on_the_way >= connection.guest_buffer ? 0 : connection.guest_buffer - on_the_way;
}

// The guest is told, and then it is forgotten; the host's side has no part in it any more.
void VirtioVsock::end(Connection& connection) {
    backend_.close(connection.id);
    connection.phase = Phase::Dying;
    connection.say = {};
    say(connection, Say::Reset);
}

// Nobody is told: the guest knows.
void VirtioVsock::abandon(Connection& connection) {
    backend_.close(connection.id);
    connection = {};
}

// --- From the guest ---

bool VirtioVsock::transmit(unsigned queue) {
    virtio::Queue& ring = core().queue(queue);
    ring.stop_kicks();
    bool more = true;
    for (unsigned i = 0; more && i < kChainsPerTurn; ++i) {
        // [VIRTIO-1.2 5.10.6.1] What cannot be answered has to wait; the receive queue calls again.
        if (state_.refusal_count == kMostRefusals) {
            more = false;
            continue;
        }
        if (!core().pop(queue, chain_)) {
            more = ring.want_kicks();
            continue;
        }
        take_packet();
        core().push(queue, chain_, 0);
    }
    core().signal(queue);
    take_events();
    return more;
}

// From chain_.
void VirtioVsock::take_packet() {
    std::array<std::byte, sizeof(Header)> copy{};
    if (chain_.read(std::span(copy).first(kHeaderSize)) != kHeaderSize) return;
    const auto header = std::bit_cast<Header>(copy);
    // [VIRTIO-1.2 5.10.6.2] Nobody speaks for another.
    if (header.source_cid != guest_cid_) return;
    const auto operation = static_cast<Operation>(header.operation);
    Connection* const connection = header.destination_cid == kHostCid && header.type == kTypeStream
                                       ? find(header.source_port, header.destination_port)
                                       : nullptr;
    if (connection != nullptr)
        packet(*connection, header);
    else if (operation == Operation::Request && header.destination_cid == kHostCid &&
             header.type == kTypeStream)
        request(header);
    else if (operation != Operation::Reset)
        refuse(header);
}

void VirtioVsock::refuse(const Header& header) {
    add_refusal(state_, {.cid = header.destination_cid,
                         .guest_port = header.source_port,
                         .port = header.destination_port,
                         .type = header.type});
    core().kicker().kick(kReceiveQueue);
}

void VirtioVsock::add_refusal(State& s, const Refusal& refusal) {
    if (s.refusal_count < kMostRefusals) s.refusals[s.refusal_count++] = refusal;
}

void VirtioVsock::request(const Header& header) {
    Connection* const connection = free_connection();
    if (connection == nullptr) {
        refuse(header);
        return;
    }
    *connection = {.phase = Phase::Opening,
                   .say = {},
                   .guest_shut = {},
                   .host_shut = {},
                   .guest_port = header.source_port,
                   .host_port = header.destination_port,
                   .id = std::exchange(next_id_, next_id_ + 2),
                   .guest_buffer = header.buffer_size,
                   .guest_forwarded = header.forwarded};
    backend_.open(connection->id, header.destination_port);
}

void VirtioVsock::packet(Connection& connection, const Header& header) {
    // A Reset is on its way to it.
    if (connection.phase == Phase::Dying) return;
    const auto operation = static_cast<Operation>(header.operation);
    if (operation == Operation::Reset) {
        abandon(connection);
        return;
    }
    connection.guest_buffer = header.buffer_size;
    connection.guest_forwarded = header.forwarded;
    if (credit(connection) != 0) {
        connection.asked_for_credit = false;
        if (has_data(connection)) core().kicker().kick(kReceiveQueue);
    }
    const bool open = connection.phase == Phase::Open;
    if (operation == Operation::Response && connection.phase == Phase::Requested) {
        connection.phase = Phase::Open;
        backend_.accepted(connection.id, connection.host_port);
    } else if (operation == Operation::Data && open) {
        data(connection, header);
    } else if (operation == Operation::Shutdown && open) {
        shutdown(connection, Flags<ShutdownFlag>(header.flags & kBothWays.raw()));
    } else if (operation == Operation::CreditRequest && open) {
        say(connection, Say::CreditUpdate);
    } else if (operation != Operation::CreditUpdate) {
        // [VIRTIO-1.2 5.10.6.4] What makes no sense now ends the connection.
        end(connection);
    }
}

// [VIRTIO-1.2 5.10.6.3] Only as much as we said there is room for.
void VirtioVsock::data(Connection& connection, const Header& header) {
    const u32 waiting = connection.received - connection.forwarded;
    if (header.length > chain_.readable_bytes() || header.length > VsockBackend::kRoom - waiting ||
        connection.guest_shut.has(ShutdownFlag::NoSend)) {
        end(connection);
        return;
    }
    if (header.length == 0) return;
    chain_.limit_readable(header.length);
    connection.received += header.length;
    on_forwarded(connection, static_cast<u32>(backend_.send(connection.id, chain_.readable())));
}

void VirtioVsock::shutdown(Connection& connection, Flags<ShutdownFlag> flags) {
    const Flags<ShutdownFlag> before = connection.guest_shut;
    connection.guest_shut = before | flags;
    if (flags.has(ShutdownFlag::NoReceive) && !before.has(ShutdownFlag::NoReceive))
        backend_.end_of_receiving(connection.id);
    if (flags.has(ShutdownFlag::NoSend) && !before.has(ShutdownFlag::NoSend))
        backend_.end_of_sending(connection.id);
    on_forwarded(connection, 0);
}

// --- From the host ---

void VirtioVsock::take_events() {
    VsockEvent event;
    // No more than a few of each connection; those that are made meanwhile wait for the next time.
    for (unsigned i = 0; i < 8 * kMostConnections; ++i) {
        if (!backend_.next_event(event)) return;
        on_event(event);
    }
    core().kicker().wake();
}

void VirtioVsock::on_event(const VsockEvent& event) {
    if (event.kind == VsockEvent::Kind::Request) {
        on_request(event);
        return;
    }
    Connection* const connection = find(event.id);
    if (connection == nullptr) return;
    switch (event.kind) {
        case VsockEvent::Kind::Opened:
            if (connection->phase != Phase::Opening) break;
            connection->phase = Phase::Open;
            say(*connection, Say::Response);
            break;
        case VsockEvent::Kind::Readable:
            connection->readable = true;
            core().kicker().kick(kReceiveQueue);
            break;
        case VsockEvent::Kind::Forwarded: on_forwarded(*connection, event.value); break;
        case VsockEvent::Kind::Gone: end(*connection); break;
        case VsockEvent::Kind::Request: break;
    }
}

void VirtioVsock::on_request(const VsockEvent& event) {
    Connection* const connection = core().running() ? free_connection() : nullptr;
    if (connection == nullptr) {
        backend_.close(event.id);
        return;
    }
    const u32 host_port = choose_host_port(event.value);
    *connection = {.phase = Phase::Requested,
                   .say = {},
                   .guest_shut = {},
                   .host_shut = {},
                   .guest_port = event.value,
                   .host_port = host_port,
                   .id = event.id};
    say(*connection, Say::Request);
}

void VirtioVsock::on_forwarded(Connection& connection, u32 bytes) {
    const u32 waiting = connection.received - connection.forwarded;
    connection.forwarded += std::min(bytes, waiting);
    // [VIRTIO-1.2 5.10.6.3] The guest hears of room before it believes there is none; not of every byte.
    if (connection.received - connection.told > VsockBackend::kRoom / 2 &&
        connection.forwarded - connection.told >= VsockBackend::kRoom / 4)
        say(connection, Say::CreditUpdate);
    // [VIRTIO-1.2 5.10.6.5] A guest that has ended both ways waits for this, and everything has left.
    if (connection.guest_shut == kBothWays && connection.received == connection.forwarded) end(connection);
}

// --- To the guest ---

void VirtioVsock::say(Connection& connection, Say what) {
    connection.say.set(what);
    core().kicker().kick(kReceiveQueue);
}

bool VirtioVsock::has_data(const Connection& connection) {
    return connection.phase == Phase::Open && connection.readable &&
           !connection.guest_shut.has(ShutdownFlag::NoReceive);
}

// One after the other, so that none keeps the others from speaking.
VirtioVsock::Connection* VirtioVsock::next_speaker() {
    for (unsigned i = 1; i <= kMostConnections; ++i) {
        const unsigned index = (speaker_ + i) % kMostConnections;
        Connection& connection = (*connections_)[index];
        if (connection.phase == Phase::Free) continue;
        const bool has_room = credit(connection) != 0 || !connection.asked_for_credit;
        if (connection.say.raw() == 0 && !(has_data(connection) && has_room)) continue;
        speaker_ = index;
        return &connection;
    }
    return nullptr;
}

bool VirtioVsock::receive(unsigned queue) {
    virtio::Queue& ring = core().queue(queue);
    ring.stop_kicks();
    const bool was_full = state_.refusal_count == kMostRefusals;
    bool more = true;
    for (unsigned i = 0; more && i < kChainsPerTurn; ++i) {
        Connection* const speaker = state_.refusal_count == 0 ? next_speaker() : nullptr;
        if (state_.refusal_count == 0 && speaker == nullptr) {
            more = false;
            continue;
        }
        if (!core().pop(queue, chain_)) {
            more = ring.want_kicks();
            continue;
        }
        if (speaker != nullptr) {
            const u32 written = chain_.writable_bytes() < kHeaderSize ? 0 : speak(*speaker);
            if (written == 0 && chain_.writable_bytes() >= kHeaderSize)
                ring.put_back(chain_);  // the host had nothing after all
            else
                core().push(queue, chain_, written);
            continue;
        }
        const Refusal refusal = state_.refusals[state_.refusal_count - 1U];
        const u32 written = write({.source_cid = refusal.cid,
                                   .destination_cid = guest_cid_,
                                   .source_port = refusal.port,
                                   .destination_port = refusal.guest_port,
                                   .type = refusal.type,
                                   .operation = std::to_underlying(Operation::Reset)},
                                  {});
        if (written != 0) --state_.refusal_count;
        core().push(queue, chain_, written);
    }
    core().signal(queue);
    if (was_full && state_.refusal_count != kMostRefusals) core().kicker().kick(kTransmitQueue);
    return more;
}

Header VirtioVsock::header_of(Connection& connection, Operation operation) {
    connection.told = connection.forwarded;
    return {.source_cid = kHostCid,
            .destination_cid = guest_cid_,
            .source_port = connection.host_port,
            .destination_port = connection.guest_port,
            .type = kTypeStream,
            .operation = std::to_underlying(operation),
            .buffer_size = VsockBackend::kRoom,
            .forwarded = connection.forwarded};
}

// Into chain_; 0 if there is no room for it.
u32 VirtioVsock::write(const Header& header, std::span<const u8> payload) {
    const std::size_t size = kHeaderSize + payload.size();
    if (chain_.writable_bytes() < size) return 0;
    (void)chain_.write(bytes_of(header));
    (void)chain_.write(std::as_bytes(payload));
    return static_cast<u32>(size);
}

// What the connection has to say, into chain_, where there is room for a header. 0: nothing after all.
u32 VirtioVsock::speak(Connection& connection) {
    // The end comes after the data.
    const auto first = static_cast<Say>(connection.say.raw() & -connection.say.raw());
    if (connection.say.raw() == 0) return speak_data(connection);
    connection.say.set(first, false);
    Operation operation = Operation::Reset;
    switch (first) {
        case Say::Request: operation = Operation::Request; break;
        case Say::Response: operation = Operation::Response; break;
        case Say::CreditUpdate: operation = Operation::CreditUpdate; break;
        case Say::CreditRequest: operation = Operation::CreditRequest; break;
        case Say::Shutdown: operation = Operation::Shutdown; break;
        case Say::Reset: break;
    }
    Header header = header_of(connection, operation);
    if (operation == Operation::Shutdown) header.flags = connection.host_shut.raw();
    if (operation == Operation::Reset) connection = {};
    return write(header, {});
}

u32 VirtioVsock::speak_data(Connection& connection) {
    const u32 room = credit(connection);
    if (room == 0) {
        // [VIRTIO-1.2 5.10.6.3] The guest may have forgotten to say that there is some.
        connection.asked_for_credit = true;
        return write(header_of(connection, Operation::CreditRequest), {});
    }
    const u64 most = std::min<u64>({room, chain_.writable_bytes() - kHeaderSize, payload_->size()});
    // A buffer for a header alone is no buffer for data.
    if (most == 0) return write(header_of(connection, Operation::CreditUpdate), {});
    const VsockBackend::Received received = backend_.receive(connection.id, std::span(*payload_).first(most));
    using Then = VsockBackend::Received::Then;
    if (received.then != Then::More || received.bytes == 0) connection.readable = false;
    if (received.then == Then::End || received.then == Then::Closed) {
        connection.host_shut =
            received.then == Then::End ? Flags<ShutdownFlag>(ShutdownFlag::NoSend) : kBothWays;
        say(connection, Say::Shutdown);
    }
    if (received.bytes == 0) return 0;
    const auto bytes = static_cast<u32>(std::min<u64>(received.bytes, most));
    connection.sent += bytes;
    Header header = header_of(connection, Operation::Data);
    header.length = bytes;
    return write(header, std::span<const u8>(*payload_).first(bytes));
}

// --- Reset, snapshots, events ---

bool VirtioVsock::tell_event(unsigned queue) {
    virtio::Queue& ring = core().queue(queue);
    ring.stop_kicks();
    bool more = state_.reset_due != 0;
    for (unsigned i = 0; more && i < kChainsPerTurn; ++i) {
        if (!core().pop(queue, chain_)) {
            more = ring.want_kicks();
            continue;
        }
        const bool fits = chain_.writable_bytes() >= kEventSize;
        if (fits) {
            (void)chain_.write(std::as_bytes(std::span(&kEventTransportReset, 1)));
            state_.reset_due = 0;
            more = false;
        }
        core().push(queue, chain_, fits ? kEventSize : 0);
    }
    core().signal(queue);
    return more;
}

bool VirtioVsock::stop() {
    backend_.close_all();
    connections_->fill({});
    speaker_ = 0;
    state_ = {};
    return true;
}

void VirtioVsock::visit(StateVisitor& v, State& s) {
    constexpr unsigned kFirstRefusal = kFirstField + 16;
    auto& [next_host_port, reset_due, refusal_count, refusals] = s;
    v.field(kFirstField, "next host port", next_host_port);
    v.field(kFirstField + 1, "reset due", reset_due);
    v.field(kFirstField + 2, "refusal count", refusal_count);
    for (unsigned i = 0; i < std::min<unsigned>(refusal_count, kMostRefusals); ++i) {
        auto& [cid, guest_port, port, type] = refusals[i];
        v.field(kFirstRefusal + 4 * i, "refusal CID", cid);
        v.field(kFirstRefusal + 4 * i + 1, "refusal guest port", guest_port);
        v.field(kFirstRefusal + 4 * i + 2, "refusal port", port);
        v.field(kFirstRefusal + 4 * i + 3, "refusal type", type);
    }
}

// [VIRTIO-1.2 5.10.6.7] Connections end with the host's sockets: a guest that is brought back elsewhere is
// told to forget them. Those it is only about to make, or has not heard the end of, are none it forgets:
// these get a Reset each, as far as there is room.
VirtioVsock::State VirtioVsock::without_connections() const {
    State state = state_;
    if (connections() != 0) state.reset_due = 1;
    for (const Connection& connection : *connections_)
        if (connection.phase == Phase::Opening || connection.phase == Phase::Dying)
            add_refusal(state, {.cid = kHostCid,
                                .guest_port = connection.guest_port,
                                .port = connection.host_port,
                                .type = kTypeStream});
    return state;
}

void VirtioVsock::forget_connections() {
    const State next = without_connections();
    (void)stop();
    state_ = next;
}

void VirtioVsock::visit_state(StateVisitor& v) {
    State saved = without_connections();
    visit(v, saved);
}

Status VirtioVsock::load(StateVisitor& v) {
    State next;
    visit(v, next);
    if (v.corrupt() || next.next_host_port < kFirstHostPort || next.reset_due > 1 ||
        next.refusal_count > kMostRefusals)
        return fail(Errc::CorruptState, "virtio vsock: the saved state holds values no device can have");
    (void)stop();
    state_ = next;
    return {};
}

}  // namespace tessera::virtio_vsock
