// Making an image agree with what its tables refer to. Each step leaves an image that is no worse than
// before.
#include <algorithm>
#include <fmt/format.h>

#include "backends/block/qcow2/checker.h"

namespace tessera::block::qcow2 {

Status Checker::repair() {
    if (repair_ == Repair::No) return {};
    const auto unwritable = [&] {
        return fail(Errc::HostFailure, fmt::format("qcow2 image '{}' cannot be written", file_.name()));
    };
    // Refcounts before the entries that depend on them: what is single now was shared or single before.
    if (repair_ == Repair::All && must_rebuild_)
        if (auto done = rebuild_refcounts(); !done) return done;
    if (file_.sync() != BlockStatus::Ok) return unwritable();
    if (repair_ == Repair::All || changed_l1_.empty()) {
        for (const u64 index : changed_l1_) {
            std::array<u8, 8> entry{};
            store_be(std::span(entry), 0, l1_[index]);
            if (file_.write(header_.l1_offset + index * 8, std::span<const u8>(entry)) != BlockStatus::Ok)
                return unwritable();
            if (l1_[index] == 0) ++report_.corruptions_fixed;
        }
    }
    if (file_.sync() != BlockStatus::Ok) return unwritable();
    return clear_marks();
}

Status Checker::clear_marks() {
    const bool is_marked =
        header_.incompatible.has(Incompatible::Dirty) || header_.incompatible.has(Incompatible::Corrupt);
    if (repair_ != Repair::All || report_.corruptions_left() != 0 || !is_marked) return {};
    header_.incompatible.set(Incompatible::Dirty, false);
    header_.incompatible.set(Incompatible::Corrupt, false);
    if (update_header(file_, header_) != BlockStatus::Ok || file_.sync() != BlockStatus::Ok)
        return fail(Errc::HostFailure, fmt::format("qcow2 image '{}' cannot be written", file_.name()));
    return {};
}

// New refcounts for the whole image, past its end; the header then names them instead of the old ones.
Status Checker::rebuild_refcounts() {
    const u32 bits = geometry().cluster_bits;
    const u64 in_block = geometry().block_entries();
    const u64 in_cluster = geometry().cluster() / 8;
    // The old ones are free then.
    for (const u64 offset : refcount_table_)
        if (offset != 0) counts_.set(offset >> bits, static_cast<u32>(counts_.at(offset >> bits) - 1));
    const u64 old_table = header_.refcount_table_offset >> bits;
    for (u64 i = 0; i < header_.refcount_table_clusters; ++i)
        counts_.set(old_table + i, static_cast<u32>(counts_.at(old_table + i) - 1));

    const u64 start = clusters_;
    std::vector<u64> used;  // blocks that count something
    for (u64 block = 0; block * in_block < clusters_; ++block)
        for (u64 i = 0; i < in_block; ++i)
            if (counts_.at(block * in_block + i) != 0) {
                used.push_back(block);
                break;
            }
    u64 own = 0;  // further blocks, for the new clusters
    u64 table = 0;
    for (bool grew = true; grew;) {
        const u64 end = start + used.size() + own + table;
        const u64 entries = (end + in_block - 1) / in_block;
        const u64 first_own = used.empty() ? 0 : used.back() + 1;
        const u64 wanted_own = entries > first_own ? entries - first_own : 0;
        const u64 wanted_table = (entries + in_cluster - 1) / in_cluster;
        grew = wanted_own > own || wanted_table > table;
        own = std::max(own, wanted_own);
        table = std::max(table, wanted_table);
    }
    const u64 first_own = used.empty() ? 0 : used.back() + 1;
    for (u64 i = 0; i < own; ++i) used.push_back(first_own + i);
    const u64 end = start + used.size() + table;
    const auto unwritable = [&] {
        return fail(Errc::HostFailure, fmt::format("qcow2 image '{}' cannot be written", file_.name()));
    };
    if (table << bits > kMostRefcountTableBytes)
        return fail(Errc::Unsupported,
                    fmt::format("qcow2 image '{}' is too large for its clusters", file_.name()));

    std::vector<u64> entries(table * in_cluster);
    std::vector<u8> block(geometry().cluster());
    for (u64 i = 0; i < used.size(); ++i) {
        std::ranges::fill(block, u8{0});
        for (u64 k = 0; k < in_block; ++k) {
            const u64 cluster = used[i] * in_block + k;
            u64 count = cluster >= start && cluster < end ? 1 : counts_.at(cluster);
            if (count > geometry().most_refcount()) {
                problem(fmt::format("cluster {} is used more often than can be counted", cluster));
                ++report_.corruptions;
                count = geometry().most_refcount();
            }
            store_refcount(block, geometry().refcount_order, k, count);
        }
        entries[used[i]] = (start + i) << bits;
        if (file_.write((start + i) << bits, std::span<const u8>(block)) != BlockStatus::Ok)
            return unwritable();
    }
    std::vector<u8> bytes(entries.size() * 8);
    for (u64 i = 0; i < entries.size(); ++i) store_be(std::span(bytes), i * 8, entries[i]);
    header_.refcount_table_offset = (start + used.size()) << bits;
    header_.refcount_table_clusters = static_cast<u32>(table);
    if (file_.write(header_.refcount_table_offset, std::span<const u8>(bytes)) != BlockStatus::Ok ||
        file_.sync() != BlockStatus::Ok || update_header(file_, header_) != BlockStatus::Ok)
        return unwritable();
    report_.corruptions_fixed = report_.corruptions_fixed + wrong_refcounts_;
    report_.leaks_fixed = report_.leaks;
    report_.image_end = end << bits;
    return {};
}

}  // namespace tessera::block::qcow2
