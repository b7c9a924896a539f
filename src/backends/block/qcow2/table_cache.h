// The L2 tables or refcount blocks of an image that are in memory: each one cluster, by its place in the
// file. Clean ones are dropped, oldest first, when there are too many; changed ones stay until they were
// written.
#pragma once

#include <list>
#include <memory>
#include <unordered_map>
#include <vector>

#include "backends/block/block_file.h"
#include "backends/block/qcow2/layout.h"

namespace tessera::block::qcow2 {

struct Table {
    u64 offset = 0;  // in the file
    std::vector<u8> bytes;
    bool fresh = false;   // nothing in the file refers to it yet: it may be written at any time
    u64 dirty_begin = 0;  // bytes to be written, in whole sectors
    u64 dirty_end = 0;
    u64 changes = 0;  // counts, so that a writer sees whether there were more meanwhile
    std::list<Table*>::iterator age;

    [[nodiscard]] bool dirty() const { return dirty_begin < dirty_end; }
    [[nodiscard]] u64 entry(u64 index) const { return load_be<u64>(bytes, index * 8); }
};

class TableCache {
public:
    TableCache(u64 table_bytes, u64 most_bytes)
        : table_bytes_(table_bytes), most_tables_(std::max<u64>(most_bytes / table_bytes, 8)) {}

    // The pointer is good until the next load or insert.
    [[nodiscard]] Table* find(u64 offset);
    [[nodiscard]] Table* load(BlockFile& file, u64 offset, BlockStatus& status);
    Table& insert_fresh(u64 offset);  // all zeroes, to be written
    void drop(u64 offset);
    void mark(Table& table, u64 begin, u64 length);
    void set_entry(Table& table, u64 index, u64 entry);
    void no_longer_fresh(u64 offset);
    // Written as it was when it had `changes` changes.
    void written(u64 offset, u64 changes);

    [[nodiscard]] std::vector<Table*> dirty_tables();
    [[nodiscard]] u64 dirty_count() const { return dirty_count_; }
    [[nodiscard]] bool is_crowded() const { return dirty_count_ * 2 > most_tables_; }

private:
    Table& add(u64 offset);
    void make_room();

    const u64 table_bytes_;
    const u64 most_tables_;
    std::unordered_map<u64, std::unique_ptr<Table>> tables_;
    std::list<Table*> clean_;  // the next to go is in front
    std::list<Table*> dirty_;
    u64 dirty_count_ = 0;
};

}  // namespace tessera::block::qcow2
