// Hardware task switching with 286 and 386 task state segments. [SDM 3A 7.2, 7.3]
//
// Everything that can fail in the old task (reading the new TSS, writing the old one) comes first. After that
// the switch is a fact, and what is wrong with the new task's LDT, CR3 or segments faults in the new task.
#include "cpu/soft/task_switch.h"

#include "cpu/soft/debug.h"
#include "cpu/soft/fp/fp.h"
#include "cpu/soft/stack.h"
#include "cpu/soft/system.h"
#include "cpu/soft/x86_names.h"

namespace tessera::soft {

namespace {

// Where the fields of a TSS are [SDM 3A figures 7-2 and 7-10].
struct Layout {
    unsigned width;  // of the registers
    u32 minimum_limit, ip, flags, gpr, seg, seg_step, seg_count, ldt, cr3, trap;
};
constexpr Layout kTss16 = {.width = 2,
                           .minimum_limit = 0x2b,
                           .ip = 0x0e,
                           .flags = 0x10,
                           .gpr = 0x12,
                           .seg = 0x22,
                           .seg_step = 2,
                           .seg_count = 4,
                           .ldt = 0x2a,
                           .cr3 = 0,
                           .trap = 0};
constexpr Layout kTss32 = {.width = 4,
                           .minimum_limit = 0x67,
                           .ip = 0x20,
                           .flags = 0x24,
                           .gpr = 0x28,
                           .seg = 0x48,
                           .seg_step = 4,
                           .seg_count = 6,
                           .ldt = 0x60,
                           .cr3 = 0x1c,
                           .trap = 0x64};
constexpr u32 kLinkField = 0;
constexpr u8 kBusy = 2;

[[nodiscard]] const Layout& layout_of(unsigned type) {
    return (type & 8) != 0 ? kTss32 : kTss16;
}

// The order of the segment selectors in a TSS is that of x86::Seg.
struct TaskImage {
    u64 ip = 0, flags = 0, cr3 = 0;
    std::array<u64, 8> gpr{};
    std::array<u16, 6> seg{};
    u16 ldt = 0;
    bool trap = false;
};

TaskImage read_task(Vcpu& c, u64 base, const Layout& l) {
    TaskImage t;
    t.ip = load_system(c, base + l.ip, l.width);
    t.flags = load_system(c, base + l.flags, l.width);
    for (unsigned i = 0; i < 8; ++i) t.gpr[i] = load_system(c, base + l.gpr + i * l.width, l.width);
    for (unsigned i = 0; i < l.seg_count; ++i)
        t.seg[i] = static_cast<u16>(load_system(c, base + l.seg + i * l.seg_step, 2));
    t.ldt = static_cast<u16>(load_system(c, base + l.ldt, 2));
    if (l.cr3 != 0) t.cr3 = load_system(c, base + l.cr3, 4);
    if (l.trap != 0) t.trap = (load_system(c, base + l.trap, 2) & 1) != 0;
    return t;
}

void save_task(Vcpu& c, u64 flags) {
    const Layout& l = layout_of(c.tr.rights & 0xf);
    const u64 base = c.tr.base;
    store_system(c, base + l.ip, l.width, c.rip);
    store_system(c, base + l.flags, l.width, flags);
    for (unsigned i = 0; i < 8; ++i) store_system(c, base + l.gpr + i * l.width, l.width, c.reg[i]);
    for (unsigned i = 0; i < l.seg_count; ++i)
        store_system(c, base + l.seg + i * l.seg_step, 2, c.seg[i].selector);
}

// The part of the old TSS that is written must be writable before anything is.
void probe_old_task(Vcpu& c) {
    const Layout& l = layout_of(c.tr.rights & 0xf);
    const u32 end = l.seg + (l.seg_count - 1) * l.seg_step + 2;
    if (l.minimum_limit > c.tr.limit) raise_selector(c, kTs, c.tr.selector);
    probe_as(c, c.tr.base + l.ip, end - l.ip, Access::Write, Privilege::System);
}

u64 descriptor_address(const Vcpu& c, u16 selector) {
    return c.gdtr.base + (selector & 0xfff8u);
}

// --- the new task's own context, after the switch

void load_task_ldt(Vcpu& c, u16 selector) {
    c.ldtr = null_segment(selector);
    if (is_null(selector)) return;
    Descriptor d;
    if ((selector & 4) != 0 || !read_descriptor(c, selector, d) || !d.is_system() ||
        d.system_type() != SystemType::Ldt || !d.present())
        raise_selector(c, kTs, selector);
    c.ldtr = segment_of(selector, d);
}

void load_task_code(Vcpu& c, u16 selector) {
    Descriptor d;
    if (is_null(selector) || !read_descriptor(c, selector, d) || !d.is_code())
        raise_selector(c, kTs, selector);
    const unsigned rpl = rpl_of(selector);
    if (d.is_conforming() ? d.dpl() > rpl : d.dpl() != rpl) raise_selector(c, kTs, selector);
    if (!d.present()) raise_selector(c, kNp, selector);
    mark_accessed(c, d);
    c.seg[Cs] = segment_of(selector, d);
}

void load_task_data(Vcpu& c, Seg seg, u16 selector, unsigned cpl) {
    if (is_null(selector)) return;
    Descriptor d;
    if (!read_descriptor(c, selector, d) || d.is_system() || !d.is_readable())
        raise_selector(c, kTs, selector);
    if (!d.is_conforming() && (rpl_of(selector) > d.dpl() || cpl > d.dpl())) raise_selector(c, kTs, selector);
    if (!d.present()) raise_selector(c, kNp, selector);
    mark_accessed(c, d);
    c.seg[seg] = segment_of(selector, d);
}

void load_task_segments(Vcpu& c, const TaskImage& t) {
    const unsigned cpl = rpl_of(t.seg[Cs]);
    if ((t.flags & eflags::kVm) != 0) {
        load_task_ldt(c, t.ldt);
        for (unsigned i = 0; i < 6; ++i) set_real_segment(c, static_cast<Seg>(i), t.seg[i]);
        update_segments(c);
        return;
    }
    // Until they are loaded the registers hold selectors without descriptors.
    const Segment old_cs = c.seg[Cs];
    for (unsigned i = 0; i < 6; ++i) c.seg[i] = null_segment(t.seg[i]);
    c.seg[Cs] = old_cs;
    c.seg[Cs].selector = t.seg[Cs];
    c.seg[Ss] = null_stack_segment(t.seg[Ss], cpl);
    update_segments(c);
    load_task_ldt(c, t.ldt);
    load_task_code(c, t.seg[Cs]);
    update_segments(c);
    c.seg[Ss] = checked_stack_segment(c, t.seg[Ss], cpl, kTs);
    update_segments(c);
    for (const Seg seg : {Ds, Es, Fs, Gs}) load_task_data(c, seg, t.seg[seg], cpl);
    update_segments(c);
}

void load_task_cr3(Vcpu& c, const TaskImage& t, const Layout& l) {
    if (l.cr3 == 0 || (c.cr0 & cr0::kPg) == 0) return;
    if ((c.cr4 & cr4::kPae) != 0 && !load_pdptes(c, t.cr3)) raise_selector(c, kGp, 0);
    c.cr3 = t.cr3;
    flush_tlb(c, false);
}

}  // namespace

void task_switch(Vcpu& c, u16 selector, const Descriptor& d, TaskSwitch reason, const Fault* error) {
    const Layout& l = layout_of(d.type());
    if (d.limit() < l.minimum_limit) raise_selector(c, kTs, selector);
    const bool nested = reason == TaskSwitch::Call || reason == TaskSwitch::Gate;
    const Fault pushed = error != nullptr ? *error : Fault{};
    const u64 base = d.base();
    // Everything that may fault in the old task.
    TaskImage t = read_task(c, base, l);
    probe_old_task(c);
    if (nested) probe_as(c, base + kLinkField, 2, Access::Write, Privilege::System);
    probe_as(c, descriptor_address(c, selector) + 5, 1, Access::Write, Privilege::System);
    probe_as(c, descriptor_address(c, c.tr.selector) + 5, 1, Access::Write, Privilege::System);

    u64 flags = c.rflags();
    if (reason == TaskSwitch::Return) flags &= ~eflags::kNt;
    save_task(c, flags);
    const u16 old_selector = c.tr.selector;
    if (!nested) change_system_byte(c, descriptor_address(c, old_selector) + 5, static_cast<u8>(~kBusy), 0);
    if (nested) store_system(c, base + kLinkField, 2, old_selector);
    if (reason != TaskSwitch::Return) change_system_byte(c, descriptor_address(c, selector) + 5, 0xff, kBusy);
    if (nested) t.flags |= eflags::kNt;

    // The switch is made: from here on faults belong to the new task.
    c.cur = nullptr;
    c.tr = segment_of(selector, d);
    c.tr.rights |= kBusy;
    c.cr0 |= cr0::kTs;
    c.dr7 &= ~u64{0x55};  // [SDM 3B 17.2.4] the local breakpoint enables
    const bool wide = l.width == 4;
    for (unsigned i = 0; i < 8; ++i) c.reg[i] = wide ? t.gpr[i] : (c.reg[i] & ~u64{0xffff}) | t.gpr[i];
    c.rip = t.ip;
    c.set_status(t.flags);
    set_eflags(c, t.flags);
    update_fp_enables(c);
    load_task_cr3(c, t, l);
    load_task_segments(c, t);
    if (t.trap) {
        c.pending_db |= dr6::kBt;
        c.attention.fetch_or(kAttendDebug);
    }
    if (c.rip > c.seg[Cs].limit) raise_selector(c, kGp, 0);
    if (pushed.has_error) {
        Stack stack = Stack::current(c);
        stack.push(pushed.error, l.width);
        c.reg[Rsp] = stack.sp();
    }
}

void task_gate(Vcpu& c, const Descriptor& gate, TaskSwitch reason, const Fault* error) {
    const u16 selector = gate.gate_selector();
    Descriptor d;
    const bool found = (selector & 4) == 0 && !is_null(selector) && read_descriptor(c, selector, d);
    const bool available =
        found && d.is_system() &&
        (d.system_type() == SystemType::Tss16Available || d.system_type() == SystemType::Tss32Available);
    if (!available) raise_selector(c, kGp, selector);
    if (!d.present()) raise_selector(c, kNp, selector);
    task_switch(c, selector, d, reason, error);
}

}  // namespace tessera::soft
