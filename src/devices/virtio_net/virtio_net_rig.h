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

    NetPeer* card = nullptr;
    std::size_t room = ~std::size_t{0};
    std::vector<Bytes> sent;
    unsigned last_queue = 0;
    std::array<std::deque<Bytes>, kPairs> waiting;
    unsigned dropped = 0;
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
    // Once there is a transport around it.
    void plug_in() { device.plug_in(); }
    void stimulate(testing_rig::Choices& choices) {
        switch (choices.below(5)) {
            case 0: device.link_changed(choices.coin()); break;
            case 1:
                cable.room = choices.below(8);
                device.transmit_ready();
                break;
            case 2: clock.advance(VirtioNet::kPatienceNs); break;
            default: {
                FakeCable::Bytes frame(choices.below(choices.coin() ? 100 : 70'000));
                for (u8& byte : frame) byte = static_cast<u8>(choices.bits());
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
