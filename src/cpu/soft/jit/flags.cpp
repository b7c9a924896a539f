// Status flags in translated code: which count, and where they are.
//
// The host's flags are overwritten by every check of a memory access. What they were can mostly be had again
// from registers, by repeating the instruction that made them; else they are saved in Vcpu::status before. A
// block that is left for another page, or by an indirect branch, announces code that brings them back
// in S0: the next block calls that if it needs them, which is rare.
#include <algorithm>

#include "cpu/soft/jit/layout.h"
#include "cpu/soft/jit/translator.h"
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

// --- where they are

namespace {

constexpr unsigned kBothOperands = 3;  // bits 0 and 1

}  // namespace

// Whether its flags can be had again from registers of the host, as long as these stay: by comparing again,
// by testing the result, or by taking the sum apart and adding again.
bool Translator::can_repeat(const Insn& in) const {
    if (in.operand_count != 2 || !in.is(0, OperandKind::Gpr)) return false;
    if (!in.is(1, OperandKind::Gpr) && !in.is(1, OperandKind::Immediate)) return false;
    for (unsigned guest = 0; guest < 16; ++guest)
        if ((registers_of(in, kBothOperands) & bit_of(guest)) != 0 && host_of(guest) == kNoReg) return false;
    const bool whole = in.operand_size >= 4;
    switch (in.mnemonic) {
        case Mnemonic::Cmp:
        case Mnemonic::Test: return can_reencode(in, operands_in_host(in));
        case Mnemonic::And:
        case Mnemonic::Or:
        case Mnemonic::Xor: return whole;
        case Mnemonic::Add:
        case Mnemonic::Sub:
            return whole && (!in.is(1, OperandKind::Gpr) || in.operand[0].reg != in.operand[1].reg);
        default: return false;
    }
}

Operands Translator::operands_in_host(const Insn& in) {
    const Places places = places_of(in);
    Operands to;
    to.reg = places.reg && !places.reg_high ? static_cast<u8>(host_of(places.reg_number)) : places.reg_number;
    to.rm = places.rm && !places.rm_high ? static_cast<u8>(host_of(places.rm_number)) : places.rm_number;
    return to;
}

void Translator::repeat(const Repeat& flags) {
    const Item& item = *flags.item;
    const Insn& in = item.in;
    const HostReg to = host_of(in.operand[0].reg);
    const bool wide_op = in.operand_size == 8;
    const auto again = [&](Alu op) {
        if (in.is(1, OperandKind::Gpr))
            e_.alu(op, wide_op, to, host_of(in.operand[1].reg));
        else
            e_.alu_imm(op, wide_op, to, static_cast<s32>(in.immediate));
    };
    const bool moved = flags.stack_moved != 0 && (registers_of(in, kBothOperands) & bit_of(x86::Rsp)) != 0;
    if (moved) add_to_stack_pointer(-flags.stack_moved);
    switch (in.mnemonic) {
        case Mnemonic::Add: again(Alu::Sub), again(Alu::Add); break;
        case Mnemonic::Sub: again(Alu::Add), again(Alu::Sub); break;
        case Mnemonic::And:
        case Mnemonic::Or:
        case Mnemonic::Xor: e_.test(wide_op, to, to); break;
        default: reencode(e_, in, item.bytes.data(), operands_in_host(in)); break;
    }
    if (moved) add_to_stack_pointer(flags.stack_moved);
}

void Translator::bring_to_host() {
    if (in_host_ || saved_ || !producer_) return;
    repeat(producer_);
    in_host_ = true;
}

void Translator::save_flags() {
    bring_to_host();
    e_.mov(kS0, kRax);
    e_.lahf_seto();
    e_.store16(gs(kOffStatus), kRax);
    e_.mov(kRax, kS0);
    saved_ = true;
}

void Translator::restore_flags(HostReg temporary) {
    in_host_ = true;
    if (producer_) {
        repeat(producer_);
        return;
    }
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
}

void Translator::keep_flags() {
    if (!saved_ && !producer_) save_flags();
}

void Translator::clobber_flags(u16 live) {
    if (live != 0) keep_flags();
    in_host_ = false;
}

Translator::Repeat Translator::to_repeat(const Item& item) const {
    return item.live_in != 0 && !saved_ && !in_host_ ? producer_ : Repeat{};
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
    producer_ = {};
    if (can_repeat(item.in)) producer_.item = &item;
}

bool Translator::prepare_producer(const Item& first, unsigned count) {
    if (!producer_) return false;
    const Item* const end = &first + count;
    u16 written = 0;
    for (const Item* item = &first; item != end; ++item) written |= registers_written(item->in);
    if ((written & registers_of(producer_.item->in, kBothOperands)) == 0) return false;
    // While the last of them is executed the registers are still as they were.
    const Item& last = end[-1];
    if ((last.live_out & ~killed(last.in)) == 0) return true;
    bring_to_host();
    producer_ = {};
    return false;
}

void Translator::announce_flags() {
    e_.mov_imm(kS0, jit_.offset_of(jit_.thunk_.flags_from_status));
    if (!saved_) announced_.push_back({e_.here() - sizeof(u32), producer_});
}

// Where a block is entered from who announced.
void Translator::fetch_flags() {
    e_.alu(Alu::Add, true, kS0, gs(kOffCodeBegin));
    e_.call(kS0);
}

void Translator::save_and_announce() {
    in_host_ = true;
    saved_ = false;
    save_flags();
    announce_flags();
}

// A block that does nothing with the flags has them in Vcpu::status all the time, and leaves it at that.
bool Translator::flags_pass_through() const {
    return std::ranges::none_of(
        items_, [](const Item& item) { return item.in.flags_read != 0 || killed(item.in) != 0; });
}

void Translator::bring_to_status() {
    constexpr unsigned kNotEqual = 5;
    e_.alu_imm(Alu::Cmp, false, kS0, static_cast<s32>(jit_.offset_of(jit_.thunk_.flags_from_status)));
    Stub stub{.kind = Stub::Kind::ToStatus};
    stub.add(e_.jcc_near(kNotEqual));
    stub.back = e_.here();
    stubs_.push_back(stub);
}

}  // namespace tessera::soft::jit
