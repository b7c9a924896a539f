// virtio entropy device [VIRTIO-1.2 5.4]: fills the driver's buffers with random bytes, no more of them in a
// while than it is allowed. Leaves nothing out; there are no features and no registers.
#pragma once

#include <array>
#include <span>

#include "base/clock.h"
#include "base/types.h"
#include "devices/virtio/chain.h"
#include "devices/virtio/core.h"
#include "devices/virtio/device.h"

namespace tessera::virtio_rng {

// Where randomness comes from.
class EntropySource {
public:
    EntropySource() = default;
    EntropySource(const EntropySource&) = delete;
    EntropySource& operator=(const EntropySource&) = delete;
    virtual ~EntropySource() = default;
    // Fills from the front, with the device's lock held; does not wait. Returns how many bytes, 0 if there
    // are none now.
    virtual std::size_t fill(std::span<std::byte> out) = 0;
};

class VirtioRng final : public virtio::Device {
public:
    static constexpr u64 kPeriodNs = 100'000'000;

    struct Config {
        u64 bytes_per_period = kMiB;  // in kPeriodNs; 0: as many as it wants
    };

    VirtioRng(const Config& config, EntropySource& source, Clock& clock, TimerQueue& timers)
        : config_(config), source_(source), clock_(clock), resume_timer_(timers, *this) {}

    [[nodiscard]] virtio::DeviceType type() const override { return virtio::DeviceType::Entropy; }
    [[nodiscard]] u64 features() const override { return 0; }
    [[nodiscard]] std::span<const u16> queue_sizes() const override { return kQueueSizes; }
    [[nodiscard]] u32 config_size() const override { return 0; }
    void read_config(u32 /*offset*/, std::span<std::byte> /*out*/) override {}
    [[nodiscard]] bool stop() override;
    [[nodiscard]] bool service(unsigned queue) override;

private:
    static constexpr std::array<u16, 1> kQueueSizes = {64};

    [[nodiscard]] u64 allowance();
    [[nodiscard]] u32 answer();
    void on_resume() { core().kicker().kick(0); }

    const Config config_;
    EntropySource& source_;
    Clock& clock_;
    virtio::Chain chain_{virtio::Queue::longest_chain(kQueueSizes[0])};
    u64 period_began_ns_ = 0;
    u64 given_ = 0;  // bytes, since then
    MemberTimer<VirtioRng, &VirtioRng::on_resume> resume_timer_;
};

}  // namespace tessera::virtio_rng
