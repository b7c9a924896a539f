// An entropy device with a source that counts, runs dry, and a clock set by hand.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "base/fake_clock.h"
#include "devices/virtio/testing/bench.h"
#include "devices/virtio_rng/virtio_rng.h"

namespace tessera::virtio_rng {

class CountingSource final : public EntropySource {
public:
    std::size_t fill(std::span<std::byte> out) override {
        const std::size_t size = std::min(out.size(), most);
        for (std::byte& byte : out.first(size)) byte = static_cast<std::byte>(++last);
        return size;
    }
    u8 last = 0;
    std::size_t most = ~std::size_t{0};
};

struct RngKit {
    FakeClock clock;
    CountingSource source;
    VirtioRng device{{.bytes_per_period = 100'000}, source, clock, clock};

    static constexpr u16 kRequestQueue = 0;
    static std::vector<virtio::Segment> request(u64 at) {
        return {{.address = at, .length = 64, .writable = true}};
    }
    static void prepare(virtio::BenchRam& ram, u64 at) { std::memset(ram.at(at), 0, 64); }
    static std::vector<virtio::Segment> any_request(virtio::BenchRam& /*ram*/, u64 at, unsigned /*queue*/,
                                                    testing_rig::Choices& /*choices*/) {
        return {{.address = at, .length = 8000, .writable = true}};
    }
    // A reset gives a guest no more.
    static constexpr std::array<unsigned, 2> kKeptByReset = {2000, 2001};
    void copy_surroundings(const RngKit& from) {
        clock.advance(from.clock.now_ns() - clock.now_ns());
        source.last = from.source.last;
        source.most = from.source.most;
    }
    [[nodiscard]] u64 seen() const { return source.last; }
    void refresh() { clock.advance(VirtioRng::kPeriodNs); }
    void stimulate(testing_rig::Choices& choices) {
        source.most = choices.coin() ? ~std::size_t{0} : choices.below(100);
        clock.advance(choices.below(2 * VirtioRng::kPeriodNs));
    }
};

}  // namespace tessera::virtio_rng
