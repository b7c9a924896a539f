// The tables: from guest clusters to entries, and what may be done with the places entries name.
#include "backends/block/qcow2/image.h"

#include <algorithm>
#include <fmt/format.h>

namespace tessera::block::qcow2 {

BlockStatus Image::broken(const std::string& what) {
    log_.say(fmt::format("qcow2 image '{}' is damaged: {}; look at it with `tessera disk check`",
                         file_->name(), what));
    if (!broken_ && options_.writable && header_.version >= 3) {
        header_.incompatible.set(Incompatible::Corrupt);
        (void)update_header(*file_, header_);
    }
    broken_ = true;
    return BlockStatus::IoError;
}

BlockStatus Image::l2_for_reading(u64 l1_index, Table*& table) {
    table = nullptr;
    const u64 entry = l1_index < l1_.size() ? l1_[l1_index] : 0;
    const u64 offset = entry & kOffsetMask;
    if ((entry & kL1Reserved) != 0 || !geometry().is_aligned(offset))
        return broken(fmt::format("L1 entry {} is {:#x}", l1_index, entry));
    if (offset == 0) return BlockStatus::Ok;
    BlockStatus status = BlockStatus::Ok;
    table = l2_.load(*file_, offset, status);
    return status;
}

void Image::set_l1(u64 index, u64 entry) {
    l1_[index] = entry;
    dirty_l1_sectors_.insert(index / 64);
}

// A table that is missing is made, one that a snapshot uses too is copied.
BlockStatus Image::l2_for_writing(u64 l1_index, Table*& table) {
    Table* old = nullptr;
    if (const auto status = l2_for_reading(l1_index, old); status != BlockStatus::Ok) return status;
    table = old;
    if (old != nullptr && (l1_[l1_index] & kCopied) != 0) return BlockStatus::Ok;
    if (l1_index >= l1_.size()) return BlockStatus::OutOfRange;
    Refcounts::Run run;
    if (const auto status = refcounts_.allocate(1, 1, run); status != BlockStatus::Ok) return status;
    std::vector<u8> entries;
    if (old != nullptr) {
        entries = old->bytes;
        const u64 cluster = old->offset >> geometry().cluster_bits;
        freed_.push_back(cluster);
        map_.remove(cluster, 1);
    }
    table = &l2_.insert_fresh(run.first << geometry().cluster_bits);
    if (!entries.empty()) table->bytes = std::move(entries);
    map_.add(run.first, 1);
    set_l1(l1_index, table->offset | kCopied);
    return BlockStatus::Ok;
}

Mapping Image::mapping(const Table* table, u64 guest) const {
    if (table == nullptr) return {};
    return mapping_of(geometry(), header_.version, table->entry(geometry().l2_index(guest)));
}

// The tables no longer refer to what `old` says; its clusters are free when the file knows that too.
void Image::release(const Mapping& old) {
    const u32 bits = geometry().cluster_bits;
    if (old.kind == ClusterKind::Data || old.kind == ClusterKind::ZeroAllocated) {
        freed_.push_back(old.host() >> bits);
    } else if (old.kind == ClusterKind::Compressed) {
        const CompressedRange range = compressed_range(geometry(), old.entry);
        for (u64 cluster = range.offset >> bits; cluster <= (range.offset + range.length - 1) >> bits;
             ++cluster)
            freed_.push_back(cluster);
        ++unpacked_generation_;
    }
}

void Image::end_io(u64 epoch) {
    const std::scoped_lock lock(active_mutex_);
    const auto it = active_.find(epoch);
    if (it != active_.end() && --it->second == 0) active_.erase(it);
}

bool Image::is_being_allocated(Span clusters) const {
    return std::ranges::any_of(allocating_, [&](const Span& other) {
        return other.first < clusters.end() && clusters.first < other.end();
    });
}

// Data is written where an entry says only if that is inside the file and none of the image's own tables.
bool Image::is_good_place(u64 host, u64 length) const {
    const u64 first = host >> geometry().cluster_bits;
    const u64 last = (host + length - 1) >> geometry().cluster_bits;
    return last < refcounts_.untouched_from() && !map_.touches(first, last - first + 1);
}

bool Image::plan(Way way, u64 offset, u64 length, Plan& plan) {
    constexpr std::size_t kMostSegments = 64;
    const std::unique_lock lock(mutex_, std::try_to_lock);
    if (!lock.owns_lock() || (way == Way::Write && (broken_ || failed_))) return false;
    plan.segments.clear();
    while (length > 0) {
        const u64 l1_index = geometry().l1_index(offset);
        const u64 l1_entry = l1_index < l1_.size() ? l1_[l1_index] : 0;
        if (way == Way::Write && (l1_entry & kCopied) == 0) return false;
        const Table* const table = l1_entry == 0 ? nullptr : l2_.find(l1_entry & kOffsetMask);
        if (table == nullptr && l1_entry != 0) return false;
        const Mapping where = mapping(table, offset);
        const u64 in_cluster = geometry().offset_in(offset);
        const u64 part = std::min(length, geometry().cluster() - in_cluster);
        Segment segment{.host = where.host() + in_cluster, .length = part, .zero = false};
        if (where.kind == ClusterKind::Data) {
            if (way == Way::Write && (!where.copied() || !is_good_place(segment.host, part))) return false;
        } else {
            const bool is_zero = where.kind == ClusterKind::Zero ||
                                 where.kind == ClusterKind::ZeroAllocated ||
                                 (where.kind == ClusterKind::Unallocated && !has_backing());
            if (way == Way::Write || !is_zero) return false;
            segment = {.host = 0, .length = part, .zero = true};
        }
        if (!plan.segments.empty() && plan.segments.back().zero == segment.zero &&
            (segment.zero || plan.segments.back().host + plan.segments.back().length == segment.host)) {
            plan.segments.back().length += part;
        } else {
            if (plan.segments.size() == kMostSegments) return false;
            plan.segments.push_back(segment);
        }
        offset += part;
        length -= part;
    }
    plan.epoch = begin_io();
    return true;
}

BlockStatus Image::mapping_at(u64 offset, ClusterKind& kind, u64& length) {
    const std::scoped_lock lock(mutex_);
    const u64 end = size();
    Table* table = nullptr;
    if (const auto status = l2_for_reading(geometry().l1_index(offset), table); status != BlockStatus::Ok)
        return status;
    kind = mapping(table, offset).kind;
    const u64 table_span = geometry().cluster() << geometry().l2_bits();
    const u64 table_end = std::min(end, (offset / table_span + 1) * table_span);
    u64 at = (offset >> geometry().cluster_bits << geometry().cluster_bits) + geometry().cluster();
    if (table == nullptr) at = table_end;
    while (at < table_end && mapping(table, at).kind == kind) at += geometry().cluster();
    length = std::min(at, end) - offset;
    return BlockStatus::Ok;
}

BlockStatus Image::run_at(u64 offset, Run& run) {
    ClusterKind kind = ClusterKind::Data;
    if (const auto status = mapping_at(offset, kind, run.length); status != BlockStatus::Ok) return status;
    run.kind = Kind::Data;
    if (kind == ClusterKind::Zero || kind == ClusterKind::ZeroAllocated) {
        run.kind = Kind::Zero;
    } else if (kind == ClusterKind::Unallocated) {
        const u64 backed = has_backing() ? backing_->size() : 0;
        if (offset >= backed) {
            run.kind = Kind::Zero;
        } else {
            Run below;
            if (const auto status = backing_->run_at(offset, below); status != BlockStatus::Ok) return status;
            run.length = std::min(run.length, below.length);
            run.kind = below.kind;
        }
    }
    return BlockStatus::Ok;
}

}  // namespace tessera::block::qcow2
