#include "backends/block/qcow2/check.h"

#include <algorithm>
#include <fmt/format.h>

#include "backends/block/qcow2/checker.h"

namespace tessera::block::qcow2 {

namespace {

constexpr std::size_t kMostMessages = 40;
constexpr u64 kMostClusters = u64{1} << 28;

}  // namespace

Checker::Checker(BlockFile& file, Header header, Repair repair, CheckProgress progress)
    : file_(file),
      header_(std::move(header)),
      repair_(repair),
      progress_(std::move(progress)),
      clusters_(header_.geometry.clusters_for(file.size())),
      counts_(std::min(clusters_, kMostClusters)) {}

void Checker::problem(std::string text) {
    if (report_.messages.size() < kMostMessages) report_.messages.push_back(std::move(text));
}

void Checker::corruption(std::string text) {
    ++report_.corruptions;
    problem(std::move(text));
}

Status Checker::unreadable(std::string_view what) const {
    return fail(Errc::HostFailure, fmt::format("qcow2 image '{}': {} cannot be read", file_.name(), what));
}

Result<std::vector<u64>> Checker::read_table(u64 offset, u64 entries) {
    std::vector<u8> bytes(entries * 8);
    if (!bytes.empty() && file_.read(offset, std::span(bytes)) != BlockStatus::Ok)
        return std::unexpected(unreadable("a table").error());
    std::vector<u64> table(entries);
    for (u64 i = 0; i < entries; ++i) table[i] = load_be<u64>(bytes, i * 8);
    return table;
}

// --- counting
// --------------------------------------------------------------------------------------------------

bool Checker::count(u64 offset, u64 bytes, u64 times, std::string_view what) {
    if (bytes == 0) return true;
    const u64 first = offset >> geometry().cluster_bits;
    const u64 last = (offset + bytes - 1) >> geometry().cluster_bits;
    if (offset + bytes < offset || last >= clusters_) {
        corruption(fmt::format("{} at byte {} is outside of the file", what, offset));
        return false;
    }
    for (u64 cluster = first; cluster <= last; ++cluster) counts_.add(cluster, times);
    return true;
}

void Checker::claim(u64 offset, u64 bytes) {
    map_.collect(offset >> geometry().cluster_bits, geometry().clusters_for(bytes));
}

Status Checker::load_tables() {
    auto l1 = read_table(header_.l1_offset, header_.l1_entries);
    if (!l1) return std::unexpected(std::move(l1.error()));
    l1_ = *std::move(l1);
    auto table = read_table(header_.refcount_table_offset,
                            (u64{header_.refcount_table_clusters} << geometry().cluster_bits) / 8);
    if (!table) return std::unexpected(std::move(table.error()));
    refcount_table_ = *std::move(table);
    auto snapshots = read_snapshots(file_, header_);
    if (!snapshots) return std::unexpected(std::move(snapshots.error()));
    snapshots_ = *std::move(snapshots);
    return {};
}

void Checker::count_areas() {
    struct Area {
        u64 offset, bytes;
        const char* what;
    };
    std::vector<Area> areas{
        {0, 1, "the header"},
        {header_.l1_offset, u64{header_.l1_entries} * 8, "the L1 table"},
        {header_.refcount_table_offset, u64{header_.refcount_table_clusters} << geometry().cluster_bits,
         "the refcount table"},
        {header_.snapshots_offset, snapshots_.bytes, "the snapshot table"}};
    for (const Snapshot& snapshot : snapshots_.snapshots)
        areas.push_back({snapshot.l1_offset, u64{snapshot.l1_entries} * 8, "a snapshot's L1 table"});
    for (const Area& area : areas) {
        (void)count(area.offset, area.bytes, 1, area.what);
        claim(area.offset, area.bytes);
    }
    if (!map_.finish()) {
        corruption("two of the image's tables overlap, which cannot be repaired");
        overlap_ = true;
    }
}

// A block that is not where one can be is forgotten; the refcounts are made anew then.
void Checker::count_refcount_blocks() {
    for (u64 i = 0; i < refcount_table_.size(); ++i) {
        const u64 offset = refcount_table_[i];
        if (offset == 0) continue;
        const u64 cluster = offset >> geometry().cluster_bits;
        if (!geometry().is_aligned(offset) || cluster >= clusters_ || map_.contains(cluster)) {
            corruption(fmt::format("refcount block {} cannot be at byte {}", i, offset));
            refcount_table_[i] = 0;
            must_rebuild_ = true;
            continue;
        }
        counts_.add(cluster, 1);
        map_.add(cluster, 1);
    }
}

Status Checker::count_bitmaps() {
    // Without the bit the bitmaps are not kept up to date, so nothing is lost with them.
    if (!header_.bitmaps || (header_.autoclear & static_cast<u64>(Autoclear::Bitmaps)) == 0) return {};
    const BitmapDirectory& where = *header_.bitmaps;
    constexpr u64 kMostDirectory = 64 * kMiB;
    if (where.bytes > kMostDirectory || !count(where.offset, where.bytes, 1, "the bitmap directory"))
        return {};
    std::vector<u8> directory(where.bytes);
    if (file_.read(where.offset, std::span(directory)) != BlockStatus::Ok)
        return unreadable("the bitmap directory");
    u64 total = 0;  // no more than the file has, however often it is named
    for (u64 at = 0, i = 0; i < where.count && at + 24 <= directory.size(); ++i) {
        const u64 offset = load_be<u64>(directory, at);
        const u64 entries = load_be<u32>(directory, at + 8);
        at += (24 + u64{load_be<u16>(directory, at + 18)} + load_be<u32>(directory, at + 20) + 7) / 8 * 8;
        total += entries * 8;
        if (total > file_.size()) {
            corruption("the bitmaps' tables are larger than the file");
            return {};
        }
        if (entries * 8 > kMostL1Bytes || !count(offset, entries * 8, 1, "a bitmap's table")) continue;
        const auto table = read_table(offset, entries);
        if (!table) return std::unexpected(table.error());
        for (const u64 entry : *table)
            if ((entry & kOffsetMask) != 0)
                (void)count(entry & kOffsetMask, geometry().cluster(), 1, "a bitmap");
    }
    return {};
}

void Checker::forget_l1_entry(u64 index) {
    l1_[index] = 0;
    changed_l1_.insert(index);
}

void Checker::collect_references(std::span<const u64> l1, bool active, std::string_view what) {
    for (u64 i = 0; i < l1.size(); ++i) {
        if (l1[i] == 0) continue;
        const u64 offset = l1[i] & kOffsetMask;
        const u64 cluster = offset >> geometry().cluster_bits;
        const bool is_bad = (l1[i] & kL1Reserved) != 0 || offset == 0 || !geometry().is_aligned(offset) ||
                            cluster >= clusters_ || map_.contains(cluster);
        if (!is_bad) {
            references_.push_back({offset, i, active});
            continue;
        }
        corruption(fmt::format("entry {} of {} is {:#x}, where no L2 table can be", i, what, l1[i]));
        if (active) forget_l1_entry(i);
    }
}

// Each table is read once, however many snapshots share it.
Status Checker::count_l2_tables() {
    std::ranges::sort(references_, {}, [](const Reference& reference) {
        return std::pair(reference.offset, reference.l1_index);
    });
    std::vector<u8> bytes(geometry().cluster());
    for (u64 i = 0; i < references_.size();) {
        const Reference first = references_[i];
        u64 times = 0;
        bool active = false;
        for (; i < references_.size() && references_[i].offset == first.offset; ++i) {
            if (references_[i].active && active) {
                corruption(
                    fmt::format("entries of the L1 table share the L2 table at byte {}", first.offset));
                forget_l1_entry(references_[i].l1_index);
                continue;
            }
            active = active || references_[i].active;
            ++times;
        }
        counts_.add(first.offset >> geometry().cluster_bits, times);
        if (file_.stretch(first.offset).hole && file_.stretch(first.offset).length >= geometry().cluster())
            continue;
        if (file_.read(first.offset, std::span(bytes)) != BlockStatus::Ok) return unreadable("an L2 table");
        bool changed = false;
        count_l2_table(bytes, first, times, active, changed);
        if (changed && repair_ == Repair::All &&
            file_.write(first.offset, std::span<const u8>(bytes)) != BlockStatus::Ok)
            return fail(Errc::HostFailure, fmt::format("qcow2 image '{}' cannot be written", file_.name()));
        const u64 span = geometry().cluster() << geometry().l2_bits();
        if (progress_) progress_(i * span, references_.size() * span);
    }
    return {};
}

void Checker::count_l2_table(std::span<u8> bytes, const Reference& first, u64 times, bool active,
                             bool& changed) {
    const u64 guest = first.l1_index << (geometry().cluster_bits + geometry().l2_bits());
    for (u64 i = 0; i < geometry().l2_entries(); ++i) {
        const u64 entry = load_be<u64>(bytes, i * 8);
        if (entry == 0) continue;
        const Mapping mapping = mapping_of(geometry(), header_.version, entry);
        const u64 before = report_.corruptions;
        const auto what = [&] {
            return fmt::format("the data of guest byte {}", guest + (i << geometry().cluster_bits));
        };
        switch (mapping.kind) {
            case ClusterKind::Data:
            case ClusterKind::ZeroAllocated:
                if (map_.contains(mapping.host() >> geometry().cluster_bits))
                    corruption(fmt::format("{} is said to be among the image's tables", what()));
                else
                    (void)count(mapping.host(), geometry().cluster(), times, what());
                if (active) ++report_.allocated;
                break;
            case ClusterKind::Compressed:
                count_compressed(entry, times);
                if (active) ++report_.allocated, ++report_.compressed;
                break;
            case ClusterKind::Invalid:
                corruption(fmt::format("{}: the entry is {:#x}", what(), entry));
                break;
            case ClusterKind::Zero:
            case ClusterKind::Unallocated: break;
        }
        if (report_.corruptions == before || repair_ != Repair::All) continue;
        store_be(bytes, i * 8, u64{0});
        ++report_.corruptions_fixed;
        changed = true;
    }
}

void Checker::count_compressed(u64 entry, u64 times) {
    const CompressedRange range = compressed_range(geometry(), entry);
    const u64 first = range.offset >> geometry().cluster_bits << geometry().cluster_bits;
    (void)count(first, range.offset + range.length - first, times, "a compressed cluster");
}

Status Checker::count_all() {
    if (auto loaded = load_tables(); !loaded) return loaded;
    count_areas();
    if (overlap_) return {};
    count_refcount_blocks();
    if (auto done = count_bitmaps(); !done) return done;
    collect_references(l1_, true, "the L1 table");
    for (const Snapshot& snapshot : snapshots_.snapshots) {
        const auto l1 = read_table(snapshot.l1_offset, snapshot.l1_entries);
        if (!l1) return std::unexpected(l1.error());
        collect_references(*l1, false, "a snapshot's L1 table");
    }
    return count_l2_tables();
}

// --- comparing
// -------------------------------------------------------------------------------------------------

Status Checker::compare_refcounts() {
    std::vector<u8> block(geometry().cluster());
    const u64 in_block = geometry().block_entries();
    const u64 blocks = std::max<u64>(refcount_table_.size(), (clusters_ + in_block - 1) / in_block);
    for (u64 i = 0; i < blocks; ++i) {
        const u64 offset = i < refcount_table_.size() ? refcount_table_[i] : 0;
        if (offset == 0 && i * in_block >= clusters_) continue;
        std::ranges::fill(block, u8{0});
        if (offset != 0 && file_.read(offset, std::span(block)) != BlockStatus::Ok)
            return unreadable("a refcount block");
        bool changed = false;
        compare_block(i, block, changed);
        if (changed && file_.write(offset, std::span<const u8>(block)) != BlockStatus::Ok)
            return fail(Errc::HostFailure, fmt::format("qcow2 image '{}' cannot be written", file_.name()));
    }
    return {};
}

void Checker::compare_block(u64 index, std::span<u8> block, bool& changed) {
    const u64 first = index << geometry().block_bits();
    const bool is_empty = std::ranges::all_of(block, [](u8 byte) { return byte == 0; });
    for (u64 i = 0; i < geometry().block_entries(); ++i) {
        const u64 cluster = first + i;
        if (is_empty && cluster >= clusters_) break;
        const u64 stored = load_refcount(block, geometry().refcount_order, i);
        const u64 counted = counts_.at(cluster);
        if (counted != 0)
            report_.image_end = std::max(report_.image_end, (cluster + 1) << geometry().cluster_bits);
        if (stored == counted) continue;
        if (stored < counted) {
            corruption(
                fmt::format("cluster {} is used {} times and counted {} times", cluster, counted, stored));
            ++wrong_refcounts_;
            must_rebuild_ = true;
            continue;
        }
        ++report_.leaks;
        problem(fmt::format("cluster {} is used {} times and counted {} times: a leak", cluster, counted,
                            stored));
        if (repair_ == Repair::No || must_rebuild_) continue;
        store_refcount(block, geometry().refcount_order, i, counted);
        ++report_.leaks_fixed;
        changed = true;
    }
}

// [QCOW2] bit 63 of entries of the active tables: set exactly if the cluster's refcount is one.
bool Checker::check_copied_entry(u64& entry, u64 mask, std::string_view what) {
    const u64 cluster = (entry & mask) >> geometry().cluster_bits;
    const bool is_single = counts_.at(cluster) == 1;
    if (((entry & kCopied) != 0) == is_single) return false;
    corruption(fmt::format("{} at cluster {} is used {} times, and its entry says {}", what, cluster,
                           counts_.at(cluster), is_single ? "more than once" : "once"));
    if (repair_ == Repair::No) return false;
    entry ^= kCopied;
    ++report_.corruptions_fixed;
    return true;
}

Status Checker::check_copied() {
    std::vector<u8> bytes(geometry().cluster());
    for (u64 i = 0; i < l1_.size(); ++i) {
        const u64 offset = l1_[i] & kOffsetMask;
        if (offset == 0) continue;
        if (check_copied_entry(l1_[i], kOffsetMask, "an L2 table")) changed_l1_.insert(i);
        if (file_.read(offset, std::span(bytes)) != BlockStatus::Ok) return unreadable("an L2 table");
        bool changed = false;
        for (u64 k = 0; k < geometry().l2_entries(); ++k) {
            u64 entry = load_be<u64>(bytes, k * 8);
            const Mapping mapping = mapping_of(geometry(), header_.version, entry);
            if (mapping.kind != ClusterKind::Data && mapping.kind != ClusterKind::ZeroAllocated) continue;
            if (!check_copied_entry(entry, kOffsetMask, "data")) continue;
            store_be(std::span(bytes), k * 8, entry);
            changed = true;
        }
        if (changed && file_.write(offset, std::span<const u8>(bytes)) != BlockStatus::Ok)
            return fail(Errc::HostFailure, fmt::format("qcow2 image '{}' cannot be written", file_.name()));
    }
    return {};
}

Result<CheckReport> Checker::run() {
    if (clusters_ > kMostClusters || !counts_.is_good())
        return fail(Errc::Unsupported,
                    fmt::format("qcow2 image '{}' has too many clusters to be checked", file_.name()));
    if (repair_ != Repair::No && file_.read_only())
        return fail(Errc::InvalidArgument,
                    fmt::format("qcow2 image '{}' is opened without writing", file_.name()));
    report_.clusters = geometry().clusters_for(header_.disk_size);
    for (const auto step :
         {&Checker::count_all, &Checker::compare_refcounts, &Checker::check_copied, &Checker::repair})
        if (auto done = (this->*step)(); !done)
            return std::unexpected(std::move(done.error()));
        else if (overlap_)
            break;
    return std::move(report_);
}

Result<CheckReport> check(BlockFile& file, Repair repair, const CheckProgress& progress) {
    auto header = read_header(file);
    if (!header) return std::unexpected(std::move(header.error()));
    return Checker(file, *std::move(header), repair, progress).run();
}

}  // namespace tessera::block::qcow2
