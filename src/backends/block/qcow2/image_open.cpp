// Opening an image: what is read at once, and what must be true before it is written to.
#include <algorithm>
#include <fmt/format.h>

#include "backends/block/qcow2/check.h"
#include "backends/block/qcow2/image.h"

namespace tessera::block::qcow2 {

Image::Image(std::unique_ptr<BlockFile> file, std::unique_ptr<Source> backing, Header header,
             const ImageOptions& options, BlockLog& log)
    : file_(std::move(file)),
      backing_(std::move(backing)),
      log_(log),
      options_(options),
      header_(std::move(header)),
      l2_(header_.geometry.cluster(), options.l2_cache_bytes),
      refcounts_(*file_, header_, map_, options.refcount_cache_bytes) {}

Result<std::unique_ptr<Image>> Image::open(std::unique_ptr<BlockFile> file, std::unique_ptr<Source> backing,
                                           const ImageOptions& options, BlockLog& log) {
    auto header = read_header(*file);
    if (!header) return std::unexpected(std::move(header.error()));
    if (options.writable && header->incompatible.has(Incompatible::Corrupt))
        return fail(
            Errc::CorruptState,
            fmt::format("qcow2 image '{}' is marked as damaged; open it with ro, or repair it with `tessera "
                        "disk check -r all`",
                        file->name()));
    if (options.writable && header->incompatible.has(Incompatible::Dirty)) {
        log.say(fmt::format("qcow2 image '{}' was not closed by its last user; repairing it", file->name()));
        const auto report = check(*file, Repair::All);
        if (!report) return std::unexpected(report.error());
        if (report->corruptions_left() != 0)
            return fail(Errc::CorruptState,
                        fmt::format("qcow2 image '{}' is damaged and cannot be repaired; open it "
                                    "with ro to save what is readable",
                                    file->name()));
        header = read_header(*file);
        if (!header) return std::unexpected(std::move(header.error()));
    }
    std::unique_ptr<Image> image(
        new Image(std::move(file), std::move(backing), *std::move(header), options, log));
    if (auto loaded = image->load(); !loaded) {
        image->failed_ = true;  // nothing of it is written
        return std::unexpected(std::move(loaded.error()));
    }
    return image;
}

Status Image::load() {
    const auto unreadable = [&](const char* what) {
        return fail(Errc::HostFailure,
                    fmt::format("qcow2 image '{}': its {} cannot be read", file_->name(), what));
    };
    std::vector<u8> bytes(u64{header_.l1_entries} * 8);
    if (!bytes.empty() && file_->read(header_.l1_offset, std::span(bytes)) != BlockStatus::Ok)
        return unreadable("L1 table");
    l1_.resize(header_.l1_entries);
    for (u64 i = 0; i < l1_.size(); ++i) l1_[i] = load_be<u64>(bytes, i * 8);
    auto snapshots = read_snapshots(*file_, header_);
    if (snapshots)
        snapshots_ = *std::move(snapshots);
    else if (options_.writable)
        return std::unexpected(std::move(snapshots.error()));
    if (!options_.writable) return {};
    if (refcounts_.load() != BlockStatus::Ok) return unreadable("refcount table");
    return prepare_writing();
}

Status Image::prepare_writing() {
    if (auto collected = collect_metadata(); !collected) return collected;
    // [QCOW2] autoclear_features: bits of what we do not keep up to date are cleared before anything is
    // written.
    if (header_.version < 3 || header_.autoclear == 0) return {};
    header_.autoclear = 0;
    if (update_header(*file_, header_) != BlockStatus::Ok || file_->sync() != BlockStatus::Ok)
        return fail(Errc::HostFailure,
                    fmt::format("qcow2 image '{}': its header cannot be written", file_->name()));
    return {};
}

Status Image::collect_metadata() {
    map_.collect(0, 1);
    map_.collect(header_.l1_offset >> geometry().cluster_bits,
                 geometry().clusters_for(u64{header_.l1_entries} * 8));
    map_.collect(header_.refcount_table_offset >> geometry().cluster_bits, header_.refcount_table_clusters);
    map_.collect(header_.snapshots_offset >> geometry().cluster_bits,
                 geometry().clusters_for(snapshots_.bytes));
    for (const Snapshot& snapshot : snapshots_.snapshots)
        map_.collect(snapshot.l1_offset >> geometry().cluster_bits,
                     geometry().clusters_for(u64{snapshot.l1_entries} * 8));
    if (auto collected = collect_tables(); !collected) return collected;
    if (map_.finish()) return {};
    return fail(Errc::CorruptState,
                fmt::format("qcow2 image '{}': its tables overlap; repair it with `tessera disk "
                            "check -r all`, or open it with ro",
                            file_->name()));
}

Status Image::collect_tables() {
    const u64 end = geometry().clusters_for(file_->size());
    const auto collect = [&](std::span<const u64> entries, u64 mask, u64 reserved,
                             const char* what) -> Status {
        for (u64 i = 0; i < entries.size(); ++i) {
            const u64 offset = entries[i] & mask;
            const bool is_bad = (entries[i] & reserved) != 0 || !geometry().is_aligned(offset) ||
                                offset >> geometry().cluster_bits >= end || (offset == 0 && entries[i] != 0);
            if (is_bad)
                return fail(
                    Errc::CorruptState,
                    fmt::format(
                        "qcow2 image '{}': entry {} of its {} table is {:#x}, which is no place in the "
                        "file; repair it with `tessera disk check -r all`, or open it with ro",
                        file_->name(), i, what, entries[i]));
            if (offset != 0) map_.collect(offset >> geometry().cluster_bits, 1);
        }
        return {};
    };
    if (auto done = collect(l1_, kOffsetMask, kL1Reserved, "L1"); !done) return done;
    return collect(refcounts_.table(), kRefcountOffsetMask, ~kRefcountOffsetMask, "refcount");
}

}  // namespace tessera::block::qcow2
