// An image with the files behind it: which of them may be opened, and as what.
#pragma once

#include <memory>
#include <vector>

#include "backends/block/block_log.h"
#include "backends/block/disk_options.h"
#include "backends/block/file/host_file.h"
#include "backends/block/qcow2/image.h"
#include "backends/block/source.h"
#include "base/result.h"

namespace tessera::block {

struct ChainOptions {
    CacheMode cache = CacheMode::Writeback;
    DiskEngine engine = DiskEngine::Auto;
    BackingPolicy backing = BackingPolicy::Auto;
    std::optional<DiskFormat> backing_format = std::nullopt;
};

class Chain {
public:
    Chain(const ChainOptions& options, BlockLog& log) : options_(options), log_(log) {}

    // `file` is the image itself, opened as the user wanted.
    Result<std::unique_ptr<qcow2::Image>> open_image(std::unique_ptr<HostFile> file, FileAccess access);
    Result<std::unique_ptr<Source>> open_source(std::unique_ptr<HostFile> file, DiskFormat format);

    // Where the backing file of an image is, and what; an error if it may not be used. Nothing if it has
    // none.
    struct Backing {
        std::string path;
        DiskFormat format;
    };
    [[nodiscard]] Result<std::optional<Backing>> backing_of(const std::string& image,
                                                            const qcow2::Header& header) const;

private:
    Result<std::unique_ptr<Source>> open_backing(const std::string& image, const qcow2::Header& header);

    const ChainOptions options_;
    BlockLog& log_;
    std::vector<std::pair<u64, u64>> seen_;  // identities of the files above
};

}  // namespace tessera::block
