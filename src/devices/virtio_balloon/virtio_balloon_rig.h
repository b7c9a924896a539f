// A balloon, and a host that remembers what it was given.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "devices/virtio/testing/bench.h"
#include "devices/virtio_balloon/virtio_balloon.h"

namespace tessera::virtio_balloon {

class RememberingHost final : public PageReleaser {
public:
    void release(std::span<std::byte> pages) override {
        std::ranges::fill(pages, std::byte{0});
        if (released.size() < 10'000) released.push_back(pages);
    }
    std::vector<std::span<std::byte>> released;
};

// The balloon needs the guest's memory while it is built: a bench gives its own.
struct BalloonKit {
    explicit BalloonKit(virtio::BenchRam& ram) : device({}, ram.map, host) {}
    RememberingHost host;
    VirtioBalloon device;

    static constexpr u16 kRequestQueue = 0;
    static constexpr std::array<unsigned, 1> kKeptByReset = {2000};  // what the host asks for
    // Two page numbers.
    static std::vector<virtio::Segment> request(u64 at) {
        return {{.address = at, .length = 8, .writable = false}};
    }
    static void prepare(virtio::BenchRam& ram, u64 at) {
        const std::array<u32, 2> pages = {0x180, 0x181};
        std::memcpy(ram.at(at), pages.data(), sizeof pages);
    }
    void stimulate(testing_rig::Choices& choices) {
        if (choices.coin())
            device.request_statistics();
        else
            device.set_target(choices.bits());
    }
    static void refresh() {}
    static void copy_surroundings(BalloonKit& /*from*/) {}
};

}  // namespace tessera::virtio_balloon
