// Each CPU's cache of decoded code: straight runs of ops, found by physical address and code size.
#pragma once

#include <array>
#include <vector>

#include "cpu/soft/reserved_memory.h"
#include "cpu/soft/vcpu.h"

namespace tessera::soft {

inline constexpr unsigned kMaxBlockInsns = 48;
inline constexpr unsigned kMaxBlockOps = 2 * kMaxBlockInsns + 4;

// What a block's ops depend on besides its bytes.
struct BlockMode {
    x86::CodeSize size;
    bool single;  // one instruction, then back to the dispatcher

    [[nodiscard]] u64 bits() const { return static_cast<u64>(size) | (single ? 4 : 0); }
};

// A run of instructions of one page; only its last one may reach into a second page.
// Without initialisers: a cache of them takes no memory of the host before it is used.
struct Block {
    u64 key;  // physical address and mode, 0 = dropped
    const Op* ops;
    u32 op_count;
    u32 next_of_hash;  // chain of those with the same place in the hash
    // The pages it has bytes of; page[1] is kNoPage unless the last instruction straddles.
    std::array<u64, 2> page;
    std::array<u32, 2> next;  // chain of the page's bucket
};
inline constexpr u64 kNoPage = ~u64{0};

// What a cache of decoded code may hold. It fills with code as that is decoded, and starts anew when it is
// full.
struct BlockCacheBounds {
    u64 ops;
    u64 blocks;

    // So much that it is the translated code that fills up: its ops take about as much room as a block's
    // translation does.
    static constexpr BlockCacheBounds for_code_cache(u64 bytes) {
        constexpr u64 kOpsPerBlock = 4;  // more than that, but for the shortest
        const u64 ops = 2 * bytes / sizeof(Op);
        return {.ops = ops, .blocks = ops / kOpsPerBlock};
    }
};

class BlockCache {
public:
    static constexpr u32 kWays = 4;

    struct Slot {
        u64 key = 0;
        const Op* ops = nullptr;
    };
    using Set = std::array<Slot, kWays>;  // a cache line

    explicit BlockCache(const BlockCacheBounds& bounds);

    // To be told what is dropped; null: nothing is translated.
    void set_jit(jit::Jit* jit) { jit_ = jit; }

    [[nodiscard]] static u64 key_of(u64 physical, u64 mode_bits) { return (physical << 3) | mode_bits; }
    [[nodiscard]] Set& set_of(u64 key) const { return sets_[place_of(key)]; }
    [[nodiscard]] const Op* find(u64 key) const {
        for (const Slot& s : set_of(key))
            if (s.key == key) return s.ops;
        return nullptr;
    }
    // The same for blocks that were displaced from the hash, which get their place back.
    [[nodiscard]] const Op* find_displaced(u64 key);

    // Makes room for one more block of at most `wanted` ops and returns it; drops everything if need be.
    Op* reserve(u64 wanted);
    // block.ops is where reserve said; returns where they are from now on.
    const Op* insert(Block block);
    // Drops the blocks that have bytes in the page. Ops being executed turn into "go back to the dispatcher".
    void drop_page(u64 page);
    void drop_all();

    // Changes whenever code was dropped, possibly by another CPU while this one was parked.
    [[nodiscard]] u64 drops() const { return drops_; }
    // Blocks that could be found.
    [[nodiscard]] u64 live() const { return live_; }
    void statistics(std::vector<Statistic>& out) const;

private:
    static constexpr u32 kNone = ~u32{0};
    static constexpr unsigned kLeastLogSets = 10;
    // Blocks for each set when the hash is doubled: with so many, hardly ever are there more than kWays.
    static constexpr u64 kBlocksPerSet = 2;
    static constexpr unsigned kLogSetsPerBucket = 2;

    [[nodiscard]] u64 place_of(u64 key) const {
        constexpr u64 kGolden = 0x9e37'79b9'7f4a'7c15;
        return key * kGolden >> shift_;
    }
    void enter(u64 key, const Op* first);
    void chain(u32 number);
    void forget_key(u32 number);
    // An empty hash of 1 << log_sets sets, and the chains for it.
    void clear_hash(unsigned log_sets);
    void grow_hash();
    // Pages lie at strides as guests like them.
    [[nodiscard]] u32& bucket_of(u64 page) const {
        return buckets_[place_of(page / kPageSize) >> kLogSetsPerBucket];
    }

    Set* sets_ = nullptr;  // hash_'s
    unsigned shift_ = 0;
    u32 next_way_ = 0;
    u64 live_ = 0;
    u64 drops_ = 0;
    ReservedArray<Set> hash_;
    ReservedArray<u32> chains_;   // for each set the first of all blocks that belong there
    ReservedArray<u32> buckets_;  // the first block of a page, * 2 + which of its pages that is
    ReservedArray<Op> ops_;
    ReservedArray<Block> blocks_;
    u64 op_count_ = 0;
    u32 block_count_ = 0;
    // Places of dropped blocks that nothing leads to anymore, by the number of their ops: chains by
    // Block::next.
    std::array<u32, kMaxBlockOps + 1> free_{};
    u64 most_blocks_;
    jit::Jit* jit_ = nullptr;
    u64 builds_ = 0;
    u64 flushes_ = 0;
};

// The block at c.rip, decoded now if it is not in the cache. Raises what the fetch raises.
const Op* block_at_rip(Vcpu& c, bool single);

// The op stands before an instruction that reaches into a second page, whose physical address is its imm.
[[nodiscard]] bool is_second_page_check(const Op& op);

// The op raises #UD or #GP for an instruction that is none.
[[nodiscard]] bool is_undefined(const Op& op);

// The bytes that the op was made from were changed: forget this block and look again.
TESSERA_HANDLER void run_stale(Vcpu& c, const Op* op);
// Ends a block that is not to be gone on from.
TESSERA_HANDLER void run_leave(Vcpu& c, const Op* op);

}  // namespace tessera::soft
