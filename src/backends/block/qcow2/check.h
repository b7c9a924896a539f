// Compares what an image's tables refer to with its refcounts, and repairs what differs. Works on the file of
// an image that nobody has open.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "backends/block/qcow2/header.h"

namespace tessera::block::qcow2 {

enum class Repair : u8 {
    No,
    Leaks,  // clusters that are counted but not used become free
    All,    // and everything else that can be told from the tables
};

struct CheckReport {
    u64 corruptions = 0;  // what can lose data: used more often than counted, entries that break the rules
    u64 leaks = 0;        // clusters that nothing uses
    u64 corruptions_fixed = 0;
    u64 leaks_fixed = 0;
    u64 clusters = 0;    // of the guest's disk
    u64 allocated = 0;   // of these
    u64 compressed = 0;  // of those
    u64 image_end = 0;   // bytes of the file in use
    // The first few problems.
    std::vector<std::string> messages{};  // NOLINT(readability-redundant-member-init)
    [[nodiscard]] u64 corruptions_left() const { return corruptions - corruptions_fixed; }
    [[nodiscard]] u64 leaks_left() const { return leaks - leaks_fixed; }
};

// Told how far it is, in bytes of disks (the active one's, and each snapshot's).
using CheckProgress = std::function<void(u64 done, u64 total)>;

// An error: the image cannot be read at all, or repaired. Memory is bounded by 4 bytes for each of the file's
// clusters, and by 1 GiB.
[[nodiscard]] Result<CheckReport> check(BlockFile& file, Repair repair,
                                        const CheckProgress& progress = nullptr);

}  // namespace tessera::block::qcow2
