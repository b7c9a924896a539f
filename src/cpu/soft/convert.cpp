// Between the interpreter's Vcpu and the architectural State that engines, snapshots and tests exchange.
#include "cpu/soft/fp/fp.h"
#include "cpu/soft/system.h"
#include "cpu/soft/x86_names.h"

namespace tessera::soft {

namespace {

EventKind kind_of_event(const State& in) {
    constexpr u8 kFirstInterrupt = 32;
    if (in.event_is_interrupt || in.event_vector >= kFirstInterrupt) return EventKind::External;
    return in.event_vector == kNmi ? EventKind::Nmi : EventKind::Exception;
}

}  // namespace

void export_state(const Vcpu& c, State& out) {
    for (unsigned i = 0; i < 16; ++i) out.gpr[i] = c.reg[i];
    out.rip = c.rip;
    out.rflags = c.rflags();
    out.seg = c.seg;
    out.ldtr = c.ldtr;
    out.tr = c.tr;
    out.gdtr = c.gdtr;
    out.idtr = c.idtr;
    out.cr0 = c.cr0;
    out.cr2 = c.cr2;
    out.cr3 = c.cr3;
    out.cr4 = c.cr4;
    out.xcr0 = c.xcr0;
    out.dr = c.dr;
    out.dr6 = c.dr6;
    out.dr7 = c.dr7;
    out.msr = c.msr;
    out.pdpte = c.pdpte;
    out.fpu = c.fpu;
    out.mxcsr = c.mxcsr;
    out.ymm = c.ymm;
    out.activity = c.activity;
    out.interrupt_shadow = c.shadow;
    out.shadow_is_mov_ss = c.shadow_mov_ss;
    out.nmi_blocked = c.nmi_blocked;
    out.nmi_pending = c.nmi_pending;
    out.paravirt_eoi_offered = c.paravirt_eoi_offered;
    const Event event = c.event_to_repeat.value_or(Event{});
    out.event_valid = c.event_to_repeat.has_value();
    out.event_vector = event.fault.vector;
    out.event_is_interrupt = event.kind == EventKind::External;
    out.event_has_error = event.fault.has_error;
    out.event_error = event.fault.error;
    out.other_msrs = c.other_msrs;
    out.other_components = c.other_components;
}

void import_state(Vcpu& c, const State& in) {
    for (unsigned i = 0; i < 16; ++i) c.reg[i] = in.gpr[i];
    c.reg[kZeroSlot] = 0;
    c.rip = in.rip;
    c.seg = in.seg;
    c.ldtr = in.ldtr;
    c.tr = in.tr;
    c.gdtr = in.gdtr;
    c.idtr = in.idtr;
    c.cr0 = in.cr0;
    c.cr2 = in.cr2;
    c.cr3 = in.cr3;
    c.cr4 = in.cr4;
    c.xcr0 = in.xcr0;
    c.dr = in.dr;
    c.dr6 = in.dr6;
    c.dr7 = in.dr7;
    const bool tsc_moves = c.msr.tsc_offset != in.msr.tsc_offset;
    c.msr = in.msr;
    if (tsc_moves && c.interrupts != nullptr) c.interrupts->set_tsc_offset(c.msr.tsc_offset);
    c.pdpte = in.pdpte;
    c.fpu = in.fpu;
    c.x87_live = false;
    c.mxcsr = in.mxcsr;
    c.ymm = in.ymm;
    c.activity = in.activity;
    c.shadow = in.interrupt_shadow;
    c.interrupt_waits = 1;
    c.shadow_mov_ss = in.shadow_is_mov_ss;
    c.nmi_blocked = in.nmi_blocked;
    c.nmi_pending = in.nmi_pending;
    c.paravirt_eoi_offered = in.paravirt_eoi_offered;
    c.paravirt_clock_stale = true;
    c.event_to_repeat.reset();
    if (in.event_valid)
        c.event_to_repeat = Event{
            .kind = kind_of_event(in),
            .fault = {.vector = in.event_vector, .has_error = in.event_has_error, .error = in.event_error}};
    c.other_msrs = in.other_msrs;
    c.other_components = in.other_components;
    c.pending_db = 0;
    c.delivering = false;
    c.monitor_address = 0;
    c.set_status(in.rflags);
    set_eflags(c, in.rflags);
    flush_tlb(c, true);
    const bool pcids = (c.cr4 & x86::cr4::kPcide) != 0;
    switch_address_space(c, pcids ? static_cast<u16>(c.cr3 & 0xfff) : u16{0}, Translations::Flush);
    update_segments(c);
    update_fp_enables(c);
    c.attention.fetch_or(kAttendInterrupts);
}

}  // namespace tessera::soft
