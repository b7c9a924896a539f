// virtio block device [VIRTIO-1.2 5.2] over a BlockBackend: reads, writes, flushes, discards, write-zeroes,
// the serial number; several queues. A driver's requests go to the backend in the guest's own memory. Leaves
// out what is legacy (SCSI commands, geometry), lifetime, secure erase, zoned disks.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backends/block/block_backend.h"
#include "base/types.h"
#include "devices/virtio/chain.h"
#include "devices/virtio/core.h"
#include "devices/virtio/device.h"
#include "devices/virtio_blk/virtio_blk_regs.h"

namespace tessera::virtio_blk {

inline constexpr u16 kQueueSize = 256;
inline constexpr u32 kMostQueues = 16;
// [VIRTIO-1.2 5.2.4] Pieces of data, besides header and status; bytes of each.
inline constexpr u32 kSegMax = kQueueSize - 2;
inline constexpr u32 kSizeMax = 512 * kKiB;

class VirtioBlk final : public virtio::Device {
public:
    struct Config {
        std::string serial;     // up to 20 bytes of it are told
        u16 queues = 1;         // up to kMostQueues
        bool writeback = true;  // the cache mode a driver finds, which it may change
    };

    VirtioBlk(const Config& config, BlockBackend& backend);

    [[nodiscard]] virtio::DeviceType type() const override { return virtio::DeviceType::Block; }
    [[nodiscard]] u64 features() const override;
    [[nodiscard]] std::span<const u16> queue_sizes() const override { return queue_sizes_; }
    [[nodiscard]] u32 config_size() const override { return kConfigSize; }
    void read_config(u32 offset, std::span<std::byte> out) override;
    void write_config(u32 offset, std::span<const std::byte> in) override;
    [[nodiscard]] bool stop() override;
    [[nodiscard]] bool service(unsigned queue) override;
    void run_backend() override;
    void visit_state(StateVisitor& v) override { visit(v, state_); }
    Status load(StateVisitor& v) override;

    // Requests the backend has. A snapshot is taken when there are none.
    [[nodiscard]] unsigned in_flight() const { return in_flight_; }

private:
    static constexpr unsigned kSlots = 128;        // for each queue: what is in flight at most
    static constexpr unsigned kBatch = 32;         // requests taken in a turn
    static constexpr unsigned kMostSegments = 16;  // of Discard and WriteZeroes
    static constexpr u32 kMostRangeSectors = 1U << 22;

    struct State {
        u8 writeback = 1;
    };
    // A request from when it was taken from its queue until it is given back.
    class Slot final : public BlockRequest {
    public:
        Slot(VirtioBlk& owner, unsigned on_queue)
            : chain(owner.chain_room_), queue(on_queue), owner_(owner) {}
        void done(BlockStatus status) override { owner_.completed(*this, status); }

        virtio::Chain chain;
        const unsigned queue;
        std::byte* status_byte = nullptr;
        u32 written = 0;  // bytes, the status's too
        BlockStatus result = BlockStatus::Ok;
        // Ranges that follow the one the backend has, and a flush behind them.
        std::array<RangeSegment, kMostSegments> ranges{};
        unsigned range_count = 0;
        unsigned next_range = 0;
        bool flush_after = false;
        Slot* next_completed = nullptr;

    private:
        VirtioBlk& owner_;
    };
    struct QueueSlots {
        std::vector<std::unique_ptr<Slot>> all;
        std::vector<Slot*> free;
        bool starved = false;  // left something in its queue for want of a slot
    };
    // What became of a request that was just taken.
    enum class Next : u8 { Submit, Answer };

    static void visit(StateVisitor& v, State& s);
    void completed(Slot& slot, BlockStatus status);
    [[nodiscard]] Next begin(Slot& slot, RequestStatus& status);
    [[nodiscard]] Next begin_transfer(Slot& slot, BlockOperation operation, u64 sector,
                                      RequestStatus& status);
    [[nodiscard]] Next begin_ranges(Slot& slot, BlockOperation operation, RequestStatus& status);
    [[nodiscard]] RequestStatus check_range(const RangeSegment& range, BlockOperation operation) const;
    [[nodiscard]] Next get_id(Slot& slot, RequestStatus& status);
    static void set_range(Slot& slot);
    [[nodiscard]] bool go_on(Slot& slot);
    void answer(Slot& slot, RequestStatus status);
    void release(Slot& slot);
    [[nodiscard]] bool in_range(u64 sector, u64 sectors) const;
    [[nodiscard]] bool write_through() const;

    const Config config_;
    BlockBackend& backend_;
    const BlockInfo info_;
    std::vector<u16> queue_sizes_;
    virtio::ChainRoom chain_room_;
    std::vector<QueueSlots> slots_;
    State state_;
    unsigned in_flight_ = 0;
    u64 touched_ = 0;                         // queues with answers the driver was not told of
    std::atomic<Slot*> completed_ = nullptr;  // newest first
};

}  // namespace tessera::virtio_blk
