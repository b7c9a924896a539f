// virtio balloon [VIRTIO-1.2 5.5]: takes memory from a guest and gives it back, learns which pages a guest
// does not use, and how the guest stands for memory. Leaves out free page hints (they are for migration).
#pragma once

#include <array>
#include <optional>
#include <span>

#include "base/types.h"
#include "devices/virtio/chain.h"
#include "devices/virtio/core.h"
#include "devices/virtio/device.h"
#include "devices/virtio_balloon/virtio_balloon_regs.h"
#include "memory/memory_map.h"

namespace tessera::virtio_balloon {

// Gives pages of guest RAM back to the host; they read as zeroes from then on.
class PageReleaser {
public:
    PageReleaser() = default;
    PageReleaser(const PageReleaser&) = delete;
    PageReleaser& operator=(const PageReleaser&) = delete;
    virtual ~PageReleaser() = default;
    // Whole pages, with the device's lock held.
    virtual void release(std::span<std::byte> pages) = 0;
};

class VirtioBalloon final : public virtio::Device {
public:
    struct Config {
        u64 target = 0;              // bytes the guest is asked for at first
        bool deflate_on_oom = true;  // the guest may take pages back before it kills processes
        bool reporting = true;       // the guest tells which pages are free
    };

    VirtioBalloon(const Config& config, MemoryMap& memory, PageReleaser& releaser);

    [[nodiscard]] virtio::DeviceType type() const override { return virtio::DeviceType::Balloon; }
    [[nodiscard]] u64 features() const override;
    [[nodiscard]] std::span<const u16> queue_sizes() const override { return kQueueSizes; }
    [[nodiscard]] u32 config_size() const override { return kConfigSize; }
    void read_config(u32 offset, std::span<std::byte> out) override;
    void write_config(u32 offset, std::span<const std::byte> in) override;
    [[nodiscard]] bool stop() override;
    [[nodiscard]] bool service(unsigned queue) override;
    void visit_state(StateVisitor& v) override { visit(v, state_); }
    Status load(StateVisitor& v) override;

    // --- The host's side, with the device's lock held.
    // Asks the guest for as much memory (or to take back what is more), rounded down to pages.
    void set_target(u64 bytes);
    // What the guest says it has given.
    [[nodiscard]] u64 actual() const { return u64{state_.actual} << kPageShift; }
    // Bytes of all pages released so far.
    [[nodiscard]] u64 released() const { return released_; }
    // As the guest last told; nothing for what it did not.
    [[nodiscard]] std::optional<u64> statistic(StatisticTag tag) const {
        return statistics_[static_cast<unsigned>(tag)];
    }
    // Asks for new figures.
    void request_statistics();

private:
    static constexpr u16 kQueueSize = 128;
    static constexpr std::array<u16, 4> kQueueSizes = {kQueueSize, kQueueSize, kQueueSize, kQueueSize};
    static constexpr unsigned kChainsPerTurn = 16;
    static constexpr u64 kMostPages = 4096;  // of a request; a balloon is advice, and more are left alone

    enum class Role : u8 { Inflate, Deflate, Statistics, Reporting, Nothing };
    struct State {
        u32 pages = 0;              // wanted
        u32 actual = 0;             // as the driver says
        u32 poison = 0;             // what the driver fills free pages with
        u8 statistics_waiting = 0;  // the buffer in the queue has been read
    };

    static void visit(StateVisitor& v, State& s);
    [[nodiscard]] Role role_of(unsigned queue) const;
    [[nodiscard]] std::optional<unsigned> statistics_queue() const;
    [[nodiscard]] bool serve_statistics(unsigned queue);
    void read_statistics();
    void inflate();
    void release(u64 address, u64 size);
    void release_reported();

    const Config config_;
    MemoryMap& memory_;
    PageReleaser& releaser_;
    virtio::Chain chain_{virtio::Queue::longest_chain(kQueueSize)};
    State state_;
    u64 released_ = 0;
    std::array<std::optional<u64>, kStatisticTags> statistics_{};
};

}  // namespace tessera::virtio_balloon
