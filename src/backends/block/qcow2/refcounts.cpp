#include "backends/block/qcow2/refcounts.h"

#include <algorithm>
#include <utility>

namespace tessera::block::qcow2 {

namespace {

constexpr u64 kEntriesInSector = 512 / 8;
constexpr u64 kNone = ~u64{0};

std::vector<u8> big_endian(std::span<const u64> values) {
    std::vector<u8> bytes(values.size() * 8);
    for (u64 i = 0; i < values.size(); ++i) store_be(std::span(bytes), i * 8, values[i]);
    return bytes;
}

}  // namespace

BlockStatus Refcounts::load() {
    std::vector<u8> bytes(u64{header_.refcount_table_clusters} << geometry().cluster_bits);
    if (const auto status = file_.read(header_.refcount_table_offset, std::span(bytes));
        status != BlockStatus::Ok)
        return status;
    table_.resize(bytes.size() / 8);
    for (u64 i = 0; i < table_.size(); ++i) table_[i] = load_be<u64>(bytes, i * 8);
    hint_ = 0;
    untouched_from_ = geometry().clusters_for(file_.size());
    return BlockStatus::Ok;
}

std::vector<u8> Refcounts::table_sector(u64 sector) const {
    return big_endian(std::span(table_).subspan(sector * kEntriesInSector, kEntriesInSector));
}

BlockStatus Refcounts::block_of(u64 cluster, Table*& block) {
    block = nullptr;
    const u64 index = cluster >> geometry().block_bits();
    const u64 offset = index < table_.size() ? table_[index] : 0;
    if (offset == 0) return BlockStatus::Ok;
    if (!geometry().is_aligned(offset) || offset >> geometry().cluster_bits >= untouched_from_)
        return BlockStatus::IoError;
    BlockStatus status = BlockStatus::Ok;
    block = blocks_.load(file_, offset, status);
    return status;
}

BlockStatus Refcounts::get(u64 cluster, u64& count) {
    Table* block = nullptr;
    const auto status = block_of(cluster, block);
    count = block == nullptr ? 0
                             : load_refcount(block->bytes, geometry().refcount_order,
                                             cluster & (geometry().block_entries() - 1));
    return status;
}

BlockStatus Refcounts::set(u64 cluster, u64 count) {
    Table* block = nullptr;
    if (const auto status = block_of(cluster, block); status != BlockStatus::Ok) return status;
    if (block == nullptr) return BlockStatus::IoError;
    const u64 index = cluster & (geometry().block_entries() - 1);
    store_refcount(block->bytes, geometry().refcount_order, index, count);
    blocks_.mark(*block, (index << geometry().refcount_order) / 8,
                 std::max(geometry().refcount_bits() / 8, 1U));
    return BlockStatus::Ok;
}

BlockStatus Refcounts::increase(u64 cluster) {
    u64 count = 0;
    if (const auto status = get(cluster, count); status != BlockStatus::Ok) return status;
    if (count == 0 || count >= geometry().most_refcount()) return BlockStatus::IoError;
    return set(cluster, count + 1);
}

BlockStatus Refcounts::decrease(u64 cluster) {
    u64 count = 0;
    if (const auto status = get(cluster, count); status != BlockStatus::Ok) return status;
    if (count == 0) return BlockStatus::IoError;
    if (count == 1) hint_ = std::min(hint_, cluster);
    return set(cluster, count - 1);
}

void Refcounts::used(u64 first, u64 count) {
    untouched_from_ = std::max(untouched_from_, first + count);
}

bool Refcounts::extend_run(const Table& block, u64& cluster, u64 least, u64 most, Run& run,
                           u64& first_free) const {
    const u64 mask = geometry().block_entries() - 1;
    const u64 end = (cluster | mask) + 1;
    for (; cluster < end; ++cluster) {
        const bool is_free = load_refcount(block.bytes, geometry().refcount_order, cluster & mask) == 0 &&
                             !map_.contains(cluster);
        if (is_free) {
            if (first_free == kNone) first_free = cluster;
            if (run.count == 0) run.first = cluster;
            if (++run.count == most) return true;
        } else if (run.count >= least) {
            return true;
        } else {
            run.count = 0;
        }
    }
    return false;
}

BlockStatus Refcounts::allocate(u64 least, u64 most, Run& run) {
    // What an L1 or L2 entry can point at.
    const u64 end = (kOffsetMask >> geometry().cluster_bits) - most;
    u64 first_free = kNone;
    run = {};
    for (u64 cluster = hint_; cluster < end;) {
        Table* block = nullptr;
        if (const auto status = block_of(cluster, block); status != BlockStatus::Ok) return status;
        if (block == nullptr) {
            if (run.count >= least) break;
            if (const auto status = create_block(cluster >> geometry().block_bits());
                status != BlockStatus::Ok)
                return status;
            continue;
        }
        if (extend_run(*block, cluster, least, most, run, first_free)) break;
    }
    if (run.count < least) return BlockStatus::NoSpace;
    for (u64 i = 0; i < run.count; ++i)
        if (const auto status = set(run.first + i, 1); status != BlockStatus::Ok) return status;
    hint_ = first_free == run.first ? run.first + run.count : first_free;
    run.untouched = run.first >= untouched_from_;
    used(run.first, run.count);
    return BlockStatus::Ok;
}

// A new block is the first cluster of those it counts, so that it counts itself.
BlockStatus Refcounts::create_block(u64 index) {
    if (index >= table_.size()) return grow_table(index);
    const u64 cluster = index << geometry().block_bits();
    if (map_.contains(cluster)) return BlockStatus::IoError;
    Table& block = blocks_.insert_fresh(cluster << geometry().cluster_bits);
    store_refcount(block.bytes, geometry().refcount_order, 0, 1);
    table_[index] = block.offset;
    dirty_sectors_.insert(index / kEntriesInSector);
    map_.add(cluster, 1);
    used(cluster, 1);
    return BlockStatus::Ok;
}

// The new table will name blocks that the old one in the file does not.
BlockStatus Refcounts::write_fresh_blocks() {
    for (Table* const table : blocks_.dirty_tables()) {
        if (!table->fresh) continue;
        const auto status = file_.write(table->offset, std::span<const u8>(table->bytes));
        if (status != BlockStatus::Ok) return status;
        table->fresh = false;
    }
    return BlockStatus::Ok;
}

// The larger table follows the blocks that count it, at the start of what the table could not count so far.
// The header changes when all of it is durable; a crash before leaves the old table, and clusters that are
// lost until a check.
BlockStatus Refcounts::grow_table(u64 index) {
    const u64 in_block = geometry().block_entries();
    const u64 in_cluster = geometry().cluster() / 8;
    u64 blocks = 1;
    u64 clusters = 0;
    for (u64 before = 0; before != blocks;) {
        before = blocks;
        const u64 wanted = std::max(table_.size() + table_.size() / 2, index + blocks);
        clusters = (wanted + in_cluster - 1) / in_cluster;
        blocks = (blocks + clusters + in_block - 1) / in_block;
    }
    if (clusters << geometry().cluster_bits > kMostRefcountTableBytes) return BlockStatus::NoSpace;
    const u64 start = index << geometry().block_bits();
    if (map_.touches(start, blocks + clusters)) return BlockStatus::IoError;

    std::vector<u64> table = table_;
    table.resize(clusters * in_cluster);
    std::vector<u8> content(blocks << geometry().cluster_bits);
    for (u64 i = 0; i < blocks + clusters; ++i)
        store_refcount(std::span(content).subspan((i / in_block) << geometry().cluster_bits),
                       geometry().refcount_order, i % in_block, 1);
    for (u64 i = 0; i < blocks; ++i) table[index + i] = (start + i) << geometry().cluster_bits;
    used(start, blocks + clusters);

    const u64 offset = start << geometry().cluster_bits;
    if (auto status = write_fresh_blocks(); status != BlockStatus::Ok) return status;
    if (auto status = file_.write(offset, std::span<const u8>(content)); status != BlockStatus::Ok)
        return status;
    if (auto status = file_.write(offset + content.size(), std::span<const u8>(big_endian(table)));
        status != BlockStatus::Ok)
        return status;
    if (auto status = file_.sync(); status != BlockStatus::Ok) return status;
    const Header before = header_;
    header_.refcount_table_offset = offset + content.size();
    header_.refcount_table_clusters = static_cast<u32>(clusters);
    auto status = update_header(file_, header_);
    if (status == BlockStatus::Ok) status = file_.sync();
    if (status != BlockStatus::Ok) {
        // Which of the two the file names is not known: neither may be written to any more.
        header_ = before;
        return status;
    }
    table_ = std::move(table);
    dirty_sectors_.clear();
    const u64 old = before.refcount_table_offset >> geometry().cluster_bits;
    for (u64 i = 0; i < before.refcount_table_clusters; ++i) released_.push_back(old + i);
    map_.remove(old, before.refcount_table_clusters);
    map_.add(start, blocks + clusters);
    return BlockStatus::Ok;
}

}  // namespace tessera::block::qcow2
