// One check of the stack's page for many accesses by way of RSP.
//
// What a block reads and writes at known distances from where RSP is at the first of these accesses is a
// group: the first access looks up the page of all bytes from the lowest to the highest, and the others take
// the addend from its slot. Where they are not all on one page that is known, the rest of the block is run by
// another translation, which has no groups (Translation::start).
//
// A slot of groups changes only where a group begins. It is emptied by what the interpreter's handlers and
// other CPUs do, hence behind every call of a handler in the middle of a group it is looked at again.
#include <algorithm>

#include "cpu/soft/jit/layout.h"
#include "cpu/soft/jit/translator.h"

namespace tessera::soft::jit {

using x86::Insn;
using x86::InsnClass;
using x86::Mnemonic;
using x86::OperandKind;

namespace {

constexpr unsigned kWord = 8;
constexpr unsigned kNotZero = 5, kAboveOrEqual = 3;

[[nodiscard]] bool is_rsp(const Insn& in, unsigned operand) {
    return in.is(operand, OperandKind::Gpr) && in.operand[operand].reg == x86::Rsp;
}

// Whether RSP is after it what it was: only of what is known not to change it.
[[nodiscard]] bool leaves_stack_alone(const Insn& in) {
    switch (in.mnemonic) {
        case Mnemonic::Jcc:
        case Mnemonic::Jmp:
        case Mnemonic::Nop:
        case Mnemonic::Div:
        case Mnemonic::Idiv: return true;
        case Mnemonic::Lea: return !is_rsp(in, 0);
        default: return is_copyable(in) && (registers_of(in, written_operands(in)) & bit_of(x86::Rsp)) == 0;
    }
}

}  // namespace

Translator::StackUse Translator::stack_use(const Item& item) {
    const Insn& in = item.in;
    const bool word = in.operand_size == kWord;
    const StackUse unknown{.moves = StackUse::Moves::Unknown};
    const auto moved = [](s64 by) { return StackUse{.moves = StackUse::Moves::ByNumber, .by = by}; };
    const auto at_top = [](bool push) {
        constexpr s64 kBytes = kWord;
        return StackUse{.moves = StackUse::Moves::ByNumber,
                        .write = push,
                        .size = kWord,
                        .offset = push ? -kBytes : 0,
                        .by = push ? -kBytes : kBytes};
    };
    if (Jit::is_undefined(item.op)) return unknown;
    switch (in.mnemonic) {
        case Mnemonic::Push:
        case Mnemonic::Call: return word ? at_top(true) : unknown;
        case Mnemonic::Ret: return word ? at_top(false) : unknown;
        case Mnemonic::Pop:
            return word && in.is(0, OperandKind::Gpr) && !is_rsp(in, 0) ? at_top(false) : unknown;
        case Mnemonic::Add:
        case Mnemonic::Sub:
            if (!is_rsp(in, 0)) break;
            if (!word || !in.is(1, OperandKind::Immediate)) return unknown;
            return moved(in.mnemonic == Mnemonic::Add ? static_cast<s32>(in.immediate)
                                                      : -s64{static_cast<s32>(in.immediate)});
        case Mnemonic::Lea:
            if (!is_rsp(in, 0)) break;
            if (!word || in.base != x86::Rsp || in.index != x86::kNoRegister || in.address_size != kWord)
                return unknown;
            return moved(static_cast<s32>(in.displacement));
        default: break;
    }
    if (!leaves_stack_alone(in)) return unknown;
    const MemoryUse use = memory_use(in);
    const bool by_base = in.segment == x86::Fs || in.segment == x86::Gs;
    if (!use.used || use.aligned || by_base || !is_copyable(in) || in.base != x86::Rsp ||
        in.index != x86::kNoRegister || in.address_size != kWord)
        return {};
    return {.write = use.write, .size = use.size, .offset = static_cast<s32>(in.displacement)};
}

// What begins with this item's access of `size` bytes.
Translator::StackGroup Translator::find_group(const Item& first, s32 offset, unsigned size) const {
    StackGroup group{.low = offset, .high = offset + s64{size}};
    s64 moved = 0;
    for (auto i = static_cast<size_t>(number_of(first)); i < items_.size(); ++i) {
        const StackUse& use = items_[i].stack;
        if (use.size != 0) {
            const s64 low = std::min(group.low, moved + use.offset);
            const s64 high = std::max(group.high, moved + use.offset + use.size);
            if (high - low > s64{Jit::kLargestGroup}) break;
            group.low = low;
            group.high = high;
            group.write |= use.write;
            group.bytes += use.size;
            group.last = static_cast<int>(i);
        }
        if (use.moves == StackUse::Moves::Unknown) break;
        moved += use.by;
    }
    return group;
}

std::optional<Translator::Checked> Translator::by_group(const Item& item, s32 offset, unsigned size) {
    // 32-bit code would have to cut its addresses off. To translate twice takes a block's own check.
    if (!wide() || out_.start != nullptr) return std::nullopt;
    const Mem place{.base = kGuestRsp, .index = kS1, .disp = offset};
    const s64 low = group_.moved + offset;
    if (group_.slot != nullptr && low >= group_.low && low + size <= group_.high &&
        number_of(item) <= group_.last) {
        clobber_flags(item.live_in);
        stubs_.push_back({.kind = Stub::Kind::None});
        ++segment_.accesses;
        slot_op(0x8b, &group_.slot->addend);  // mov
        return Checked{place, stubs_.size() - 1, true};
    }
    group_ = {};
    // Its first access has to be looked up before anything that may have a handler do the whole instruction.
    const bool pushes_memory = item.in.mnemonic == Mnemonic::Push && item.in.is(0, OperandKind::Memory);
    // So that the distances of the others are numbers of an instruction too.
    constexpr s32 kFurthest = 1 << 30;
    if (pushes_memory || offset < -kFurthest || offset > kFurthest) return std::nullopt;
    StackGroup group = find_group(item, offset, size);
    if (group.bytes <= size) return std::nullopt;
    clobber_flags(item.live_in);
    const auto extent = static_cast<unsigned>(group.high - group.low);
    group.slot = jit_.group_slot(user_, group.write, extent);
    group_ = group;
    Stub apart{.kind = Stub::Kind::Apart, .item = &item, .flags = to_repeat(item)};
    apart.exit = &new_exit(ExitKind::Apart, item);
    apart.exit->entry = Entry::Fresh;
    stubs_.push_back(apart);
    ++segment_.accesses;
    const Mem lowest{.base = kGuestRsp, .disp = static_cast<s32>(group_.low)};
    e_.lea(kS1, lowest);
    slot_op(0x2b, &group_.slot->page);   // sub
    slot_op(0x3b, &group_.slot->limit);  // cmp
    Stub refill{.kind = Stub::Kind::RefillGroup};
    refill.add(e_.jcc_near(kAboveOrEqual));
    slot_op(0x8b, &group_.slot->addend);  // mov
    refill.back = e_.here();
    refill.slot = group_.slot;
    refill.address = lowest;
    refill.size = extent;
    refill.write = group_.write;
    refill.missed = stubs_.size() - 1;
    stubs_.push_back(refill);
    return Checked{place, refill.missed, true};
}

void Translator::pass_in_group(const Item& item) {
    if (group_.slot == nullptr) return;
    if (item.stack.moves == StackUse::Moves::Unknown || number_of(item) >= group_.last)
        group_ = {};
    else
        group_.moved += item.stack.by;
}

void Translator::emit_group_refill(const Stub& stub) {
    constexpr unsigned kLogPage = 12;
    e_.bind(stub.from[0]);
    if (count_) e_.alu_mem_imm(Alu::Add, true, gs(kOffSlotsMissed), 1);
    if (stub.keep_s0) e_.store(gs(kOffTarget), kS0);
    const Mem highest{.base = kGuestRsp,
                      .disp = static_cast<s32>(stub.address.disp + static_cast<s64>(stub.size) - 1)};
    e_.lea(kS0, highest);
    e_.lea(kS1, stub.address);
    e_.alu(Alu::Xor, true, kS0, kS1);
    e_.shr_imm(true, kS0, kLogPage);
    Stub& apart = stubs_[stub.missed];
    apart.add(e_.jcc_near(kNotZero));
    e_.mov_imm(kS0, reinterpret_cast<u64>(stub.slot));  // and of one byte
    Emitter::patch(e_.call_near(), jit_.thunk_.refill[user_][stub.write]);
    apart.add(e_.jcc_near(kNotZero));
    // It may not be for slots.
    slot_op(0x3b, &stub.slot->addend);  // cmp
    apart.add(e_.jcc_near(kNotZero));
    if (stub.keep_s0) e_.load(kS0, gs(kOffTarget));
    Emitter::patch(e_.jmp_near(), stub.back);
}

// The exit is linked to the translation that goes on without groups, once there is one.
void Translator::emit_apart(const Stub& stub) {
    if (count_) {
        // The other translation counts them again.
        const Item* last = stub.item;
        while (last != &items_.back() && last->in.insn_class != InsnClass::Branch) ++last;
        e_.alu_mem_imm(Alu::Sub, true, gs(kOffInstructions), static_cast<s32>(last - stub.item) + 1);
    }
    e_.mov_imm(kS0, jit_.offset_of(jit_.thunk_.flags_from_status));
    if (stub.flags) announced_.push_back({e_.here() - sizeof(u32), stub.flags});
    stub.exit->jump = e_.jmp_near();
    e_.bind(stub.exit->jump);
    stub.exit->unlinked = e_.here();
    e_.mov_imm(kS1, reinterpret_cast<u64>(stub.exit));
    Emitter::patch(e_.jmp_near(), jit_.thunk_.exit_announced);
}

// Behind a handler's call: the block goes on if the group's slot is still filled.
void Translator::come_back_to_group(const Stub& stub) {
    ExitRecord& exit = new_exit(ExitKind::Interpret, stub.item[1]);
    e_.mov(kS0, kRcx);
    e_.op_rip(true, 0x8b, kRcx, reinterpret_cast<const u8*>(&stub.group->limit) - jit_.code_->to_run());
    u8* const emptied = e_.jrcxz_short();
    e_.mov(kRcx, kS0);
    Emitter::patch(e_.jmp_near(), stub.back);
    e_.bind_short(emptied);
    e_.mov(kRcx, kS0);
    e_.mov_imm(kS1, reinterpret_cast<u64>(&exit));
    Emitter::patch(e_.jmp_near(), jit_.thunk_.exit_saved);
}

}  // namespace tessera::soft::jit
