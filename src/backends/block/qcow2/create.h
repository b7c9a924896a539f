// Makes an empty qcow2 image in an empty file.
#pragma once

#include "backends/block/qcow2/header.h"

namespace tessera::block::qcow2 {

// NOLINTBEGIN(readability-redundant-member-init): so that a list that names some members is complete
struct CreateOptions {
    u64 size = 0;  // bytes of the disk, whole sectors
    u32 version = 3;
    u64 cluster = 64 * kKiB;
    u32 refcount_bits = 16;
    Compression compression = Compression::Zlib;
    bool lazy_refcounts = false;
    std::string backing_name{};
    std::string backing_format{};
};
// NOLINTEND(readability-redundant-member-init)

[[nodiscard]] Status create(BlockFile& file, const CreateOptions& options);

}  // namespace tessera::block::qcow2
