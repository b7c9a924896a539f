// Writing: in place where nobody else refers to the place, else to new clusters, with what was around the
// data.
#include <algorithm>
#include <fmt/format.h>

#include "backends/block/qcow2/compression.h"
#include "backends/block/qcow2/image.h"

namespace tessera::block::qcow2 {

namespace {

constexpr u64 kMostInStep = 2 * kMiB;     // bytes written between two looks at the tables
constexpr u64 kMostFreed = u64{1} << 16;  // clusters that wait for a commit
const std::vector<u8> zero_bytes(64 * kKiB);

}  // namespace

BlockStatus Image::write(u64 offset, std::span<const u8> bytes) {
    // The bytes are only read; iovec has no const.
    const iovec piece{.iov_base = const_cast<u8*>(bytes.data()), .iov_len = bytes.size()};
    return write(offset, std::span(&piece, 1));
}

BlockStatus Image::write(u64 offset, std::span<const iovec> buffers) {
    if (!options_.writable) return BlockStatus::OutOfRange;
    PieceWalk walk(buffers);
    for (u64 left = total_length(buffers); left > 0;) {
        u64 length = 0;
        if (const auto status = write_part(offset, left, walk, length); status != BlockStatus::Ok)
            return status;
        offset += length;
        left -= length;
    }
    return BlockStatus::Ok;
}

// Memory is bounded: too many changed tables, or clusters that wait to be free, are committed first.
BlockStatus Image::relieve() {
    {
        const std::scoped_lock lock(mutex_);
        if (!l2_.is_crowded() && !refcounts_.blocks().is_crowded() && freed_.size() < kMostFreed)
            return BlockStatus::Ok;
    }
    return flush();
}

BlockStatus Image::write_part(u64 offset, u64 most, PieceWalk& walk, u64& length) {
    if (const auto status = relieve(); status != BlockStatus::Ok) return status;
    WriteStep step;
    {
        std::unique_lock lock(mutex_);
        if (const auto status = next_write(lock, offset, most, step); status != BlockStatus::Ok)
            return status;
    }
    length = step.length;
    return finish_write(step, perform_write(step, walk));
}

BlockStatus Image::next_write(std::unique_lock<std::mutex>& lock, u64 offset, u64 most, WriteStep& step) {
    const u64 cluster = geometry().cluster();
    const u64 in_cluster = geometry().offset_in(offset);
    most = std::min(most, std::max(kMostInStep, cluster) - in_cluster);
    for (;;) {
        if (broken_ || failed_) return BlockStatus::IoError;
        if (!is_being_allocated({offset >> geometry().cluster_bits, 1})) break;
        allocated_.wait(lock);
    }
    Table* table = nullptr;
    if (const auto status = l2_for_writing(geometry().l1_index(offset), table); status != BlockStatus::Ok)
        return status;
    step.offset = offset;
    step.first_old = mapping(table, offset);
    if (step.first_old.kind == ClusterKind::Invalid)
        return broken(fmt::format("the entry for byte {} is {:#x}", offset, step.first_old.entry));
    if (!step.first_old.in_place()) return plan_allocation(*table, offset, most, step);

    const u64 start = offset - in_cluster;
    const u64 table_span = cluster << geometry().l2_bits();
    const u64 end = std::min(offset + most, (offset / table_span + 1) * table_span);
    u64 at = start + cluster;
    while (at < end) {
        const Mapping next = mapping(table, at);
        if (!next.in_place() || next.host() - step.first_old.host() != at - start) break;
        at += cluster;
    }
    step.in_place = true;
    step.length = std::min(at, end) - offset;
    step.host = step.first_old.host();
    if (!is_good_place(step.host + in_cluster, step.length))
        return broken(fmt::format(
            "byte {} of the disk is said to be in the image's own tables, or past its end", offset));
    step.epoch = begin_io();
    return BlockStatus::Ok;
}

BlockStatus Image::plan_allocation(Table& table, u64 offset, u64 most, WriteStep& step) {
    const u64 in_cluster = geometry().offset_in(offset);
    const u64 first = offset >> geometry().cluster_bits;
    const u64 start = first << geometry().cluster_bits;
    const auto has_own_place = [](const Mapping& old) {
        return old.kind == ClusterKind::ZeroAllocated && old.copied();
    };
    u64 count = 1;
    if (has_own_place(step.first_old)) {
        step.reuse = true;
        step.host = step.first_old.host();
        if (!is_good_place(step.host, geometry().cluster()))
            return broken(fmt::format("byte {} of the disk is said to be in the image's own tables", offset));
    } else {
        const u64 wanted = std::min(geometry().clusters_for(in_cluster + most),
                                    geometry().l2_entries() - geometry().l2_index(offset));
        for (; count < wanted; ++count) {
            const Mapping next = mapping(&table, start + (count << geometry().cluster_bits));
            if (next.in_place() || has_own_place(next) || next.kind == ClusterKind::Invalid ||
                is_being_allocated({first + count, 1}))
                break;
        }
        Refcounts::Run run;
        if (const auto status = refcounts_.allocate(1, count, run); status != BlockStatus::Ok) return status;
        count = run.count;
        step.host = run.first << geometry().cluster_bits;
        step.untouched = run.untouched;
    }
    step.clusters = {first, count};
    step.length = std::min(most, (count << geometry().cluster_bits) - in_cluster);
    step.last_old = mapping(&table, start + ((count - 1) << geometry().cluster_bits));
    allocating_.push_back(step.clusters);
    step.epoch = begin_io();
    return BlockStatus::Ok;
}

// One write for the data and what is before and after it in its clusters, so that the clusters are whole.
BlockStatus Image::perform_write(const WriteStep& step, PieceWalk& walk) {
    std::vector<iovec> pieces;
    const u64 head_length = geometry().offset_in(step.offset);
    if (step.in_place) {
        (void)walk.take(step.length, pieces);
        return file_->write(step.host + head_length, pieces, Durability::Cached);
    }
    const u64 start = step.offset - head_length;
    const u64 end = step.offset + step.length;
    const u64 tail_length = start + (step.clusters.count << geometry().cluster_bits) - end;
    // A new place past the end of the file is all zeroes already.
    const bool no_head =
        head_length == 0 || (step.untouched && old_reads_as_zeroes(step.first_old, start, head_length));
    const bool no_tail =
        tail_length == 0 || (step.untouched && old_reads_as_zeroes(step.last_old, end, tail_length));
    std::vector<u8> head(no_head ? 0 : head_length);
    std::vector<u8> tail(no_tail ? 0 : tail_length);
    if (const auto status = read_old(step.first_old, start, head); status != BlockStatus::Ok) return status;
    if (const auto status = read_old(step.last_old, end, tail); status != BlockStatus::Ok) return status;
    if (!head.empty()) pieces.push_back({.iov_base = head.data(), .iov_len = head.size()});
    (void)walk.take(step.length, pieces);
    if (!tail.empty()) pieces.push_back({.iov_base = tail.data(), .iov_len = tail.size()});
    return file_->write(step.host + (no_head ? head_length : 0), pieces, Durability::Cached);
}

BlockStatus Image::finish_write(const WriteStep& step, BlockStatus status) {
    const std::scoped_lock lock(mutex_);
    end_io(step.epoch);
    if (step.in_place) return status;
    const u32 bits = geometry().cluster_bits;
    Table* table = nullptr;
    if (status == BlockStatus::Ok) status = l2_for_reading(geometry().l1_index(step.offset), table);
    if (table == nullptr) {
        for (u64 i = 0; i < step.clusters.count && !step.reuse; ++i)
            (void)refcounts_.decrease((step.host >> bits) + i);
        if (status == BlockStatus::Ok) status = BlockStatus::IoError;
    } else {
        for (u64 i = 0; i < step.clusters.count; ++i) {
            const u64 guest = (step.clusters.first + i) << bits;
            if (!step.reuse) release(mapping(table, guest));
            l2_.set_entry(*table, geometry().l2_index(guest), (step.host + (i << bits)) | kCopied);
        }
    }
    std::erase_if(allocating_, [&](const Span& other) { return other.first == step.clusters.first; });
    allocated_.notify_all();
    return status;
}

// --- zeroes and discards
// -------------------------------------------------------------------------------------

BlockStatus Image::write_zeroes(u64 offset, u64 length, bool may_unmap) {
    return clear(offset, length, may_unmap ? Clear::ZeroUnmap : Clear::Zero);
}

BlockStatus Image::discard(u64 offset, u64 length) {
    return clear(offset, length, Clear::Discard);
}

BlockStatus Image::make_empty() {
    return clear(0, size(), Clear::Drop);
}

BlockStatus Image::clear(u64 offset, u64 length, Clear how) {
    if (!options_.writable) return BlockStatus::OutOfRange;
    const u64 cluster = geometry().cluster();
    const u64 end = offset + length;
    const bool by_data = how == Clear::Zero || how == Clear::ZeroUnmap;
    // Version 2 has no entry that hides the backing file.
    if (header_.version < 3 && has_backing() && how != Clear::Drop)
        return by_data ? write_zero_part(offset, length) : BlockStatus::Ok;
    const u64 first = geometry().clusters_for(offset);
    const u64 last = end == size() ? geometry().clusters_for(end) : end / cluster;
    if (first >= last) return by_data ? write_zero_part(offset, length) : BlockStatus::Ok;
    if (const auto status = clear_clusters({first, last - first}, how); status != BlockStatus::Ok || !by_data)
        return status;
    if (const auto status = write_zero_part(offset, first * cluster - offset); status != BlockStatus::Ok)
        return status;
    return end > last * cluster ? write_zero_part(last * cluster, end - last * cluster) : BlockStatus::Ok;
}

BlockStatus Image::clear_clusters(Span clusters, Clear how) {
    while (clusters.count > 0) {
        if (const auto status = relieve(); status != BlockStatus::Ok) return status;
        std::unique_lock lock(mutex_);
        const u64 in_table = geometry().l2_entries() - (clusters.first & (geometry().l2_entries() - 1));
        // Not too many at once: others wait for the lock.
        const u64 count = std::min({clusters.count, in_table, u64{8192}});
        if (const auto status = clear_in_table(lock, {clusters.first, count}, how); status != BlockStatus::Ok)
            return status;
        clusters = {clusters.first + count, clusters.count - count};
    }
    return BlockStatus::Ok;
}

u64 Image::cleared_entry(const Mapping& old, Clear how) const {
    if (how == Clear::Drop || header_.version < 3) return 0;
    // What the backing file has must not come back.
    const u64 nothing = has_backing() ? kZero : 0;
    switch (old.kind) {
        case ClusterKind::Unallocated: return how == Clear::Discard ? 0 : nothing;
        case ClusterKind::Zero: return old.entry;
        case ClusterKind::ZeroAllocated:
            if (how == Clear::Zero) return old.entry;
            break;
        case ClusterKind::Data:
            if (how == Clear::Zero && old.copied()) return old.entry | kZero;
            break;
        case ClusterKind::Compressed:
        case ClusterKind::Invalid: break;
    }
    return how == Clear::Discard ? nothing : kZero;
}

BlockStatus Image::clear_in_table(std::unique_lock<std::mutex>& lock, Span clusters, Clear how) {
    allocated_.wait(lock, [&] { return !is_being_allocated(clusters); });
    if (broken_ || failed_) return BlockStatus::IoError;
    const u64 guest = clusters.first << geometry().cluster_bits;
    const u64 l1_index = geometry().l1_index(guest);
    const u64 first = geometry().l2_index(guest);
    Table* table = nullptr;
    if (const auto status = l2_for_reading(l1_index, table); status != BlockStatus::Ok) return status;
    const auto old_at = [&](u64 i) { return mapping(table, guest + (i << geometry().cluster_bits)); };
    bool changes = false;
    for (u64 i = 0; i < clusters.count; ++i) {
        const Mapping old = old_at(i);
        if (old.kind == ClusterKind::Invalid)
            return broken(fmt::format("the entry for byte {} is {:#x}",
                                      guest + (i << geometry().cluster_bits), old.entry));
        changes = changes || cleared_entry(old, how) != old.entry;
        if (table == nullptr) break;  // all the same
    }
    if (!changes) return BlockStatus::Ok;
    if (const auto status = l2_for_writing(l1_index, table); status != BlockStatus::Ok) return status;
    for (u64 i = 0; i < clusters.count; ++i) {
        const Mapping old = old_at(i);
        const u64 entry = cleared_entry(old, how);
        if (entry == old.entry) continue;
        if ((entry & kOffsetMask) == 0) release(old);
        l2_.set_entry(*table, first + i, entry);
    }
    return BlockStatus::Ok;
}

// Zeroes as data, where there is not nothing but zeroes already.
BlockStatus Image::write_zero_part(u64 offset, u64 length) {
    while (length > 0) {
        u64 part =
            std::min<u64>({length, geometry().cluster() - geometry().offset_in(offset), zero_bytes.size()});
        Run run;
        if (const auto status = run_at(offset, run); status != BlockStatus::Ok) return status;
        if (run.kind == Kind::Zero) {
            part = std::min(length, run.length);
        } else if (const auto status = write(offset, std::span(zero_bytes).first(part));
                   status != BlockStatus::Ok) {
            return status;
        }
        offset += part;
        length -= part;
    }
    return BlockStatus::Ok;
}

// --- compressed clusters
// -------------------------------------------------------------------------------------

// Room for so many bytes, right after the latest compressed cluster if possible.
BlockStatus Image::reserve_compressed(u64 length, u64& offset) {
    const u32 bits = geometry().cluster_bits;
    const u64 current = compressed_at_ >> bits;
    u64 count = 0;
    if (compressed_at_ != 0)
        if (const auto status = refcounts_.get(current, count); status != BlockStatus::Ok) return status;
    const bool may_share = compressed_at_ != 0 && count > 0 && count < geometry().most_refcount();
    if (may_share && geometry().offset_in(compressed_at_) + length <= geometry().cluster()) {
        if (const auto status = refcounts_.increase(current); status != BlockStatus::Ok) return status;
        offset = compressed_at_;
    } else {
        Refcounts::Run run;
        if (const auto status = refcounts_.allocate(1, 1, run); status != BlockStatus::Ok) return status;
        offset = run.first << bits;
        if (may_share && run.first == current + 1) {
            if (const auto status = refcounts_.increase(current); status != BlockStatus::Ok) return status;
            offset = compressed_at_;
        }
    }
    if (offset + length > u64{1} << std::min(geometry().compressed_shift(), 56U)) return BlockStatus::NoSpace;
    compressed_at_ = geometry().is_aligned(offset + length) ? 0 : offset + length;
    return BlockStatus::Ok;
}

BlockStatus Image::write_compressed(u64 offset, std::span<const u8> cluster) {
    if (!options_.writable) return BlockStatus::OutOfRange;
    const u64 length = std::min<u64>(cluster.size(), size() - offset);
    const auto packed = compress(header_.compression, cluster);
    if (!packed) return write(offset, cluster.first(length));
    if (const auto status = relieve(); status != BlockStatus::Ok) return status;
    std::unique_lock lock(mutex_);
    if (broken_ || failed_) return BlockStatus::IoError;
    Table* table = nullptr;
    if (const auto status = l2_for_writing(geometry().l1_index(offset), table); status != BlockStatus::Ok)
        return status;
    if (mapping(table, offset).kind != ClusterKind::Unallocated ||
        is_being_allocated({offset >> geometry().cluster_bits, 1})) {
        lock.unlock();
        return write(offset, cluster.first(length));
    }
    u64 place = 0;
    if (const auto status = reserve_compressed(packed->size(), place); status != BlockStatus::Ok)
        return status;
    if (const auto status = file_->write(place, std::span<const u8>(*packed)); status != BlockStatus::Ok)
        return status;
    const u64 sectors = ((place + packed->size() - 1) >> 9) - (place >> 9);
    l2_.set_entry(*table, geometry().l2_index(offset),
                  kCompressed | (sectors << geometry().compressed_shift()) | place);
    return BlockStatus::Ok;
}

}  // namespace tessera::block::qcow2
