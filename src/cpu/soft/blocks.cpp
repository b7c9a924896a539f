// Building blocks from guest code. (The cache itself is in block_cache.cpp.)
#include "cpu/soft/blocks.h"

#include <algorithm>

#include "base/assert.h"
#include "cpu/soft/exec.h"
#include "cpu/soft/exits.h"
#include "cpu/soft/jit/checker.h"
#include "cpu/soft/jit/jit.h"
#include "cpu/soft/lower.h"
#include "cpu/soft/soft_system.h"
#include "cpu/soft/system.h"
#include "cpu/x86/available.h"

namespace tessera::soft {

namespace {

u64 code_base(const Vcpu& c) {
    return c.code64() ? 0 : c.seg[x86::Cs].base;
}
u64 linear_rip(const Vcpu& c, u64 rip) {
    return c.code64() ? rip : static_cast<u32>(c.seg[x86::Cs].base + rip);
}
// Linear address of the page after the one `rip` is in.
u64 next_page_of(const Vcpu& c, u64 rip) {
    const u64 next = (linear_rip(c, rip) & ~kPageMask) + kPageSize;
    return c.code64() ? next : static_cast<u32>(next);
}

// --- ops that blocks begin and end with

// The end of a block that no branch ended; op->ip is the offset after the last instruction.
TESSERA_HANDLER void run_end(Vcpu& c, const Op* op) {
    c.instructions += op->n;
    c.rip = insn_rip(c, *op);
    TESSERA_MUSTTAIL return continue_at_rip(c, op);
}

// Stands before an instruction that reaches into the next page: whether that is still mapped as when it was
// decoded. op->imm is the second page's physical address.
TESSERA_HANDLER void run_check_second_page(Vcpu& c, const Op* op) {
    const FetchEntry& second = fetch_entry(c, next_page_of(c, insn_rip(c, *op)));
    if (second.tag == next_page_of(c, insn_rip(c, *op)) && second.physical == op->imm) [[likely]]
        TESSERA_NEXT(c, op);
    c.rip = insn_rip(c, *op);
    c.instructions += op->n - 1;
}

// RIP-relative addresses whose sum does not fit Op::disp.
TESSERA_HANDLER void run_set_temporary(Vcpu& c, const Op* op) {
    c.reg[kTempSlot] = c.reg[kRipSlot] + op->imm;
    TESSERA_NEXT(c, op);
}

void undefined(Vcpu& c, const Op& /*op*/) {
    raise_ud(c);
}
void too_long(Vcpu& c, const Op& /*op*/) {
    raise_gp0(c);
}

// --- fetching

// Bytes of the instruction stream at `lin`: [0, count) valid, the first `first_page` of them in the first
// page.
struct Fetched {
    std::array<u8, x86::kMaxInsnLength> bytes{};
    unsigned count = 0;
};

void fetch_from(Vcpu& c, const FetchEntry& page, u64 lin, unsigned n, Fetched& out) {
    u8* to = out.bytes.data() + out.count;
    const u64 offset = lin & kPageMask;
    if (page.host != nullptr)
        std::memcpy(to, page.host + offset, n);
    else
        c.system->world().mmio.read(page.physical + offset, std::as_writable_bytes(std::span(to, n)));
    out.count += n;
}

bool lower(const x86::Insn& in, Op& op, bool* ends) {
    switch (in.insn_class) {
        case x86::InsnClass::Integer: return lower_integer(in, op, ends);
        case x86::InsnClass::String: return lower_string(in, op, ends);
        case x86::InsnClass::Branch: return lower_branch(in, op, ends);
        case x86::InsnClass::System: return lower_system(in, op, ends);
        case x86::InsnClass::X87: return lower_x87(in, op, ends);
        case x86::InsnClass::Mmx: return lower_mmx(in, op, ends);
        case x86::InsnClass::Vector: return lower_vector(in, op, ends);
        case x86::InsnClass::XState: return lower_xstate(in, op, ends);
    }
    return false;
}

u8 op_flags(const x86::Insn& in) {
    unsigned flags = 0;
    if (in.code_size == x86::CodeSize::Bits64) flags |= kLongMode;
    if (in.address_size == 8) flags |= kAddress64;
    if (in.address_size == 4) flags |= kAddress32;
    if (in.has(x86::InsnFlag::Lock)) flags |= kLocked;
    if (in.has(x86::InsnFlag::Rep)) flags |= kRep;
    if (in.has(x86::InsnFlag::Repne)) flags |= kRepne;
    return static_cast<u8>(flags);
}

// Collects the ops of one block.
class Builder {
public:
    Builder(Op* out, u16 ip, u64 runs) : out_(out), ip_(ip), runs_(runs) {}

    // True when the block ends with this instruction.
    bool add(const x86::Insn& in, x86::DecodeStatus status) {
        if (runs_ != 0 && count_ == 0) push_head();
        Op op{};
        op.ip = ip_;
        op.len = in.length;
        op.n = static_cast<u8>(++insns_);
        op.base = op.index = kZeroSlot;
        op.seg = x86::Ds;
        bool ends = false;
        if (status != x86::DecodeStatus::Ok) {
            op.fn = status == x86::DecodeStatus::TooLong ? continue_with<too_long> : continue_with<undefined>;
            ends = true;
        } else {
            op.flags = op_flags(in);
            set_memory(in, op);
            if (!lower(in, op, &ends)) {
                op.fn = continue_with<undefined>;
                ends = true;
            }
        }
        push(op);
        ip_ = static_cast<u16>(ip_ + in.length);
        return ends;
    }
    // Only before the first instruction.
    void check_second_page(u64 physical) {
        if (runs_ != 0) push_head();
        Op op{};
        op.fn = run_check_second_page;
        op.imm = physical;
        op.ip = ip_;
        op.n = 1;
        push(op);
    }
    void finish(Handler last) {
        Op op{};
        op.fn = last;
        op.ip = ip_;
        op.n = static_cast<u8>(insns_);
        push(op);
    }
    [[nodiscard]] u32 op_count() const { return count_; }
    [[nodiscard]] unsigned insns() const { return insns_; }

private:
    void push(const Op& op) { out_[count_++] = op; }
    void push_head() {
        Op op{};
        jit::Jit::init_head(op, runs_);
        op.ip = ip_;
        op.n = 1;
        push(op);
    }

    void set_memory(const x86::Insn& in, Op& op) {
        op.seg = in.segment;
        op.disp = static_cast<s32>(in.displacement);
        if (in.base == x86::kRipBase) {
            const s64 from_page = in.displacement + ip_ + in.length;
            op.base = kRipSlot;
            op.disp = static_cast<s32>(from_page);
            if (op.disp != from_page) {
                Op temporary = op;
                temporary.fn = run_set_temporary;
                temporary.imm = static_cast<u64>(from_page);
                push(temporary);
                op.base = kTempSlot;
                op.disp = 0;
            }
        } else if (in.base != x86::kNoRegister) {
            op.base = in.base;
        }
        if (in.index != x86::kNoRegister && !in.has(x86::InsnFlag::Vsib)) op.index = in.index;
        op.scale = in.scale;
    }

    Op* out_;
    u32 count_ = 0;
    u16 ip_;
    unsigned insns_ = 0;
    u64 runs_;  // before the block is translated; 0: never
};

// Bytes that may be fetched from `rip` before the CS limit ends them (at most a page counts).
u64 bytes_to_limit(const Vcpu& c, u64 rip) {
    if (c.code64()) return kPageSize;
    return rip < c.code_end ? std::min(c.code_end - rip, kPageSize) : 0;
}

struct BuildResult {
    Block block;
    bool cacheable = true;
};

void note_code(Vcpu& c, const FetchEntry& page, u64 lin, unsigned size) {
    const MemoryRegion* region = c.system->world().memory.find(page.physical);
    if (region != nullptr && region->kind == RegionKind::Ram)
        c.system->mark_code(c, *region, page.physical + (lin & kPageMask), size);
}

// Decodes from `rip` on. The caller has the page's translation already.
BuildResult build(Vcpu& c, u64 rip, FetchEntry first, Op* out, BlockMode mode) {
    const u64 start = linear_rip(c, rip);
    const bool counted = c.jit != nullptr && !mode.single;
    Builder builder(out, static_cast<u16>(start & kPageMask),
                    counted ? c.system->config().translate_after : 0);
    const x86::FeatureLevel level = feature_level(c.system->config().model);
    BuildResult result{};
    result.block.page = {first.physical, kNoPage};
    const u64 page_end = (start & ~kPageMask) + kPageSize;
    const unsigned max_insns = mode.single ? 1 : kMaxBlockInsns;
    u64 lin = start;
    bool ended = false;
    while (!ended && builder.insns() < max_insns && lin < page_end) {
        const u64 to_limit = bytes_to_limit(c, rip + (lin - start));
        const unsigned in_page =
            static_cast<unsigned>(std::min<u64>({x86::kMaxInsnLength, page_end - lin, to_limit}));
        if (to_limit < x86::kMaxInsnLength) result.cacheable = false;
        Fetched code;
        note_code(c, first, lin, std::max(in_page, 1u));
        fetch_from(c, first, lin, in_page, code);
        x86::Insn in;
        auto status = x86::decode(std::span(code.bytes.data(), code.count), mode.size, level, in);
        if (status == x86::DecodeStatus::NeedMore) {
            if (builder.insns() > 0) break;  // let it be a block of its own
            if (to_limit <= page_end - lin) raise_gp0(c);
            const u64 next_page = next_page_of(c, rip);
            const FetchEntry second = fetch_page(c, next_page);
            const unsigned rest =
                static_cast<unsigned>(std::min<u64>(x86::kMaxInsnLength - in_page, to_limit - in_page));
            note_code(c, second, next_page, rest);
            fetch_from(c, second, next_page, rest, code);
            result.block.page[1] = second.physical;
            if (second.host == nullptr) result.cacheable = false;
            status = x86::decode(std::span(code.bytes.data(), code.count), mode.size, level, in);
            if (status == x86::DecodeStatus::NeedMore) raise_gp0(c);  // the limit cuts it off
            builder.check_second_page(second.physical);
            builder.add(in, status);
            break;
        }
        const bool alone =
            c.checker != nullptr && status == x86::DecodeStatus::Ok && jit::cannot_be_undone(in);
        if (alone && builder.insns() > 0) break;
        ended = builder.add(in, status) || alone;
        lin += in.length;
    }
    builder.finish(mode.single ? run_leave : run_end);
    result.block.ops = out;
    result.block.op_count = builder.op_count();
    if (first.host == nullptr) result.cacheable = false;
    return result;
}

}  // namespace

TESSERA_HANDLER void run_stale(Vcpu& c, const Op* op) {
    c.rip = insn_rip(c, *op);
    c.instructions += op->n - 1;
}

TESSERA_HANDLER void run_leave(Vcpu& c, const Op* op) {
    c.instructions += op->n;
    c.rip = insn_rip(c, *op);
}

bool is_second_page_check(const Op& op) {
    return op.fn == run_check_second_page;
}

bool is_undefined(const Op& op) {
    return op.fn == Handler{continue_with<undefined>} || op.fn == Handler{continue_with<too_long>};
}

const Op* block_at_rip(Vcpu& c, bool single) {
    BlockCache& cache = *c.blocks;
    const BlockMode mode{c.code_size, single};
    const u64 lin = linear_rip(c, c.rip);
    if (bytes_to_limit(c, c.rip) == 0) raise_gp0(c);
    const FetchEntry page = fetch_page(c, lin);
    c.reg[kRipSlot] = (lin & ~kPageMask) - code_base(c);
    const u64 key = BlockCache::key_of(page.physical | (lin & kPageMask), mode.bits());
    const Op* found = cache.find(key);
    if (found == nullptr) found = cache.find_displaced(key);
    if (found != nullptr) {
        const Op& first = c.jit != nullptr && !single ? found[1] : found[0];  // a head stands before it
        if (!is_second_page_check(first)) return found;
        if (fetch_page(c, next_page_of(c, c.rip)).physical == first.imm) return found;
    }

    for (;;) {
        Op* out = cache.reserve(kMaxBlockOps);
        const u64 drops = cache.drops();
        const u64 begun = exit_begin(c);
        BuildResult result = build(c, c.rip, page, out, mode);
        exit_end(c, ExitCause::Decode, begun);
        if (cache.drops() != drops) continue;  // the bytes were changed under our eyes
        if (!result.cacheable) return out;     // runs once, in place
        result.block.key = key;
        return cache.insert(result.block);
    }
}

}  // namespace tessera::soft
