// Host code for pushes, pops and their like.
#include "cpu/soft/jit/layout.h"
#include "cpu/soft/jit/translator.h"

namespace tessera::soft::jit {

using x86::Insn;
using x86::Mnemonic;
using x86::OperandKind;

// S0, which looking up the stack's page needs, as it does S1.
Translator::Checked Translator::store_below_stack(const Item& item, unsigned size) {
    e_.store(slot(kTempSlot), kS0);
    const Checked at = check_stack(item, -static_cast<s32>(size), size, true, false);
    Mem to = at.m;
    if (!at.s0_free) {
        e_.lea(kS1, at.m);
        to = {.base = kS1};
    }
    e_.load(kS0, slot(kTempSlot));
    e_.op_rm(size == 8, 0x89, kS0, to);
    return at;
}

bool Translator::emit_push(const Item& item) {
    const Insn& in = item.in;
    const unsigned size = in.operand_size;
    if (size != (wide() ? 8 : 4)) return false;
    std::optional<Checked> source;
    if (in.is(0, OperandKind::Memory)) {
        if (in.address_size == 2) return false;
        source = check(item, memory_use(in), false);
        if (!source) return false;
        e_.op_rm(size == 8, 0x8b, kS0, source->m);
    }
    const Checked at = source ? store_below_stack(item, size)
                              : check_stack(item, -static_cast<s32>(size), size, true, false);
    if (in.is(0, OperandKind::Immediate)) {
        const auto value = static_cast<s32>(in.immediate);
        size == 8 ? e_.store_imm(at.m, value) : e_.store_imm32(at.m, static_cast<u32>(value));
    } else if (!source) {
        HostReg from = host_of(in.operand[0].reg);
        if (from == kNoReg) e_.load(from = kS0, slot(in.operand[0].reg));
        e_.op_rm(size == 8, 0x89, from, at.m);
    }
    move_stack(-static_cast<s32>(size));
    come_back(at.stub);
    if (source) come_back(source->stub);
    return true;
}

unsigned Translator::stack_run(const Item& first) const {
    constexpr unsigned kWord = 8;
    constexpr unsigned kMost = sizeof(Slot) / kWord;  // what the stack's slots are for
    if (!wide()) return 0;
    const auto fits = [&](const Item& item) {
        const Insn& in = item.in;
        return in.mnemonic == first.in.mnemonic && in.operand_size == kWord && in.is(0, OperandKind::Gpr) &&
               in.operand[0].reg != x86::Rsp && !Jit::is_undefined(item.op);
    };
    if (first.in.mnemonic != Mnemonic::Push && first.in.mnemonic != Mnemonic::Pop) return 0;
    unsigned count = 0;
    const Item* const end = items_.data() + items_.size();
    for (const Item* item = &first; item != end && count < kMost && fits(*item); ++item) ++count;
    return count < 2 ? 0 : count;
}

void Translator::emit_stack_run(const Item& first, unsigned count) {
    constexpr s32 kWord = 8;
    const bool push = first.in.mnemonic == Mnemonic::Push;
    const s32 bytes = static_cast<s32>(count) * kWord;
    const Checked at = check_stack(first, push ? -bytes : 0, static_cast<unsigned>(bytes), push, false);
    stubs_[at.stub].item = &first;
    stubs_[at.stub].more = count - 1;
    s32 offset = push ? 0 : -kWord;
    for (const Item* item = &first; item != &first + count; ++item) {
        offset += push ? -kWord : kWord;
        const Mem word{.base = at.m.base, .index = at.m.index, .disp = offset};
        const unsigned guest = item->in.operand[0].reg;
        const HostReg host = result_register(guest);
        if (push) {
            if (host == kS0) e_.load(kS0, slot(guest));
            e_.store(word, host);
        } else {
            e_.load(host, word);
            store_result(guest);
        }
    }
    move_stack(push ? -bytes : bytes);
    come_back(at.stub);
}

bool Translator::emit_pushf(const Item& item) {
    const unsigned size = item.in.operand_size;
    if (size != (wide() ? 8 : 4)) return false;
    if (!saved_) save_flags();
    // AL of what is saved is OF, AH is the low byte of the flags.
    constexpr unsigned kOverflowBit = 11;
    e_.op_rm(false, 0x0fb6, kS0, gs(kOffStatus + 1));
    e_.op_rm(false, 0x0fb6, kS1, gs(kOffStatus));
    e_.shl_imm(false, kS1, kOverflowBit);
    e_.alu(Alu::Or, false, kS0, kS1);
    e_.load(kS1, gs(kOffEflags));
    e_.alu_imm(Alu::And, true, kS1, ~static_cast<s32>(x86::eflags::kVm | x86::eflags::kRf));
    e_.alu(Alu::Or, true, kS0, kS1);
    const Checked at = store_below_stack(item, size);
    move_stack(-static_cast<s32>(size));
    come_back(at.stub);
    return true;
}

bool Translator::emit_pop(const Item& item) {
    const Insn& in = item.in;
    const unsigned size = in.operand_size;
    if (size != (wide() ? 8 : 4) || !in.is(0, OperandKind::Gpr)) return false;
    const Checked at = check_stack(item, 0, size, false, false);
    const HostReg to = host_of(in.operand[0].reg);
    e_.op_rm(size == 8, 0x8b, to == kNoReg ? kS0 : to, at.m);
    if (to != kGuestRsp) move_stack(static_cast<s32>(size));
    if (to == kNoReg) e_.store(slot(in.operand[0].reg), kS0);
    come_back(at.stub);
    return true;
}

bool Translator::emit_leave(const Item& item) {
    const unsigned size = item.in.operand_size;
    if (size != (wide() ? 8 : 4)) return false;
    clobber_flags(item.live_in);
    const size_t stub = cold_path(item, false);
    wide() ? e_.mov(kS0, kRbp) : e_.mov32(kS0, kRbp);
    e_.mov(kS1, kS0);
    find_page(stub, jit_.new_slot(size), {.base = kS0}, size, false, false);
    const Mem above{.base = kS0, .disp = static_cast<s32>(size)};
    wide() ? e_.lea(kGuestRsp, above) : e_.lea32(kGuestRsp, above);
    e_.op_rm(size == 8, 0x8b, kRbp, {.base = kS0, .index = kS1});
    come_back(stub);
    return true;
}

}  // namespace tessera::soft::jit
