// How often each cluster of an image is used, and which are free. In memory until the image is committed.
// Not thread-safe: the image's lock.
#pragma once

#include <set>
#include <vector>

#include "backends/block/qcow2/header.h"
#include "backends/block/qcow2/metadata_map.h"
#include "backends/block/qcow2/table_cache.h"

namespace tessera::block::qcow2 {

class Refcounts {
public:
    Refcounts(BlockFile& file, Header& header, MetadataMap& map, u64 cache_bytes)
        : file_(file), header_(header), map_(map), blocks_(header.geometry.cluster(), cache_bytes) {}

    // Reads the refcount table.
    BlockStatus load();
    [[nodiscard]] const std::vector<u64>& table() const { return table_; }

    BlockStatus get(u64 cluster, u64& count);
    // IoError (an image that breaks the rules) if it is not in use, or in use as often as can be counted.
    BlockStatus increase(u64 cluster);
    BlockStatus decrease(u64 cluster);
    // `least` to `most` free clusters in a row, each then in use once.
    struct Run {
        u64 first = 0;
        u64 count = 0;
        bool untouched = false;  // never written, past the end of the file: they read as zeroes
    };
    BlockStatus allocate(u64 least, u64 most, Run& run);

    // Old clusters of a refcount table that grew: to be freed when the next commit is done.
    [[nodiscard]] std::vector<u64> take_released() { return std::exchange(released_, {}); }

    // Clusters from this one on were never used.
    [[nodiscard]] u64 untouched_from() const { return untouched_from_; }
    TableCache& blocks() { return blocks_; }
    // Sectors of the refcount table that changed, and their content for writing.
    [[nodiscard]] std::set<u64>& dirty_sectors() { return dirty_sectors_; }
    [[nodiscard]] std::vector<u8> table_sector(u64 sector) const;

private:
    [[nodiscard]] const Geometry& geometry() const { return header_.geometry; }
    BlockStatus block_of(u64 cluster, Table*& block);  // null: none yet
    BlockStatus set(u64 cluster, u64 count);
    BlockStatus create_block(u64 index);
    BlockStatus grow_table(u64 index);
    BlockStatus write_fresh_blocks();
    // Goes through the free clusters of a block from `cluster` on; true if the run is as wanted.
    bool extend_run(const Table& block, u64& cluster, u64 least, u64 most, Run& run, u64& first_free) const;
    void used(u64 first, u64 count);

    BlockFile& file_;
    Header& header_;
    MetadataMap& map_;
    TableCache blocks_;
    std::vector<u64> table_;
    std::set<u64> dirty_sectors_;
    std::vector<u64> released_;
    u64 hint_ = 0;            // no cluster below is free
    u64 untouched_from_ = 0;  // nothing was ever written from this cluster on
};

}  // namespace tessera::block::qcow2
