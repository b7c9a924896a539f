#include "backends/block/open/open_disk.h"

#include <fmt/format.h>

#include "backends/block/open/format.h"
#include "backends/block/raw/raw_disk.h"

namespace tessera {

namespace {

using namespace block;  // NOLINT(google-build-using-namespace): the formats live there

}  // namespace

Result<std::unique_ptr<BlockBackend>> open_disk(const DiskOptions& options) {
    auto log = std::make_unique<BlockLog>(options.report);
    const bool writes = !options.read_only && !options.snapshot;
    auto file = HostFile::open(options.path,
                               {.access = writes ? FileAccess::ReadWrite : FileAccess::ReadOnly,
                                .cache = options.cache,
                                .engine = options.engine},
                               *log);
    if (!file) return std::unexpected(std::move(file.error()));
    const auto format = choose_format(**file, options.format);
    if (!format) return std::unexpected(format.error());
    if (*format == DiskFormat::Qcow2 || options.snapshot)
        return fail(
            Errc::Unsupported,
            fmt::format("disk '{}': this version has neither qcow2 nor snapshot; convert it to raw with "
                        "qemu-img",
                        options.path));
    return std::make_unique<RawDisk>(std::move(log), *std::move(file));
}

}  // namespace tessera
