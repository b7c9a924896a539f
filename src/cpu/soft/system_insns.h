// The instructions of InsnClass::System as plain functions; lower_system.cpp makes handlers of them.
//
// Ops: r3 is the operand size in bytes, r1 the register operand (byte offset, or a segment or control
// register's number), r2 a second one. kOperandHint says that the operand that may be either is memory. c.rip
// is valid (the next instruction's address) only in those that lower_system.cpp wraps with end_with.
#pragma once

#include "cpu/soft/access.h"
#include "cpu/soft/op.h"
#include "cpu/soft/vcpu.h"

namespace tessera::soft {

[[nodiscard]] inline bool memory_form(const Op& op) {
    return (op.flags & kOperandHint) != 0;
}
[[nodiscard]] inline bool real_or_virtual(const Vcpu& c) {
    return !c.protected_mode() || c.v8086();
}
inline void require_cpl0(Vcpu& c) {
    if (c.cpl != 0) raise_gp0(c);
}
// A register operand of run-time size; 4 bytes clear the upper half.
void set_register(Vcpu& c, u8 offset, unsigned size, u64 value);
// A 16-bit operand in a register or in memory.
u16 read_rm16(Vcpu& c, const Op& op, u8 offset);
// Stores the low 16 bits in memory, or all of `value` in a register of the operand size.
void write_rm16(Vcpu& c, const Op& op, u64 value);
void set_zf(Vcpu& c, bool on);

// --- segment_insns.cpp
void run_mov_from_seg(Vcpu& c, const Op& op);
void run_mov_to_seg(Vcpu& c, const Op& op);
void run_push_seg(Vcpu& c, const Op& op);
void run_pop_seg(Vcpu& c, const Op& op);
void run_load_far(Vcpu& c, const Op& op);
void run_store_table(Vcpu& c, const Op& op);
void run_load_table(Vcpu& c, const Op& op);
void run_sldt(Vcpu& c, const Op& op);
void run_str(Vcpu& c, const Op& op);
void run_lldt(Vcpu& c, const Op& op);
void run_ltr(Vcpu& c, const Op& op);
void run_lar(Vcpu& c, const Op& op);
void run_lsl(Vcpu& c, const Op& op);
void run_verr(Vcpu& c, const Op& op);
void run_verw(Vcpu& c, const Op& op);
void run_arpl(Vcpu& c, const Op& op);
void run_rd_base(Vcpu& c, const Op& op);
void run_wr_base(Vcpu& c, const Op& op);
void run_swapgs(Vcpu& c, const Op& op);

// --- transfer_insns.cpp
void run_far_jump(Vcpu& c, const Op& op);
void run_far_call(Vcpu& c, const Op& op);
void run_far_return(Vcpu& c, const Op& op);
void run_iret(Vcpu& c, const Op& op);
void run_int(Vcpu& c, const Op& op);
void run_int3(Vcpu& c, const Op& op);
void run_into(Vcpu& c, const Op& op);
void run_int1(Vcpu& c, const Op& op);
void run_syscall(Vcpu& c, const Op& op);
void run_sysret(Vcpu& c, const Op& op);
void run_sysenter(Vcpu& c, const Op& op);
void run_sysexit(Vcpu& c, const Op& op);
void run_bound(Vcpu& c, const Op& op);

// --- control_insns.cpp
void run_mov_from_cr(Vcpu& c, const Op& op);
void run_mov_to_cr(Vcpu& c, const Op& op);
void run_mov_from_dr(Vcpu& c, const Op& op);
void run_mov_to_dr(Vcpu& c, const Op& op);
void run_smsw(Vcpu& c, const Op& op);
void run_lmsw(Vcpu& c, const Op& op);
void run_clts(Vcpu& c, const Op& op);
void run_cli(Vcpu& c, const Op& op);
void run_sti(Vcpu& c, const Op& op);
void run_clac(Vcpu& c, const Op& op);
void run_stac(Vcpu& c, const Op& op);
void run_hlt(Vcpu& c, const Op& op);
void run_monitor(Vcpu& c, const Op& op);
void run_mwait(Vcpu& c, const Op& op);
void run_cache_line(Vcpu& c, const Op& op);
void run_clzero(Vcpu& c, const Op& op);
void run_cache_all(Vcpu& c, const Op& op);
void run_invlpg(Vcpu& c, const Op& op);
void run_invpcid(Vcpu& c, const Op& op);
void run_in(Vcpu& c, const Op& op);
void run_out(Vcpu& c, const Op& op);

// --- processor_insns.cpp
void run_cpuid(Vcpu& c, const Op& op);
void run_rdmsr(Vcpu& c, const Op& op);
void run_wrmsr(Vcpu& c, const Op& op);
void run_rdtsc(Vcpu& c, const Op& op);
void run_rdtscp(Vcpu& c, const Op& op);
void run_rdpid(Vcpu& c, const Op& op);
void run_rdpmc(Vcpu& c, const Op& op);
void run_rdrand(Vcpu& c, const Op& op);
void run_rdseed(Vcpu& c, const Op& op);
void run_hypercall(Vcpu& c, const Op& op);  // paravirt.cpp
void run_undefined(Vcpu& c, const Op& op);

}  // namespace tessera::soft
