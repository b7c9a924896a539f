// How handlers leave a block: to another block if it is known, else back to the dispatcher.
#pragma once

#include "cpu/soft/blocks.h"
#include "cpu/soft/vcpu.h"

namespace tessera::soft {

// Where the translation of an instruction page is kept.
[[nodiscard]] inline FetchEntry& fetch_entry(Vcpu& c, u64 lin) {
    return c.fetch[(lin >> 12) & (kFetchEntries - 1)];
}

// A decoded block, and what Vcpu::reg[kRipSlot] is while it runs.
struct KnownBlock {
    const Op* ops = nullptr;  // null: not known without the dispatcher
    u64 page = 0;
};

// The block at `rip`, if address translation and block are at hand.
[[nodiscard, gnu::always_inline]] inline KnownBlock known_block(Vcpu& c, u64 rip) {
    u64 base = 0;
    if (!c.code64()) [[unlikely]] {
        if (rip >= c.code_end) return {};
        base = c.seg[x86::Cs].base;
        rip = static_cast<u32>(base + rip);
    }
    const FetchEntry& page = fetch_entry(c, rip);
    if (page.tag != (rip & ~kPageMask)) [[unlikely]]
        return {};
    const u64 key = BlockCache::key_of(page.physical | (rip & kPageMask), static_cast<u64>(c.code_size));
    return {.ops = c.blocks->find(key), .page = page.tag - base};
}

// Goes on at c.rip: straight into its block if it is known and there is permission to go on (c.attention),
// else through the dispatcher. `op` is not looked at.
TESSERA_HANDLER inline void continue_at_rip(Vcpu& c, const Op* op) {
    if (c.attention.load(std::memory_order_relaxed) != 0) [[unlikely]]
        return;
    const KnownBlock block = known_block(c, c.rip);
    if (block.ops == nullptr) [[unlikely]]
        return;
    c.reg[kRipSlot] = block.page;
    op = block.ops;
    TESSERA_MUSTTAIL return op->fn(c, op);
}

// Where a near branch may go [APM 3 near transfers]: canonical, or below the CS limit. Else #GP(0), before
// the branch has changed anything.
inline void check_branch_target(Vcpu& c, u64 rip) {
    if (c.code64()) [[likely]] {
        if (static_cast<u64>(static_cast<s64>(rip << 16) >> 16) != rip) [[unlikely]]
            raise_gp0(c);
    } else if (rip >= c.code_end) [[unlikely]] {
        raise_gp0(c);
    }
}

}  // namespace tessera::soft
