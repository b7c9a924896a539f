// Interrupts and exceptions: what is delivered when, through which gate, and what happens when delivery
// fails. GAP: SMI (no SMM), machine checks.
#include <cstring>

#include "cpu/soft/debug.h"
#include "cpu/soft/exits.h"
#include "cpu/soft/fp/fp.h"
#include "cpu/soft/paravirt.h"
#include "cpu/soft/stack.h"
#include "cpu/soft/system.h"
#include "cpu/soft/task_switch.h"
#include "cpu/soft/x86_names.h"

namespace tessera::soft {

namespace {

[[nodiscard]] bool is_software(EventKind kind) {
    return kind == EventKind::SoftwareInterrupt || kind == EventKind::SoftwareException;
}

// [SDM 3B 17.3.1.1] Fault-class exceptions push RF = 1, so that returning to the instruction does not hit its
// breakpoint again. Everything else pushes RF as it is.
[[nodiscard]] bool sets_rf(EventKind kind, u8 vector) {
    if (kind != EventKind::Exception) return false;
    switch (vector) {
        case kDe:
        case kBr:
        case kUd:
        case kNm:
        case kTs:
        case kNp:
        case kSs:
        case kGp:
        case kPf:
        case kMf:
        case kAc:
        case kXm: return true;
        default: return false;
    }
}

void trace_event(Vcpu& c, EventKind kind, const Fault& fault) {
    if (c.tracer == nullptr || !c.tracer->interrupts) return;
    auto cause = CpuTracer::Cause::Exception;
    if (kind == EventKind::External) cause = CpuTracer::Cause::Interrupt;
    if (kind == EventKind::Nmi) cause = CpuTracer::Cause::Nmi;
    if (is_software(kind) || kind == EventKind::PrivilegedException) cause = CpuTracer::Cause::Software;
    c.tracer->on_interrupt(c.index, cause, fault.vector, fault.error, c.seg[Cs].selector, c.rip);
}

[[noreturn]] void raise_vector(Vcpu& c, u8 exception, u8 vector) {
    raise_error(c, exception, vector * 8u + 2 + external_bit(c));
}

// What goes on the stack, in the form all modes share.
struct Frame {
    u64 flags;
    bool has_error;
    u32 error;
};

// --- real mode, and virtual-8086 mode's redirected INT n

void deliver_real(Vcpu& c, u8 vector, u64 pushed_flags) {
    if (u32{vector} * 4 + 3 > c.idtr.limit) raise_vector(c, kGp, vector);
    const u64 entry = load_system(c, c.idtr.base + u64{vector} * 4, 4);
    const auto offset = static_cast<u16>(entry);
    if (offset > c.seg[Cs].limit) raise_selector(c, kGp, 0);
    Stack stack = Stack::current(c);
    stack.push(pushed_flags & 0xffff, 2);
    stack.push(c.seg[Cs].selector, 2);
    stack.push(c.rip & 0xffff, 2);
    c.reg[Rsp] = stack.sp();
    set_real_segment(c, Cs, static_cast<u16>(entry >> 16));
    c.rip = offset;
}

// [SDM 3B 20.2.1.1 and table 20-2]: INT n in virtual-8086 mode with CR4.VME. True if it stayed in that mode.
bool deliver_redirected(Vcpu& c, u8 vector) {
    if ((c.cr4 & cr4::kVme) == 0) return false;
    // The redirection bitmap is the 32 bytes below the I/O permission bitmap.
    if ((c.tr.rights & 8) == 0 || 0x67u > c.tr.limit) return false;
    const auto io_base = static_cast<u32>(load_system(c, c.tr.base + 0x66, 2));
    const u32 byte = io_base - 32 + vector / 8;
    if (io_base < 32 || byte > c.tr.limit) return false;
    if ((load_system(c, c.tr.base + byte, 1) >> (vector % 8) & 1) != 0) return false;
    u64 pushed = c.rflags();
    const bool virtual_if = c.iopl() < 3;
    if (virtual_if) {
        pushed |= eflags::kIopl;
        pushed = (pushed & ~eflags::kIf) | ((pushed & eflags::kVif) != 0 ? eflags::kIf : 0);
    }
    // The interrupt vector table of the 8086 program is at linear 0, and is read with its own (user) rights.
    const u64 entry = load_as(c, u64{vector} * 4, 4, Privilege::Current);
    const auto offset = static_cast<u16>(entry);
    Stack stack = Stack::current(c);
    stack.push(pushed & 0xffff, 2);
    stack.push(c.seg[Cs].selector, 2);
    stack.push(c.rip & 0xffff, 2);
    c.reg[Rsp] = stack.sp();
    set_real_segment(c, Cs, static_cast<u16>(entry >> 16));
    c.rip = offset;
    set_eflags(c, c.eflags & ~(eflags::kTf | (virtual_if ? eflags::kVif : eflags::kIf)));
    update_segments(c);
    return true;
}

// --- protected mode

struct Gate {
    Descriptor d;
    Descriptor code;
    u16 selector = 0;
    u64 offset = 0;
    unsigned size = 4;  // of what is pushed
    unsigned ist = 0;
    bool clears_if = false;
};

void read_gate(Vcpu& c, EventKind kind, u8 vector, Gate& g) {
    const bool wide = c.long_mode();
    const u32 entry_size = wide ? 16 : 8;
    const u32 offset = vector * entry_size;
    if (offset + entry_size - 1 > c.idtr.limit) raise_vector(c, kGp, vector);
    g.d.address = c.idtr.base + offset;
    g.d.raw = load_system(c, g.d.address, 8);
    const SystemType type = g.d.system_type();
    const bool is32 = type == SystemType::InterruptGate32 || type == SystemType::TrapGate32;
    const bool is16 = type == SystemType::InterruptGate16 || type == SystemType::TrapGate16;
    const bool valid = g.d.is_system() && (is32 || (!wide && (is16 || type == SystemType::TaskGate)));
    if (!valid || (is_software(kind) && g.d.dpl() < c.cpl)) raise_vector(c, kGp, vector);
    if (!g.d.present()) raise_vector(c, kNp, vector);
    g.selector = g.d.gate_selector();
    g.offset = g.d.gate_offset();
    g.clears_if = type == SystemType::InterruptGate32 || type == SystemType::InterruptGate16;
    if (is16) {
        g.size = 2;
        g.offset &= 0xffff;
    }
    if (wide) {
        g.size = 8;
        g.offset |= load_system(c, g.d.address + 8, 8) << 32;
        g.ist = g.d.high() & 7;
    }
}

void read_handler_segment(Vcpu& c, Gate& g) {
    if (is_null(g.selector)) raise_selector(c, kGp, 0);
    Descriptor& d = g.code;
    if (!read_descriptor(c, g.selector, d) || !d.is_code() || d.dpl() > c.cpl ||
        (c.long_mode() && (!d.is_long() || d.is_big())))
        raise_selector(c, kGp, g.selector);
    if (!d.present()) raise_selector(c, kNp, g.selector);
    const bool inner = !d.is_conforming() && d.dpl() < c.cpl;
    // [SDM 3B 20.2.1] From virtual-8086 mode only to level 0.
    if (c.v8086() && (!inner || d.dpl() != 0)) raise_selector(c, kGp, g.selector);
}

void push_frame(Vcpu& c, Stack& stack, const Frame& frame, unsigned size) {
    stack.push(frame.flags, size);
    stack.push(c.seg[Cs].selector, size);
    stack.push(c.rip, size);
    if (frame.has_error) stack.push(frame.error, size);
}

// The flags every gate clears, and IF for interrupt gates.
void enter_handler(Vcpu& c, Gate& g, unsigned cpl) {
    u64 clear = eflags::kTf | eflags::kNt | eflags::kRf | eflags::kVm;
    if (g.clears_if) clear |= eflags::kIf;
    FarTarget target{.selector = g.selector, .code = g.code, .rip = g.offset, .cpl = cpl};
    const bool was_virtual = c.v8086();
    c.eflags &= ~eflags::kVm;
    if (was_virtual)
        for (const Seg seg : {Es, Ds, Fs, Gs}) c.seg[seg] = null_segment(0);
    commit_code(c, target);
    set_eflags(c, c.eflags & ~clear);
}

void deliver_legacy(Vcpu& c, Gate& g, const Frame& frame) {
    const bool inner = !g.code.is_conforming() && g.code.dpl() < c.cpl;
    const unsigned cpl = inner ? g.code.dpl() : c.cpl;
    Stack stack = Stack::current(c);
    Segment ss = c.seg[Ss];
    if (inner) {
        const InnerStack in = tss_stack(c, cpl);
        ss = checked_stack_segment(c, in.ss, cpl, kTs);
        stack = Stack::inner(c, ss, in.sp, false);
    }
    check_target(c, g.offset, g.code);
    if (inner) {
        if (c.v8086())
            for (const Seg seg : {Gs, Fs, Ds, Es}) stack.push(c.seg[seg].selector, g.size);
        stack.push(c.seg[Ss].selector, g.size);
        stack.push(c.reg[Rsp], g.size);
    }
    push_frame(c, stack, frame, g.size);
    mark_accessed(c, g.code);
    c.seg[Ss] = ss;
    c.reg[Rsp] = stack.sp();
    enter_handler(c, g, cpl);
}

void deliver_long(Vcpu& c, Gate& g, const Frame& frame) {
    const bool inner = !g.code.is_conforming() && g.code.dpl() < c.cpl;
    const unsigned cpl = inner ? g.code.dpl() : c.cpl;
    Segment ss = c.seg[Ss];
    u64 rsp = c.reg[Rsp];
    if (g.ist != 0)
        rsp = tss_ist(c, g.ist);
    else if (inner)
        rsp = tss_rsp(c, cpl);
    if (inner) ss = null_stack_segment(static_cast<u16>(cpl), cpl);
    check_target(c, g.offset, g.code);
    rsp &= ~u64{15};  // [SDM 3A 6.14.2]
    Stack stack = inner ? Stack::inner(c, ss, rsp, true) : Stack::wide(c, rsp);
    stack.push(c.seg[Ss].selector, 8);
    stack.push(c.reg[Rsp], 8);
    push_frame(c, stack, frame, 8);
    mark_accessed(c, g.code);
    c.seg[Ss] = ss;
    c.reg[Rsp] = stack.sp();
    enter_handler(c, g, cpl);
}

void deliver_protected(Vcpu& c, EventKind kind, const Fault& fault, const Frame& frame) {
    if (c.v8086() && kind == EventKind::SoftwareInterrupt) {
        if (deliver_redirected(c, fault.vector)) return;
        if (c.iopl() < 3) raise_selector(c, kGp, 0);
    }
    Gate g;
    read_gate(c, kind, fault.vector, g);
    if (!c.long_mode() && g.d.system_type() == SystemType::TaskGate) {
        if (sets_rf(kind, fault.vector)) c.eflags |= eflags::kRf;  // goes into the outgoing task's EFLAGS
        task_gate(c, g.d, TaskSwitch::Gate, fault.has_error ? &fault : nullptr);
        return;
    }
    read_handler_segment(c, g);
    if (c.long_mode())
        deliver_long(c, g, frame);
    else
        deliver_legacy(c, g, frame);
}

[[nodiscard]] ExitCause cause_of(EventKind kind) {
    switch (kind) {
        case EventKind::External: return ExitCause::Interrupt;
        case EventKind::Nmi: return ExitCause::Nmi;
        case EventKind::Exception: return ExitCause::Exception;
        case EventKind::SoftwareInterrupt:
        case EventKind::SoftwareException:
        case EventKind::PrivilegedException: break;
    }
    return ExitCause::SoftwareInterrupt;
}

}  // namespace

void deliver_event(Vcpu& c, EventKind kind, Fault fault) {
    const u64 begun = exit_begin(c);
    trace_event(c, kind, fault);
    c.delivering = true;
    c.delivering_kind = kind;
    c.delivering_vector = fault.vector;
    u64 flags = c.rflags();
    if (sets_rf(kind, fault.vector)) flags |= eflags::kRf;
    if (!c.protected_mode()) {
        deliver_real(c, fault.vector, flags);
        set_eflags(c, c.eflags & ~(eflags::kIf | eflags::kTf | eflags::kRf | eflags::kAc));
        update_segments(c);
    } else {
        deliver_protected(c, kind, fault,
                          {.flags = flags, .has_error = fault.has_error, .error = fault.error});
    }
    c.delivering = false;
    c.step_trap = false;  // INT n clears TF and with it this instruction's trap
    if (kind == EventKind::Nmi) c.nmi_blocked = true;
    c.monitor_address = 0;
    exit_end(c, cause_of(kind), begun);
}

namespace {

enum class FaultClass : u8 { Benign, Contributory, PageFault, Double };

// [SDM 3A table 6-4]
[[nodiscard]] FaultClass class_of(u8 vector) {
    switch (vector) {
        case kDe:
        case kTs:
        case kNp:
        case kSs:
        case kGp: return FaultClass::Contributory;
        case kPf: return FaultClass::PageFault;
        case kDf: return FaultClass::Double;
        default: return FaultClass::Benign;
    }
}

// [SDM 3A table 6-5] c.fault came up while another event was delivered. False: shutdown.
bool combine_faults(Vcpu& c) {
    if (!c.delivering || c.delivering_kind != EventKind::Exception) return true;
    const FaultClass first = class_of(c.delivering_vector);
    const FaultClass second = class_of(c.fault.vector);
    if (second == FaultClass::Benign || second == FaultClass::Double) return true;
    if (first == FaultClass::Double) return false;
    const bool doubled = (first == FaultClass::Contributory && second == FaultClass::Contributory) ||
                         first == FaultClass::PageFault;
    if (doubled) c.fault = {.vector = kDf, .has_error = true, .error = 0};
    return true;
}

// Delivers an event; what goes wrong meanwhile is delivered in its place, until something works or nothing
// can. All that must survive the longjmp is in the Vcpu.
bool deliver_with_faults(Vcpu& c, EventKind kind, Fault fault) {
    std::jmp_buf outer;
    std::memcpy(&outer, &c.fault_return, sizeof outer);
    c.fault = fault;
    c.fault_kind = kind;
    bool alive = true;
    if (_setjmp(c.fault_return) != 0) {
        c.fault_kind = EventKind::Exception;
        alive = combine_faults(c);
    }
    if (alive) deliver_event(c, c.fault_kind, c.fault);
    std::memcpy(&c.fault_return, &outer, sizeof outer);
    if (!alive) {
        c.delivering = false;
        c.activity = Activity::Shutdown;
    }
    return alive;
}

}  // namespace

bool deliver_fault(Vcpu& c) {
    // An INT instruction or the like may have been under way.
    if (!combine_faults(c)) {
        c.delivering = false;
        c.activity = Activity::Shutdown;
        return false;
    }
    // The single-step trap of an instruction that faults is not taken: it did not complete.
    c.pending_db = 0;
    return deliver_with_faults(c, EventKind::Exception, c.fault);
}

// --- between instructions

namespace {

void take_inputs(Vcpu& c) {
    const CpuInterrupts::Events events = c.interrupts->take_events();
    if (events.nmi) c.nmi_pending = true;
    if (events.init) c.init_pending = true;
    if (events.sipi) c.sipi_pending = events.sipi;
}

// [SDM 3A 9.4.4] INIT; the bootstrap processor starts over, others wait for a SIPI.
void do_init(Vcpu& c) {
    fp_sync(c);
    x87_save(c);
    State state;
    export_state(c, state);
    state = init_state(state);
    const bool bootstrap = c.interrupts->is_bootstrap();
    state.activity = bootstrap ? Activity::Running : Activity::WaitForSipi;
    c.interrupts->init_reset();
    const u64 instructions = c.instructions;
    import_state(c, state);
    c.instructions = instructions;
    c.init_pending = false;
    c.sipi_pending.reset();
}

void do_sipi(Vcpu& c, u8 page) {
    c.sipi_pending.reset();
    c.seg[Cs].selector = static_cast<u16>(page << 8);
    c.seg[Cs].base = u64{page} << 12;
    c.rip = 0;
    c.activity = Activity::Running;
    update_segments(c);
}

[[nodiscard]] bool may_interrupt(const Vcpu& c) {
    return (c.eflags & eflags::kIf) != 0 && !c.shadow;
}

bool wait_for_sipi(Vcpu& c) {
    c.init_pending = false;
    if (!c.sipi_pending) return false;
    do_sipi(c, *c.sipi_pending);
    return true;
}

}  // namespace

bool service_events(Vcpu& c) {
    if (c.paravirt_clock_stale) [[unlikely]]
        refresh_paravirt_clock(c);
    if (c.paravirt_eoi_offered) [[unlikely]]
        poll_paravirt_eoi(c);
    take_inputs(c);
    if (c.activity == Activity::WaitForSipi) return wait_for_sipi(c);
    c.sipi_pending.reset();  // [SDM 3A 9.4.4.1] ignored unless waiting for it
    if (c.init_pending) {
        do_init(c);
        return true;
    }
    if (c.activity == Activity::Shutdown) return false;
    if (c.event_to_repeat) {
        const Event event = *c.event_to_repeat;
        c.event_to_repeat.reset();
        return deliver_with_faults(c, event.kind, event.fault), true;
    }
    // [SDM 3A table 6-2] Traps of the last instruction, then NMI, then interrupts.
    if (c.pending_db != 0 && !(c.shadow && c.shadow_mov_ss)) {
        c.activity = Activity::Running;
        report_debug(c, c.pending_db);
        deliver_with_faults(c, EventKind::Exception, {.vector = kDb});
        return true;
    }
    if (c.nmi_pending && !c.nmi_blocked && !c.shadow) {
        c.nmi_pending = false;
        c.activity = Activity::Running;
        deliver_with_faults(c, EventKind::Nmi, {.vector = kNmi});
        return true;
    }
    if (!may_interrupt(c)) return false;
    c.interrupt_waits = c.interrupts->interrupt_pending() ? 1 : 0;
    if (c.interrupt_waits != 0) {
        if (const auto vector = c.interrupts->acknowledge()) {
            c.activity = Activity::Running;
            offer_paravirt_eoi(c, *vector);
            deliver_with_faults(c, EventKind::External, {.vector = *vector});
            return true;
        }
    }
    return false;
}

}  // namespace tessera::soft
