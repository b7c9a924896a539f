// What `tessera disk` does with whole disks: makes, copies, commits, resizes them. Nobody else has them open.
#pragma once

#include <functional>
#include <string>

#include "backends/block/disk_options.h"
#include "backends/block/qcow2/check.h"
#include "backends/block/qcow2/create.h"
#include "backends/block/qcow2/snapshots.h"

namespace tessera::block {

// Bytes of the disk that are dealt with, of all.
using Progress = std::function<void(u64 done, u64 total)>;

struct NewDisk {
    std::string path{};  // NOLINT(readability-redundant-member-init)
    DiskFormat format = DiskFormat::Raw;
    qcow2::CreateOptions qcow2{};  // size counts for raw too
    bool preallocate = false;      // raw: the room is taken now
};
[[nodiscard]] Status create_disk(const NewDisk& disk);

struct DiskReport {
    std::string path{};  // NOLINT(readability-redundant-member-init)
    DiskFormat format = DiskFormat::Raw;
    u64 size = 0;
    u64 allocated = 0;  // bytes of the host's storage
    qcow2::Header header;
    std::vector<qcow2::Snapshot> snapshots;
};
// Of a disk that may be in use.
[[nodiscard]] Result<DiskReport> describe_disk(const DiskOptions& options);

struct Copy {
    DiskOptions from;
    NewDisk to;  // its size is that of `from`
    bool compress = false;
    Progress progress;
};
// A copy that fails leaves no file.
[[nodiscard]] Status copy_disk(Copy copy);

[[nodiscard]] Result<qcow2::CheckReport> check_disk(const DiskOptions& options, qcow2::Repair repair,
                                                    const Progress& progress);
[[nodiscard]] Status resize_disk(const DiskOptions& options, u64 size);
// Writes what an overlay holds into its backing file, and empties it.
[[nodiscard]] Status commit_disk(const DiskOptions& options, const Progress& progress);

}  // namespace tessera::block
