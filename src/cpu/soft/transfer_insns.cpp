// Instructions that leave the current code segment: far transfers, software interrupts, system calls.
#include "cpu/soft/far_transfer.h"
#include "cpu/soft/segment.h"
#include "cpu/soft/system.h"
#include "cpu/soft/system_insns.h"
#include "cpu/soft/x86_names.h"

namespace tessera::soft {

namespace {

struct FarPointer {
    u16 selector;
    u64 offset;
};

// Direct: imm is the offset, disp the selector. In memory: imm is the bytes of the offset.
FarPointer far_pointer(Vcpu& c, const Op& op) {
    if (!memory_form(op)) return {.selector = static_cast<u16>(op.disp), .offset = op.imm};
    const auto size = static_cast<unsigned>(op.imm);
    const u64 lin = linear(c, op, size + 2, Access::Read);
    probe(c, lin, size + 2, Access::Read, op.seg);
    const u64 offset = size == 2   ? load<u16>(c, lin, op.seg)
                       : size == 4 ? load<u32>(c, lin, op.seg)
                                   : load<u64>(c, lin, op.seg);
    return {.selector = load<u16>(c, lin + size, op.seg), .offset = offset};
}

}  // namespace

void run_far_jump(Vcpu& c, const Op& op) {
    const FarPointer p = far_pointer(c, op);
    far_jump(c, p.selector, p.offset, op.r3);
}
void run_far_call(Vcpu& c, const Op& op) {
    const FarPointer p = far_pointer(c, op);
    far_call(c, p.selector, p.offset, op.r3);
}
void run_far_return(Vcpu& c, const Op& op) {
    far_return(c, op.r3, op.imm);
}
void run_iret(Vcpu& c, const Op& op) {
    interrupt_return(c, op.r3);
}

// --- software interrupts

void run_int(Vcpu& c, const Op& op) {
    deliver_event(c, EventKind::SoftwareInterrupt, {.vector = static_cast<u8>(op.imm)});
}
void run_int3(Vcpu& c, const Op& /*op*/) {
    deliver_event(c, EventKind::SoftwareException, {.vector = kBp});
}
void run_into(Vcpu& c, const Op& /*op*/) {
    if ((c.status & 1) != 0) deliver_event(c, EventKind::SoftwareException, {.vector = kOf});
}
void run_int1(Vcpu& c, const Op& /*op*/) {
    deliver_event(c, EventKind::PrivilegedException, {.vector = kDb});
}

// Raises #BR if the signed index is outside the two bounds in memory.
void run_bound(Vcpu& c, const Op& op) {
    const unsigned size = op.r3;
    const u64 lin = linear(c, op, 2 * size, Access::Read);
    probe(c, lin, 2 * size, Access::Read, op.seg);
    s64 index = 0;
    s64 lower = 0;
    s64 upper = 0;
    if (size == 2) {
        index = get_gpr<s16>(c, op.r1);
        lower = load<s16>(c, lin, op.seg);
        upper = load<s16>(c, lin + 2, op.seg);
    } else {
        index = get_gpr<s32>(c, op.r1);
        lower = load<s32>(c, lin, op.seg);
        upper = load<s32>(c, lin + 4, op.seg);
    }
    if (index < lower || index > upper) raise(c, kBr);
}

// --- fast system calls

namespace {

constexpr u32 kFlatData = rights::kPresent | rights::kS | rights::kWritable | rights::kAccessed |
                          rights::kDb | rights::kGranularity;
constexpr u32 kFlatCode = rights::kPresent | rights::kS | rights::kCode | rights::kReadable |
                          rights::kAccessed | rights::kGranularity;

// CS and SS as fast system calls set them: flat, whatever the descriptor tables say.
void set_flat_segments(Vcpu& c, u16 cs, u16 ss, unsigned cpl, bool long_code) {
    const u32 dpl = cpl << rights::kDplShift;
    c.seg[Cs] = {.selector = cs,
                 .base = 0,
                 .limit = ~0u,
                 .rights = kFlatCode | dpl | (long_code ? rights::kLong : rights::kDb)};
    c.seg[Ss] = {.selector = ss, .base = 0, .limit = ~0u, .rights = kFlatData | dpl};
    update_segments(c);
}

void require_syscall(Vcpu& c) {
    if ((c.msr.efer & efer::kSce) == 0 || !c.protected_mode()) raise_ud(c);
}

}  // namespace

// [APM 3 SYSCALL]
void run_syscall(Vcpu& c, const Op& /*op*/) {
    require_syscall(c);
    const auto cs = static_cast<u16>((c.msr.star >> 32) & 0xfffc);
    const auto ss = static_cast<u16>(cs + 8);
    const bool wide = c.long_mode();
    const u64 flags = c.rflags() & ~eflags::kRf;
    if (wide) {
        const u64 target = c.code64() ? c.msr.lstar : c.msr.cstar;
        c.reg[Rcx] = c.rip;
        c.reg[R11] = flags;
        c.rip = target;
        const u64 kept = flags & ~c.msr.fmask;
        c.set_status(kept);
        set_eflags(c, kept);
        // FMASK keeps a user's TF from trapping at the entry.
        c.step_trap = (kept & eflags::kTf) != 0;
    } else {
        c.reg[Rcx] = static_cast<u32>(c.rip);
        c.rip = static_cast<u32>(c.msr.star);
        set_eflags(c, flags & ~(eflags::kVm | eflags::kIf));
    }
    set_flat_segments(c, cs, ss, 0, wide);
}

// [APM 3 SYSRET] DEVIATION: AMD's SYSRET leaves SS's hidden part alone, we make it flat (as Intel's does):
// software that copes with the former is content with the latter.
void run_sysret(Vcpu& c, const Op& op) {
    require_syscall(c);
    require_cpl0(c);
    const auto base = static_cast<u16>(c.msr.star >> 48);
    const auto ss = static_cast<u16>(base + 8);
    const bool to64 = c.code64() && op.r3 == 8;
    const auto cs = static_cast<u16>((to64 ? base + 16 : base) | 3);
    c.rip = to64 ? c.reg[Rcx] : static_cast<u32>(c.reg[Rcx]);
    if (c.code64()) {
        const u64 flags = c.reg[R11] & ~(eflags::kRf | eflags::kVm);
        c.set_status(flags);
        set_eflags(c, flags);
    } else {
        set_eflags(c, c.eflags | eflags::kIf);
    }
    set_flat_segments(c, cs, ss, 3, to64);
}

// [APM 3 SYSENTER] Invalid in long mode on this vendor's processors.
void run_sysenter(Vcpu& c, const Op& /*op*/) {
    if (c.long_mode()) raise_ud(c);
    const auto cs = static_cast<u16>(c.msr.sysenter_cs & 0xfffc);
    if (!c.protected_mode() || cs == 0) raise_gp0(c);
    set_eflags(c, c.eflags & ~(eflags::kVm | eflags::kIf | eflags::kRf));
    set_flat_segments(c, cs, static_cast<u16>(cs + 8), 0, false);
    c.reg[Rsp] = static_cast<u32>(c.msr.sysenter_esp);
    c.rip = static_cast<u32>(c.msr.sysenter_eip);
}

void run_sysexit(Vcpu& c, const Op& /*op*/) {
    if (c.long_mode()) raise_ud(c);
    const auto cs = static_cast<u16>(c.msr.sysenter_cs & 0xfffc);
    if (!c.protected_mode() || cs == 0) raise_gp0(c);
    require_cpl0(c);
    set_flat_segments(c, static_cast<u16>((cs + 16) | 3), static_cast<u16>((cs + 24) | 3), 3, false);
    c.reg[Rsp] = static_cast<u32>(c.reg[Rcx]);
    c.rip = static_cast<u32>(c.reg[Rdx]);
}

}  // namespace tessera::soft
