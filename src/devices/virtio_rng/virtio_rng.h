// virtio entropy device [VIRTIO-1.2 5.4]: fills the driver's buffers with random bytes, no more of them in a
// while than it is allowed. Leaves nothing out; there are no features and no registers.
#pragma once

#include <array>
#include <span>

#include "base/clock.h"
#include "base/result.h"
#include "base/types.h"
#include "devices/virtio/chain.h"
#include "devices/virtio/core.h"
#include "devices/virtio/device.h"
#include "snapshot/state_visitor.h"

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
    void visit_state(StateVisitor& v) override { visit(v, state_); }
    Status load(StateVisitor& v) override;

private:
    static constexpr std::array<u16, 1> kQueueSizes = {64};

    // Of the rate; a reset gives a guest no more.
    struct State {
        u64 period_began_ns = 0;
        u64 given = 0;   // bytes, since then
        u8 waiting = 0;  // a request waits for the next period
    };

    static void visit(StateVisitor& v, State& s);
    [[nodiscard]] u64 allowance();
    [[nodiscard]] u32 answer();
    void wait();
    void on_resume();

    const Config config_;
    EntropySource& source_;
    Clock& clock_;
    virtio::Chain chain_{virtio::Queue::longest_chain(kQueueSizes[0])};
    State state_;
    MemberTimer<VirtioRng, &VirtioRng::on_resume> resume_timer_;
};

}  // namespace tessera::virtio_rng
