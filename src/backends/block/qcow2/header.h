// The header of a qcow2 image: read as a stranger's, changed field by field so that what we do not know
// stays.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "backends/block/block_file.h"
#include "backends/block/qcow2/layout.h"
#include "base/result.h"

namespace tessera::block::qcow2 {

struct BitmapDirectory {
    u32 count = 0;
    u64 bytes = 0;
    u64 offset = 0;
};

struct Header {
    u32 version = 3;
    Geometry geometry;
    u64 disk_size = 0;  // bytes
    u32 l1_entries = 0;
    u64 l1_offset = 0;
    u64 refcount_table_offset = 0;
    u32 refcount_table_clusters = 0;
    u32 snapshots = 0;
    u64 snapshots_offset = 0;
    Flags<Incompatible> incompatible;
    Flags<Compatible> compatible;
    u64 autoclear = 0;
    u32 length = kHeaderLength3;
    Compression compression = Compression::Zlib;
    std::string backing_name;  // empty: none
    std::string backing_format;
    std::optional<BitmapDirectory> bitmaps;
    u64 bytes_used = 0;  // up to the end of the extensions and the backing file's name
};

// Refuses, with the image's name and the reason, what breaks the format or what we do not do.
[[nodiscard]] Result<Header> read_header(BlockFile& file);

// The first sector of the file with the fields that change while an image lives: the tables' places, the
// sizes and the feature bits. One write, so that a crash leaves the old or the new header.
[[nodiscard]] BlockStatus update_header(BlockFile& file, const Header& header);

// A whole new header, for an image that is made.
[[nodiscard]] std::vector<u8> build_header(const Header& header);

}  // namespace tessera::block::qcow2
