// Each CPU's cache of decoded code: straight runs of ops, found by physical address and code size.
#pragma once

#include <memory>
#include <vector>

#include "cpu/soft/vcpu.h"

namespace tessera::soft {

inline constexpr unsigned kMaxBlockInsns = 48;

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
    // The pages it has bytes of; page[1] is kNoPage unless the last instruction straddles.
    std::array<u64, 2> page;
    std::array<u32, 2> next;  // chain of the page's bucket
};
inline constexpr u64 kNoPage = ~u64{0};

struct BlockCache {
    // As many places as blocks: with four for each hash, what is in use hardly ever displaces one another.
    static constexpr u32 kWays = 4, kLogSets = 14;
    static constexpr u32 kOps = 1 << 19;
    static constexpr u32 kBlocks = 1 << 16;
    static constexpr u32 kBuckets = 1 << 12;
    static constexpr u32 kNone = ~u32{0};

    struct Slot {
        u64 key = 0;
        const Op* ops = nullptr;
    };

    using Set = std::array<Slot, kWays>;  // a cache line

    alignas(64) std::array<Set, 1u << kLogSets> hash{};
    std::unique_ptr<Op[]> ops;
    std::unique_ptr<Block[]> blocks;
    u32 op_count = 0;
    u32 block_count = 0;
    u32 next_way = 0;
    jit::Jit* jit = nullptr;  // to be told what is dropped; null: nothing is translated
    std::array<u32, kBuckets> buckets{};
    u64 builds = 0;
    u64 drops = 0;  // changes whenever code was dropped, possibly by another CPU while this one was parked

    BlockCache();

    [[nodiscard]] static u64 key_of(u64 physical, u64 mode_bits) { return (physical << 3) | mode_bits; }
    [[nodiscard]] Set& set_of(u64 key) {
        constexpr u64 kGolden = 0x9e37'79b9'7f4a'7c15;
        return hash[key * kGolden >> (64 - kLogSets)];
    }
    [[nodiscard]] const Op* find(u64 key) {
        for (const Slot& s : set_of(key))
            if (s.key == key) return s.ops;
        return nullptr;
    }
    // The same for blocks that were displaced from the hash, which get their place back.
    [[nodiscard]] const Op* find_displaced(u64 key);

    // Makes room for one more block of at most `ops` ops; drops everything if need be.
    void reserve(u32 wanted_ops);
    void insert(const Block& block);
    void enter(u64 key, const Op* first);
    // Drops the blocks that have bytes in the page. Ops being executed turn into "go back to the dispatcher".
    void drop_page(u64 page);
    void drop_all();

    void statistics(std::vector<Statistic>& out) const;
};

// The block at c.rip, decoded now if it is not in the cache. Raises what the fetch raises.
const Op* block_at_rip(Vcpu& c, bool single);

// The op raises #UD or #GP for an instruction that is none.
[[nodiscard]] bool is_undefined(const Op& op);

}  // namespace tessera::soft
