// The front door of disks: from what the user said to something a controller can use.
#pragma once

#include <memory>

#include "backends/block/block_backend.h"
#include "backends/block/disk_options.h"
#include "base/result.h"

namespace tessera {

// The error names the file and the option, and says what to do.
[[nodiscard]] Result<std::unique_ptr<BlockBackend>> open_disk(const DiskOptions& options);

}  // namespace tessera
