// A guest's sockets, and a host that says and does what it is told to.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "devices/virtio/testing/bench.h"
#include "devices/virtio_vsock/virtio_vsock.h"

namespace tessera::virtio_vsock {

class FakeHost final : public VsockBackend {
public:
    struct Socket {
        u64 made = 0;  // the how manyth it is
        u32 port = 0;  // that was asked for
        u32 host_port = 0;
        bool open = false;
        std::string given;    // by the guest
        std::string waiting;  // for the guest
        bool ended = false;   // the host sends no more
        bool closed = false;  // and receives no more
        bool guest_sends = true;
        bool guest_receives = true;
        friend bool operator==(const Socket&, const Socket&) = default;
    };

    bool next_event(VsockEvent& event) override {
        if (events.empty()) return false;
        event = events.front();
        events.pop_front();
        return true;
    }
    void open(VsockId id, u32 port) override {
        make(id).port = port;
        opened.push_back(id);
        if (!answers) return;
        if (port == kDeafPort) {
            sockets.erase(id);
            events.push_back({.kind = VsockEvent::Kind::Gone, .id = id, .value = 0});
        } else {
            sockets[id].open = true;
            events.push_back({.kind = VsockEvent::Kind::Opened, .id = id, .value = 0});
        }
    }
    void accepted(VsockId id, u32 host_port) override {
        sockets[id].host_port = host_port;
        sockets[id].open = true;
    }
    void close(VsockId id) override {
        sockets.erase(id);
        if (closed.size() < 1000) closed.push_back(id);
    }
    void close_all() override {
        sockets.clear();
        events.clear();
    }
    std::size_t send(VsockId id, std::span<const iovec> pieces) override {
        std::size_t sent = 0;
        for (const iovec& piece : pieces) {
            const auto bytes = std::span(static_cast<const char*>(piece.iov_base), piece.iov_len);
            if (sockets[id].given.size() < 1'000'000) sockets[id].given.append(bytes.begin(), bytes.end());
            sent += piece.iov_len;
        }
        const std::size_t at_once = std::min(sent, forwards);
        if (forwards != kEndless) forwards -= at_once;
        return at_once;
    }
    void end_of_sending(VsockId id) override { sockets[id].guest_sends = false; }
    void end_of_receiving(VsockId id) override { sockets[id].guest_receives = false; }
    Received receive(VsockId id, std::span<u8> out) override {
        Socket& socket = sockets[id];
        const std::size_t size = std::min(out.size(), socket.waiting.size());
        std::copy_n(socket.waiting.begin(), size, out.begin());
        socket.waiting.erase(0, size);
        using enum Received::Then;
        if (!socket.waiting.empty()) return {.bytes = size, .then = More};
        return {.bytes = size, .then = socket.closed ? Closed : socket.ended ? End : Later};
    }
    void connect(VsockPeer* peer) override { device = peer; }

    void happens(const VsockEvent& event) {
        if (events.size() < 10'000) events.push_back(event);
        if (device != nullptr) device->events_waiting();
    }
    // The host wants to reach a port of the guest's.
    VsockId ask(u32 port) {
        next_id += 2;
        make(next_id).port = port;
        happens({.kind = VsockEvent::Kind::Request, .id = next_id, .value = port});
        return next_id;
    }
    void say(VsockId id, const std::string& text) {
        sockets[id].waiting += text;
        happens({.kind = VsockEvent::Kind::Readable, .id = id, .value = 0});
    }

    Socket& make(VsockId id) {
        Socket& socket = sockets[id];
        socket.made = ++made;
        return socket;
    }
    // Names are not the same on both sides of a snapshot: the sockets as they were made.
    [[nodiscard]] std::vector<VsockId> in_order() const {
        std::vector<VsockId> ids;
        ids.reserve(sockets.size());
        for (const auto& [id, socket] : sockets) ids.push_back(id);
        std::ranges::sort(ids, {}, [this](VsockId id) { return sockets.at(id).made; });
        return ids;
    }
    // All but the device.
    void copy(const FakeHost& from) {
        made = from.made;
        answers = from.answers;
        forwards = from.forwards;
        events = from.events;
        sockets = from.sockets;
        opened = from.opened;
        closed = from.closed;
        next_id = from.next_id;
    }
    [[nodiscard]] bool same(const FakeHost& other) const {
        return made == other.made && forwards == other.forwards && opened.size() == other.opened.size() &&
               closed.size() == other.closed.size() && events.size() == other.events.size() &&
               std::ranges::equal(in_order(), other.in_order(), [&](VsockId here, VsockId there) {
                   return sockets.at(here) == other.sockets.at(there);
               });
    }

    static constexpr u32 kDeafPort = 99;
    static constexpr std::size_t kEndless = ~std::size_t{0};
    VsockPeer* device = nullptr;
    bool answers = true;
    std::size_t forwards = kEndless;  // what leaves at once
    std::deque<VsockEvent> events;
    std::map<VsockId, Socket> sockets;
    std::vector<VsockId> opened;
    std::vector<VsockId> closed;
    VsockId next_id = 1;
    u64 made = 0;
};

inline constexpr u64 kRigCid = 7;

// The transmit queue is what hostile drivers play with.
struct VsockKit {
    FakeHost host;
    VirtioVsock device{kRigCid, host};

    static constexpr u16 kRequestQueue = 1;
    static std::vector<virtio::Segment> request(u64 at) {
        return {{.address = at, .length = 44 + 20, .writable = false}};
    }
    // Packets of a few connections, of every operation and some there are not.
    void prepare(virtio::BenchRam& ram, u64 at) {
        ++counter;
        const Header header{.source_cid = kRigCid,
                            .destination_cid = counter % 31 == 0 ? 5U : 2U,
                            .source_port = counter / 8 % 4,
                            .destination_port = counter % 13 == 0 ? FakeHost::kDeafPort : 1000,
                            .length = counter % 7 == 0 ? 1000U : 20U,
                            .type = static_cast<u16>(counter % 37 == 0 ? 2 : 1),
                            .operation = static_cast<u16>(counter % 9),
                            .flags = counter % 4,
                            .buffer_size = 4096,
                            .forwarded = 0};
        std::memcpy(ram.at(at), &header, 44);
    }
    void plug_in() { device.plug_in(); }
    void stimulate(testing_rig::Choices& choices) {
        const auto any = [&] {
            const std::vector<VsockId> ids = host.in_order();
            return ids.empty() ? VsockId{0} : ids[choices.below(ids.size())];
        };
        switch (choices.below(8)) {
            case 0: (void)host.ask(static_cast<u32>(choices.below(4))); break;
            case 1: host.happens({.kind = VsockEvent::Kind::Gone, .id = any(), .value = 0}); break;
            case 2:
                host.happens({.kind = VsockEvent::Kind::Forwarded,
                              .id = any(),
                              .value = static_cast<u32>(choices.bits())});
                break;
            case 3: host.forwards = choices.below(3000); break;
            case 4: host.answers = choices.coin(); break;
            case 5:
                if (const VsockId id = any(); id != 0) {
                    host.sockets[id].ended = true;
                    host.sockets[id].closed = choices.coin();
                    host.say(id, "");
                }
                break;
            default:
                if (const VsockId id = any(); id != 0) host.say(id, std::string(choices.below(10'000), 'x'));
                break;
        }
    }
    static void refresh() {}
    std::vector<virtio::Segment> any_request(virtio::BenchRam& ram, u64 at, unsigned queue,
                                             testing_rig::Choices& choices) {
        if (queue == kReceiveQueue)
            return {{.address = at, .length = static_cast<u32>(44 + choices.below(4000)), .writable = true}};
        if (queue == kEventQueue) return {{.address = at, .length = 8, .writable = true}};
        prepare(ram, at);
        return request(at);
    }
    // Connections are sockets of the host, which no snapshot can hold: they end for the guest that is brought
    // back, which hears so, and not for the one that goes on.
    void end_what_a_snapshot_ends() { device.forget_connections(); }
    void copy_surroundings(const VsockKit& from) {
        host.copy(from.host);
        counter = from.counter;
    }
    [[nodiscard]] bool same_surroundings(const VsockKit& other) const { return host.same(other.host); }
    [[nodiscard]] u64 seen() const {
        u64 seen = host.made + 1000 * (host.opened.size() + host.closed.size());
        for (const auto& [id, socket] : host.sockets)
            seen += 1'000'000 * (socket.given.size() + socket.waiting.size());
        return seen;
    }
    u32 counter = 0;
};

// The receive queue is.
struct VsockReceiveKit : VsockKit {
    static constexpr u16 kRequestQueue = 0;
    static std::vector<virtio::Segment> request(u64 at) {
        return {{.address = at, .length = 44, .writable = true},
                {.address = at + 64, .length = 1024, .writable = true}};
    }
    void prepare(virtio::BenchRam& ram, u64 at) {
        VsockKit::prepare(ram, at);
        (void)host.ask(1234);
    }
};

}  // namespace tessera::virtio_vsock
