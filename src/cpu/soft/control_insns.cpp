// Instructions on control and debug registers, the interrupt flag, caches and TLBs; port input and output.
#include "cpu/soft/debug.h"
#include "cpu/soft/fp/fp.h"
#include "cpu/soft/mmu.h"
#include "cpu/soft/soft_system.h"
#include "cpu/soft/system.h"
#include "cpu/soft/system_insns.h"
#include "cpu/soft/x86_names.h"

namespace tessera::soft {

// --- MOV CRn, MOV DRn: r1 the general register, r2 the number, r3 4 or 8

void run_mov_from_cr(Vcpu& c, const Op& op) {
    u64 value = 0;
    switch (op.r2) {
        case 0: value = c.cr0; break;
        case 2: value = c.cr2; break;
        case 3: value = c.cr3; break;
        case 4: value = c.cr4; break;
        case 8: value = 0; break;
        default: raise_ud(c);
    }
    require_cpl0(c);
    if (op.r2 == 8) value = c.interrupts->cr8();
    set_register(c, op.r1, op.r3, value);
}

void run_mov_to_cr(Vcpu& c, const Op& op) {
    const u64 value = op.r3 == 8 ? get_gpr<u64>(c, op.r1) : get_gpr<u32>(c, op.r1);
    constexpr unsigned kExisting = 1 << 0 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 8;
    if ((kExisting >> op.r2 & 1) == 0) raise_ud(c);
    require_cpl0(c);
    switch (op.r2) {
        case 0: set_cr0(c, value); break;
        case 2: c.cr2 = value; break;
        case 3: set_cr3(c, value); break;
        case 4: set_cr4(c, value); break;
        default: set_cr8(c, value); break;
    }
}

void run_mov_from_dr(Vcpu& c, const Op& op) {
    set_register(c, op.r1, op.r3, read_debug_register(c, op.r2));
}
void run_mov_to_dr(Vcpu& c, const Op& op) {
    write_debug_register(c, op.r2, op.r3 == 8 ? get_gpr<u64>(c, op.r1) : get_gpr<u32>(c, op.r1));
}

void run_smsw(Vcpu& c, const Op& op) {
    if (c.cpl > 0 && (c.cr4 & cr4::kUmip) != 0) raise_gp0(c);
    write_rm16(c, op, c.cr0);
}

void run_lmsw(Vcpu& c, const Op& op) {
    require_cpl0(c);
    constexpr u64 kMask = cr0::kPe | cr0::kMp | cr0::kEm | cr0::kTs;
    const u64 value = read_rm16(c, op, op.r1) & kMask;
    // PE can be set this way, but not cleared.
    set_cr0(c, (c.cr0 & ~(kMask & ~cr0::kPe)) | value);
}

void run_clts(Vcpu& c, const Op& /*op*/) {
    require_cpl0(c);
    c.cr0 &= ~cr0::kTs;
    update_fp_enables(c);
}

// --- flags

namespace {

enum class InterruptFlag : u8 { Real, Virtual, Refused };

// Which flag CLI and STI work on [SDM 2A CLI table 3-7].
InterruptFlag interrupt_flag(const Vcpu& c) {
    if (!c.protected_mode() || c.cpl <= c.iopl()) return InterruptFlag::Real;
    const bool virtual_mode = c.v8086() ? (c.cr4 & cr4::kVme) != 0 : c.cpl == 3 && (c.cr4 & cr4::kPvi) != 0;
    return virtual_mode ? InterruptFlag::Virtual : InterruptFlag::Refused;
}

}  // namespace

void run_cli(Vcpu& c, const Op& /*op*/) {
    switch (interrupt_flag(c)) {
        case InterruptFlag::Real: c.eflags &= ~eflags::kIf; break;
        case InterruptFlag::Virtual: c.eflags &= ~eflags::kVif; break;
        case InterruptFlag::Refused: raise_gp0(c);
    }
}

void run_sti(Vcpu& c, const Op& /*op*/) {
    switch (interrupt_flag(c)) {
        case InterruptFlag::Real:
            if ((c.eflags & eflags::kIf) == 0) c.shadow = true;
            set_eflags(c, c.eflags | eflags::kIf);
            break;
        case InterruptFlag::Virtual:
            if ((c.eflags & eflags::kVip) != 0) raise_gp0(c);
            c.eflags |= eflags::kVif;
            break;
        case InterruptFlag::Refused: raise_gp0(c);
    }
}

void run_clac(Vcpu& c, const Op& /*op*/) {
    if (c.cpl != 0) raise_ud(c);
    c.eflags &= ~eflags::kAc;
    update_tlb_set(c);
}
void run_stac(Vcpu& c, const Op& /*op*/) {
    if (c.cpl != 0) raise_ud(c);
    c.eflags |= eflags::kAc;
    update_tlb_set(c);
}

// --- waiting

void run_hlt(Vcpu& c, const Op& /*op*/) {
    require_cpl0(c);
    c.activity = Activity::Halted;
    ++c.exits.of[static_cast<std::size_t>(ExitCause::Halt)].count;
}

namespace {
// [rAX] in DS, or the segment override's, cut to the address size.
u64 rax_address(Vcpu& c, const Op& op, unsigned size, u64 align, Access access) {
    u64 offset = c.reg[Rax];
    if ((op.flags & kAddress64) == 0)
        offset = (op.flags & kAddress32) != 0 ? static_cast<u32>(offset) : static_cast<u16>(offset);
    return linear_of(c, op.seg, offset & ~(align - 1), size, access);
}
}  // namespace

// [APM 3 MONITOR]
void run_monitor(Vcpu& c, const Op& op) {
    if (c.cpl != 0) raise_ud(c);
    if (static_cast<u32>(c.reg[Rcx]) != 0) raise_gp0(c);
    const u64 lin = rax_address(c, op, 1, 1, Access::Read);
    (void)load<u8>(c, lin, op.seg);
    u64 physical = 0;
    if (translate_quietly(c, lin, &physical)) c.monitor_address = physical | 1;
}

// [APM 3 MWAIT] May end at any time for reasons of the processor's own: it does at once, letting other CPUs
// run first. GAP: does not sleep until the monitored line is written. CPUID leaf 5 offers no C-states, so
// kernels idle with HLT.
void run_mwait(Vcpu& c, const Op& /*op*/) {
    if (c.cpl != 0) raise_ud(c);
    if ((c.reg[Rcx] & 0xffff'fffe) != 0) raise_gp0(c);
    const auto yield = c.system->world().yield;
    if (c.monitor_address != 0 && yield != nullptr) yield();
    c.monitor_address = 0;
}

// --- caches: there is nothing to flush, but the address is checked as a read

void run_cache_line(Vcpu& c, const Op& op) {
    const u64 lin = linear(c, op, 1, Access::Read);
    probe(c, lin, 1, Access::Read, op.seg);
}

// [APM 3 CLZERO] 64 bytes of zeros to the line of [rAX].
void run_clzero(Vcpu& c, const Op& op) {
    constexpr unsigned kLine = 64;
    const u64 lin = rax_address(c, op, kLine, kLine, Access::Write);
    static constexpr std::array<u8, 32> kZeros{};
    store_bytes<32>(c, lin, kZeros.data(), op.seg);
    store_bytes<32>(c, lin + 32, kZeros.data(), op.seg);
}

void run_cache_all(Vcpu& c, const Op& /*op*/) {
    require_cpl0(c);
}

// --- TLB

void run_invlpg(Vcpu& c, const Op& op) {
    require_cpl0(c);
    const u64 lin = effective_address(c, op) + c.seg_base[op.seg];
    flush_tlb_page(c, c.code64() ? lin : static_cast<u32>(lin));
}

// [SDM 2A INVPCID] r1 holds the type; the descriptor is in memory.
void run_invpcid(Vcpu& c, const Op& op) {
    require_cpl0(c);
    const u64 type = op.r3 == 8 ? get_gpr<u64>(c, op.r1) : get_gpr<u32>(c, op.r1);
    const u64 at = linear(c, op, 16, Access::Read);
    u64 descriptor[2];
    load_bytes<16>(c, at, descriptor, op.seg);
    const u64 pcid = descriptor[0];
    const bool pcide = (c.cr4 & cr4::kPcide) != 0;
    enum : u64 { kAddress, kContext, kAll, kAllButGlobal };
    if (type > kAllButGlobal || pcid > 0xfff) raise_gp0(c);
    if (type <= kContext && !pcide && pcid != 0) raise_gp0(c);
    switch (type) {
        case kAddress:
            if (!is_canonical(descriptor[1])) raise_gp0(c);
            flush_pcid_page(c, static_cast<u16>(pcid), descriptor[1]);
            break;
        case kContext: flush_pcid(c, static_cast<u16>(pcid)); break;
        case kAll: flush_tlb(c, true); break;
        default: flush_all_pcids(c); break;
    }
}

// --- ports: imm is the port, unless kOperandHint says DX

namespace {
[[nodiscard]] u16 port_of(const Vcpu& c, const Op& op) {
    return memory_form(op) ? get_gpr<u16>(const_cast<Vcpu&>(c), Rdx * 8) : static_cast<u16>(op.imm);
}
}  // namespace

void run_in(Vcpu& c, const Op& op) {
    const u16 port = port_of(c, op);
    check_io(c, port, op.r3);
    set_register(c, Rax * 8, op.r3, port_in(c, port, op.r3));
}

void run_out(Vcpu& c, const Op& op) {
    const u16 port = port_of(c, op);
    check_io(c, port, op.r3);
    port_out(c, port, op.r3, static_cast<u32>(c.reg[Rax]));
}

}  // namespace tessera::soft
