// A cable with frames at its far end, and a network card before it.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <deque>
#include <span>
#include <vector>

#include "base/fake_clock.h"
#include "devices/virtio/testing/bench.h"
#include "devices/virtio_net/virtio_net.h"

namespace tessera::virtio_net {

class FakeCable final : public NetBackend {
public:
    using Bytes = std::vector<u8>;
    static constexpr unsigned kPairs = 4;

    std::size_t transmit(unsigned queue, std::span<const Frame> frames) override {
        std::size_t took = 0;
        for (const Frame& frame : frames) {
            if (room == 0) break;
            --room;
            ++took;
            Bytes bytes;
            for (const iovec& piece : frame.pieces) {
                const auto part = std::span(static_cast<const u8*>(piece.iov_base), piece.iov_len);
                bytes.insert(bytes.end(), part.begin(), part.end());
            }
            last_queue = queue;
            if (sent.size() < 1000) sent.push_back(std::move(bytes));
        }
        return took;
    }
    std::size_t next_size(unsigned queue) override {
        return waiting[queue].empty() ? 0 : waiting[queue].front().size();
    }
    std::size_t receive(unsigned queue, std::span<const iovec> pieces) override {
        if (waiting[queue].empty()) return 0;
        const Bytes frame = std::move(waiting[queue].front());
        waiting[queue].pop_front();
        std::size_t done = 0;
        for (const iovec& piece : pieces) {
            const std::size_t step = std::min(piece.iov_len, frame.size() - done);
            std::memcpy(piece.iov_base, std::span(frame).subspan(done).data(), step);
            done += step;
        }
        return done;
    }
    void drop(unsigned queue) override {
        ++dropped;
        if (!waiting[queue].empty()) waiting[queue].pop_front();
    }
    [[nodiscard]] unsigned max_queues() const override { return kPairs; }
    void use_queues(unsigned count) override { used = count; }
    [[nodiscard]] NetOffloads can_take() const override {
        return {.checksum = true, .tso4 = true, .tso6 = true, .ecn = true, .ufo = true, .uso = true};
    }
    [[nodiscard]] bool link_up() const override { return up; }
    void guest_takes(const NetOffloads& offloads) override { guest = offloads; }
    void connect(NetPeer* peer) override { card = peer; }

    // A frame arrives: header, destination, then as many bytes more.
    void arrive(const Bytes& frame, unsigned queue = 0, const NetHeader& header = {}) {
        Bytes all(sizeof(NetHeader));
        std::memcpy(all.data(), &header, sizeof header);
        all.insert(all.end(), frame.begin(), frame.end());
        waiting[queue].push_back(std::move(all));
        if (waiting[queue].size() == 1 && card != nullptr) card->frames_waiting();
    }

    // All but the card.
    void copy(const FakeCable& from) {
        room = from.room;
        sent = from.sent;
        last_queue = from.last_queue;
        waiting = from.waiting;
        dropped = from.dropped;
        up = from.up;
    }
    [[nodiscard]] bool same(const FakeCable& other) const {
        return room == other.room && sent == other.sent && last_queue == other.last_queue &&
               waiting == other.waiting && dropped == other.dropped && used == other.used &&
               guest == other.guest;
    }

    NetPeer* card = nullptr;
    std::size_t room = ~std::size_t{0};
    std::vector<Bytes> sent;
    unsigned last_queue = 0;
    std::array<std::deque<Bytes>, kPairs> waiting;
    unsigned dropped = 0;
    bool up = true;
    unsigned used = 0;
    NetOffloads guest;
};

// The transmit queue is what hostile drivers play with.
struct NetKit {
    FakeClock clock;
    FakeCable cable;
    VirtioNet device{{.pairs = 2, .mtu = 1500}, cable, clock, clock};

    static constexpr u16 kRequestQueue = 1;
    static std::vector<virtio::Segment> request(u64 at) {
        return {{.address = at, .length = 12 + 60, .writable = false}};
    }
    void prepare(virtio::BenchRam& ram, u64 at) {
        std::memset(ram.at(at), 0, 12);
        std::memset(ram.at(at + 12), ++counter, 60);
    }
    std::vector<virtio::Segment> any_request(virtio::BenchRam& ram, u64 at, unsigned queue,
                                             testing_rig::Choices& choices) {
        prepare(ram, at);
        if (queue < 4 && queue % 2 == 1) return request(at);
        if (queue < 4) return {{.address = at, .length = 2000, .writable = true}};
        const std::array<Mac, 2> macs = {Mac{2, 0, 0, 0, 0, 1}, Mac{3, 0, 0, 0, 0, 1}};
        const FakeCable::Bytes offloads = {0x82, 0x05, 0, 0, 0, 0, 0, 0};
        const auto small = static_cast<u8>(choices.below(4));
        FakeCable::Bytes command = {static_cast<u8>(choices.below(6)), 0};
        switch (static_cast<ControlClass>(command[0])) {
            case ControlClass::Rx:
                command[1] = static_cast<u8>(choices.below(6));
                command.push_back(small % 2);
                break;
            case ControlClass::Mac:
                command[1] = small % 2;
                if (command[1] == static_cast<u8>(MacCommand::AddressSet)) {
                    command.insert(command.end(), macs[0].begin(), macs[0].end());
                    break;
                }
                for (const Mac& mac : macs) {
                    command.insert(command.end(), {1, 0, 0, 0});
                    command.insert(command.end(), mac.begin(), mac.end());
                }
                break;
            case ControlClass::Vlan: command.insert(command.end(), {small, 0}); break;
            case ControlClass::Announce: break;
            case ControlClass::MultiQueue: command.insert(command.end(), {small, 0}); break;
            case ControlClass::GuestOffloads:
                command.insert(command.end(), offloads.begin(), offloads.end());
                break;
        }
        std::memcpy(ram.at(at), command.data(), command.size());
        return {{.address = at, .length = static_cast<u32>(command.size()), .writable = false},
                {.address = at + 1000, .length = 1, .writable = true}};
    }
    // Once there is a transport around it.
    void plug_in() { device.plug_in(); }
    void stimulate(testing_rig::Choices& choices) {
        switch (choices.below(5)) {
            case 0:
                cable.up = choices.coin();
                device.link_changed(cable.up);
                break;
            case 1:
                cable.room = choices.below(8);
                device.transmit_ready();
                break;
            case 2: clock.advance(VirtioNet::kPatienceNs); break;
            default: {
                FakeCable::Bytes frame(choices.below(choices.coin() ? 100 : 70'000));
                for (u8& byte : frame) byte = static_cast<u8>(choices.bits());
                if (frame.size() > 14 && choices.coin())
                    std::ranges::copy(FakeCable::Bytes{2, 0, 0, 0, 0, static_cast<u8>(choices.below(3))},
                                      frame.begin());
                NetHeader header;
                header.flags = static_cast<u8>(choices.below(4));
                header.gso_type = static_cast<u8>(choices.below(6));
                header.gso_size = static_cast<u16>(choices.below(1500));
                cable.arrive(frame, static_cast<unsigned>(choices.below(2)), header);
                break;
            }
        }
    }
    void refresh() { cable.room = ~std::size_t{0}; }
    void copy_surroundings(const NetKit& from) {
        clock.advance(from.clock.now_ns() - clock.now_ns());
        cable.copy(from.cable);
        device.link_changed(cable.up);
        counter = from.counter;
    }
    [[nodiscard]] bool same_surroundings(const NetKit& other) const { return cable.same(other.cable); }
    [[nodiscard]] u64 seen() const { return 1000 * u64{cable.used} + cable.sent.size() + cable.dropped; }
    // Whether the link is up is the cable's.
    static constexpr std::array<unsigned, 1> kKeptByReset = {virtio::Device::kFirstField + 9};
    u8 counter = 0;
};

// The receive queue is.
struct NetReceiveKit : NetKit {
    static constexpr u16 kRequestQueue = 0;
    static std::vector<virtio::Segment> request(u64 at) {
        return {{.address = at, .length = 2000, .writable = true}};
    }
    void prepare(virtio::BenchRam& ram, u64 at) {
        NetKit::prepare(ram, at);
        cable.arrive(FakeCable::Bytes(60, 0xff));
    }
};

}  // namespace tessera::virtio_net
