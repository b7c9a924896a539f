// A console with a terminal and two ports, and hosts that remember what they were given.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <vector>

#include "devices/virtio/testing/bench.h"
#include "devices/virtio_console/virtio_console.h"

namespace tessera::virtio_console {

class FakeWire final : public PortWire {
public:
    std::size_t put(std::span<const u8> bytes) override {
        const std::size_t took = std::min(bytes.size(), room);
        if (room != kEndless) room -= took;
        for (std::size_t i = 0; i < took && given.size() < 100'000; ++i) given += static_cast<char>(bytes[i]);
        return took;
    }
    std::size_t take(std::span<u8> bytes) override {
        const std::size_t took = std::min(bytes.size(), waiting.size());
        std::copy_n(waiting.begin(), took, bytes.begin());
        waiting.erase(0, took);
        return took;
    }
    static constexpr std::size_t kEndless = ~std::size_t{0};
    std::size_t room = kEndless;
    std::string given;
    std::string waiting;

    void copy(const FakeWire& from) {
        room = from.room;
        given = from.given;
        waiting = from.waiting;
    }
    [[nodiscard]] bool same(const FakeWire& other) const {
        return room == other.room && given == other.given && waiting == other.waiting;
    }
};

// The terminal's transmit queue is what hostile drivers play with.
struct ConsoleKit {
    std::array<FakeWire, 3> wires;
    VirtioConsole device{{{.kind = VirtioConsole::Kind::Terminal, .name = {}, .wire = &wires[0]},
                          {.kind = VirtioConsole::Kind::Stream, .name = "agent", .wire = &wires[1]},
                          {.kind = VirtioConsole::Kind::Stream, .name = "org.other", .wire = &wires[2]}}};

    static constexpr u16 kRequestQueue = 1;
    static std::vector<virtio::Segment> request(u64 at) {
        return {{.address = at, .length = 60, .writable = false}};
    }
    // What is read as text by the host may be a control message as well.
    void prepare(virtio::BenchRam& ram, u64 at) {
        ++counter;
        const std::array<u8, 8> message = {static_cast<u8>(counter / 8 % 3), 0, 0, 0,
                                           static_cast<u8>(counter % 8),     0, 1, 0};
        std::memcpy(ram.at(at), message.data(), message.size());
    }
    void stimulate(testing_rig::Choices& choices) {
        const auto port = static_cast<unsigned>(choices.below(3));
        FakeWire& wire = wires[port];
        switch (choices.below(6)) {
            case 0: host[port].held = choices.coin(); break;
            case 1: host[port].plugged = choices.below(4) != 0; break;
            case 2:
                host[port].columns = static_cast<u16>(choices.bits());
                host[port].rows = static_cast<u16>(choices.bits());
                break;
            case 3:
                wire.room = choices.below(3000);
                device.room(port);
                break;
            default:
                wire.waiting.append(choices.below(5000), 'x');
                wire.waiting.resize(std::min<std::size_t>(wire.waiting.size(), 10'000));
                device.input(port);
                break;
        }
        tell(port);
    }
    void tell(unsigned port) {
        device.set_held(port, host[port].held);
        device.set_plugged(port, host[port].plugged);
        device.resize(port, host[port].columns, host[port].rows);
    }
    std::vector<virtio::Segment> any_request(virtio::BenchRam& ram, u64 at, unsigned queue,
                                             testing_rig::Choices& choices) {
        prepare(ram, at);
        if (queue == kControlTransmitQueue) return {{.address = at, .length = 8, .writable = false}};
        *ram.at(at + choices.below(3000)) = std::byte{1};
        return {{.address = at, .length = 3000, .writable = queue % 2 == 0}};
    }
    void copy_surroundings(const ConsoleKit& from) {
        host = from.host;
        counter = from.counter;
        for (unsigned port = 0; port < wires.size(); ++port) {
            wires[port].copy(from.wires[port]);
            tell(port);
        }
        device.run_backend();
    }
    [[nodiscard]] bool same_surroundings(const ConsoleKit& other) const {
        return std::ranges::equal(wires, other.wires,
                                  [](const FakeWire& a, const FakeWire& b) { return a.same(b); });
    }
    [[nodiscard]] u64 seen() const {
        u64 seen = 0;
        for (const FakeWire& wire : wires) seen += wire.given.size() * 1'000'000 + wire.waiting.size();
        return seen;
    }
    // Whether each port is held and plugged, and its size, are the host's.
    static constexpr std::array<unsigned, 9> kKeptByReset = {2019, 2020, 2021, 2027, 2028,
                                                             2029, 2035, 2036, 2037};
    void refresh() {
        for (unsigned port = 0; port < wires.size(); ++port) wires[port].room = FakeWire::kEndless;
    }
    struct HostEnd {
        bool held = true;
        bool plugged = true;
        u16 columns = 0;
        u16 rows = 0;
    };
    std::array<HostEnd, 3> host{};
    unsigned counter = 0;
};

// A control queue is.
struct ConsoleControlKit : ConsoleKit {
    static constexpr u16 kRequestQueue = 3;
    static std::vector<virtio::Segment> request(u64 at) {
        return {{.address = at, .length = 8, .writable = false}};
    }
};

}  // namespace tessera::virtio_console
