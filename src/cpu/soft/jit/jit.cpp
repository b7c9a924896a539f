// Translations: made, found, linked, dropped.
#include "cpu/soft/jit/jit.h"

#include <algorithm>

#include "cpu/soft/exec.h"
#include "cpu/soft/exits.h"
#include "cpu/soft/jit/runtime.h"
#include "cpu/soft/jit/translator.h"
#include "cpu/soft/mmu.h"
#include "cpu/soft/soft_system.h"

namespace tessera::soft::jit {

namespace {

constexpr u64 kRoomForBlock = 32 * kKiB;
// Of a thousand bytes of code, by what compilers and kernels are translated to.
constexpr u64 kStubsPerMille = 600;
// Code for each of them at the least.
constexpr u64 kBytesPerTranslation = 64, kBytesPerExit = 16;
constexpr u64 kMostExitsOfBlock = u64{kMaxBlockInsns} * 16;

// Translated code has no CS base but 0.
[[nodiscard]] u64 next_page(const Vcpu& c, u64 page) {
    return c.code64() ? page + kPageSize : static_cast<u32>(page + kPageSize);
}

TESSERA_HANDLER void run_translated(Vcpu& c, const Op* op) {
    op = Runtime::run(c, op);
    if (op == nullptr) return;
    TESSERA_MUSTTAIL return op->fn(c, op);
}

TESSERA_HANDLER void run_counted(Vcpu& c, const Op* op) {
    if (--const_cast<Op*>(op)->imm != 0) [[likely]]
        TESSERA_NEXT(c, op);
    op = Runtime::promote(c, op);
    if (op == nullptr) return;
    TESSERA_MUSTTAIL return op->fn(c, op);
}

TESSERA_HANDLER void run_never_translated(Vcpu& c, const Op* op) {
    TESSERA_NEXT(c, op);
}

[[nodiscard]] Translation* first_of(const Op& head) {
    return reinterpret_cast<Translation*>(head.imm);  // NOLINT(performance-no-int-to-ptr)
}

}  // namespace

const Op* Runtime::promote(Vcpu& c, const Op* head) {
    auto& op = const_cast<Op&>(*head);
    const u8 mode = mode_of(c);
    if (mode == kUntranslatable) {
        op.imm = c.system->config().translate_after;
        return head + 1;
    }
    if (is_second_page_check(head[1]) &&
        c.jit->second_page(c.reg[kRipSlot]).tag != next_page(c, c.reg[kRipSlot])) {
        op.imm = 1;  // the check looks it up
        return head + 1;
    }
    const u64 drops = c.blocks->drops();
    op.imm = 0;
    op.fn = run_translated;
    Translation* t = c.jit->translate(head, mode);
    if (c.blocks->drops() != drops) {
        // Decoded code is gone, perhaps this block's too.
        c.rip = insn_rip(c, c.jit_ops[0]);
        return nullptr;
    }
    if (t == nullptr) {
        op.fn = run_never_translated;
        return head + 1;
    }
    return head;
}

// --- translations

std::unique_ptr<Jit> Jit::create(Vcpu& c, u64 cache_size) {
    auto code = CodeMemory::create(cache_size);
    if (code == nullptr) return nullptr;
    return std::unique_ptr<Jit>(new Jit(c, std::move(code)));
}

Jit::Jit(Vcpu& c, std::unique_ptr<CodeMemory> code)
    : c_(c),
      code_(std::move(code)),
      translations_(code_->size() / kBytesPerTranslation),
      exits_(code_->size() / kBytesPerExit, kMostExitsOfBlock) {
    c_.code_begin = reinterpret_cast<u64>(run_address(code_->begin()));
    emit_thunks();
    first_stubs_ = stubs_at_ =
        first_ + static_cast<u64>(code_->end() - first_) * (1000 - kStubsPerMille) / 1000;
    reset_slots();
}

void Jit::reset_slots() {
    slots_end_ = reinterpret_cast<Slot*>(code_->data());
    // Accesses of all sizes share them, hence are as those of the largest.
    for (auto& mode : stack_slots_)
        for (unsigned large = 0; large < 2; ++large)
            for (Slot*& slot : mode[large]) slot = new_slot(large != 0 ? sizeof(Slot) : kStackWord);
    for (auto& mode : group_slots_)
        for (auto& slots : mode)
            for (size_t i = 0; i < kGroups.size(); ++i) slots[i] = new_slot(kGroups[i]);
}

// The slots of a block are in as few cache lines as can be.
void Jit::begin_slots() {
    constexpr u64 kLine = 64;
    if (reinterpret_cast<u64>(slots_end_) % kLine != 0) ++slots_end_;
}

Slot* Jit::new_slot(unsigned size) {
    *slots_end_ = {.full_limit = static_cast<u32>(kPageSize) + 1 - size};
    return slots_end_++;
}

void Jit::init_head(Op& head, u64 runs) {
    head.fn = run_counted;
    head.imm = runs;
}

bool Jit::is_undefined(const Op* op) {
    while (op[1].ip == op->ip) ++op;
    return soft::is_undefined(*op);
}

Translation* Jit::find(const Op* head, u64 page, u8 mode) {
    for (Translation* t = first_of(*head); t != nullptr; t = t->other)
        if (t->page == page && t->mode == mode) return t;
    return nullptr;
}

Translation* Jit::at_rip(u64 rip, u8 mode) {
    const KnownBlock block = known_block(c_, rip);
    if (block.ops == nullptr || block.ops->fn != run_translated) return nullptr;
    return find(block.ops, block.page, mode);
}

bool Jit::full() const {
    return static_cast<u64>(first_stubs_ - at_) < kRoomForBlock ||
           static_cast<u64>(code_->end() - stubs_at_) < kRoomForBlock ||
           static_cast<u64>(code_->data_end() - reinterpret_cast<u8*>(slots_end_)) < kRoomForBlock ||
           translation_count_ == translations_.size() || exit_count_ + kMostExitsOfBlock > exits_.size();
}

ExitRecord& Jit::new_exit() {
    return exits_[exit_count_++] = {};
}

Translation* Jit::translate(const Op* head, u8 mode, const Op* start) {
    const u64 begun = exit_begin(c_);
    Translation* t = make_translation(head, mode, start);
    exit_end(c_, ExitCause::Translate, begun);
    return t;
}

Translation* Jit::make_translation(const Op* head, u8 mode, const Op* start) {
    // Kept for a caller that finds all blocks gone.
    c_.jit_ops[0] = head[1];
    if (full()) {
        ++figures_.flushes;
        c_.blocks->drop_all();
        return nullptr;
    }
    const u64 drops = c_.blocks->drops();
    begin_slots();
    const u64 page = c_.reg[kRipSlot];
    const FetchEntry fetched = fetch_entry(c_, page);
    if (fetched.tag != page || fetched.host == nullptr) return nullptr;
    const FetchEntry second = second_page(page);
    if (is_second_page_check(head[1]) && second.tag != next_page(c_, page)) return nullptr;
    Translation& t = translations_[translation_count_] = {
        .page = page,
        .mode = static_cast<u8>(mode | (start != nullptr ? kModeApart : 0)),
        .head = head,
        .start = start,
        .exits = &exits_[exit_count_]};
    Emitter e(at_);
    Translator translator(*this, c_, e, t, fetched, (mode & kModeUser) != 0, c_.system->config().strict_flags,
                          c_.system->count() == 1, c_.system->config().count.value_or(false));
    if (!translator.read(head, second)) return nullptr;
    translator.analyse();
    if (c_.blocks->drops() != drops) return nullptr;
    translator.emit();
    ++translation_count_;
    ++figures_.translations;
    figures_.instructions += translator.insns();
    at_ = t.end;
    stubs_at_ = t.stubs_end;
    t.exit_count = static_cast<u32>(&exits_[exit_count_] - t.exits);
    if (start != nullptr) {
        // Nobody looks for it.
        Translation& first = *first_of(*head);
        t.other = first.other;
        first.other = &t;
        return &t;
    }
    auto& op = const_cast<Op&>(*head);
    t.other = first_of(op);
    op.imm = reinterpret_cast<u64>(&t);
    return &t;
}

Translation* Jit::apart(ExitRecord& exit) {
    const Translation& from = *exit.from;
    if (from.dropped) return nullptr;
    c_.reg[kRipSlot] = from.page;
    Translation* t = translate(from.head, from.mode, exit.op);
    if (t != nullptr) link(exit, *t);
    return t;
}

void Jit::statistics(std::vector<Statistic>& out) const {
    const Figures& f = figures_;
    out.push_back({.name = "blocks translated", .value = f.translations});
    out.push_back({.name = "instructions translated", .value = f.instructions});
    out.push_back({.name = "code cache",
                   .value = static_cast<u64>((at_ - code_->begin()) + (stubs_at_ - first_stubs_)) +
                            static_cast<u64>(reinterpret_cast<u8*>(slots_end_) - code_->data()),
                   .unit = Statistic::Unit::Bytes});
    out.push_back({.name = "code cache flushes", .value = f.flushes});
    out.push_back({.name = "translations dropped", .value = f.drops});
    out.push_back({.name = "branches linked", .value = f.links});
    out.push_back({.name = "translated code left: direct branch", .value = f.exits_direct});
    out.push_back({.name = "translated code left: indirect branch", .value = f.exits_indirect});
    out.push_back({.name = "translated code left: interpreter", .value = f.exits_interpret});
    out.push_back({.name = "translated code left: stack in two pages", .value = f.exits_apart});
    out.push_back({.name = "translated code left: x87, vector", .value = f.exits_by_hand});
    out.push_back({.name = "translated code left: handler", .value = f.exits_resume});
    out.push_back({.name = "handler calls", .value = f.calls});
    if (!c_.system->config().count.value_or(false)) return;
    const u64 entered = f.exits_direct + f.exits_indirect + f.exits_interpret + f.exits_apart +
                        f.exits_by_hand + f.exits_resume;
    const auto rate = [&](std::string_view name, u64 whole, u64 missed) {
        out.push_back({.name = name,
                       .value = whole - std::min(whole, missed),
                       .unit = Statistic::Unit::Ratio,
                       .whole = whole});
    };
    out.push_back({.name = "translated blocks run", .value = c_.blocks_run});
    rate("chain rate", c_.blocks_run, entered);
    out.push_back({.name = "memory accesses", .value = c_.accesses});
    rate("page slot hit rate", c_.accesses, c_.slots_missed);
    rate("TLB hit rate", c_.slots_missed, f.first_missed);
}

bool Jit::write_stamp(const ExitRecord& exit) {
    const u32 gen = c_.cpl == 3 ? c_.exec_gen_user : c_.exec_gen_kernel;
    u32 before = 0;
    __builtin_memcpy(&before, exit.stamp, sizeof before);
    // The processor dislikes stores to code.
    if (before == gen) return false;
    __builtin_memcpy(exit.stamp, &gen, sizeof gen);
    return true;
}

const FetchEntry& Jit::second_page(u64 page) {
    return fetch_entry(c_, next_page(c_, page));
}

bool Jit::renew_second_page(const Translation& t) {
    if (t.second_page == nullptr) return true;
    const FetchEntry& entry = second_page(t.page);
    if (entry.tag != next_page(c_, t.page) || entry.physical != t.second_page->op->imm) return false;
    write_stamp(*t.second_page);
    return true;
}

void Jit::link(ExitRecord& exit, Translation& to) {
    if (exit.jump == nullptr || exit.from->dropped || to.dropped) return;
    if (exit.linked_to != &to) unlink(exit);
    if (exit.stamp != nullptr) stamp(exit, to);
    if (exit.linked_to == &to) return;
    Emitter::patch(exit.jump, to.at(exit.entry));
    exit.linked_to = &to;
    exit.previous = nullptr;
    exit.next = to.incoming;
    if (to.incoming != nullptr) to.incoming->previous = &exit;
    to.incoming = &exit;
    ++figures_.links;
}

// A branch that several address spaces take in turn is left to the target cache in time, which each has one
// of.
void Jit::stamp(ExitRecord& exit, const Translation& to) {
    constexpr u8 kShared = 4;
    if (!write_stamp(exit)) return;
    if (exit.stamped < kShared) {
        ++exit.stamped;
        return;
    }
    add_target(exit.target, to);
    Emitter::patch(exit.mismatch, exit.other_mapping);
}

void Jit::add_target(u64 rip, const Translation& to) {
    c_.target_sets[target_set(c_)].add(rip, reinterpret_cast<u64>(run_address(to.entry_announced)));
}

void Jit::unlink(ExitRecord& exit) {
    if (exit.linked_to == nullptr) return;
    if (exit.next != nullptr) exit.next->previous = exit.previous;
    (exit.previous != nullptr ? exit.previous->next : exit.linked_to->incoming) = exit.next;
    exit.linked_to = nullptr;
    unlink_jump(exit);
}

void Jit::unlink_jump(const ExitRecord& exit) {
    Emitter::patch(exit.jump, exit.unlinked);
    if (exit.mismatch != nullptr) Emitter::patch(exit.mismatch, exit.unlinked);
}

void Jit::drop_one(Translation& t) {
    t.dropped = true;
    ++figures_.drops;
    while (t.incoming != nullptr) unlink(*t.incoming);
    for (u32 i = 0; i < t.exit_count; ++i) unlink(t.exits[i]);
}

void Jit::drop(const Op& head) {
    if (head.fn != run_translated) return;
    for (Translation* t = first_of(head); t != nullptr; t = t->other) drop_one(*t);
    forget_targets();
}

void Jit::forget_targets() {
    for (auto& set : c_.target_sets) set.clear();
    c_.jit_stale = true;
}

void Jit::drop_all() {
    translation_count_ = exit_count_ = 0;
    for (SlotLog& log : c_.slot_logs) log.reset();
    at_ = first_;
    stubs_at_ = first_stubs_;
    reset_slots();
    forget_targets();
}

}  // namespace tessera::soft::jit
