// Which format a file is taken for. The rule is docs/adr/0016: a name or an option decides, never the content
// alone, because a guest may write anything to a raw disk, an image's header too.
#pragma once

#include <optional>
#include <string>

#include "backends/block/block_file.h"
#include "backends/block/disk_options.h"
#include "base/result.h"

namespace tessera::block {

// The image format whose magic number the file begins with, "" if none that is known.
[[nodiscard]] std::string magic_of(BlockFile& file);

// `wanted` is what the user said, if anything.
[[nodiscard]] Result<DiskFormat> choose_format(BlockFile& file, std::optional<DiskFormat> wanted);

}  // namespace tessera::block
