// The table of an image's internal snapshots: read so that nothing they use is overwritten, and to list them.
#pragma once

#include <string>
#include <vector>

#include "backends/block/qcow2/header.h"

namespace tessera::block::qcow2 {

struct Snapshot {
    u64 l1_offset = 0;
    u32 l1_entries = 0;
    std::string id;
    std::string name;
    u64 seconds = 0;  // since 1970
    u64 state_bytes = 0;
    u64 disk_size = 0;
};
struct SnapshotTable {
    std::vector<Snapshot> snapshots;
    u64 bytes = 0;  // of the table in the file
};

[[nodiscard]] Result<SnapshotTable> read_snapshots(BlockFile& file, const Header& header);

}  // namespace tessera::block::qcow2
