// Host code for near branches. What has to fault, or has an odd operand size, is left to the interpreter.
#include "cpu/soft/jit/layout.h"
#include "cpu/soft/jit/translator.h"
#include "cpu/soft/mmu.h"

namespace tessera::soft::jit {

namespace {

using x86::Insn;
using x86::InsnFlag;
using x86::Mnemonic;
using x86::OperandKind;

constexpr unsigned kNotEqual = 5;

}  // namespace

void emit_find_target(Emitter& e) {
    // TargetSet::index_of without its shift, which the size of an entry undoes.
    static_assert(sizeof(TargetEntry) == 1 << TargetSet::kHashShift);
    e.op_rr(false, 0x6b, kS1, kS0);  // imul r32, r32, imm8
    e.put8(TargetSet::kHashFactor);
    e.alu_imm(Alu::And, false, kS1, (kTargetEntries - 1) << TargetSet::kHashShift);
    e.alu(Alu::Add, true, kS1, Mem{.disp = static_cast<s32>(kOffTargets), .gs = true});
    e.alu(Alu::Cmp, true, kS0, {.base = kS1});
}

void Translator::emit_branch(const Item& item) {
    const Insn& in = item.in;
    const unsigned natural = wide() ? 8 : 4;
    if (in.operand_size != natural) {
        bail(item, e_.jmp_near());
        ended_ = true;
        return;
    }
    switch (in.mnemonic) {
        case Mnemonic::Jcc: emit_jcc(item); return;
        case Mnemonic::Loop:
        case Mnemonic::Loope:
        case Mnemonic::Loopne:
        case Mnemonic::Jcxz: emit_loop(item); return;
        case Mnemonic::Ret: emit_ret(item); break;
        case Mnemonic::Call: in.is(0, OperandKind::Relative) ? emit_call(item) : emit_indirect(item); break;
        default:
            if (in.is(0, OperandKind::Relative))
                direct_exit(branch_target(item), item);
            else
                emit_indirect(item);
            break;
    }
    ended_ = true;
}

void Translator::emit_jcc(const Item& item) {
    if (!in_host_) restore_flags(kS0);
    const u64 target = branch_target(item);
    if (same_page(target)) {
        ExitRecord& r = new_exit(ExitKind::Direct, item);
        r.target = target;
        r.entry = target <= item.rip ? Entry::Attended : Entry::Plain;
        Stub stub{.kind = Stub::Kind::Exit};
        stub.add(r.jump = e_.jcc_near(item.in.condition));
        stub.exit = &r;
        stub.link = true;
        stubs_.push_back(stub);
        return;
    }
    u8* not_taken = e_.jcc_near(item.in.condition ^ 1U);
    const bool saved = saved_;
    direct_exit(target, item);
    e_.bind(not_taken);
    in_host_ = true;
    saved_ = saved;
}

// The host's own instruction decides: none of them writes flags.
void Translator::emit_loop(const Item& item) {
    const Insn& in = item.in;
    const bool equal = in.mnemonic == Mnemonic::Loope || in.mnemonic == Mnemonic::Loopne;
    if (in.address_size == 2 || (equal && (in.has(InsnFlag::Rep) || in.has(InsnFlag::Repne)))) {
        bail(item, e_.jmp_near());
        ended_ = true;
        return;
    }
    if (in.flags_read != 0 && !in_host_) restore_flags(kS0);
    if (in.address_size == 4) e_.put8(0x67);
    e_.put8(in.opcode);
    e_.put8(5);  // over the jump
    u8* not_taken = e_.jmp_near();
    const bool saved = saved_;
    const bool in_host = in_host_;
    direct_exit(branch_target(item), item);
    e_.bind(not_taken);
    in_host_ = in_host;
    saved_ = saved;
}

// S0: the target. Goes on with S1: its entry in the target cache.
void Translator::find_target(const Item& item) {
    emit_find_target(e_);
    bail(item, e_.jcc_near(kNotEqual), ExitKind::Indirect);
}

void Translator::emit_ret(const Item& item) {
    const Insn& in = item.in;
    const unsigned size = in.operand_size;
    keep_flags();
    const Checked at = check_stack(item, 0, size, false, true);
    e_.op_rm(size == 8, 0x8b, kS0, at.m);
    find_target(item);
    move_stack(static_cast<s32>(size + (in.operand_count != 0 ? in.immediate & 0xffff : 0)));
    announce_flags();
    e_.jmp(Mem{.base = kS1, .disp = 8});
}

void Translator::add_to_stack_pointer(s32 bytes) {
    const Mem there{.base = kGuestRsp, .disp = bytes};
    wide() ? e_.lea(kGuestRsp, there) : e_.lea32(kGuestRsp, there);
}

void Translator::move_stack(s32 bytes) {
    add_to_stack_pointer(bytes);
    producer_.stack_moved += bytes;
}

void Translator::emit_call(const Item& item) {
    if (wide() && !is_canonical(branch_target(item))) {
        bail(item, e_.jmp_near());  // #GP
        return;
    }
    push_return_address(item);
    direct_exit(branch_target(item), item);
}

bool Translator::push_keeps_s0(const Item& item) const {
    const u64 back = next_rip(item);
    return wide() && static_cast<u64>(static_cast<s64>(static_cast<s32>(back))) == back;
}

void Translator::push_return_address(const Item& item) {
    const unsigned size = item.in.operand_size;
    const u64 back = next_rip(item);
    const Checked at = check_stack(item, -static_cast<s32>(size), size, true, true);
    if (push_keeps_s0(item)) stubs_.back().keep_s0 = true;
    if (size == 4) {
        e_.store_imm32(at.m, static_cast<u32>(back));
    } else if (push_keeps_s0(item)) {
        e_.store_imm(at.m, static_cast<s32>(back));
    } else {
        e_.mov_imm(kS0, back);
        e_.store(at.m, kS0);
    }
    move_stack(-static_cast<s32>(size));
}

void Translator::emit_indirect(const Item& item) {
    const Insn& in = item.in;
    const unsigned size = in.operand_size;
    const bool call = in.mnemonic == Mnemonic::Call;
    if (in.address_size == 2) {
        bail(item, e_.jmp_near());
        return;
    }
    keep_flags();
    if (in.is(0, OperandKind::Memory)) {
        const auto at = check(item, memory_use(in), true);
        if (!at) {
            bail(item, e_.jmp_near());
            return;
        }
        e_.op_rm(size == 8, 0x8b, kS0, at->m);
    } else if (const HostReg from = host_of(in.operand[0].reg); from != kNoReg) {
        e_.op_rr(size == 8, 0x8b, kS0, from);
    } else {
        e_.op_rm(size == 8, 0x8b, kS0, slot(in.operand[0].reg));
    }
    in_host_ = false;
    find_target(item);
    if (!call) {
        announce_flags();
        e_.jmp(Mem{.base = kS1, .disp = 8});
        return;
    }
    e_.load(kS0, {.base = kS1, .disp = 8});
    if (push_keeps_s0(item)) {
        push_return_address(item);
        e_.mov(kS1, kS0);
        announce_flags();
        e_.jmp(kS1);
        return;
    }
    const Mem code = gs(kOffTarget);
    e_.store(code, kS0);
    push_return_address(item);
    announce_flags();
    e_.jmp(code);
}

}  // namespace tessera::soft::jit
