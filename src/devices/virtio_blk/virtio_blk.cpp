#include "devices/virtio_blk/virtio_blk.h"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstring>
#include <limits>

namespace tessera::virtio_blk {

namespace {

static_assert(offsetof(ConfigSpace, blk_size) == 20 && offsetof(ConfigSpace, writeback) == kWritebackOffset &&
              offsetof(ConfigSpace, write_zeroes_may_unmap) == 56 && sizeof(ConfigSpace) >= kConfigSize);

constexpr u64 kMostBytes = u64{kSegMax} * kSizeMax;  // of data in a request

constexpr RequestStatus status_of(BlockStatus status) {
    switch (status) {
        case BlockStatus::Ok: return RequestStatus::Ok;
        case BlockStatus::Unsupported: return RequestStatus::Unsupported;
        case BlockStatus::IoError:
        case BlockStatus::NoSpace:
        case BlockStatus::OutOfRange: break;
    }
    return RequestStatus::IoError;
}

constexpr u64 bit(unsigned feature) {
    return virtio::feature_bit(feature);
}

}  // namespace

VirtioBlk::VirtioBlk(const Config& config, BlockBackend& backend)
    : config_(config),
      backend_(backend),
      info_(backend.info()),
      queue_sizes_(std::clamp<u32>(config.queues, 1, kMostQueues), kQueueSize),
      chain_room_(static_cast<unsigned>(queue_sizes_.size()) * kSlots,
                  virtio::Queue::longest_chain(kQueueSize)),
      slots_(queue_sizes_.size()) {
    for (unsigned queue = 0; queue < slots_.size(); ++queue) {
        QueueSlots& slots = slots_[queue];
        for (unsigned i = 0; i < kSlots; ++i) {
            slots.all.push_back(std::make_unique<Slot>(*this, queue));
            slots.free.push_back(slots.all.back().get());
        }
    }
    state_.writeback = config_.writeback ? 1 : 0;
}

// --- Features and registers ---

u64 VirtioBlk::features() const {
    u64 features = bit(kFeatureSizeMax) | bit(kFeatureSegMax) | bit(kFeatureBlockSize) | bit(kFeatureFlush) |
                   bit(kFeatureTopology) | bit(kFeatureConfigWce);
    if (queue_sizes_.size() > 1) features |= bit(kFeatureMultiQueue);
    if (info_.read_only) return features | bit(kFeatureReadOnly);
    if (info_.discard_granularity != 0) features |= bit(kFeatureDiscard);
    if (info_.can_write_zeroes) features |= bit(kFeatureWriteZeroes);
    return features;
}

void VirtioBlk::read_config(u32 offset, std::span<std::byte> out) {
    const u32 block = std::max<u32>(info_.logical_block, kSectorSize);
    const u32 blocks_in_physical = std::max<u32>(1, info_.physical_block / block);
    ConfigSpace config;
    config.capacity = info_.size / kSectorSize;
    config.size_max = kSizeMax;
    config.seg_max = kSegMax;
    config.blk_size = block;
    config.physical_block_exp = static_cast<u8>(std::bit_width(blocks_in_physical) - 1);
    config.min_io_size = static_cast<u16>(std::min<u32>(blocks_in_physical, 0xffff));
    config.opt_io_size = info_.optimal_io / block;
    config.writeback = write_through() ? 0 : 1;
    config.num_queues = static_cast<u16>(queue_sizes_.size());
    const auto features_now = features();
    if ((features_now & bit(kFeatureDiscard)) != 0) {
        config.max_discard_sectors = kMostRangeSectors;
        config.max_discard_seg = kMostSegments;
        config.discard_sector_alignment = static_cast<u32>(
            std::min<u64>(info_.discard_granularity / kSectorSize, std::numeric_limits<u32>::max()));
    }
    if ((features_now & bit(kFeatureWriteZeroes)) != 0) {
        config.max_write_zeroes_sectors = kMostRangeSectors;
        config.max_write_zeroes_seg = kMostSegments;
        config.write_zeroes_may_unmap = 1;
    }
    const auto bytes = std::bit_cast<std::array<std::byte, sizeof(ConfigSpace)>>(config);
    std::memcpy(out.data(), std::span(bytes).subspan(offset).data(), out.size());
}

void VirtioBlk::write_config(u32 offset, std::span<const std::byte> in) {
    // [VIRTIO-1.2 5.2.4] All but the cache mode is read only.
    if (offset != kWritebackOffset || in.size() != 1 || !core().negotiated(kFeatureConfigWce)) return;
    state_.writeback = in[0] != std::byte{0} ? 1 : 0;
}

// [VIRTIO-1.2 5.2.5.2], [VIRTIO-1.2 5.2.6.2] A driver that cannot flush counts on writes being durable.
bool VirtioBlk::write_through() const {
    if (core().negotiated(kFeatureConfigWce)) return state_.writeback == 0;
    if (core().negotiated(kFeatureFlush)) return false;
    return core().running() || !config_.writeback;
}

// --- Taking requests ---

bool VirtioBlk::in_range(u64 sector, u64 sectors) const {
    const u64 capacity = info_.size / kSectorSize;
    return sector <= capacity && sectors <= capacity - sector;
}

bool VirtioBlk::service(unsigned queue) {
    virtio::Queue& ring = core().queue(queue);
    QueueSlots& slots = slots_[queue];
    ring.stop_kicks();
    std::array<BlockRequest*, kBatch> batch{};
    std::size_t batched = 0;
    bool more = true;
    for (unsigned taken = 0; more && taken < kBatch; ++taken) {
        slots.starved = slots.free.empty();
        if (slots.starved) {
            more = false;  // the next completion calls again
        } else if (Slot& slot = *slots.free.back(); core().pop(queue, slot.chain)) {
            slots.free.pop_back();
            auto status = RequestStatus::Ok;
            if (begin(slot, status) == Next::Submit) {
                batch[batched++] = &slot;
            } else {
                answer(slot, status);
                release(slot);
            }
        } else {
            more = ring.want_kicks();
        }
    }
    in_flight_ += static_cast<unsigned>(batched);
    if (batched != 0) backend_.submit(std::span(batch).first(batched));
    // Backends often are done by now.
    run_backend();
    return more;
}

// Decides what a request is. Anything it cannot be is answered with an error: no request stays without one.
VirtioBlk::Next VirtioBlk::begin(Slot& slot, RequestStatus& status) {
    slot.range_count = slot.next_range = 0;
    slot.flush_after = false;
    slot.force_unit_access = slot.may_unmap = false;
    slot.buffers = {};
    slot.offset = slot.length = 0;
    slot.written =
        static_cast<u32>(std::min<u64>(slot.chain.writable_bytes(), std::numeric_limits<u32>::max()));
    slot.status_byte = slot.chain.take_last_writable();
    status = RequestStatus::IoError;
    if (slot.status_byte == nullptr) return Next::Answer;
    std::array<std::byte, sizeof(RequestHeader)> copy{};
    if (slot.chain.read(copy) != copy.size()) return Next::Answer;
    const auto header = std::bit_cast<RequestHeader>(copy);
    switch (static_cast<RequestType>(header.type)) {
        case RequestType::In: return begin_transfer(slot, BlockOperation::Read, header.sector, status);
        case RequestType::Out: return begin_transfer(slot, BlockOperation::Write, header.sector, status);
        case RequestType::Flush: slot.operation = BlockOperation::Flush; return Next::Submit;
        case RequestType::GetId: return get_id(slot, status);
        case RequestType::Discard: return begin_ranges(slot, BlockOperation::Discard, status);
        case RequestType::WriteZeroes: return begin_ranges(slot, BlockOperation::WriteZeroes, status);
        case RequestType::ScsiCommand:
        case RequestType::GetLifetime:
        case RequestType::SecureErase: break;
    }
    status = RequestStatus::Unsupported;
    return Next::Answer;
}

VirtioBlk::Next VirtioBlk::begin_transfer(Slot& slot, BlockOperation operation, u64 sector,
                                          RequestStatus& status) {
    const bool writes = operation == BlockOperation::Write;
    const u64 bytes = writes ? slot.chain.readable_bytes() : slot.chain.writable_bytes();
    // [VIRTIO-1.2 5.2.6.2] MUST fail writes to a read-only disk.
    if (bytes % kSectorSize != 0 || bytes > kMostBytes || !in_range(sector, bytes / kSectorSize) ||
        (writes && info_.read_only))
        return Next::Answer;
    status = RequestStatus::Ok;
    if (bytes == 0) return Next::Answer;
    slot.operation = operation;
    slot.offset = sector * kSectorSize;
    slot.length = bytes;
    slot.buffers = writes ? slot.chain.readable() : slot.chain.writable();
    slot.force_unit_access = writes && write_through();
    return Next::Submit;
}

VirtioBlk::Next VirtioBlk::get_id(Slot& slot, RequestStatus& status) {
    std::array<std::byte, kIdSize> id{};
    std::memcpy(id.data(), config_.serial.data(), std::min<std::size_t>(config_.serial.size(), kIdSize));
    (void)slot.chain.write(id);
    status = RequestStatus::Ok;
    return Next::Answer;
}

// [VIRTIO-1.2 5.2.6.2] Flags one does not know are not supported; everything else is an error.
RequestStatus VirtioBlk::check_range(const RangeSegment& range, BlockOperation operation) const {
    const u32 known = operation == BlockOperation::WriteZeroes ? kRangeUnmap : 0;
    if ((range.flags & ~known) != 0) return RequestStatus::Unsupported;
    if (range.sectors > kMostRangeSectors || !in_range(range.sector, range.sectors))
        return RequestStatus::IoError;
    return RequestStatus::Ok;
}

VirtioBlk::Next VirtioBlk::begin_ranges(Slot& slot, BlockOperation operation, RequestStatus& status) {
    const unsigned feature = operation == BlockOperation::Discard ? kFeatureDiscard : kFeatureWriteZeroes;
    status = RequestStatus::Unsupported;
    if (!core().negotiated(feature)) return Next::Answer;
    status = RequestStatus::IoError;
    const u64 bytes = slot.chain.readable_bytes();
    const u64 count = bytes / sizeof(RangeSegment);
    if (info_.read_only || bytes % sizeof(RangeSegment) != 0 || count == 0 || count > kMostSegments)
        return Next::Answer;
    for (u64 i = 0; i < count; ++i) {
        std::array<std::byte, sizeof(RangeSegment)> copy{};
        (void)slot.chain.read(copy);
        const auto range = std::bit_cast<RangeSegment>(copy);
        if (const auto checked = check_range(range, operation); checked != RequestStatus::Ok) {
            status = checked;
            return Next::Answer;
        }
        if (range.sectors != 0) slot.ranges[slot.range_count++] = range;
    }
    status = RequestStatus::Ok;
    if (slot.range_count == 0) return Next::Answer;
    slot.operation = operation;
    slot.flush_after = write_through();
    set_range(slot);
    return Next::Submit;
}

void VirtioBlk::set_range(Slot& slot) {
    const RangeSegment& range = slot.ranges[slot.next_range++];
    slot.offset = range.sector * kSectorSize;
    slot.length = u64{range.sectors} * kSectorSize;
    slot.may_unmap = (range.flags & kRangeUnmap) != 0;
}

// --- Giving them back ---

// Any thread; what it leaves behind is taken up by run_backend().
void VirtioBlk::completed(Slot& slot, BlockStatus status) {
    slot.result = status;
    Slot* newest = completed_.load(std::memory_order_relaxed);
    do {
        slot.next_completed = newest;
    } while (!completed_.compare_exchange_weak(newest, &slot, std::memory_order_release,
                                               std::memory_order_relaxed));
    if (newest == nullptr) core().kicker().wake();
}

// The next part of a request that has several; false if it is done.
bool VirtioBlk::go_on(Slot& slot) {
    if (slot.result != BlockStatus::Ok || core().draining()) return false;
    if (slot.next_range < slot.range_count) {
        set_range(slot);
    } else if (slot.flush_after) {
        slot.flush_after = false;
        slot.operation = BlockOperation::Flush;
        slot.offset = slot.length = 0;
    } else {
        return false;
    }
    BlockRequest* const request = &slot;
    backend_.submit({&request, 1});
    return true;
}

void VirtioBlk::run_backend() {
    Slot* oldest = nullptr;
    for (Slot* slot = completed_.exchange(nullptr, std::memory_order_acquire); slot != nullptr;) {
        Slot* const next = slot->next_completed;
        slot->next_completed = oldest;
        oldest = slot;
        slot = next;
    }
    while (oldest != nullptr) {
        Slot& slot = *oldest;
        oldest = slot.next_completed;
        if (go_on(slot)) continue;
        --in_flight_;
        // Of a device that was reset meanwhile, there are no rings any more.
        if (!core().draining()) answer(slot, status_of(slot.result));
        release(slot);
    }
    for (; touched_ != 0; touched_ &= touched_ - 1)
        core().signal(static_cast<unsigned>(std::countr_zero(touched_)));
    if (core().draining() && in_flight_ == 0) core().stopped();
}

void VirtioBlk::answer(Slot& slot, RequestStatus status) {
    if (slot.status_byte != nullptr) *slot.status_byte = static_cast<std::byte>(status);
    core().push(slot.queue, slot.chain, slot.written);
    touched_ |= u64{1} << slot.queue;
}

void VirtioBlk::release(Slot& slot) {
    QueueSlots& slots = slots_[slot.queue];
    slots.free.push_back(&slot);
    if (slots.starved) {
        slots.starved = false;
        core().kicker().kick(slot.queue);
    }
}

// --- Reset and snapshots ---

bool VirtioBlk::stop() {
    state_.writeback = config_.writeback ? 1 : 0;
    touched_ = 0;
    return in_flight_ == 0;
}

void VirtioBlk::visit(StateVisitor& v, State& s) {
    auto& [writeback] = s;
    v.field(kFirstField, "writeback", writeback);
}

Status VirtioBlk::load(StateVisitor& v) {
    State next;
    visit(v, next);
    if (v.corrupt() || next.writeback > 1)
        return fail(Errc::CorruptState, "virtio block: the saved state holds values no disk can have");
    state_ = next;
    return {};
}

}  // namespace tessera::virtio_blk
