// Reading a block, the flags' liveness, and leaving translated code.
#include "cpu/soft/jit/translator.h"

#include <algorithm>

#include "cpu/soft/jit/checker.h"
#include "cpu/soft/jit/layout.h"
#include "cpu/soft/mmu.h"
#include "cpu/soft/soft_system.h"
#include "cpu/x86/available.h"

namespace tessera::soft::jit {

namespace {

using x86::InsnClass;

constexpr unsigned kNotEqual = 5;

}  // namespace

Mem Translator::slot(unsigned guest) {
    return gs(kOffReg + guest * 8);
}

u64 Translator::next_rip(const Item& item) const {
    const u64 rip = item.rip + item.in.length;
    return wide() ? rip : static_cast<u32>(rip);
}

u64 Translator::branch_target(const Item& item) const {
    const u64 rip = item.rip + item.in.length + item.in.immediate;
    return wide() ? rip : static_cast<u32>(rip);
}

bool Translator::read(const Op* head, const FetchEntry& second) {
    out_.checkable = c_.checker != nullptr;
    const x86::FeatureLevel level = feature_level(c_.system->config().model);
    const Op* op = head + 1;
    if (is_second_page_check(*op)) {
        if (second.host == nullptr || second.physical != op->imm) return false;
        second_page_ = op++;
    }
    for (;;) {
        if (op->len == 0) break;  // the end, or a check of a second page
        Item item{};
        const u64 offset = op->ip;
        const u64 in_first = std::min<u64>(op->len, kPageSize - offset);
        std::memcpy(item.bytes.data(), page_.host + offset, in_first);
        if (in_first < op->len) {
            if (second_page_ == nullptr) return false;
            std::memcpy(item.bytes.data() + in_first, second.host, op->len - in_first);
        }
        if (x86::decode(std::span(item.bytes.data(), op->len), c_.code_size, level, item.in) !=
                x86::DecodeStatus::Ok ||
            item.in.length != op->len)
            break;
        if (c_.checker != nullptr && cannot_be_undone(item.in)) out_.checkable = false;
        out_.undefined_flags |= item.in.flags_undefined;
        item.rip = out_.page + offset;
        item.op = op;
        item.stack = stack_use(item);
        items_.push_back(item);
        while (op[1].ip == op->ip) ++op;  // an address computed before
        ++op;
    }
    if (out_.start != nullptr) {
        // The block's own translation has looked at the second page.
        second_page_ = nullptr;
        start_ = static_cast<unsigned>(std::ranges::find(items_, out_.start, &Item::op) - items_.begin());
        items_.erase(items_.begin(), items_.begin() + start_);
    }
    // A block of nothing but what the interpreter has to do anyway.
    return !items_.empty();
}

// --- leaving

ExitRecord& Translator::new_exit(ExitKind kind, const Item& item) {
    ExitRecord& r = jit_.new_exit();
    r.kind = kind;
    const bool counted = kind == ExitKind::Interpret || kind == ExitKind::Indirect || kind == ExitKind::Apart;
    if (!count_ && !counted)  // else the interpreter counts, or whoever goes on
        r.n = static_cast<u8>(start_ + static_cast<unsigned>(number_of(item)) +
                              (kind == ExitKind::Direct ? 1 : 0));
    r.op = item.op;
    r.from = &out_;
    return r;
}

// The interpreter is to do this instruction. `from` is where the path comes from.
ExitRecord& Translator::bail(const Item& item, u8* from, ExitKind kind) {
    ExitRecord& r = new_exit(kind, item);
    Stub stub{.kind = in_host_ && !saved_ ? Stub::Kind::Exit : Stub::Kind::ExitSaved};
    if (kind == ExitKind::Indirect) stub.kind = Stub::Kind::ExitIndirect;
    stub.flags = to_repeat(item);
    stub.add(from);
    stub.exit = &r;
    stubs_.push_back(stub);
    return r;
}

u8* Translator::count(u64 counter) {
    constexpr s32 kOfFourBytes = 0x1000'0000;
    e_.load(kS0, gs(counter));
    e_.lea(kS0, {.base = kS0, .disp = kOfFourBytes});
    u8* number = e_.here() - sizeof kOfFourBytes;
    e_.store(gs(counter), kS0);
    return number;
}

void Translator::begin_segment(const Item& item) {
    if (!count_) return;
    segment_ = {.first = number_of(item),
                .add_instructions = count(kOffInstructions),
                .add_accesses = count(kOffAccesses)};
}

void Translator::end_segment(const Item& item) {
    if (!count_) return;
    const s32 instructions = number_of(item) + 1 - segment_.first;
    __builtin_memcpy(segment_.add_instructions, &instructions, sizeof instructions);
    __builtin_memcpy(segment_.add_accesses, &segment_.accesses, sizeof segment_.accesses);
}

ExitRecord& Translator::exit_to_itself() {
    ExitRecord& r = new_exit(ExitKind::Direct, items_.front());
    r.target = items_.front().rip;
    r.n = 0;
    return r;
}

void Translator::attend() {
    e_.alu_mem_imm(Alu::Cmp, false, gs(kOffAttention), 0);
    Stub stub{.kind = items_.front().live_in != 0 ? Stub::Kind::ExitAnnounced : Stub::Kind::ExitSaved};
    stub.add(e_.jcc_near(kNotEqual));
    stub.exit = &exit_to_itself();
    stubs_.push_back(stub);
}

void Translator::attend_keeping_flags() {
    e_.mov(kS0, kRcx);
    e_.load32(kRcx, gs(kOffAttention));
    u8* nothing = e_.jrcxz_short();
    e_.mov(kRcx, kS0);
    Stub stub{.kind = Stub::Kind::Exit};
    stub.add(e_.jmp_near());
    stub.exit = &exit_to_itself();
    stubs_.push_back(stub);
    e_.bind_short(nothing);
    e_.mov(kRcx, kS0);
}

void Translator::linked_jump(ExitRecord& r, Stub::Kind unlinked) {
    Stub stub{.kind = unlinked};
    stub.add(r.jump = e_.jmp_near());
    stub.exit = &r;
    stub.link = true;
    stubs_.push_back(stub);
}

void Translator::other_page_exit(ExitRecord& r) {
    r.entry = Entry::Announced;
    announce_flags();
    e_.op_rm(false, 0x81, 7, gs(user_ ? kOffExecGenUser : kOffExecGenKernel));  // cmp dword, imm32
    r.stamp = e_.here();
    e_.put32(~u32{0});
    r.mismatch = e_.jcc_near(kNotEqual);
    linked_jump(r, Stub::Kind::ExitAnnounced);
    Stub stub{.kind = Stub::Kind::OtherMapping};
    stub.exit = &r;
    stubs_.push_back(stub);
}

ExitRecord* Translator::direct_exit(u64 target, const Item& item) {
    if (wide() && !is_canonical(target)) {
        bail(item, e_.jmp_near());
        return nullptr;
    }
    ExitRecord& r = new_exit(ExitKind::Direct, item);
    r.target = target;
    if (same_page(target)) {
        if (live_at(target, 0) != 0 && !in_host_) restore_flags(kS0);
        r.entry = target <= item.rip ? Entry::Attended : Entry::Plain;
        linked_jump(r, in_host_ ? Stub::Kind::Exit : Stub::Kind::ExitSaved);
    } else {
        keep_flags();
        in_host_ = false;
        other_page_exit(r);
    }
    return &r;
}

u8* Translator::way_out(const Stub& stub) const {
    const auto& thunk = jit_.thunk_;
    switch (stub.kind) {
        case Stub::Kind::Exit: return thunk.exit;
        case Stub::Kind::ExitAnnounced: return thunk.exit_announced;
        case Stub::Kind::ExitIndirect: return stub.flags ? thunk.exit_indirect : thunk.exit_indirect_saved;
        default: return stub.flags ? thunk.exit : thunk.exit_saved;
    }
}

void Translator::emit_stubs() {
    out_.end = e_.here();
    e_.move_to(jit_.stubs_at_);
    out_.stubs = e_.here();
    // First those that lead to others.
    for (const Stub& stub : stubs_) {
        if (stub.kind == Stub::Kind::RefillGroup) emit_group_refill(stub);
        if (stub.kind != Stub::Kind::Refill) continue;
        e_.bind(stub.from[0]);
        if (count_) e_.alu_mem_imm(Alu::Add, true, gs(kOffSlotsMissed), 1);
        stub.address.disp == 0 ? e_.mov(kS1, static_cast<HostReg>(stub.address.base))
                               : e_.lea(kS1, stub.address);
        if (stub.keep_s0) e_.store(gs(kOffTarget), kS0);
        e_.mov_imm(kS0, reinterpret_cast<u64>(stub.slot) | (stub.size - 1));
        const auto& thunk = jit_.thunk_;
        Emitter::patch(e_.call_near(), stub.staged  ? thunk.refill_staged[user_]
                                       : stub.stack ? thunk.refill_stack[user_][stub.write]
                                                    : thunk.refill[user_][stub.write]);
        const u8* const returned = e_.here();
        stubs_[stub.missed].add(e_.jcc_near(5));
        if (stub.keep_s0) e_.load(kS0, gs(kOffTarget));
        Emitter::patch(e_.jmp_near(), stub.back);
        if (!stub.staged) continue;
        TESSERA_ASSERT(e_.here() == returned + kStagedReturn, "the lookup skips two jumps");
        reencode(e_, stub.item->in, stub.item->bytes.data(), *stub.staged);
        e_.mov_imm(kS0, stub.size);
        Emitter::patch(e_.call_near(), thunk.unstage);
        Emitter::patch(e_.jmp_near(), stubs_[stub.missed].back);
    }
    for (size_t i = 0; i < stubs_.size(); ++i) {
        Stub stub = stubs_[i];
        if (stub.kind == Stub::Kind::Refill || stub.kind == Stub::Kind::RefillGroup) continue;
        for (unsigned k = 0; k < stub.count; ++k) e_.bind(stub.from[k]);
        switch (stub.kind) {
            case Stub::Kind::CallOp:
                if (stub.flags) repeat(stub.flags);
                call_op(stub.op, static_cast<bool>(stub.flags));
                for (unsigned n = 1; n <= stub.more; ++n) call_op(stub.item[n].op, false);
                if (stub.group != nullptr)
                    come_back_to_group(stub);
                else
                    Emitter::patch(e_.jmp_near(), stub.back);
                break;
            case Stub::Kind::Apart: emit_apart(stub); break;
            case Stub::Kind::Exit:
            case Stub::Kind::ExitSaved:
            case Stub::Kind::ExitAnnounced:
            case Stub::Kind::ExitIndirect:
                if (stub.link) stub.exit->unlinked = e_.here();
                if (stub.link && stub.exit->mismatch != nullptr) e_.bind(stub.exit->mismatch);
                if (stub.flags) repeat(stub.flags);
                e_.mov_imm(kS1, reinterpret_cast<u64>(stub.exit));
                Emitter::patch(e_.jmp_near(), way_out(stub));
                break;
            case Stub::Kind::OtherMapping:
                stub.exit->other_mapping = e_.here();
                e_.store32(gs(kOffFlagsCode), kS0);
                e_.mov_imm(kS0, stub.exit->target);
                e_.mov_imm(kS1, reinterpret_cast<u64>(stub.exit));
                Emitter::patch(e_.jmp_near(), jit_.thunk_.find_target);
                break;
            case Stub::Kind::Refill:
            case Stub::Kind::RefillGroup:
            case Stub::Kind::None: break;
            case Stub::Kind::ToStatus:
                fetch_flags();
                save_and_announce();
                Emitter::patch(e_.jmp_near(), stub.back);
                break;
            case Stub::Kind::LoadVectors:
            case Stub::Kind::LoadX87: {
                e_.test_mem32(gs(kOffFpTraps), stub.traps);
                in_host_ = false;
                producer_ = stub.flags;
                saved_ = !producer_;  // or they do not count
                bail(*stub.item, e_.jcc_near(5), ExitKind::ByHand);
                if (stub.kind == Stub::Kind::LoadVectors)
                    Emitter::patch(e_.call_near(), jit_.thunk_.load_vectors);
                else
                    call_op(load_x87_op(), false);
                Emitter::patch(e_.jmp_near(), stub.back);
                break;
            }
        }
    }
    for (const Announced& flags : announced_) {
        const u32 offset = jit_.offset_of(e_.here());
        __builtin_memcpy(flags.place, &offset, sizeof offset);
        repeat(flags.flags);
        e_.ret();
    }
}

// A block with an instruction across two pages is good as long as the second is where it was.
void Translator::check_second_page() {
    e_.op_rm(false, 0x81, 7, gs(user_ ? kOffExecGenUser : kOffExecGenKernel));  // cmp dword, imm32
    u8* stamp = e_.here();
    e_.put32(~u32{0});
    ExitRecord& r = new_exit(ExitKind::Interpret, items_.front());
    Stub stub{.kind = items_.front().live_in != 0 ? Stub::Kind::ExitAnnounced : Stub::Kind::ExitSaved};
    stub.add(e_.jcc_near(kNotEqual));
    stub.exit = &r;
    stubs_.push_back(stub);
    r.op = second_page_;
    r.stamp = stamp;
    out_.second_page = &r;
}

void Translator::emit() {
    constexpr unsigned kAlign = 16;
    e_.align(kAlign);
    const bool flags_count = items_.front().live_in != 0;
    const bool pass = flags_count && flags_pass_through();
    const auto bring_flags = [&] {
        if (flags_count) pass ? bring_to_status() : fetch_flags();
    };
    if (out_.start != nullptr) {
        out_.entry_fresh = e_.here();
        bring_flags();
    } else if (second_page_ != nullptr) {
        out_.entry_attended = e_.here();
        if (flags_count) save_and_announce();
        out_.entry_announced = e_.here();
        attend();
        out_.entry_fresh = e_.here();
        check_second_page();
        bring_flags();
    } else if (pass) {
        out_.entry_attended = e_.here();
        save_and_announce();
        out_.entry_announced = e_.here();
        attend();
        out_.entry_fresh = e_.here();
        bring_flags();
    } else if (flags_count) {
        out_.entry_attended = e_.here();
        attend_keeping_flags();
    } else {
        out_.entry_attended = out_.entry_announced = e_.here();
        attend();
        out_.entry_fresh = e_.here();
    }
    out_.entry = e_.here();
    in_host_ = !pass;
    saved_ = pass;
    producer_ = {};
    if (count_) {
        constexpr s32 kOne = 1;
        __builtin_memcpy(count(kOffBlocksRun), &kOne, sizeof kOne);
    }
    begin_segment(items_.front());
    for (size_t i = 0; i < items_.size(); ++i) {
        const Item& first = items_[i];
        const unsigned run = stack_run(first);
        const unsigned count = std::max(run, 1U);
        const bool producer_goes = prepare_producer(first, count);
        const Item* const producer = producer_.item;
        run != 0 ? emit_stack_run(first, run) : emit_item(first);
        if (producer_goes && producer_.item == producer) producer_ = {};
        for (unsigned n = 0; n < count; ++n) {
            forget_neighbours(registers_written(items_[i + n].in));
            pass_in_group(items_[i + n]);
        }
        i += count - 1;
        const Item& item = items_[i];
        const bool last = &item == &items_.back();
        if (last || item.in.insn_class == InsnClass::Branch) end_segment(item);
        if (!last && item.in.insn_class == InsnClass::Branch) begin_segment(items_[i + 1]);
    }
    if (!ended_) direct_exit(next_rip(items_.back()), items_.back());
    const bool whole = out_.start == nullptr;  // else it is entered nowhere else
    if (whole && (second_page_ != nullptr || pass)) {
        out_.entry = e_.here();
        if (flags_count) save_and_announce();
        Emitter::patch(e_.jmp_near(), out_.entry_fresh);
    } else if (whole && flags_count) {
        out_.entry_announced = e_.here();
        attend();
        out_.entry_fresh = e_.here();
        fetch_flags();
        Emitter::patch(e_.jmp_near(), out_.entry);
    }
    emit_stubs();
    out_.stubs_end = e_.here();
}

}  // namespace tessera::soft::jit
