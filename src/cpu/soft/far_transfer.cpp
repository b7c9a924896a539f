// Far JMP, CALL and RET and IRET in all modes: directly, through call gates, to other privilege levels, to
// and from virtual-8086 mode, between compatibility and 64-bit mode. Faults come before any change.
#include "cpu/soft/far_transfer.h"

#include "cpu/soft/stack.h"
#include "cpu/soft/system.h"
#include "cpu/soft/task_switch.h"
#include "cpu/soft/x86_names.h"

namespace tessera::soft {

// --- pieces shared with event delivery

u64 Stack::address(u64 sp, unsigned size, Access access) const {
    if (wide_) return sp;
    const u64 offset = sp & mask_;
    const u64 last = offset + (size - 1);
    const bool real = !c_->protected_mode() || c_->v8086();
    const bool expand_down = (ss_.rights & (rights::kCode | rights::kExpandDown)) == rights::kExpandDown;
    bool allowed = last <= ss_.limit;
    if (expand_down) allowed = offset > ss_.limit && last <= mask_;
    if (!real && (ss_.rights & rights::kUnusable) != 0) allowed = false;
    if (!real && access == Access::Write &&
        (ss_.rights & (rights::kCode | rights::kWritable)) != rights::kWritable)
        allowed = false;
    if (!allowed) raise_selector(*c_, kSs, error_);
    return static_cast<u32>(ss_.base + offset);
}

InnerStack tss_stack(Vcpu& c, unsigned level) {
    const bool wide = (c.tr.rights & 8) != 0;  // 386 TSS
    const u32 offset = wide ? 4 + 8 * level : 2 + 4 * level;
    if (offset + (wide ? 5 : 3) > c.tr.limit) raise_selector(c, kTs, c.tr.selector);
    const u64 sp = load_system(c, c.tr.base + offset, wide ? 4 : 2);
    const u64 ss = load_system(c, c.tr.base + offset + (wide ? 4 : 2), 2);
    return {.ss = static_cast<u16>(ss), .sp = sp};
}

namespace {
u64 tss_quad(Vcpu& c, u32 offset) {
    if (offset + 7 > c.tr.limit) raise_selector(c, kTs, c.tr.selector);
    return load_system(c, c.tr.base + offset, 8);
}
}  // namespace
u64 tss_rsp(Vcpu& c, unsigned level) {
    return tss_quad(c, 4 + 8 * level);
}
u64 tss_ist(Vcpu& c, unsigned ist) {
    return tss_quad(c, 0x24 + 8 * (ist - 1));
}

void check_target(Vcpu& c, u64 rip, const Descriptor& code) {
    const bool to64 = c.long_mode() && code.is_long();
    if (to64 ? !is_canonical(rip) : rip > code.limit()) raise_selector(c, kGp, 0);
}

void commit_code(Vcpu& c, FarTarget& target) {
    set_code_segment(c, target.selector, target.code, target.cpl);
    c.rip = target.rip;
    update_segments(c);
}

namespace {

[[nodiscard]] bool real_or_virtual(const Vcpu& c) {
    return !c.protected_mode() || c.v8086();
}

[[nodiscard]] u64 cut(u64 value, unsigned size) {
    return size == 8 ? value : size == 4 ? static_cast<u32>(value) : static_cast<u16>(value);
}

void real_far_jump(Vcpu& c, u16 selector, u64 offset) {
    if (offset > c.seg[Cs].limit) raise_gp0(c);
    set_real_segment(c, Cs, selector);
    c.rip = offset;
    update_segments(c);
}

Descriptor code_descriptor(Vcpu& c, u16 selector) {
    if (is_null(selector)) raise_selector(c, kGp, 0);
    Descriptor d;
    if (!read_descriptor(c, selector, d)) raise_selector(c, kGp, selector);
    return d;
}

// Direct far JMP and CALL [SDM 3A 5.8.1].
void check_direct(Vcpu& c, u16 selector, const Descriptor& d) {
    const bool allowed = d.is_conforming() ? d.dpl() <= c.cpl : rpl_of(selector) <= c.cpl && d.dpl() == c.cpl;
    if (!allowed || (c.long_mode() && d.is_long() && d.is_big())) raise_selector(c, kGp, selector);
    if (!d.present()) raise_selector(c, kNp, selector);
}

void check_gate(Vcpu& c, u16 selector, const Descriptor& gate) {
    if (gate.dpl() < c.cpl || gate.dpl() < rpl_of(selector)) raise_selector(c, kGp, selector);
    if (!gate.present()) raise_selector(c, kNp, selector);
}

// A call gate, decoded.
struct CallGate {
    u16 selector;
    u64 offset;
    unsigned size;  // of what is pushed
    unsigned parameters;
    Descriptor code;
};

CallGate read_call_gate(Vcpu& c, u16 selector, const Descriptor& gate, bool jump) {
    CallGate g{.selector = gate.gate_selector(),
               .offset = gate.gate_offset(),
               .size = 4,
               .parameters = 0,
               .code = {}};
    if (c.long_mode()) {
        // [APM 2 4.8.4] The type field of the upper half must be zero.
        if (!fits_upper_half(c, selector)) raise_selector(c, kGp, selector);
        const u64 upper = read_descriptor_upper(c, gate);
        if ((upper >> 32 & 0x1f00) != 0) raise_selector(c, kGp, selector);
        g.offset |= upper << 32;
        g.size = 8;
    } else if (gate.system_type() == SystemType::CallGate16) {
        g.offset &= 0xffff;
        g.size = 2;
    }
    if (!c.long_mode()) g.parameters = gate.gate_parameters();
    g.code = code_descriptor(c, g.selector);
    const Descriptor& d = g.code;
    if (!d.is_code() || d.dpl() > c.cpl || (jump && !d.is_conforming() && d.dpl() != c.cpl) ||
        (c.long_mode() && (!d.is_long() || d.is_big())))
        raise_selector(c, kGp, g.selector);
    if (!d.present()) raise_selector(c, kNp, g.selector);
    return g;
}

void call_inner_legacy(Vcpu& c, CallGate& gate) {
    const unsigned level = gate.code.dpl();
    const InnerStack inner = tss_stack(c, level);
    const Segment ss = checked_stack_segment(c, inner.ss, level, kTs);
    Stack outer_stack = Stack::current(c);
    Stack stack = Stack::inner(c, ss, inner.sp, false);
    std::array<u64, 32> parameters{};
    for (unsigned i = 0; i < gate.parameters; ++i) parameters[i] = outer_stack.pop(gate.size);
    check_target(c, gate.offset, gate.code);
    stack.push(c.seg[Ss].selector, gate.size);
    stack.push(c.reg[Rsp], gate.size);
    for (unsigned i = gate.parameters; i > 0; --i) stack.push(parameters[i - 1], gate.size);
    stack.push(c.seg[Cs].selector, gate.size);
    stack.push(c.rip, gate.size);
    FarTarget target{.selector = gate.selector, .code = gate.code, .rip = gate.offset, .cpl = level};
    mark_accessed(c, target.code);
    c.seg[Ss] = ss;
    c.reg[Rsp] = stack.sp();
    commit_code(c, target);
}

void call_inner_long(Vcpu& c, CallGate& gate) {
    const unsigned level = gate.code.dpl();
    const u64 rsp = tss_rsp(c, level);
    check_target(c, gate.offset, gate.code);
    const Segment ss = null_stack_segment(static_cast<u16>(level), level);
    Stack stack = Stack::inner(c, ss, rsp, true);
    stack.push(c.seg[Ss].selector, 8);
    stack.push(c.reg[Rsp], 8);
    stack.push(c.seg[Cs].selector, 8);
    stack.push(c.rip, 8);
    FarTarget target{.selector = gate.selector, .code = gate.code, .rip = gate.offset, .cpl = level};
    mark_accessed(c, target.code);
    c.seg[Ss] = ss;
    c.reg[Rsp] = stack.sp();
    commit_code(c, target);
}

void push_return_and_go(Vcpu& c, FarTarget& target, unsigned size) {
    Stack stack = Stack::current(c);
    check_target(c, target.rip, target.code);
    stack.push(c.seg[Cs].selector, size);
    stack.push(c.rip, size);
    mark_accessed(c, target.code);
    c.reg[Rsp] = stack.sp();
    commit_code(c, target);
}

void call_through_gate(Vcpu& c, CallGate& gate) {
    if (!gate.code.is_conforming() && gate.code.dpl() < c.cpl) {
        if (c.long_mode())
            call_inner_long(c, gate);
        else
            call_inner_legacy(c, gate);
        return;
    }
    FarTarget target{.selector = gate.selector, .code = gate.code, .rip = gate.offset, .cpl = c.cpl};
    if (c.long_mode()) {
        // The return address goes to a 64-bit stack, also when compatibility-mode code calls.
        Stack stack = Stack::wide(c, c.reg[Rsp]);
        check_target(c, target.rip, target.code);
        stack.push(c.seg[Cs].selector, 8);
        stack.push(c.rip, 8);
        mark_accessed(c, target.code);
        c.reg[Rsp] = stack.sp();
        commit_code(c, target);
        return;
    }
    push_return_and_go(c, target, gate.size);
}

// Everything a far pointer may name that is not a code segment.
void transfer_to_system(Vcpu& c, u16 selector, const Descriptor& d, bool jump) {
    const auto type = d.system_type();
    if (!d.is_system()) raise_selector(c, kGp, selector);
    const bool call_gate =
        type == SystemType::CallGate32 || (type == SystemType::CallGate16 && !c.long_mode());
    const bool tss = type == SystemType::Tss16Available || type == SystemType::Tss32Available;
    if (call_gate) {
        check_gate(c, selector, d);
        CallGate gate = read_call_gate(c, selector, d, jump);
        if (!jump) {
            call_through_gate(c, gate);
            return;
        }
        FarTarget target{.selector = gate.selector, .code = gate.code, .rip = gate.offset, .cpl = c.cpl};
        check_target(c, target.rip, target.code);
        commit_code(c, target);
        return;
    }
    if (c.long_mode() || (!tss && type != SystemType::TaskGate)) raise_selector(c, kGp, selector);
    check_gate(c, selector, d);
    const TaskSwitch reason = jump ? TaskSwitch::Jump : TaskSwitch::Call;
    if (tss)
        task_switch(c, selector, d, reason, nullptr);
    else
        task_gate(c, d, reason, nullptr);
}

}  // namespace

void far_jump(Vcpu& c, u16 selector, u64 offset, unsigned size) {
    offset = cut(offset, size);
    if (real_or_virtual(c)) {
        real_far_jump(c, selector, offset);
        return;
    }
    const Descriptor d = code_descriptor(c, selector);
    if (!d.is_code()) {
        transfer_to_system(c, selector, d, true);
        return;
    }
    check_direct(c, selector, d);
    FarTarget target{.selector = selector, .code = d, .rip = offset, .cpl = c.cpl};
    check_target(c, offset, d);
    commit_code(c, target);
}

void far_call(Vcpu& c, u16 selector, u64 offset, unsigned size) {
    offset = cut(offset, size);
    if (real_or_virtual(c)) {
        Stack stack = Stack::current(c);
        if (offset > c.seg[Cs].limit) raise_gp0(c);
        stack.push(c.seg[Cs].selector, size);
        stack.push(c.rip, size);
        c.reg[Rsp] = stack.sp();
        real_far_jump(c, selector, offset);
        return;
    }
    const Descriptor d = code_descriptor(c, selector);
    if (!d.is_code()) {
        transfer_to_system(c, selector, d, false);
        return;
    }
    check_direct(c, selector, d);
    FarTarget target{.selector = selector, .code = d, .rip = offset, .cpl = c.cpl};
    push_return_and_go(c, target, size);
}

namespace {

// CS of a return: [SDM 2 RET, IRET]. The level returned to is the selector's RPL.
Descriptor return_code_segment(Vcpu& c, u16 selector) {
    const Descriptor d = code_descriptor(c, selector);
    const unsigned rpl = rpl_of(selector);
    if (rpl < c.cpl || !d.is_code() || (d.is_conforming() ? d.dpl() > rpl : d.dpl() != rpl) ||
        (c.long_mode() && d.is_long() && d.is_big()))
        raise_selector(c, kGp, selector);
    if (!d.present()) raise_selector(c, kNp, selector);
    return d;
}

Segment return_stack_segment(Vcpu& c, u16 selector, unsigned level, const Descriptor& code) {
    const bool to64 = c.long_mode() && code.is_long();
    if (is_null(selector) && to64 && level != 3 && rpl_of(selector) == level)
        return null_stack_segment(selector, level);
    return checked_stack_segment(c, selector, level, kGp);
}

// RSP after a return that pops it: with a 16-bit SS only SP changes, which is why the upper half of a
// kernel's ESP leaks (and Linux has espfix).
[[nodiscard]] u64 returned_sp(const Vcpu& c, u64 sp, const Segment& ss, const Descriptor& code) {
    const bool to64 = c.long_mode() && code.is_long();
    if (to64 || (ss.rights & rights::kDb) != 0) return sp;
    return (c.reg[Rsp] & ~u64{0xffff}) | (sp & 0xffff);
}

}  // namespace

void far_return(Vcpu& c, unsigned size, u64 release) {
    Stack stack = Stack::current(c);
    const u64 rip = stack.pop(size);
    const auto selector = static_cast<u16>(stack.pop(size));
    if (real_or_virtual(c)) {
        if (rip > c.seg[Cs].limit) raise_gp0(c);
        stack.skip(release);
        c.reg[Rsp] = stack.sp();
        real_far_jump(c, selector, rip);
        return;
    }
    FarTarget target{
        .selector = selector, .code = return_code_segment(c, selector), .rip = rip, .cpl = rpl_of(selector)};
    stack.skip(release);
    if (target.cpl == c.cpl) {
        check_target(c, rip, target.code);
        mark_accessed(c, target.code);
        c.reg[Rsp] = stack.sp();
        commit_code(c, target);
        return;
    }
    const u64 sp = stack.pop(size);
    const auto ss_selector = static_cast<u16>(stack.pop(size));
    const Segment ss = return_stack_segment(c, ss_selector, target.cpl, target.code);
    check_target(c, rip, target.code);
    mark_accessed(c, target.code);
    c.reg[Rsp] = returned_sp(c, sp + release, ss, target.code);
    c.seg[Ss] = ss;
    commit_code(c, target);
    drop_inner_segments(c);
    update_segments(c);
}

// --- IRET

namespace {

// The flags an IRET may change at this CPL and IOPL [SDM 2 IRET].
[[nodiscard]] u64 changeable_flags(const Vcpu& c, unsigned size) {
    u64 mask = eflags::kStatus | eflags::kTf | eflags::kDf | eflags::kNt;
    if (c.cpl <= c.iopl()) mask |= eflags::kIf;
    if (c.cpl == 0) mask |= eflags::kIopl;
    if (size == 2) return mask;
    mask |= eflags::kRf | eflags::kAc | eflags::kId;
    if (c.cpl == 0) mask |= eflags::kVif | eflags::kVip;
    return mask;
}

void set_flags(Vcpu& c, u64 value, u64 mask) {
    const u64 flags = (c.rflags() & ~mask) | (value & mask);
    c.set_status(flags);
    set_eflags(c, flags);
}

void real_interrupt_return(Vcpu& c, unsigned size) {
    Stack stack = Stack::current(c);
    const u64 rip = stack.pop(size);
    const auto selector = static_cast<u16>(stack.pop(size));
    const u64 flags = stack.pop(size);
    u64 mask = size == 2 ? 0x7fd5 : 0x25'7fd5;  // RF AC ID too; VM, VIF and VIP stay
    if (rip > c.seg[Cs].limit) raise_gp0(c);
    u64 forced = flags;
    if (c.v8086()) {
        mask &= ~eflags::kIopl;
        if (c.iopl() < 3) {
            // [SDM 3B 20.3.1] With VME a 16-bit IRET works on VIF in IF's place.
            if ((c.cr4 & cr4::kVme) == 0 || size != 2) raise_gp0(c);
            const bool enable = (flags & eflags::kIf) != 0;
            if ((flags & eflags::kTf) != 0 || (enable && (c.eflags & eflags::kVip) != 0)) raise_gp0(c);
            mask = (mask & ~eflags::kIf) | eflags::kVif;
            forced = (flags & ~eflags::kVif) | (enable ? eflags::kVif : 0);
        }
    }
    c.reg[Rsp] = stack.sp();
    real_far_jump(c, selector, rip);
    set_flags(c, forced, mask);
}

void return_to_v8086(Vcpu& c, Stack stack, u64 rip, u16 selector, u64 flags) {
    const u64 sp = stack.pop(4);
    std::array<u16, 5> selectors{};
    for (u16& s : selectors) s = static_cast<u16>(stack.pop(4));
    if (rip > 0xffff) raise_gp0(c);
    const u64 mask = 0x3f'7fd5;
    c.set_status(flags);
    c.eflags |= eflags::kVm;  // so that the segments below take their fixed form
    c.reg[Rsp] = sp;
    set_real_segment(c, Cs, selector);
    const Seg order[5] = {Ss, Es, Ds, Fs, Gs};
    for (unsigned i = 0; i < 5; ++i) set_real_segment(c, order[i], selectors[i]);
    c.rip = rip;
    set_eflags(c, (flags & mask) | eflags::kOne);
    update_segments(c);
}

void return_from_nested_task(Vcpu& c) {
    if (c.long_mode()) raise_gp0(c);
    const auto link = static_cast<u16>(load_system(c, c.tr.base, 2));
    Descriptor d;
    const bool found = (link & 4) == 0 && !is_null(link) && read_descriptor(c, link, d);
    const bool busy = found && d.is_system() &&
                      (d.system_type() == SystemType::Tss16Busy || d.system_type() == SystemType::Tss32Busy);
    if (!busy) raise_selector(c, kTs, link);
    if (!d.present()) raise_selector(c, kNp, link);
    task_switch(c, link, d, TaskSwitch::Return, nullptr);
}

void protected_interrupt_return(Vcpu& c, unsigned size) {
    if ((c.eflags & eflags::kNt) != 0) {
        return_from_nested_task(c);
        return;
    }
    Stack stack = Stack::current(c);
    const u64 rip = stack.pop(size);
    const auto selector = static_cast<u16>(stack.pop(size));
    const u64 flags = stack.pop(size);
    if (size == 4 && (flags & eflags::kVm) != 0 && c.cpl == 0 && !c.long_mode()) {
        return_to_v8086(c, stack, rip, selector, flags);
        return;
    }
    FarTarget target{
        .selector = selector, .code = return_code_segment(c, selector), .rip = rip, .cpl = rpl_of(selector)};
    const bool outer = target.cpl != c.cpl;
    Segment ss = c.seg[Ss];
    u64 sp = stack.sp();
    if (outer || c.code64()) {
        // [SDM 3A 6.14.4] 64-bit mode always pops SS:RSP.
        const u64 popped = stack.pop(size);
        const auto ss_selector = static_cast<u16>(stack.pop(size));
        ss = return_stack_segment(c, ss_selector, target.cpl, target.code);
        sp = returned_sp(c, popped, ss, target.code);
    }
    check_target(c, rip, target.code);
    mark_accessed(c, target.code);
    const u64 mask = changeable_flags(c, size);
    c.seg[Ss] = ss;
    c.reg[Rsp] = sp;
    commit_code(c, target);
    if (outer) {
        drop_inner_segments(c);
        update_segments(c);
    }
    set_flags(c, flags, mask);
}

}  // namespace

void interrupt_return(Vcpu& c, unsigned size) {
    if (real_or_virtual(c))
        real_interrupt_return(c, size);
    else
        protected_interrupt_return(c, size);
    c.nmi_blocked = false;
    if (c.nmi_pending) c.attention.fetch_or(kAttendInterrupts);
}

}  // namespace tessera::soft
