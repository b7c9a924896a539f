#include "devices/virtio_console/virtio_console.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "base/assert.h"

namespace tessera::virtio_console {

namespace {

constexpr u64 bit(unsigned feature) {
    return virtio::feature_bit(feature);
}

}  // namespace

VirtioConsole::VirtioConsole(std::vector<Port> ports) : ports_(std::move(ports)) {
    TESSERA_ASSERT(!ports_.empty() && ports_.size() <= kMostPorts,
                   "the machine's configuration says how many");
    for (const Port& port : ports_)
        TESSERA_ASSERT(
            (port.kind == Kind::Absent) == (port.wire == nullptr) && port.name.size() <= kLongestName,
            "the machine's configuration has a wire for each port");
    // The control queues come with the second port.
    queue_sizes_.resize(ports_.size() == 1 ? 2 : 2 * ports_.size() + 2, kQueueSize);
}

// --- Features and registers ---

// One terminal alone needs no control queues; and its size then goes by registers, which all drivers read the
// same way (Linux before 6.16 takes the columns of a message for the rows).
u64 VirtioConsole::features() const {
    u64 features = ports_.size() > 1 ? bit(kFeatureMultiport) : 0;
    if (ports_.front().kind == Kind::Terminal) features |= bit(kFeatureSize) | bit(kFeatureEmergencyWrite);
    return features;
}

void VirtioConsole::read_config(u32 offset, std::span<std::byte> out) {
    const std::array<u32, 3> registers = {state_.ports[0].size, static_cast<u32>(ports_.size()), 0};
    std::memcpy(out.data(), std::as_bytes(std::span(registers)).subspan(offset).data(), out.size());
}

// [VIRTIO-1.2 5.3.5] Works at any time, before a driver is there as well. What the host has no room for is
// lost: nobody may wait here.
void VirtioConsole::write_config(u32 offset, std::span<const std::byte> in) {
    if (static_cast<ConfigRegister>(offset) != ConfigRegister::EmergencyWrite || in.empty()) return;
    if (ports_.front().kind != Kind::Terminal) return;
    const u8 byte = std::to_integer<u8>(in.front());
    (void)ports_.front().wire->put({&byte, 1});
}

VirtioConsole::Role VirtioConsole::role_of(unsigned queue) const {
    using enum Role::Kind;
    const bool receive = queue % 2 == 0;
    unsigned port = 0;
    if (queue >= kControlReceiveQueue) {
        if (!multiport()) return {.kind = Nothing, .port = 0};
        if (queue <= kControlTransmitQueue)
            return {.kind = receive ? ControlReceive : ControlTransmit, .port = 0};
        port = queue / 2 - 1;
    }
    if (port >= ports_.size() || ports_[port].kind == Kind::Absent) return {.kind = Nothing, .port = 0};
    return {.kind = receive ? Receive : Transmit, .port = port};
}

bool VirtioConsole::service(unsigned queue) {
    const auto [kind, port] = role_of(queue);
    switch (kind) {
        case Role::Kind::Receive: return receive(queue, port);
        case Role::Kind::Transmit: return transmit(queue, port);
        case Role::Kind::ControlReceive: return give_control(queue);
        case Role::Kind::ControlTransmit: return take_control(queue);
        case Role::Kind::Nothing: break;
    }
    return false;
}

// --- Bytes ---

bool VirtioConsole::listens(unsigned port) const {
    const PortState& state = state_.ports[port];
    return state.plugged != 0 && (!multiport() || state.open != 0);
}

bool VirtioConsole::receive(unsigned queue, unsigned port) {
    virtio::Queue& ring = core().queue(queue);
    ring.stop_kicks();
    // Opening the port calls again.
    if (!listens(port)) return false;
    bool more = true;
    for (unsigned i = 0; more && i < kChainsPerTurn; ++i) {
        if (!core().pop(queue, chain_)) {
            more = ring.want_kicks();
            continue;
        }
        const u64 room = std::min<u64>(chain_.writable_bytes(), piece_.size());
        const std::size_t got = room == 0 ? 0 : ports_[port].wire->take(std::span(piece_).first(room));
        if (got == 0 && room != 0) {
            ring.put_back(chain_);
            more = false;
            continue;
        }
        (void)chain_.write(std::as_bytes(std::span(piece_).first(got)));
        core().push(queue, chain_, static_cast<u32>(got));
    }
    core().signal(queue);
    return more;
}

VirtioConsole::Handed VirtioConsole::hand_over(unsigned port, std::size_t& budget) {
    auto& [open, news, sent, held, plugged, size] = state_.ports[port];
    (void)chain_.skip(sent);
    while (chain_.readable_bytes() != 0) {
        // Nobody is there to read it, and nobody will. That the guest has closed the port since means
        // nothing.
        if (plugged == 0 || held == 0) break;
        if (budget == 0) return Handed::InTurn;
        const iovec& first = chain_.readable().front();
        const std::size_t most = std::min(first.iov_len, budget);
        const std::size_t took = ports_[port].wire->put({static_cast<const u8*>(first.iov_base), most});
        (void)chain_.skip(took);
        sent += took;
        budget -= took;
        if (took < most) return Handed::NoRoom;
    }
    sent = 0;
    return Handed::All;
}

// A buffer the host has not taken whole stays the queue's first: nothing is in flight between turns.
bool VirtioConsole::transmit(unsigned queue, unsigned port) {
    virtio::Queue& ring = core().queue(queue);
    ring.stop_kicks();
    std::size_t budget = kBytesPerTurn;
    Handed handed = Handed::All;
    bool more = true;
    for (unsigned i = 0; handed == Handed::All && more && i < kChainsPerTurn; ++i) {
        if (!core().pop(queue, chain_)) {
            more = ring.want_kicks();
            continue;
        }
        handed = hand_over(port, budget);
        if (handed == Handed::All)
            core().push(queue, chain_, 0);
        else
            ring.put_back(chain_);
    }
    core().signal(queue);
    // Without room, room() calls again.
    return more && handed != Handed::NoRoom;
}

// --- Control messages ---

bool VirtioConsole::take_control(unsigned queue) {
    virtio::Queue& ring = core().queue(queue);
    ring.stop_kicks();
    bool more = true;
    for (unsigned i = 0; more && i < kChainsPerTurn; ++i) {
        if (!core().pop(queue, chain_)) {
            more = ring.want_kicks();
            continue;
        }
        std::array<std::byte, sizeof(ControlMessage)> copy{};
        if (chain_.read(copy) == copy.size()) command(std::bit_cast<ControlMessage>(copy));
        core().push(queue, chain_, 0);
    }
    core().signal(queue);
    return more;
}

void VirtioConsole::command(const ControlMessage& message) {
    const auto event = static_cast<ControlEvent>(message.event);
    if (event == ControlEvent::DeviceReady) {
        state_.ready = message.value == 1 ? 1 : 0;
        if (state_.ready == 0)
            for (PortState& port : state_.ports) port.news = {};
        for (unsigned port = 0; port < ports_.size(); ++port)
            if (state_.ports[port].plugged != 0) tell(port, News::Add);
        return;
    }
    const u32 port = message.port;
    if (port >= ports_.size() || ports_[port].kind == Kind::Absent || state_.ports[port].plugged == 0) return;
    if (event == ControlEvent::PortReady && message.value == 1) {
        Flags<News> news = News::Open;
        if (ports_[port].kind == Kind::Terminal) news = news | News::Terminal;
        if (ports_[port].kind == Kind::Terminal && state_.ports[port].size != 0) news = news | News::Size;
        if (!ports_[port].name.empty()) news = news | News::Name;
        tell(port, news);
    } else if (event == ControlEvent::PortOpen) {
        state_.ports[port].open = message.value != 0 ? 1 : 0;
        core().kicker().kick(receive_queue_of(port));
    }
    // Everything else is the device's to say.
}

void VirtioConsole::tell(unsigned port, Flags<News> news) {
    if (state_.ready == 0 || ports_[port].kind == Kind::Absent) return;
    state_.ports[port].news = state_.ports[port].news | news;
    core().kicker().kick(kControlReceiveQueue);
}

// As many as there are buffers for; what is left waits for more of them.
bool VirtioConsole::give_control(unsigned queue) {
    virtio::Queue& ring = core().queue(queue);
    ring.stop_kicks();
    bool more = true;
    for (unsigned i = 0; more && i < kChainsPerTurn; ++i) {
        auto* const waiting =
            std::ranges::find_if(state_.ports, [](const PortState& port) { return port.news.raw() != 0; });
        if (waiting == state_.ports.end()) {
            more = false;
            continue;
        }
        if (!core().pop(queue, chain_)) {
            more = ring.want_kicks();
            continue;
        }
        const auto port = static_cast<unsigned>(waiting - state_.ports.begin());
        const auto news = static_cast<News>(waiting->news.raw() & -waiting->news.raw());
        const u32 written = write_news(port, news);
        if (written != 0) waiting->news.set(news, false);
        core().push(queue, chain_, written);
    }
    core().signal(queue);
    return more;
}

// Into chain_; returns its size, 0 if there is no room for it.
u32 VirtioConsole::write_news(unsigned port, News news) {
    ControlMessage message{.port = port, .value = 1};
    std::array<u8, kLongestName> more{};
    std::size_t more_size = 0;
    switch (news) {
        case News::Remove: message.event = std::to_underlying(ControlEvent::PortRemove); break;
        case News::Add: message.event = std::to_underlying(ControlEvent::PortAdd); break;
        case News::Terminal: message.event = std::to_underlying(ControlEvent::ConsolePort); break;
        case News::Name: {
            message.event = std::to_underlying(ControlEvent::PortName);
            const std::string& name = ports_[port].name;
            more_size = name.size();
            std::memcpy(more.data(), name.data(), more_size);
            break;
        }
        case News::Size: {
            message.event = std::to_underlying(ControlEvent::Resize);
            const u32 size = state_.ports[port].size;
            more_size = sizeof size;
            std::memcpy(more.data(), &size, more_size);
            break;
        }
        case News::Open:
            message.event = std::to_underlying(ControlEvent::PortOpen);
            message.value = state_.ports[port].held;
            break;
    }
    const std::size_t size = sizeof message + more_size;
    if (chain_.writable_bytes() < size) return 0;
    (void)chain_.write(std::as_bytes(std::span(&message, 1)));
    (void)chain_.write(std::as_bytes(std::span(more).first(more_size)));
    return static_cast<u32>(size);
}

// --- The host's side ---

void VirtioConsole::note(unsigned port, HostEvent event) {
    (*host_)[port].events.fetch_or(std::to_underlying(event));
    core().kicker().wake();
}

void VirtioConsole::set_held(unsigned port, bool held) {
    (*host_)[port].held = held;
    note(port, HostEvent::Held);
}

void VirtioConsole::resize(unsigned port, u16 columns, u16 rows) {
    (*host_)[port].size = columns | u32{rows} << 16;
    core().kicker().wake();
}

void VirtioConsole::set_plugged(unsigned port, bool plugged) {
    (*host_)[port].plugged = plugged;
    core().kicker().wake();
}

void VirtioConsole::run_backend() {
    for (unsigned port = 0; port < ports_.size(); ++port)
        look_at(port, Flags<HostEvent>((*host_)[port].events.exchange(0)));
}

void VirtioConsole::look_at(unsigned port, Flags<HostEvent> events) {
    const HostSide& host = (*host_)[port];
    PortState& known = state_.ports[port];
    const unsigned queue = receive_queue_of(port);
    bool input = events.has(HostEvent::Input);
    bool room = events.has(HostEvent::Room);
    if (const u8 plugged = host.plugged ? 1 : 0; plugged != known.plugged) {
        known.plugged = plugged;
        // What is told of a port ends with it.
        if (plugged == 0) {
            known.open = 0;
            known.news = {};
        }
        tell(port, plugged != 0 ? News::Add : News::Remove);
        room = true;
    }
    // One program may have left and another come.
    if (const u8 held = host.held ? 1 : 0; held != known.held || events.has(HostEvent::Held)) {
        known.held = held;
        tell(port, News::Open);
        input = room = true;
    }
    if (const u32 size = host.size; size != known.size) {
        known.size = size;
        if (!multiport())
            core().config_changed();
        else if (ports_[port].kind == Kind::Terminal)
            tell(port, News::Size);
    }
    if (input) core().kicker().kick(queue);
    if (room) core().kicker().kick(queue + 1);
}

// --- Reset and snapshots ---

// Linux looks at the size only when it is told of a change.
void VirtioConsole::start() {
    if (!multiport() && state_.ports[0].size != 0) core().config_changed();
}

// A driver that begins anew is told of the host's side as it is.
VirtioConsole::State VirtioConsole::reset_state() const {
    State state;
    for (unsigned port = 0; port < ports_.size(); ++port) {
        const HostSide& host = (*host_)[port];
        state.ports[port].held = host.held ? 1 : 0;
        state.ports[port].plugged = host.plugged ? 1 : 0;
        state.ports[port].size = host.size;
    }
    return state;
}

bool VirtioConsole::stop() {
    state_ = reset_state();
    return true;
}

void VirtioConsole::visit(StateVisitor& v, State& s) {
    constexpr unsigned kFirstPort = kFirstField + 16;
    constexpr unsigned kPortFields = 8;
    auto& [ready, ports] = s;
    v.field(kFirstField, "ready", ready);
    for (unsigned i = 0; i < ports.size(); ++i) {
        auto& [open, news, sent, held, plugged, size] = ports[i];
        v.field(kFirstPort + i * kPortFields, "open", open);
        v.field(kFirstPort + i * kPortFields + 1, "news", news);
        v.field(kFirstPort + i * kPortFields + 2, "sent", sent);
        v.field(kFirstPort + i * kPortFields + 3, "held", held);
        v.field(kFirstPort + i * kPortFields + 4, "plugged", plugged);
        v.field(kFirstPort + i * kPortFields + 5, "size", size);
    }
}

Status VirtioConsole::load(StateVisitor& v) {
    State next;
    visit(v, next);
    bool valid = !v.corrupt() && next.ready <= 1;
    for (unsigned i = 0; i < next.ports.size(); ++i) {
        const PortState& port = next.ports[i];
        const bool present = i < ports_.size() && ports_[i].kind != Kind::Absent;
        valid = valid && port.open <= 1 && port.held <= 1 && port.plugged <= 1 &&
                (port.news.raw() & ~kAllNews) == 0 && (present || port.news.raw() == 0);
    }
    if (!valid)
        return fail(Errc::CorruptState, "virtio console: the saved state holds values no console can have");
    state_ = next;
    return {};
}

}  // namespace tessera::virtio_console
