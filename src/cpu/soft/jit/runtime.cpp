// Into translated code, out of it, and what it calls meanwhile.
#include "cpu/soft/jit/runtime.h"

#include <algorithm>

#include "cpu/soft/exec.h"
#include "cpu/soft/jit/checker.h"
#include "cpu/soft/jit/jit.h"
#include "cpu/soft/jit/translator.h"
#include "cpu/soft/mmu.h"
#include "cpu/soft/soft_system.h"
#include "cpu/soft/system.h"

namespace tessera::soft::jit {

namespace {

using Enter = ExitRecord* (*)(Vcpu&, const void*);

TESSERA_HANDLER void run_returned(Vcpu& c, const Op* /*op*/) {
    c.op_completed = true;
}

}  // namespace

u8 mode_of(const Vcpu& c) {
    // Alignment checks, or rings between the two that translated code knows.
    if (c.tlb == c.tlb_sets[kTlbNone].data() || c.cpl == 1 || c.cpl == 2) return kUntranslatable;
    const u8 user = c.cpl == 3 ? kModeUser : 0;
    if (c.code64()) return user;
    if (!c.flat32) return kUntranslatable;
    return user;
}

unsigned target_set(const Vcpu& c) {
    return c.cpl == 3 ? 1u + c.spaces.current : 0;
}

// --- the handler of one instruction, for translated code.

u64 Runtime::run_op(Vcpu& c, const Op* op) {
    ++c.jit->figures_.calls;
    Op* to = c.jit_ops.data();
    const u16 ip = op->ip;
    for (; op->ip == ip && to < c.jit_ops.data() + c.jit_ops.size() - 1; ++op) *to++ = *op;
    const Op& last = to[-1];
    *to = {};
    to->fn = run_returned;
    c.op_completed = false;
    const u64 instructions = c.instructions;
    const Op* first = c.jit_ops.data();
    first->fn(c, first);
    // Translated code has counted it.
    if (c.system->config().count.value_or(false)) c.instructions = instructions;
    if (!c.op_completed) return known_code(c);
    if (!c.jit_stale) [[likely]]
        return kNextInsn;
    c.rip = next_rip(c, last);
    return 0;
}

namespace {
// An access across two pages goes to the host's bytes where these are neighbours too, else what is read comes
// from a copy. The slot learns nothing. Writes of up to 8 bytes may be locked, and a lock across pages is not
// the host's business: it may count as an attack there.
u64 bring_together(Vcpu& c, TlbSet set, u64 lin, unsigned size, Access access) {
    constexpr unsigned kLargestLocked = 8;  // but for CMPXCHG16B, which is aligned
    if (access == Access::Write && size <= kLargestLocked) return 0;
    const HostPieces pieces = remembered_pieces(c, set, lin, size, access);
    if (pieces.first == nullptr) return 0;
    const u8* bytes = pieces.first;
    if (pieces.first + pieces.first_size != pieces.second) {
        if (access == Access::Write) return 0;
        read_pieces(pieces, c.jit_across.bytes.data(), size);
        bytes = c.jit_across.bytes.data();
    }
    c.jit_slot = reinterpret_cast<u64>(bytes) - lin;
    return 1;
}
}  // namespace

u64 Runtime::refill(Vcpu& c, u64 slot_and_size, u64 write) {
    ++c.jit->figures_.first_missed;
    constexpr u64 kSizeBits = sizeof(Slot) - 1;
    const u64 lin = c.jit_address;
    const unsigned size = static_cast<unsigned>(slot_and_size & kSizeBits) + 1;
    const auto set = static_cast<TlbSet>((c.tlb - c.tlb_sets[0].data()) / kTlbEntries);
    const Access access = write != 0 ? Access::Write : Access::Read;
    if (set == kTlbNone) return 0;
    if ((lin & kPageMask) + size > kPageSize) return bring_together(c, set, lin, size, access);
    if (remembered(c, set, lin, size, access) == nullptr) return 0;
    const TlbEntry& e = tlb_entry(c, lin);
    c.jit_slot = static_cast<u64>(e.addend);
    if ((e.aux & kTlbFillsSlots) == 0) return 1;
    auto* slot = reinterpret_cast<Slot*>(slot_and_size & ~kSizeBits);  // NOLINT(performance-no-int-to-ptr)
    if (slot->limit == 0) c.slot_logs[set >= kTlbUser ? 1 : 0].append(slot);
    slot->page = lin & ~kPageMask;
    slot->addend = e.addend;
    slot->limit = slot->full_limit;
    return 1;
}

void Runtime::prepare(Vcpu& c) {
    const unsigned set = target_set(c);
    const u32 gen = set == 0 ? c.exec_gen_kernel : c.exec_gen_user;
    if (c.target_gen[set] != gen || c.target_size[set] != c.code_size) {
        c.target_gen[set] = gen;
        c.target_size[set] = c.code_size;
        c.target_sets[set].clear();
    }
    c.targets = c.target_sets[set].entries.begin();
    c.jit_stale = false;
}

// After an instruction that ended its block, attention aside: nothing has to be looked at before the next.
bool Runtime::may_go_on(const Vcpu& c) {
    constexpr u64 kFlags = x86::eflags::kRf | x86::eflags::kTf;
    return c.activity == x86::Activity::Running && !c.shadow_mov_ss && (c.eflags & kFlags) == 0 &&
           c.pending_db == 0 && !c.nmi_pending && !c.init_pending && c.by_hand == 0 && !needs_single_step(c);
}

u64 Runtime::known_code(Vcpu& c) {
    if (c.attention.load(std::memory_order_relaxed) != 0 || c.shadow || c.checker != nullptr ||
        !may_go_on(c) || mode_of(c) == kUntranslatable)
        return 0;
    prepare(c);
    const TargetEntry& target = c.targets[TargetSet::index_of(c.rip)];
    return target.rip == c.rip ? target.code : 0;
}

// The ops at c.rip if they are at hand; null: by way of the dispatcher.
const Op* Runtime::interpret_at_rip(Vcpu& c) {
    if (c.attention.load(std::memory_order_relaxed) != 0) return nullptr;
    const KnownBlock block = known_block(c, c.rip);
    if (block.ops != nullptr) c.reg[kRipSlot] = block.page;
    return block.ops;
}

std::optional<Translation*> Runtime::go_on_apart(Vcpu& c, ExitRecord& exit) {
    const u64 drops = c.blocks->drops();
    c.reg[kRipSlot] = exit.from->page;
    const u64 rip = insn_rip(c, *exit.op);
    Translation* rest = c.jit->apart(exit);
    if (c.blocks->drops() == drops) return rest;
    c.rip = rip;
    // Perhaps nothing was executed since interrupts were held back.
    c.shadow = true;
    return std::nullopt;
}

const Op* Runtime::run(Vcpu& c, const Op* head) {
    Jit& jit = *c.jit;
    u8 mode = mode_of(c);
    if (mode == kUntranslatable) return head + 1;
    Translation* t = jit.find(head, c.reg[kRipSlot], mode);
    if (t == nullptr) {
        const u64 drops = c.blocks->drops();
        t = jit.translate(head, mode);
        if (c.blocks->drops() != drops) {
            c.rip = insn_rip(c, head[1]);
            return nullptr;
        }
        if (t == nullptr) return head + 1;
    }
    const bool second_page_known = jit.renew_second_page(*t);
    if (c.checker != nullptr) [[unlikely]] {
        // No two blocks in a row, for each is to be one entry. The interpreter looks for the second page
        // first.
        if (second_page_known && c.checker->wanted() && t->checkable)
            c.checker->run(c, head, *t);
        else
            run_once(c, *t);
        return nullptr;
    }
    const auto enter = reinterpret_cast<Enter>(const_cast<void*>(jit.run_address(jit.thunk_.enter)));
    Figures& figures = jit.figures_;
    for (;;) {
        prepare(c);
        ExitRecord* exit = enter(c, jit.run_address(t->entry_fresh));
        if (exit == nullptr) {
            ++figures.exits_resume;
            // What the dispatcher would find nothing to do for.
            if (c.attention.load(std::memory_order_relaxed) != 0 || !may_go_on(c)) return nullptr;
            mode = mode_of(c);
            t = mode == kUntranslatable ? nullptr : jit.at_rip(c.rip, mode);
            if (t == nullptr) return c.shadow ? nullptr : interpret_at_rip(c);
            jit.add_target(c.rip, *t);
            // At least one instruction is executed before interrupts are looked for.
            c.shadow = false;
            continue;
        }
        c.instructions += exit->n;
        // SYSCALL and others go on in translated code.
        mode = static_cast<u8>(exit->from->mode & ~kModeApart);
        switch (exit->kind) {
            case ExitKind::Interpret:
                ++figures.exits_interpret;
                if (exit->stamp != nullptr && jit.renew_second_page(*exit->from)) {
                    t = exit->from;
                    continue;
                }
                c.reg[kRipSlot] = exit->from->page;
                return exit->op;
            case ExitKind::ByHand:
                ++figures.exits_by_hand;
                c.reg[kRipSlot] = exit->from->page;
                c.rip = insn_rip(c, *exit->op);
                c.by_hand = kInsnsByHand;
                return nullptr;
            case ExitKind::Apart: {
                ++figures.exits_apart;
                const Op* op = exit->op;
                const std::optional<Translation*> rest = go_on_apart(c, *exit);
                if (!rest) return nullptr;
                if (*rest == nullptr) return op;
                t = *rest;
                continue;
            }
            case ExitKind::Indirect: {
                ++figures.exits_indirect;
                if (const Translation* to = jit.at_rip(c.jit_target, mode)) jit.add_target(c.jit_target, *to);
                c.reg[kRipSlot] = exit->from->page;
                return exit->op;
            }
            case ExitKind::Direct:
            case ExitKind::Resume: break;
        }
        ++figures.exits_direct;
        c.rip = exit->target;
        c.shadow = exit->shadow;
        if (c.attention.load(std::memory_order_relaxed) != 0) return nullptr;
        t = jit.at_rip(exit->target, mode);
        if (t == nullptr) return c.shadow ? nullptr : interpret_at_rip(c);
        c.shadow = false;
        jit.link(*exit, *t);
    }
}

void Runtime::run_once(Vcpu& c, Translation& t) {
    Jit& jit = *c.jit;
    const auto enter = reinterpret_cast<Enter>(const_cast<void*>(jit.run_address(jit.thunk_.enter)));
    prepare(c);
    ExitRecord* exit = enter(c, jit.run_address(t.entry_fresh));
    if (exit != nullptr && exit->kind == ExitKind::Apart) {
        const std::optional<Translation*> rest = go_on_apart(c, *exit);
        if (!rest) return;
        if (*rest != nullptr) exit = enter(c, jit.run_address((*rest)->entry_fresh));
    }
    if (exit == nullptr) return;
    c.instructions += exit->n;
    c.rip = exit->target;
    c.shadow = exit->shadow;
    if (exit->kind == ExitKind::Direct) return;
    c.reg[kRipSlot] = exit->from->page;
    const Op* op = exit->op;
    c.attention.fetch_or(kAttendSingle);
    op->fn(c, op);
    c.attention.fetch_and(~u32{kAttendSingle});
}

}  // namespace tessera::soft::jit
