// Reading a block, the flags' liveness, and leaving translated code.
#include "cpu/soft/jit/translator.h"

#include "cpu/soft/jit/checker.h"
#include "cpu/soft/jit/layout.h"
#include "cpu/soft/mmu.h"
#include "cpu/soft/soft_system.h"
#include "cpu/x86/available.h"

namespace tessera::soft::jit {

namespace {

using x86::Insn;
using x86::InsnClass;
using x86::Mnemonic;
using x86::OperandKind;

constexpr u16 kAll = x86::eflags::kStatus;
constexpr unsigned kNotEqual = 5;

[[nodiscard]] u16 killed(const Insn& in) {
    switch (in.mnemonic) {
        case Mnemonic::Bt:
        case Mnemonic::Btc:
        case Mnemonic::Btr:
        case Mnemonic::Bts: return in.flags_written;  // [SDM 2A BT] ZF stays, which AMD does not promise
        default: break;
    }
    return static_cast<u16>(in.flags_written | in.flags_undefined);
}
// What leaves the block, or shows the flags to others.
[[nodiscard]] bool shows_flags(const Insn& in) {
    return in.insn_class == InsnClass::System || in.insn_class == InsnClass::XState;
}

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
        items_.push_back(item);
        while (op[1].ip == op->ip) ++op;  // an address computed before
        ++op;
    }
    // A block of nothing but what the interpreter has to do anyway.
    return !items_.empty();
}

// --- flags

// Which flags count at `rip`, as far as a few instructions tell.
u16 Translator::live_at(u64 rip, unsigned depth) const {
    constexpr unsigned kInsns = 8, kDepth = 2;
    if (strict_ || depth == kDepth) return kAll;
    const x86::FeatureLevel level = feature_level(c_.system->config().model);
    u16 live = 0, unknown = kAll;
    for (unsigned i = 0; i < kInsns; ++i) {
        if (!same_page(rip)) break;
        const u64 offset = rip - out_.page;
        // A change of what is looked at here drops the page's translations, this one among them.
        note_code(offset);
        const auto length = std::min<u64>(x86::kMaxInsnLength, kPageSize - offset);
        Insn in;
        if (x86::decode(std::span(page_.host + offset, length), c_.code_size, level, in) !=
            x86::DecodeStatus::Ok)
            break;
        if (shows_flags(in)) break;
        live |= static_cast<u16>(in.flags_read & unknown);
        unknown &= static_cast<u16>(~killed(in));
        if (unknown == 0) return live;
        rip += in.length;
        if (!wide()) rip = static_cast<u32>(rip);
        if (in.insn_class == InsnClass::Branch) {
            if (!in.is(0, OperandKind::Relative)) break;
            u64 target = rip + in.immediate;
            if (!wide()) target = static_cast<u32>(target);
            if (in.mnemonic == Mnemonic::Jmp || in.mnemonic == Mnemonic::Call) {
                rip = target;
                continue;
            }
            live |= static_cast<u16>(live_at(target, depth + 1) & unknown);
            if (live == kAll) break;
        }
    }
    return live | unknown;
}

void Translator::note_code(u64 offset) const {
    const u64 physical = page_.physical + offset;
    const MemoryRegion* region = c_.system->world().memory.find(physical);
    if (region == nullptr || region->kind != RegionKind::Ram) return;
    const auto size = static_cast<unsigned>(std::min<u64>(x86::kMaxInsnLength, kPageSize - offset));
    c_.system->mark_code(c_, *region, physical, size);
}

void Translator::analyse() {
    u16 live = kAll;
    for (size_t i = items_.size(); i-- > 0;) {
        Item& item = items_[i];
        const Insn& in = item.in;
        const bool last = i + 1 == items_.size();
        if (in.insn_class == InsnClass::Branch) {
            u16 out = 0;
            const bool falls_through =
                in.mnemonic != Mnemonic::Jmp && in.mnemonic != Mnemonic::Call && in.mnemonic != Mnemonic::Ret;
            if (falls_through) out |= last ? live_at(next_rip(item), 0) : live;
            out |= in.is(0, OperandKind::Relative) ? live_at(branch_target(item), 0) : kAll;
            live = out;
        } else if (last) {
            live = live_at(next_rip(item), 0);
        }
        item.live_out = live;
        live = static_cast<u16>((live & ~killed(in)) | in.flags_read);
        if (shows_flags(in) || strict_) live = kAll;
        item.live_in = live;
    }
}

void Translator::save_flags() {
    e_.mov(kS0, kRax);
    e_.lahf_seto();
    e_.store16(gs(kOffStatus), kRax);
    e_.mov(kRax, kS0);
    saved_ = true;
}

void Translator::restore_flags(HostReg temporary) {
    if (temporary == kNoReg)
        e_.store(slot(x86::Rax), kRax);
    else
        e_.mov(temporary, kRax);
    e_.op_rm(false, 0x0fb7, kRax, gs(kOffStatus));  // movzx eax, word
    e_.sahf_from_ax();
    if (temporary == kNoReg)
        e_.load(kRax, slot(x86::Rax));
    else
        e_.mov(kRax, temporary);
    in_host_ = true;
}

void Translator::clobber_flags(u16 live) {
    if (live != 0 && !saved_) save_flags();
    in_host_ = false;
}

void Translator::prepare_flags(const Item& item, HostReg temporary) {
    const u16 written = killed(item.in);
    const bool needs = item.in.flags_read != 0 || (written != 0 && (item.live_out & ~written) != 0);
    if (needs && !in_host_) restore_flags(temporary);
}

void Translator::flags_written(const Item& item) {
    if (killed(item.in) == 0) return;
    in_host_ = true;
    saved_ = false;
}

// --- leaving

ExitRecord& Translator::new_exit(ExitKind kind, const Item& item) {
    ExitRecord& r = jit_.new_exit();
    r.kind = kind;
    if (!count_ && kind != ExitKind::Interpret && kind != ExitKind::Indirect)  // which the interpreter counts
        r.n = static_cast<u8>(number_of(item) + (kind == ExitKind::Direct ? 1 : 0));
    r.op = item.op;
    r.from = &out_;
    return r;
}

// The interpreter is to do this instruction. `from` is where the path comes from.
ExitRecord& Translator::bail(const Item& item, u8* from, ExitKind kind) {
    ExitRecord& r = new_exit(kind, item);
    Stub stub{.kind = in_host_ && !saved_ ? Stub::Kind::Exit : Stub::Kind::ExitSaved};
    if (kind == ExitKind::Indirect) stub.kind = Stub::Kind::ExitIndirect;
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
    Stub stub{.kind = Stub::Kind::ExitSaved};
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
    r.entry = Entry::Saved;
    e_.op_rm(false, 0x81, 7, gs(user_ ? kOffExecGenUser : kOffExecGenKernel));  // cmp dword, imm32
    r.stamp = e_.here();
    e_.put32(~u32{0});
    r.mismatch = e_.jcc_near(kNotEqual);
    linked_jump(r, Stub::Kind::ExitSaved);
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
        if (!saved_) save_flags();
        in_host_ = false;
        other_page_exit(r);
    }
    return &r;
}

void Translator::emit_stubs() {
    out_.end = e_.here();
    e_.move_to(jit_.stubs_at_);
    out_.stubs = e_.here();
    // First those that lead to others.
    for (const Stub& stub : stubs_) {
        if (stub.kind != Stub::Kind::Refill) continue;
        e_.bind(stub.from[0]);
        if (count_) e_.alu_mem_imm(Alu::Add, true, gs(kOffSlotsMissed), 1);
        stub.address.disp == 0 ? e_.mov(kS1, static_cast<HostReg>(stub.address.base))
                               : e_.lea(kS1, stub.address);
        e_.mov_imm(kS0, reinterpret_cast<u64>(stub.slot) | (stub.size - 1));
        Emitter::patch(e_.call_near(), jit_.thunk_.refill[user_][stub.write]);
        stubs_[stub.missed].add(e_.jcc_near(5));
        Emitter::patch(e_.jmp_near(), stub.back);
    }
    for (size_t i = 0; i < stubs_.size(); ++i) {
        Stub stub = stubs_[i];
        if (stub.kind == Stub::Kind::Refill) continue;
        for (unsigned k = 0; k < stub.count; ++k) e_.bind(stub.from[k]);
        switch (stub.kind) {
            case Stub::Kind::CallOp:
                call_op(stub.op, false);
                for (unsigned n = 1; n <= stub.more; ++n) call_op(stub.item[n].op, false);
                Emitter::patch(e_.jmp_near(), stub.back);
                break;
            case Stub::Kind::Exit:
            case Stub::Kind::ExitSaved:
            case Stub::Kind::ExitIndirect:
                if (stub.link) stub.exit->unlinked = e_.here();
                if (stub.link && stub.exit->mismatch != nullptr) e_.bind(stub.exit->mismatch);
                e_.mov_imm(kS1, reinterpret_cast<u64>(stub.exit));
                Emitter::patch(e_.jmp_near(), stub.kind == Stub::Kind::Exit ? jit_.thunk_.exit
                                              : stub.kind == Stub::Kind::ExitSaved
                                                  ? jit_.thunk_.exit_saved
                                                  : jit_.thunk_.exit_indirect);
                break;
            case Stub::Kind::OtherMapping:
                stub.exit->other_mapping = e_.here();
                e_.mov_imm(kS0, stub.exit->target);
                e_.mov_imm(kS1, reinterpret_cast<u64>(stub.exit));
                Emitter::patch(e_.jmp_near(), jit_.thunk_.find_target);
                break;
            case Stub::Kind::Refill: break;
            case Stub::Kind::LoadVectors:
            case Stub::Kind::LoadX87: {
                e_.test_mem32(gs(kOffFpTraps), stub.traps);
                in_host_ = false;
                saved_ = true;  // or they do not count
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
}

// A block with an instruction across two pages is good as long as the second is where it was.
void Translator::check_second_page() {
    e_.op_rm(false, 0x81, 7, gs(user_ ? kOffExecGenUser : kOffExecGenKernel));  // cmp dword, imm32
    in_host_ = false;
    saved_ = true;
    u8* stamp = e_.here();
    e_.put32(~u32{0});
    ExitRecord& r = bail(items_.front(), e_.jcc_near(kNotEqual));
    r.op = second_page_;
    r.stamp = stamp;
    out_.second_page = &r;
}

void Translator::emit() {
    constexpr unsigned kAlign = 16;
    e_.align(kAlign);
    const bool flags_count = items_.front().live_in != 0;
    if (second_page_ != nullptr) {
        out_.entry_attended = e_.here();
        if (flags_count) save_flags();
        out_.entry_saved = e_.here();
        attend();
        out_.entry_fresh = e_.here();
        check_second_page();
        if (flags_count) restore_flags(kS0);
    } else if (flags_count) {
        out_.entry_attended = e_.here();
        attend_keeping_flags();
    } else {
        out_.entry_attended = out_.entry_saved = e_.here();
        attend();
        out_.entry_fresh = e_.here();
    }
    out_.entry = e_.here();
    in_host_ = true;
    saved_ = false;
    if (count_) {
        constexpr s32 kOne = 1;
        __builtin_memcpy(count(kOffBlocksRun), &kOne, sizeof kOne);
    }
    begin_segment(items_.front());
    for (size_t i = 0; i < items_.size(); ++i) {
        const Item& first = items_[i];
        if (const unsigned count = stack_run(first); count != 0) {
            emit_stack_run(first, count);
            i += count - 1;
        } else {
            emit_item(first);
        }
        const Item& item = items_[i];
        const bool last = &item == &items_.back();
        if (last || item.in.insn_class == InsnClass::Branch) end_segment(item);
        if (!last && item.in.insn_class == InsnClass::Branch) begin_segment(items_[i + 1]);
    }
    if (!ended_) direct_exit(next_rip(items_.back()), items_.back());
    if (second_page_ != nullptr) {
        out_.entry = e_.here();
        if (flags_count) save_flags();
        Emitter::patch(e_.jmp_near(), out_.entry_fresh);
    } else if (flags_count) {
        out_.entry_saved = e_.here();
        attend();
        out_.entry_fresh = e_.here();
        restore_flags(kS0);
        Emitter::patch(e_.jmp_near(), out_.entry);
    }
    emit_stubs();
    out_.stubs_end = e_.here();
}

}  // namespace tessera::soft::jit
