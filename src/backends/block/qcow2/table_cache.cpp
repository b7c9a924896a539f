#include "backends/block/qcow2/table_cache.h"

#include <algorithm>

namespace tessera::block::qcow2 {

Table* TableCache::find(u64 offset) {
    const auto it = tables_.find(offset);
    if (it == tables_.end()) return nullptr;
    Table& table = *it->second;
    if (!table.dirty()) clean_.splice(clean_.end(), clean_, table.age);
    return &table;
}

Table& TableCache::add(u64 offset) {
    make_room();
    auto owned = std::make_unique<Table>();
    Table& table = *owned;
    table.offset = offset;
    table.bytes.resize(table_bytes_);
    table.age = clean_.insert(clean_.end(), &table);
    tables_.insert_or_assign(offset, std::move(owned));
    return table;
}

Table* TableCache::load(BlockFile& file, u64 offset, BlockStatus& status) {
    status = BlockStatus::Ok;
    if (Table* const found = find(offset)) return found;
    Table& table = add(offset);
    status = file.read(offset, std::span(table.bytes));
    if (status == BlockStatus::Ok) return &table;
    drop(offset);
    return nullptr;
}

Table& TableCache::insert_fresh(u64 offset) {
    drop(offset);
    Table& table = add(offset);
    table.fresh = true;
    mark(table, 0, table_bytes_);
    return table;
}

void TableCache::drop(u64 offset) {
    const auto it = tables_.find(offset);
    if (it == tables_.end()) return;
    Table& table = *it->second;
    if (table.dirty()) --dirty_count_;
    (table.dirty() ? dirty_ : clean_).erase(table.age);
    tables_.erase(it);
}

void TableCache::mark(Table& table, u64 begin, u64 length) {
    const u64 end = (begin + length + 511) / 512 * 512;
    begin = begin / 512 * 512;
    if (!table.dirty()) {
        dirty_.splice(dirty_.end(), clean_, table.age);
        ++dirty_count_;
        table.dirty_begin = begin;
        table.dirty_end = end;
    } else {
        table.dirty_begin = std::min(table.dirty_begin, begin);
        table.dirty_end = std::max(table.dirty_end, end);
    }
    ++table.changes;
}

void TableCache::set_entry(Table& table, u64 index, u64 entry) {
    store_be(std::span(table.bytes), index * 8, entry);
    mark(table, index * 8, 8);
}

void TableCache::no_longer_fresh(u64 offset) {
    if (Table* const table = find(offset)) table->fresh = false;
}

void TableCache::written(u64 offset, u64 changes) {
    const auto it = tables_.find(offset);
    if (it == tables_.end()) return;
    Table& table = *it->second;
    table.fresh = false;
    if (!table.dirty() || table.changes != changes) return;
    table.dirty_begin = table.dirty_end = 0;
    clean_.splice(clean_.end(), dirty_, table.age);
    --dirty_count_;
}

std::vector<Table*> TableCache::dirty_tables() {
    return {dirty_.begin(), dirty_.end()};
}

void TableCache::make_room() {
    while (tables_.size() >= most_tables_ && !clean_.empty()) drop(clean_.front()->offset);
}

}  // namespace tessera::block::qcow2
