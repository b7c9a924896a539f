// Near branches. Direct ones inside a page are linked block to block the second time they are taken.
#include "cpu/soft/access.h"
#include "cpu/soft/conditions.h"
#include "cpu/soft/exec.h"
#include "cpu/soft/lower.h"

namespace tessera::soft {

namespace {

// A direct branch's op: disp is the distance from the next instruction, imm the linked target op, r3 the
// operand size.
[[nodiscard]] const Op* link_of(const Op* op) {
    return reinterpret_cast<const Op*>(op->imm);  // NOLINT(performance-no-int-to-ptr)
}

// The 16-bit operand size cuts the target to IP.
[[nodiscard]] u64 direct_target(const Vcpu& c, const Op* op) {
    const u64 rip = c.reg[kRipSlot] + op->ip + op->len + static_cast<u64>(static_cast<s64>(op->disp));
    if (op->r3 == 2) return static_cast<u16>(rip);
    return (op->flags & kLongMode) != 0 ? rip : static_cast<u32>(rip);
}

// Takes a direct branch that is not linked yet; links it when the target is in the same page and known.
TESSERA_HANDLER void take_unlinked(Vcpu& c, const Op* op) {
    c.cur = op;
    const u64 rip = direct_target(c, op);
    check_branch_target(c, rip);
    c.instructions += op->n;
    c.rip = rip;
    const u64 page = c.reg[kRipSlot];
    // GAP: a linked branch does not notice that its page is later run through a CS with a lower limit.
    const bool linkable = c.attention.load(std::memory_order_relaxed) == 0 && rip - page < kPageSize;
    if (linkable) const_cast<Op*>(op)->imm = reinterpret_cast<u64>(known_block(c, rip).ops);
    TESSERA_MUSTTAIL return continue_at_rip(c, op);
}

TESSERA_HANDLER inline void take_direct(Vcpu& c, const Op* op) {
    const Op* target = link_of(op);
    if (target == nullptr || c.attention.load(std::memory_order_relaxed) != 0) [[unlikely]]
        TESSERA_MUSTTAIL return take_unlinked(c, op);
    c.instructions += op->n;
    TESSERA_MUSTTAIL return target->fn(c, target);
}

TESSERA_HANDLER void run_jmp(Vcpu& c, const Op* op) {
    TESSERA_MUSTTAIL return take_direct(c, op);
}

template <u8 Condition>
TESSERA_HANDLER void run_jcc(Vcpu& c, const Op* op) {
    if (!condition<Condition>(c)) TESSERA_NEXT(c, op);
    TESSERA_MUSTTAIL return take_direct(c, op);
}

// --- stack pushes and pops of a return address

template <typename T>
void push_address(Vcpu& c, const Op* op, u64 value) {
    u64& rsp = c.reg[x86::Rsp];
    if ((op->flags & kLongMode) != 0) [[likely]] {
        store<T>(c, rsp - sizeof(T), static_cast<T>(value), x86::Ss);
        rsp -= sizeof(T);
        return;
    }
    const u64 offset = (rsp - sizeof(T)) & c.sp_mask;
    store<T>(c, linear_of(c, x86::Ss, offset, sizeof(T), Access::Write), static_cast<T>(value), x86::Ss);
    rsp = (rsp & ~c.sp_mask) | offset;
}

template <typename T>
[[nodiscard]] T peek_address(Vcpu& c, const Op* op) {
    const u64 rsp = c.reg[x86::Rsp];
    if ((op->flags & kLongMode) != 0) [[likely]]
        return load<T>(c, rsp, x86::Ss);
    return load<T>(c, linear_of(c, x86::Ss, rsp & c.sp_mask, sizeof(T), Access::Read), x86::Ss);
}

void drop_stack(Vcpu& c, u64 bytes) {
    u64& rsp = c.reg[x86::Rsp];
    rsp = (rsp & ~c.sp_mask) | ((rsp + bytes) & c.sp_mask);
}

template <typename T>
TESSERA_HANDLER void run_call(Vcpu& c, const Op* op) {
    c.cur = op;
    if (link_of(op) == nullptr) [[unlikely]]
        check_branch_target(c, direct_target(c, op));
    push_address<T>(c, op, next_rip(c, *op));
    TESSERA_MUSTTAIL return take_direct(c, op);
}

template <typename T>
TESSERA_HANDLER void run_ret(Vcpu& c, const Op* op) {
    c.cur = op;
    const u64 target = peek_address<T>(c, op);
    check_branch_target(c, target);
    drop_stack(c, sizeof(T) + op->imm);
    c.rip = target;
    c.instructions += op->n;
    TESSERA_MUSTTAIL return continue_at_rip(c, op);
}

template <typename T, bool Memory>
[[nodiscard]] u64 indirect_target(Vcpu& c, const Op* op) {
    u64 target = 0;
    if constexpr (Memory)
        target = load<T>(c, linear(c, *op, sizeof(T), Access::Read), op->seg);
    else
        target = get_gpr<T>(c, op->r1);
    check_branch_target(c, target);
    return target;
}

template <typename T, bool Memory>
TESSERA_HANDLER void run_jmp_indirect(Vcpu& c, const Op* op) {
    c.cur = op;
    c.rip = indirect_target<T, Memory>(c, op);
    c.instructions += op->n;
    TESSERA_MUSTTAIL return continue_at_rip(c, op);
}

template <typename T, bool Memory>
TESSERA_HANDLER void run_call_indirect(Vcpu& c, const Op* op) {
    c.cur = op;
    const u64 target = indirect_target<T, Memory>(c, op);
    push_address<T>(c, op, next_rip(c, *op));
    c.rip = target;
    c.instructions += op->n;
    TESSERA_MUSTTAIL return continue_at_rip(c, op);
}

// --- LOOP*, JCXZ: the counter is rCX of the address size (op->r2 bytes)

enum class LoopKind : u8 { Loop, LoopEqual, LoopNotEqual, Jcxz };

[[nodiscard]] u64 cut(u64 value, u8 bytes) {
    return bytes == 8 ? value : bytes == 4 ? static_cast<u32>(value) : static_cast<u16>(value);
}

template <LoopKind Kind>
TESSERA_HANDLER void run_loop(Vcpu& c, const Op* op) {
    c.cur = op;
    u64& rcx = c.reg[x86::Rcx];
    constexpr u8 kEqual = 4, kNotEqual = 5;
    bool taken = false;
    u64 count = rcx;
    if constexpr (Kind == LoopKind::Jcxz) {
        taken = cut(count, op->r2) == 0;
    } else {
        count = cut(rcx - 1, op->r2);
        taken = count != 0;
        if constexpr (Kind == LoopKind::LoopEqual) taken = taken && condition<kEqual>(c);
        if constexpr (Kind == LoopKind::LoopNotEqual) taken = taken && condition<kNotEqual>(c);
        if (op->r2 == 2) count |= rcx & ~u64{0xffff};
    }
    if (taken && link_of(op) == nullptr) check_branch_target(c, direct_target(c, op));
    rcx = count;
    if (!taken) TESSERA_NEXT(c, op);
    TESSERA_MUSTTAIL return take_direct(c, op);
}

// --- lowering

template <u8 Condition>
struct JumpIf {
    static constexpr auto kHandler = &run_jcc<Condition>;
};

[[nodiscard]] Handler by_size(u8 size, Handler h2, Handler h4, Handler h8) {
    return size == 2 ? h2 : size == 4 ? h4 : h8;
}

template <bool Memory>
[[nodiscard]] Handler indirect_handler(bool call, u8 size) {
    if (call)
        return by_size(size, run_call_indirect<u16, Memory>, run_call_indirect<u32, Memory>,
                       run_call_indirect<u64, Memory>);
    return by_size(size, run_jmp_indirect<u16, Memory>, run_jmp_indirect<u32, Memory>,
                   run_jmp_indirect<u64, Memory>);
}

bool lower_direct(const x86::Insn& in, Op& op) {
    using x86::Mnemonic;
    switch (in.mnemonic) {
        case Mnemonic::Jmp: op.fn = run_jmp; break;
        case Mnemonic::Jcc: op.fn = for_condition<JumpIf>(in.condition); break;
        case Mnemonic::Call:
            op.fn = by_size(in.operand_size, run_call<u16>, run_call<u32>, run_call<u64>);
            break;
        case Mnemonic::Loop: op.fn = run_loop<LoopKind::Loop>; break;
        // On AMD processors a REP or REPNE prefix decides which of the two it is (seen by the oracle).
        case Mnemonic::Loope:
            op.fn = in.has(x86::InsnFlag::Repne) ? run_loop<LoopKind::LoopNotEqual>
                                                 : run_loop<LoopKind::LoopEqual>;
            break;
        case Mnemonic::Loopne:
            op.fn =
                in.has(x86::InsnFlag::Rep) ? run_loop<LoopKind::LoopEqual> : run_loop<LoopKind::LoopNotEqual>;
            break;
        case Mnemonic::Jcxz: op.fn = run_loop<LoopKind::Jcxz>; break;
        default: return false;
    }
    op.disp = static_cast<s32>(in.immediate);
    op.imm = 0;
    op.r2 = in.address_size;
    op.r3 = in.operand_size;
    return true;
}

}  // namespace

bool lower_branch(const x86::Insn& in, Op& op, bool* ends_block) {
    using x86::Mnemonic;
    const bool falls_through =
        in.mnemonic != Mnemonic::Jmp && in.mnemonic != Mnemonic::Call && in.mnemonic != Mnemonic::Ret;
    *ends_block = !falls_through;
    if (in.mnemonic == Mnemonic::Ret) {
        op.fn = by_size(in.operand_size, run_ret<u16>, run_ret<u32>, run_ret<u64>);
        op.imm = in.operand_count != 0 ? static_cast<u16>(in.immediate) : 0;
        return true;
    }
    if (in.is(0, x86::OperandKind::Relative)) return lower_direct(in, op);
    if (in.mnemonic != Mnemonic::Jmp && in.mnemonic != Mnemonic::Call) return false;
    const bool call = in.mnemonic == Mnemonic::Call;
    if (in.is(0, x86::OperandKind::Memory)) {
        op.fn = indirect_handler<true>(call, in.operand_size);
    } else {
        op.r1 = gpr_offset(in.operand[0]);
        op.fn = indirect_handler<false>(call, in.operand_size);
    }
    return true;
}

}  // namespace tessera::soft
