#include "backends/block/open/open_disk.h"

#include <fmt/format.h>

#include "backends/block/open/chain.h"
#include "backends/block/open/format.h"
#include "backends/block/qcow2/create.h"
#include "backends/block/qcow2/qcow2_disk.h"
#include "backends/block/raw/raw_disk.h"

namespace tessera {

namespace {

using namespace block;  // NOLINT(google-build-using-namespace): the formats live there

qcow2::DiskSettings settings_of(const DiskOptions& options) {
    return {.name = options.path,
            .read_only = options.read_only,
            .write_through = options.cache == CacheMode::DirectSync && !options.snapshot};
}

// Writes go to a file without a name; it is gone with the disk.
Result<std::unique_ptr<qcow2::Image>> overlay(std::unique_ptr<Source> below, BlockLog& log) {
    auto file = HostFile::temporary(log);
    if (!file) return std::unexpected(std::move(file.error()));
    if (auto made = qcow2::create(**file, {.size = below->size()}); !made)
        return std::unexpected(std::move(made.error()));
    return qcow2::Image::open(*std::move(file), std::move(below), {}, log);
}

}  // namespace

Result<std::unique_ptr<BlockBackend>> open_disk(const DiskOptions& options) {
    auto log = std::make_unique<BlockLog>(options.report);
    const FileAccess access =
        options.read_only || options.snapshot ? FileAccess::ReadOnly : FileAccess::ReadWrite;
    auto file = HostFile::open(options.path,
                               {.access = access, .cache = options.cache, .engine = options.engine}, *log);
    if (!file) return std::unexpected(std::move(file.error()));
    const auto format = choose_format(**file, options.format);
    if (!format) return std::unexpected(format.error());
    if (*format == DiskFormat::Raw && !options.snapshot)
        return std::make_unique<RawDisk>(std::move(log), *std::move(file));

    Chain chain({.cache = options.cache,
                 .engine = options.engine,
                 .backing = options.backing,
                 .backing_format = options.backing_format},
                *log);
    Result<std::unique_ptr<qcow2::Image>> image;
    if (options.snapshot) {
        auto below = chain.open_source(*std::move(file), *format);
        if (!below) return std::unexpected(std::move(below.error()));
        image = overlay(*std::move(below), *log);
    } else {
        image = chain.open_image(*std::move(file), access);
    }
    if (!image) return std::unexpected(std::move(image.error()));
    return std::make_unique<qcow2::Qcow2Disk>(std::move(log), *std::move(image), settings_of(options));
}

}  // namespace tessera
