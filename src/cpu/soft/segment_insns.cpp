// Instructions on segment registers and descriptor tables.
#include "cpu/soft/segment.h"
#include "cpu/soft/system.h"
#include "cpu/soft/system_insns.h"
#include "cpu/soft/x86_names.h"

namespace tessera::soft {

void set_register(Vcpu& c, u8 offset, unsigned size, u64 value) {
    switch (size) {
        case 1: set_gpr<u8>(c, offset, static_cast<u8>(value)); return;
        case 2: set_gpr<u16>(c, offset, static_cast<u16>(value)); return;
        case 4: set_gpr<u32>(c, offset, static_cast<u32>(value)); return;
        default: set_gpr<u64>(c, offset, value); return;
    }
}

u16 read_rm16(Vcpu& c, const Op& op, u8 offset) {
    if (!memory_form(op)) return get_gpr<u16>(c, offset);
    return load<u16>(c, linear(c, op, 2, Access::Read), op.seg);
}

void write_rm16(Vcpu& c, const Op& op, u64 value) {
    if (memory_form(op))
        store<u16>(c, linear(c, op, 2, Access::Write), static_cast<u16>(value), op.seg);
    else
        set_register(c, op.r1, op.r3, value);
}

void set_zf(Vcpu& c, bool on) {
    const u64 flags = c.rflags();
    c.set_status(on ? flags | eflags::kZf : flags & ~eflags::kZf);
}

namespace {

// [SDM 3A 2.5] CR4.UMIP keeps user code from seeing where the tables are.
void check_umip(Vcpu& c) {
    if (c.cpl > 0 && (c.cr4 & cr4::kUmip) != 0) raise_gp0(c);
}

void require_protected(Vcpu& c) {
    if (real_or_virtual(c)) raise_ud(c);
}

}  // namespace

// --- MOV, PUSH, POP, LxS

void run_mov_from_seg(Vcpu& c, const Op& op) {
    write_rm16(c, op, c.seg[op.r2].selector);
}

void run_mov_to_seg(Vcpu& c, const Op& op) {
    if (op.r1 == Cs) raise_ud(c);
    load_segment(c, static_cast<Seg>(op.r1), read_rm16(c, op, op.r2));
    if (op.r1 == Ss) c.shadow = c.shadow_mov_ss = true;
}

void run_push_seg(Vcpu& c, const Op& op) {
    u64& rsp = c.reg[Rsp];
    const u64 offset = (rsp - op.r3) & c.sp_mask;
    const u64 lin = linear_of(c, Ss, offset, op.r3, Access::Write);
    const u64 value = c.seg[op.r1].selector;
    switch (op.r3) {
        case 2: store<u16>(c, lin, static_cast<u16>(value), Ss); break;
        case 4: store<u32>(c, lin, static_cast<u32>(value), Ss); break;
        default: store<u64>(c, lin, value, Ss); break;
    }
    rsp = (rsp & ~c.sp_mask) | offset;
}

void run_pop_seg(Vcpu& c, const Op& op) {
    const u64 mask = c.sp_mask;
    const u64 rsp = c.reg[Rsp];
    const u64 lin = linear_of(c, Ss, rsp & mask, op.r3, Access::Read);
    const auto selector = load<u16>(c, lin, Ss);
    load_segment(c, static_cast<Seg>(op.r1), selector);
    c.reg[Rsp] = (rsp & ~mask) | ((rsp + op.r3) & mask);
    if (op.r1 == Ss) c.shadow = c.shadow_mov_ss = true;
}

// LDS and the others: r1 the general register, r2 the segment register, imm the bytes of the offset.
void run_load_far(Vcpu& c, const Op& op) {
    const auto size = static_cast<unsigned>(op.imm);
    const u64 lin = linear(c, op, size + 2, Access::Read);
    probe(c, lin, size + 2, Access::Read, op.seg);
    const u64 offset = size == 2   ? load<u16>(c, lin, op.seg)
                       : size == 4 ? load<u32>(c, lin, op.seg)
                                   : load<u64>(c, lin, op.seg);
    const auto selector = load<u16>(c, lin + size, op.seg);
    load_segment(c, static_cast<Seg>(op.r2), selector);
    set_register(c, op.r1, op.r3, offset);
}

// --- GDTR, IDTR (r1: 0 or 1)

void run_store_table(Vcpu& c, const Op& op) {
    check_umip(c);
    const DescriptorTable& table = op.r1 == 0 ? c.gdtr : c.idtr;
    const unsigned base_size = (op.flags & kLongMode) != 0 ? 8 : 4;
    const u64 lin = linear(c, op, 2 + base_size, Access::Write);
    probe(c, lin, 2 + base_size, Access::Write, op.seg);
    store<u16>(c, lin, table.limit, op.seg);
    if (base_size == 8)
        store<u64>(c, lin + 2, table.base, op.seg);
    else
        store<u32>(c, lin + 2, static_cast<u32>(table.base), op.seg);
}

void run_load_table(Vcpu& c, const Op& op) {
    require_cpl0(c);
    const bool wide = (op.flags & kLongMode) != 0;
    const u64 lin = linear(c, op, wide ? 10 : 6, Access::Read);
    const auto limit = load<u16>(c, lin, op.seg);
    u64 base = wide ? load<u64>(c, lin + 2, op.seg) : load<u32>(c, lin + 2, op.seg);
    if (op.r3 == 2) base &= 0xff'ffff;  // [SDM 2A LGDT] 24-bit base with a 16-bit operand
    if (wide && !is_canonical(base)) raise_gp0(c);
    (op.r1 == 0 ? c.gdtr : c.idtr) = {.base = base, .limit = limit};
}

// --- LDTR, TR

void run_sldt(Vcpu& c, const Op& op) {
    require_protected(c);
    check_umip(c);
    write_rm16(c, op, c.ldtr.selector);
}
void run_str(Vcpu& c, const Op& op) {
    require_protected(c);
    check_umip(c);
    write_rm16(c, op, c.tr.selector);
}

namespace {

// A system descriptor of the GDT for LLDT and LTR.
Descriptor system_descriptor(Vcpu& c, u16 selector) {
    Descriptor d;
    if ((selector & 4) != 0 || !read_descriptor(c, selector, d) || !d.is_system())
        raise_selector(c, kGp, selector);
    if (!c.long_mode()) return d;
    // 16 bytes; where the upper half would have its type there must be none [APM 2 4.8.3].
    constexpr unsigned kTypeShift = 40;
    constexpr u64 kTypeMask = 0x1f;
    if (!fits_upper_half(c, selector) || ((read_descriptor_upper(c, d) >> kTypeShift) & kTypeMask) != 0)
        raise_selector(c, kGp, selector);
    return d;
}

Segment checked_system_segment(Vcpu& c, u16 selector, const Descriptor& d) {
    if (!d.present()) raise_selector(c, kNp, selector);
    const Segment s = system_segment_of(c, selector, d);
    if (!is_canonical(s.base)) raise_selector(c, kGp, selector);
    return s;
}

}  // namespace

void run_lldt(Vcpu& c, const Op& op) {
    require_protected(c);
    require_cpl0(c);
    const u16 selector = read_rm16(c, op, op.r1);
    if (is_null(selector)) {
        c.ldtr = null_segment(selector);
        return;
    }
    const Descriptor d = system_descriptor(c, selector);
    if (d.system_type() != SystemType::Ldt) raise_selector(c, kGp, selector);
    c.ldtr = checked_system_segment(c, selector, d);
}

void run_ltr(Vcpu& c, const Op& op) {
    require_protected(c);
    require_cpl0(c);
    const u16 selector = read_rm16(c, op, op.r1);
    if (is_null(selector)) raise_gp0(c);
    const Descriptor d = system_descriptor(c, selector);
    const bool tss16 = d.system_type() == SystemType::Tss16Available && !c.long_mode();
    if (!tss16 && d.system_type() != SystemType::Tss32Available) raise_selector(c, kGp, selector);
    Segment tr = checked_system_segment(c, selector, d);
    constexpr u8 kBusy = 2;
    change_system_byte(c, d.address + 5, 0xff, kBusy);
    tr.rights |= kBusy;
    c.tr = tr;
}

// --- LAR, LSL, VERR, VERW, ARPL [SDM 3A 5.10]

namespace {

// The descriptor if the selector may be looked at from here.
bool visible_descriptor(Vcpu& c, u16 selector, Descriptor& d) {
    if (is_null(selector) || !read_descriptor(c, selector, d)) return false;
    if (d.is_conforming()) return true;
    return d.dpl() >= c.cpl && d.dpl() >= rpl_of(selector);
}

[[nodiscard]] bool has_limit(const Vcpu& c, const Descriptor& d) {
    switch (d.system_type()) {
        case SystemType::Tss16Available:
        case SystemType::Tss16Busy: return !c.long_mode();
        case SystemType::Ldt:
        case SystemType::Tss32Available:
        case SystemType::Tss32Busy: return true;
        default: return false;
    }
}
[[nodiscard]] bool has_rights(const Vcpu& c, const Descriptor& d) {
    switch (d.system_type()) {
        case SystemType::CallGate16:
        case SystemType::TaskGate: return !c.long_mode();
        case SystemType::CallGate32: return true;
        default: return has_limit(c, d);
    }
}

}  // namespace

void run_lar(Vcpu& c, const Op& op) {
    require_protected(c);
    const u16 selector = read_rm16(c, op, op.r2);
    Descriptor d;
    const bool valid = visible_descriptor(c, selector, d) && (!d.is_system() || has_rights(c, d));
    if (valid) set_register(c, op.r1, op.r3, d.high() & 0x00ff'ff00);
    set_zf(c, valid);
}

void run_lsl(Vcpu& c, const Op& op) {
    require_protected(c);
    const u16 selector = read_rm16(c, op, op.r2);
    Descriptor d;
    const bool valid = visible_descriptor(c, selector, d) && (!d.is_system() || has_limit(c, d));
    if (valid) set_register(c, op.r1, op.r3, d.limit());
    set_zf(c, valid);
}

void run_verr(Vcpu& c, const Op& op) {
    require_protected(c);
    Descriptor d;
    const u16 selector = read_rm16(c, op, op.r1);
    set_zf(c, visible_descriptor(c, selector, d) && !d.is_system() && d.is_readable());
}

void run_verw(Vcpu& c, const Op& op) {
    require_protected(c);
    Descriptor d;
    const u16 selector = read_rm16(c, op, op.r1);
    set_zf(c, visible_descriptor(c, selector, d) && d.is_writable());
}

void run_arpl(Vcpu& c, const Op& op) {
    require_protected(c);
    const unsigned rpl = get_gpr<u16>(c, op.r2) & 3;
    if (!memory_form(op)) {
        const u16 selector = get_gpr<u16>(c, op.r1);
        const bool raise = (selector & 3u) < rpl;
        if (raise) set_gpr<u16>(c, op.r1, static_cast<u16>((selector & ~3u) | rpl));
        set_zf(c, raise);
        return;
    }
    u16* selector = rmw_begin<u16>(c, linear(c, op, 2, Access::Write), op.seg, false);
    const bool raise = (*selector & 3u) < rpl;
    if (raise) *selector = static_cast<u16>((*selector & ~3u) | rpl);
    rmw_end(c);
    set_zf(c, raise);
}

// --- FS and GS bases

namespace {
void require_fsgsbase(Vcpu& c) {
    if ((c.cr4 & cr4::kFsgsbase) == 0) raise_ud(c);
}
}  // namespace

void run_rd_base(Vcpu& c, const Op& op) {
    require_fsgsbase(c);
    set_register(c, op.r1, op.r3, c.seg_base[op.r2]);
}

void run_wr_base(Vcpu& c, const Op& op) {
    require_fsgsbase(c);
    const u64 base = op.r3 == 8 ? get_gpr<u64>(c, op.r1) : get_gpr<u32>(c, op.r1);
    if (!is_canonical(base)) raise_gp0(c);
    c.seg[op.r2].base = c.seg_base[op.r2] = base;
}

void run_swapgs(Vcpu& c, const Op& /*op*/) {
    require_cpl0(c);
    std::swap(c.seg[Gs].base, c.msr.kernel_gs_base);
    c.seg_base[Gs] = c.seg[Gs].base;
}

}  // namespace tessera::soft
