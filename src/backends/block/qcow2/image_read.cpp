// Reading: from the file, from what is compressed, from the backing file.
#include <algorithm>
#include <fmt/format.h>

#include "backends/block/qcow2/compression.h"
#include "backends/block/qcow2/image.h"

namespace tessera::block::qcow2 {

BlockStatus Image::read(u64 offset, std::span<const iovec> buffers) {
    PieceWalk walk(buffers);
    for (u64 left = total_length(buffers); left > 0;) {
        ReadStep step;
        if (const auto status = next_read(offset, left, step); status != BlockStatus::Ok) return status;
        const auto status = perform_read(offset, step, walk);
        end_io(step.epoch);
        if (status != BlockStatus::Ok) return status;
        offset += step.length;
        left -= step.length;
    }
    return BlockStatus::Ok;
}

// The next stretch that one call can read: data that follows on in the file, or clusters of one kind.
BlockStatus Image::next_read(u64 offset, u64 length, ReadStep& step) {
    const std::scoped_lock lock(mutex_);
    Table* table = nullptr;
    if (const auto status = l2_for_reading(geometry().l1_index(offset), table); status != BlockStatus::Ok)
        return status;
    step.mapping = mapping(table, offset);
    if (step.mapping.kind == ClusterKind::Invalid)
        return broken(fmt::format("the entry for byte {} is {:#x}", offset, step.mapping.entry));
    const u64 cluster = geometry().cluster();
    const u64 table_span = cluster << geometry().l2_bits();
    const u64 end = std::min(offset + length, (offset / table_span + 1) * table_span);
    u64 at = (offset / cluster + 1) * cluster;
    while (at < end && step.mapping.kind != ClusterKind::Compressed) {
        const Mapping next = mapping(table, at);
        if (next.kind != step.mapping.kind) break;
        if (next.kind == ClusterKind::Data &&
            next.host() - step.mapping.host() != at - offset / cluster * cluster)
            break;
        at += cluster;
    }
    step.length = std::min(at, end) - offset;
    step.generation = unpacked_generation_;
    step.epoch = begin_io();
    return BlockStatus::Ok;
}

BlockStatus Image::perform_read(u64 offset, const ReadStep& step, PieceWalk& walk) {
    std::vector<iovec> pieces;
    switch (step.mapping.kind) {
        case ClusterKind::Data:
            (void)walk.take(step.length, pieces);
            return file_->read(step.mapping.host() + geometry().offset_in(offset), pieces);
        case ClusterKind::Unallocated:
            (void)walk.take(step.length, pieces);
            return read_backing(offset, pieces);
        case ClusterKind::Compressed: {
            std::vector<u8> cluster;
            if (const auto status = read_compressed(step, cluster); status != BlockStatus::Ok) return status;
            walk.copy_in(std::span(cluster).subspan(geometry().offset_in(offset), step.length));
            return BlockStatus::Ok;
        }
        case ClusterKind::Zero:
        case ClusterKind::ZeroAllocated:
        case ClusterKind::Invalid: break;
    }
    walk.fill_zero(step.length);
    return BlockStatus::Ok;
}

BlockStatus Image::read_backing(u64 offset, std::span<const iovec> buffers) {
    PieceWalk walk(buffers);
    const u64 length = total_length(buffers);
    const u64 backed =
        has_backing() && backing_->size() > offset ? std::min(length, backing_->size() - offset) : 0;
    if (backed != 0) {
        std::vector<iovec> pieces;
        (void)walk.take(backed, pieces);
        if (const auto status = backing_->read(offset, pieces); status != BlockStatus::Ok) return status;
    }
    walk.fill_zero(length - backed);
    return BlockStatus::Ok;
}

BlockStatus Image::read_compressed(const ReadStep& step, std::vector<u8>& cluster) {
    {
        const std::scoped_lock lock(unpacked_mutex_);
        if (unpacked_entry_ == step.mapping.entry && !unpacked_.empty()) {
            cluster = unpacked_;
            return BlockStatus::Ok;
        }
    }
    const CompressedRange range = compressed_range(geometry(), step.mapping.entry);
    // No writer makes one that is longer than its cluster and a sector at each end.
    std::vector<u8> packed(std::min(range.length, geometry().cluster() + 1024));
    if (const auto status = file_->read(range.offset, std::span(packed)); status != BlockStatus::Ok)
        return status;
    cluster.resize(geometry().cluster());
    if (!decompress(header_.compression, packed, cluster)) {
        log_.say(fmt::format("qcow2 image '{}': the compressed cluster at byte {} is damaged", file_->name(),
                             range.offset));
        return BlockStatus::IoError;
    }
    const std::scoped_lock lock(mutex_, unpacked_mutex_);
    if (unpacked_generation_ == step.generation) {
        unpacked_entry_ = step.mapping.entry;
        unpacked_ = cluster;
    }
    return BlockStatus::Ok;
}

// What a guest cluster held before a write to part of it; the cluster is in allocating_, so it does not
// change.
BlockStatus Image::read_old(const Mapping& old, u64 offset, std::span<u8> bytes) {
    if (bytes.empty()) return BlockStatus::Ok;
    const ReadStep step{.mapping = old, .length = bytes.size(), .epoch = 0, .generation = ~u64{0}};
    const iovec piece{.iov_base = bytes.data(), .iov_len = bytes.size()};
    PieceWalk walk(std::span(&piece, 1));
    return perform_read(offset, step, walk);
}

bool Image::old_reads_as_zeroes(const Mapping& old, u64 offset, u64 length) {
    switch (old.kind) {
        case ClusterKind::Zero:
        case ClusterKind::ZeroAllocated: return true;
        case ClusterKind::Unallocated: {
            if (!has_backing() || offset >= backing_->size()) return true;
            Run run;
            return backing_->run_at(offset, run) == BlockStatus::Ok && run.kind == Kind::Zero &&
                   (run.length >= length || offset + run.length >= backing_->size());
        }
        case ClusterKind::Data:
        case ClusterKind::Compressed:
        case ClusterKind::Invalid: break;
    }
    return false;
}

}  // namespace tessera::block::qcow2
