// Making changes durable, in the order that image.h promises, and changing the disk's size.
#include <algorithm>
#include <fmt/format.h>

#include "backends/block/qcow2/image.h"

namespace tessera::block::qcow2 {

namespace {

constexpr u64 kLeastHole = 4096;  // bytes; less cannot be given back to a file system

}  // namespace

// Callers that wait while a commit is under way share the next one.
BlockStatus Image::flush() {
    if (!options_.writable) return BlockStatus::Ok;
    const u64 seen = commits_.load();
    const std::scoped_lock lock(commit_mutex_);
    if (commits_.load() > seen) return last_commit_;
    return commit();
}

BlockStatus Image::sync() {
    const auto status = file_->sync();
    if (status != BlockStatus::Ok) failed_ = true;
    return status;
}

BlockStatus Image::commit() {
    ++commits_;
    Batch batch;
    {
        const std::scoped_lock lock(mutex_);
        if (failed_) return last_commit_ = BlockStatus::IoError;
        batch = capture();
    }
    last_commit_ = write_batch(batch);
    {
        const std::scoped_lock lock(mutex_);
        if (last_commit_ == BlockStatus::Ok)
            committed(batch);
        else
            not_committed(batch);
    }
    if (last_commit_ == BlockStatus::Ok) last_commit_ = free_clusters();
    return last_commit_;
}

Image::Batch Image::capture() {
    Batch batch;
    const auto take = [](const Table& table, std::vector<PieceOfFile>& fresh,
                         std::vector<PieceOfFile>& changed) {
        const u64 begin = table.fresh ? 0 : table.dirty_begin;
        const u64 end = table.fresh ? table.bytes.size() : table.dirty_end;
        const auto part = std::span(table.bytes).subspan(begin, end - begin);
        (table.fresh ? fresh : changed)
            .push_back({.offset = table.offset + begin,
                        .bytes = {part.begin(), part.end()},
                        .table = table.offset,
                        .changes = table.changes});
    };
    for (const Table* table : refcounts_.blocks().dirty_tables())
        take(*table, batch.fresh_blocks, batch.blocks);
    for (const Table* table : l2_.dirty_tables()) take(*table, batch.fresh_l2, batch.l2);
    for (const u64 sector : std::exchange(refcounts_.dirty_sectors(), {}))
        batch.refcount_table.push_back({.offset = header_.refcount_table_offset + sector * 512,
                                        .bytes = refcounts_.table_sector(sector),
                                        .table = sector,
                                        .changes = 0});
    for (const u64 sector : std::exchange(dirty_l1_sectors_, {})) {
        const u64 first = sector * 64;
        const u64 count = std::min<u64>(64, l1_.size() - first);
        PieceOfFile piece{.offset = header_.l1_offset + first * 8,
                          .bytes = std::vector<u8>(count * 8),
                          .table = sector,
                          .changes = 0};
        for (u64 i = 0; i < count; ++i) store_be(std::span(piece.bytes), i * 8, l1_[first + i]);
        batch.l1.push_back(std::move(piece));
    }
    batch.freed = std::exchange(freed_, {});
    const auto released = refcounts_.take_released();
    batch.freed.insert(batch.freed.end(), released.begin(), released.end());
    batch.epoch = epoch_++;
    return batch;
}

BlockStatus Image::write_all(const std::vector<PieceOfFile>& pieces) {
    for (const PieceOfFile& piece : pieces)
        if (const auto status = file_->write(piece.offset, std::span<const u8>(piece.bytes));
            status != BlockStatus::Ok)
            return status;
    return BlockStatus::Ok;
}

BlockStatus Image::write_batch(Batch& batch) {
    if (!batch.refcount_table.empty()) {
        // The refcount table must not name a block that is not there.
        if (const auto status = write_all(batch.fresh_blocks); status != BlockStatus::Ok) return status;
        if (const auto status = sync(); status != BlockStatus::Ok) return status;
        if (const auto status = write_all(batch.refcount_table); status != BlockStatus::Ok) return status;
    } else if (const auto status = write_all(batch.fresh_blocks); status != BlockStatus::Ok) {
        return status;
    }
    if (const auto status = write_all(batch.blocks); status != BlockStatus::Ok) return status;
    if (const auto status = write_all(batch.fresh_l2); status != BlockStatus::Ok) return status;
    if (batch.has_mappings()) {
        if (const auto status = sync(); status != BlockStatus::Ok) return status;
        batch.refers = true;
        if (const auto status = write_all(batch.l2); status != BlockStatus::Ok) return status;
        if (const auto status = write_all(batch.l1); status != BlockStatus::Ok) return status;
    }
    return sync();
}

void Image::committed(const Batch& batch) {
    for (const auto* pieces : {&batch.fresh_blocks, &batch.blocks})
        for (const PieceOfFile& piece : *pieces) refcounts_.blocks().written(piece.table, piece.changes);
    for (const auto* pieces : {&batch.fresh_l2, &batch.l2})
        for (const PieceOfFile& piece : *pieces) l2_.written(piece.table, piece.changes);
    if (!batch.freed.empty()) committed_freed_.push_back({.epoch = batch.epoch, .clusters = batch.freed});
}

void Image::not_committed(Batch& batch) {
    for (const PieceOfFile& piece : batch.l1) dirty_l1_sectors_.insert(piece.table);
    for (const PieceOfFile& piece : batch.refcount_table) refcounts_.dirty_sectors().insert(piece.table);
    freed_.insert(freed_.end(), batch.freed.begin(), batch.freed.end());
    // From now on they are written in their turn, after what they refer to.
    for (const PieceOfFile& piece : batch.fresh_l2)
        if (batch.refers) l2_.no_longer_fresh(piece.table);
}

// Counts down what the file no longer refers to and nobody reads or writes any more. What becomes free is
// given back to the host before it can be allocated again.
BlockStatus Image::free_clusters() {
    std::vector<u64> clusters;
    std::vector<Span> holes;
    {
        const std::scoped_lock lock(mutex_);
        const u64 busy = busy_from();
        std::erase_if(committed_freed_, [&](const Freed& freed) {
            if (freed.epoch >= busy) return false;
            clusters.insert(clusters.end(), freed.clusters.begin(), freed.clusters.end());
            return true;
        });
        std::ranges::sort(clusters);
        for (u64 i = 0; i < clusters.size();) {
            u64 references = 1;
            while (i + references < clusters.size() && clusters[i + references] == clusters[i]) ++references;
            u64 count = 0;
            if (refcounts_.get(clusters[i], count) == BlockStatus::Ok && count == references &&
                !map_.contains(clusters[i])) {
                if (compressed_at_ >> geometry().cluster_bits == clusters[i]) compressed_at_ = 0;
                if (!holes.empty() && holes.back().end() == clusters[i])
                    ++holes.back().count;
                else
                    holes.push_back({clusters[i], 1});
            }
            i += references;
        }
    }
    for (const Span& hole : holes)
        if (hole.count << geometry().cluster_bits >= kLeastHole)
            if (file_->discard(hole.first << geometry().cluster_bits,
                               hole.count << geometry().cluster_bits) == BlockStatus::Unsupported)
                break;
    const std::scoped_lock lock(mutex_);
    for (const u64 cluster : clusters)
        if (refcounts_.decrease(cluster) != BlockStatus::Ok)
            return broken(fmt::format("cluster {} is used more often than it is counted", cluster));
    return BlockStatus::Ok;
}

Image::~Image() {
    if (!options_.writable) return;
    // The second writes the refcounts that the first made smaller.
    for (int i = 0; i < 3; ++i)
        if (flush() != BlockStatus::Ok) {
            log_.say(fmt::format("qcow2 image '{}': its latest changes could not be written", file_->name()));
            return;
        }
}

// --- size
// ------------------------------------------------------------------------------------------------------

Status Image::grow_l1(u64 entries) {
    const auto failed = [&](std::string_view what) {
        return fail(Errc::HostFailure, fmt::format("qcow2 image '{}': {}", file_->name(), what));
    };
    if (entries * 8 > kMostL1Bytes)
        return fail(
            Errc::InvalidArgument,
            fmt::format("qcow2 image '{}': a disk of this size needs larger clusters", file_->name()));
    const u64 clusters = geometry().clusters_for(entries * 8);
    Refcounts::Run run;
    if (refcounts_.allocate(clusters, clusters, run) != BlockStatus::Ok)
        return failed("no room for its L1 table");
    map_.add(run.first, clusters);
    const u64 old_first = header_.l1_offset >> geometry().cluster_bits;
    const u64 old_clusters = geometry().clusters_for(l1_.size() * 8);
    std::vector<u8> bytes(clusters << geometry().cluster_bits);
    for (u64 i = 0; i < l1_.size(); ++i) store_be(std::span(bytes), i * 8, l1_[i]);
    // The refcounts first: commit() may not be called with the lock, and nothing is in flight.
    Batch batch = capture();
    const u64 offset = run.first << geometry().cluster_bits;
    if (write_batch(batch) != BlockStatus::Ok ||
        file_->write(offset, std::span<const u8>(bytes)) != BlockStatus::Ok ||
        file_->sync() != BlockStatus::Ok) {
        not_committed(batch);
        return failed("its L1 table could not be written");
    }
    committed(batch);
    Header larger = header_;
    larger.l1_offset = offset;
    larger.l1_entries = static_cast<u32>(entries);
    if (update_header(*file_, larger) != BlockStatus::Ok || file_->sync() != BlockStatus::Ok) {
        failed_ = true;  // which of the tables the file names is not known
        return failed("its header could not be written");
    }
    header_ = larger;
    l1_.resize(entries);
    map_.remove(old_first, old_clusters);
    for (u64 i = 0; i < old_clusters; ++i) freed_.push_back(old_first + i);
    return {};
}

Status Image::resize(u64 new_size) {
    const auto failed = [&](Errc code, std::string_view what) {
        return fail(code, fmt::format("qcow2 image '{}': {}", file_->name(), what));
    };
    if (new_size % kSectorSize != 0 || new_size > kMostDiskSize)
        return failed(Errc::InvalidArgument, "the size must be whole sectors of 512 bytes");
    if (!snapshots_.snapshots.empty() && (header_.version < 3 || new_size < size()))
        return failed(Errc::Unsupported, "it has internal snapshots, so its size cannot be changed");
    const u64 old_size = size();
    const u64 cluster_end = geometry().round_up(std::min(old_size, new_size));
    if (new_size < old_size) {
        // The rest of the last cluster, too, so that it is not there when the disk grows again.
        if (clear(new_size, std::min(cluster_end, old_size) - new_size, Clear::Zero) != BlockStatus::Ok ||
            clear_clusters({cluster_end >> geometry().cluster_bits,
                            geometry().clusters_for(old_size) - (cluster_end >> geometry().cluster_bits)},
                           Clear::Drop) != BlockStatus::Ok)
            return failed(Errc::HostFailure, "what is past the new end could not be removed");
    }
    if (flush() != BlockStatus::Ok) return failed(Errc::HostFailure, "it could not be written");
    {
        const std::scoped_lock lock(commit_mutex_, mutex_);
        if (geometry().l1_entries_for(new_size) > l1_.size())
            if (auto grown = grow_l1(geometry().l1_entries_for(new_size)); !grown) return grown;
        Header changed = header_;
        changed.disk_size = new_size;
        if (update_header(*file_, changed) != BlockStatus::Ok || file_->sync() != BlockStatus::Ok)
            return failed(Errc::HostFailure, "its header could not be written");
        header_ = changed;
    }
    // What is new reads as zeroes, whatever the backing file or the old last cluster has there.
    const u64 backed = has_backing() ? std::min(backing_->size(), new_size) : 0;
    const u64 zero_end = std::max(std::min(cluster_end, new_size), backed);
    if (new_size > old_size && zero_end > old_size &&
        clear(old_size, zero_end - old_size, Clear::Zero) != BlockStatus::Ok)
        return failed(Errc::HostFailure, "what is new could not be filled with zeroes");
    if (flush() != BlockStatus::Ok) return failed(Errc::HostFailure, "it could not be written");
    return {};
}

}  // namespace tessera::block::qcow2
