// Instructions about the processor itself: CPUID, MSRs, time, random numbers, the undefined ones.
#include "cpu/soft/exits.h"
#include "cpu/soft/msr.h"
#include "cpu/soft/soft_system.h"
#include "cpu/soft/system.h"
#include "cpu/soft/system_insns.h"
#include "cpu/soft/x86_names.h"
#include "cpu/x86/cpuid.h"

namespace tessera::soft {

namespace {

void set_edx_eax(Vcpu& c, u64 value) {
    c.reg[Rax] = static_cast<u32>(value);
    c.reg[Rdx] = value >> 32;
}
[[nodiscard]] u64 edx_eax(const Vcpu& c) {
    return (c.reg[Rdx] << 32) | static_cast<u32>(c.reg[Rax]);
}

void trace_msr(Vcpu& c, bool write, u32 index, u64 value, bool fault) {
    if (c.tracer != nullptr && c.tracer->msrs) c.tracer->on_msr(c.index, write, index, value, fault);
}

}  // namespace

void run_cpuid(Vcpu& c, const Op& /*op*/) {
    const u64 begun = exit_begin(c);
    const x86::CpuidContext context{
        .level = feature_level(c.system->config().model),
        .cpus = c.system->count(),
        .apic_id = c.interrupts->apic_id(),
        .apic_enabled = c.interrupts->globally_enabled(),
        .osxsave = (c.cr4 & cr4::kOsxsave) != 0,
        .xcr0 = c.xcr0,
        .tsc_khz = c.system->world().tsc.hz() / 1000,
        .paravirt_clock = c.system->world().clock != nullptr,
    };
    const x86::CpuidResult r =
        x86::cpuid(context, static_cast<u32>(c.reg[Rax]), static_cast<u32>(c.reg[Rcx]));
    c.reg[Rax] = r.eax;
    c.reg[Rbx] = r.ebx;
    c.reg[Rcx] = r.ecx;
    c.reg[Rdx] = r.edx;
    exit_end(c, ExitCause::Cpuid, begun);
}

void run_rdmsr(Vcpu& c, const Op& /*op*/) {
    require_cpl0(c);
    const auto index = static_cast<u32>(c.reg[Rcx]);
    u64 value = 0;
    const u64 begun = exit_begin(c);
    const bool known = read_msr(c, index, value);
    exit_end(c, ExitCause::MsrRead, begun);
    trace_msr(c, false, index, value, !known);
    if (!known) raise_gp0(c);
    set_edx_eax(c, value);
}

void run_wrmsr(Vcpu& c, const Op& /*op*/) {
    require_cpl0(c);
    const auto index = static_cast<u32>(c.reg[Rcx]);
    const u64 value = edx_eax(c);
    const u64 begun = exit_begin(c);
    const bool accepted = write_msr(c, index, value);
    exit_end(c, ExitCause::MsrWrite, begun);
    trace_msr(c, true, index, value, !accepted);
    if (!accepted) raise_gp0(c);
}

namespace {
void check_tsd(Vcpu& c) {
    if (c.cpl > 0 && (c.cr4 & cr4::kTsd) != 0) raise_gp0(c);
}
}  // namespace

void run_rdtsc(Vcpu& c, const Op& /*op*/) {
    check_tsd(c);
    set_edx_eax(c, guest_tsc(c));
}

void run_rdtscp(Vcpu& c, const Op& /*op*/) {
    check_tsd(c);
    set_edx_eax(c, guest_tsc(c));
    c.reg[Rcx] = static_cast<u32>(c.msr.tsc_aux);
}

void run_rdpid(Vcpu& c, const Op& op) {
    set_register(c, op.r1, op.r3, static_cast<u32>(c.msr.tsc_aux));
}

// There are no counters: every index is out of range.
void run_rdpmc(Vcpu& c, const Op& /*op*/) {
    raise_gp0(c);
}

// --- random numbers, from the host's generator. CF = 0: none at hand, which software has to cope with; that
// is also the answer on a host without the instruction.

namespace {

template <typename T, bool Seed>
bool host_random(T* out) {
    bool ok = false;
    if constexpr (Seed)
        asm volatile("rdseed %0" : "=r"(*out), "=@ccc"(ok));
    else
        asm volatile("rdrand %0" : "=r"(*out), "=@ccc"(ok));
    return ok;
}

template <bool Seed>
void random(Vcpu& c, const Op& op) {
    static const bool available =
        Seed ? __builtin_cpu_supports("rdseed") != 0 : __builtin_cpu_supports("rdrnd") != 0;
    u64 value = 0;
    bool ok = false;
    if (available) {
        if (op.r3 == 2) {
            u16 v = 0;
            ok = host_random<u16, Seed>(&v);
            value = v;
        } else if (op.r3 == 4) {
            u32 v = 0;
            ok = host_random<u32, Seed>(&v);
            value = v;
        } else {
            ok = host_random<u64, Seed>(&value);
        }
    }
    set_register(c, op.r1, op.r3, ok ? value : 0);
    c.set_status(ok ? eflags::kCf : 0);
}

}  // namespace

void run_rdrand(Vcpu& c, const Op& op) {
    random<false>(c, op);
}
void run_rdseed(Vcpu& c, const Op& op) {
    random<true>(c, op);
}

// UD0, UD1, UD2; RSM outside SMM (GAP: there is no SMM).
void run_undefined(Vcpu& c, const Op& /*op*/) {
    raise_ud(c);
}

}  // namespace tessera::soft
