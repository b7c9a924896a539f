// The cache of decoded code: finding blocks, dropping them when their code changes.
#include <algorithm>
#include <utility>

#include "cpu/soft/blocks.h"
#include "cpu/soft/jit/jit.h"

namespace tessera::soft {

BlockCache::BlockCache(const BlockCacheBounds& bounds)
    : hash_(1),
      chains_(1),
      buckets_(1),
      ops_(bounds.ops, kMaxBlockOps),
      blocks_(bounds.blocks),
      most_blocks_(std::min<u64>(blocks_.size(), kNone / 2)) {
    clear_hash(kLeastLogSets);
    free_.fill(kNone);
}

void BlockCache::clear_hash(unsigned log_sets) {
    hash_ = ReservedArray<Set>(u64{1} << log_sets, u64{1} << log_sets);
    sets_ = hash_.begin();
    shift_ = 64 - log_sets;
    chains_ = ReservedArray<u32>(hash_.size(), hash_.size());
    std::fill_n(chains_.begin(), hash_.size(), kNone);
    const u64 buckets = u64{1} << (log_sets - kLogSetsPerBucket);
    buckets_ = ReservedArray<u32>(buckets, buckets);
    std::fill_n(buckets_.begin(), buckets, kNone);
}

void BlockCache::grow_hash() {
    clear_hash(64 - shift_ + 1);
    for (u32 number = 0; number < block_count_; ++number) {
        const Block& b = blocks_[number];
        if (b.key == 0) continue;
        chain(number);
        enter(b.key, b.ops);
    }
}

Op* BlockCache::reserve(u64 wanted) {
    if (op_count_ + wanted > ops_.size() || block_count_ == most_blocks_) {
        ++flushes_;
        drop_all();
    }
    return ops_.begin() + op_count_;
}

void BlockCache::drop_all() {
    if (jit_ != nullptr) jit_->drop_all();
    clear_hash(kLeastLogSets);
    op_count_ = live_ = block_count_ = 0;
    free_.fill(kNone);
    ++drops_;
}

void BlockCache::chain(u32 number) {
    Block& b = blocks_[number];
    for (u32 i = 0; i < 2; ++i) {
        if (b.page[i] == kNoPage) continue;
        u32& head = bucket_of(b.page[i]);
        b.next[i] = head;
        head = number * 2 + i;
    }
    b.next_of_hash = std::exchange(chains_[place_of(b.key)], number);
}

void BlockCache::forget_key(u32 number) {
    Block& b = blocks_[number];
    for (Slot& s : set_of(b.key))
        if (s.ops == b.ops) s = {};
    u32* link = &chains_[place_of(b.key)];
    while (*link != number) link = &blocks_[*link].next_of_hash;
    *link = b.next_of_hash;
    b.key = 0;
}

const Op* BlockCache::insert(Block block) {
    u32 number = free_[block.op_count];
    if (number != kNone) {
        const Block& place = blocks_[number];
        free_[block.op_count] = place.next[0];
        std::copy_n(block.ops, block.op_count, const_cast<Op*>(place.ops));
        block.ops = place.ops;
    } else {
        number = block_count_++;
        op_count_ += block.op_count;
    }
    blocks_[number] = block;
    ++builds_;
    chain(number);
    enter(block.key, block.ops);
    if (++live_ > hash_.size() * kBlocksPerSet) grow_hash();
    return block.ops;
}

void BlockCache::enter(u64 key, const Op* first) {
    Set& set = set_of(key);
    Slot* place = &set[next_way_++ % kWays];
    for (Slot& s : set)
        if (s.key == 0) place = &s;
    for (Slot& s : set)
        if (s.key == key) place = &s;
    *place = {key, first};
}

const Op* BlockCache::find_displaced(u64 key) {
    for (u32 number = chains_[place_of(key)]; number != kNone; number = blocks_[number].next_of_hash) {
        const Block& b = blocks_[number];
        if (b.key != key) continue;
        enter(key, b.ops);
        return b.ops;
    }
    return nullptr;
}

void BlockCache::drop_page(u64 page) {
    ++drops_;
    u32* link = &bucket_of(page);
    while (*link != kNone) {
        Block& b = blocks_[*link / 2];
        const unsigned i = *link % 2;
        if (b.page[i] != page && b.key != 0) {
            link = &b.next[i];
            continue;
        }
        if (b.key != 0) {
            if (jit_ != nullptr) jit_->drop(b.ops[0]);
            for (u32 n = 0; n < b.op_count; ++n) const_cast<Op&>(b.ops[n]).fn = run_stale;
            // The end op counts nothing of its own, unlike an instruction that is not executed.
            Op& last = const_cast<Op&>(b.ops[b.op_count - 1]);
            last.fn = run_leave;
            const u32 number = *link / 2;
            forget_key(number);
            --live_;
            // Branches that are linked to ops are in the same page as these, and have been dropped with them.
            // A block of two pages is in another chain as well.
            if (b.page[1] == kNoPage) {
                *link = b.next[0];
                b.next[0] = std::exchange(free_[b.op_count], number);
                continue;
            }
        }
        *link = b.next[i];
    }
}

void BlockCache::statistics(std::vector<Statistic>& out) const {
    out.push_back({.name = "blocks decoded", .value = builds_});
    out.push_back({.name = "blocks kept", .value = live_});
    out.push_back({.name = "decoded code", .value = op_count_ * sizeof(Op), .unit = Statistic::Unit::Bytes});
    out.push_back({.name = "drops of decoded code", .value = drops_});
    out.push_back({.name = "decoded code full", .value = flushes_});
}

}  // namespace tessera::soft
