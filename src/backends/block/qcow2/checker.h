// Inside of check.h: counts every reference in an image (check.cpp), and makes the image agree (repair.cpp).
#pragma once

#include <cstdlib>
#include <memory>
#include <set>

#include "backends/block/qcow2/check.h"
#include "backends/block/qcow2/metadata_map.h"
#include "backends/block/qcow2/snapshots.h"

namespace tessera::block::qcow2 {

// A number for each cluster; pages that are never touched cost nothing.
class ClusterCounts {
public:
    explicit ClusterCounts(u64 clusters)
        // calloc leaves untouched pages untouched.
        : counts_(static_cast<u32*>(std::calloc(std::max<u64>(clusters, 1), sizeof(u32)))),
          clusters_(clusters) {}
    [[nodiscard]] bool is_good() const { return counts_ != nullptr; }
    [[nodiscard]] u64 clusters() const { return clusters_; }
    [[nodiscard]] u64 at(u64 cluster) const { return cluster < clusters_ ? all()[cluster] : 0; }
    void add(u64 cluster, u64 count) {
        u32& value = all()[cluster];
        value = static_cast<u32>(std::min<u64>(value + count, ~u32{0}));
    }
    void set(u64 cluster, u32 count) { all()[cluster] = count; }

private:
    struct Free {
        void operator()(u32* counts) const { std::free(counts); }
    };
    [[nodiscard]] std::span<u32> all() const { return {counts_.get(), clusters_}; }
    std::unique_ptr<u32, Free> counts_;
    u64 clusters_;
};

class Checker {
public:
    Checker(BlockFile& file, Header header, Repair repair, CheckProgress progress);
    Result<CheckReport> run();

private:
    // An L1 table's reference to an L2 table.
    struct Reference {
        u64 offset;
        u64 l1_index;
        bool active;
    };

    [[nodiscard]] const Geometry& geometry() const { return header_.geometry; }
    [[nodiscard]] u64 file_clusters() const { return clusters_; }
    void problem(std::string text);
    void corruption(std::string text);
    Status unreadable(std::string_view what) const;

    // check.cpp
    Status count_all();
    bool count(u64 offset, u64 bytes, u64 times, std::string_view what);
    void claim(u64 offset, u64 bytes);
    Status load_tables();
    void count_areas();
    void count_refcount_blocks();
    Status count_bitmaps();
    void collect_references(std::span<const u64> l1, bool active, std::string_view what);
    Status count_l2_tables();
    void count_l2_table(std::span<u8> bytes, const Reference& first, u64 times, bool active, bool& changed);
    void count_compressed(u64 entry, u64 times);
    void forget_l1_entry(u64 index);
    Status compare_refcounts();
    void compare_block(u64 index, std::span<u8> block, bool& changed);
    Status check_copied();
    bool check_copied_entry(u64& entry, u64 mask, std::string_view what);
    Result<std::vector<u64>> read_table(u64 offset, u64 entries);

    // repair.cpp
    Status repair();
    Status rebuild_refcounts();
    Status clear_marks();

    BlockFile& file_;
    Header header_;
    const Repair repair_;
    const CheckProgress progress_;
    const u64 clusters_;
    ClusterCounts counts_;
    MetadataMap map_;  // header, tables and blocks: nothing else may be there
    std::vector<u64> l1_;
    std::set<u64> changed_l1_;
    std::vector<u64> refcount_table_;
    SnapshotTable snapshots_;
    std::vector<Reference> references_;
    std::vector<u64> stored_;  // refcounts in the file, one for each of its clusters that is not as counted
    bool overlap_ = false;     // tables lie over one another: what they say cannot be told apart
    bool must_rebuild_ = false;
    u64 wrong_refcounts_ = 0;
    CheckReport report_;
};

}  // namespace tessera::block::qcow2
