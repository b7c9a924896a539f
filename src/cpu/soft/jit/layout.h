// Where translated code finds the fields of the Vcpu it addresses by GS.
#pragma once

#include <cstddef>

#include "cpu/soft/vcpu.h"

namespace tessera::soft::jit {

#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Winvalid-offsetof"
inline constexpr u64 kOffReg = offsetof(Vcpu, reg);
inline constexpr u64 kOffStatus = offsetof(Vcpu, status);
inline constexpr u64 kOffAttention = offsetof(Vcpu, attention);
inline constexpr u64 kOffTlb = offsetof(Vcpu, tlb);
inline constexpr u64 kOffSegBase = offsetof(Vcpu, seg_base);
inline constexpr u64 kOffReadEnd = offsetof(Vcpu, read_end);
inline constexpr u64 kOffWriteEnd = offsetof(Vcpu, write_end);
inline constexpr u64 kOffSeg = offsetof(Vcpu, seg);
inline constexpr u64 kOffFpTraps = offsetof(Vcpu, fp_traps);
inline constexpr u64 kOffHostStack = offsetof(Vcpu, host_stack);
inline constexpr u64 kOffSelf = offsetof(Vcpu, self);
inline constexpr u64 kOffTarget = offsetof(Vcpu, jit_target);
inline constexpr u64 kOffAddress = offsetof(Vcpu, jit_address);
inline constexpr u64 kOffSlot = offsetof(Vcpu, jit_slot);
inline constexpr u64 kOffAcross = offsetof(Vcpu, jit_across);
inline constexpr u64 kOffFlagsCode = offsetof(Vcpu, flags_code);
inline constexpr u64 kOffCodeBegin = offsetof(Vcpu, code_begin);
inline constexpr u64 kOffTargets = offsetof(Vcpu, targets);
inline constexpr u64 kOffExecGenKernel = offsetof(Vcpu, exec_gen_kernel);
inline constexpr u64 kOffExecGenUser = offsetof(Vcpu, exec_gen_user);
inline constexpr u64 kOffYmm = offsetof(Vcpu, ymm);
inline constexpr u64 kOffFpu = offsetof(Vcpu, fpu);
inline constexpr u64 kOffSlotLogs = offsetof(Vcpu, slot_logs);
inline constexpr u64 kOffEflags = offsetof(Vcpu, eflags);
static_assert(offsetof(Vcpu, interrupt_waits) == kOffAttention + 4);
static_assert(kOffStatus >= kOffFpTraps + 4);
inline constexpr u64 kOffTscIsProcessors = offsetof(Vcpu, tsc_is_processors);
inline constexpr u64 kOffTscLess = offsetof(Vcpu, tsc_less);
inline constexpr u64 kOffTscOffset = offsetof(Vcpu, msr) + offsetof(x86::Msrs, tsc_offset);
inline constexpr u64 kOffTscAux = offsetof(Vcpu, msr) + offsetof(x86::Msrs, tsc_aux);
inline constexpr u64 kOffStacTlb = offsetof(Vcpu, stac_tlb);
inline constexpr u64 kOffClacTlb = offsetof(Vcpu, clac_tlb);
inline constexpr u64 kOffCr4 = offsetof(Vcpu, cr4);
inline constexpr u64 kOffInstructions = offsetof(Vcpu, instructions);
inline constexpr u64 kOffBlocksRun = offsetof(Vcpu, blocks_run);
inline constexpr u64 kOffAccesses = offsetof(Vcpu, accesses);
inline constexpr u64 kOffSlotsMissed = offsetof(Vcpu, slots_missed);
inline constexpr u64 kOffKernelGsBase = offsetof(Vcpu, msr) + offsetof(x86::Msrs, kernel_gs_base);
#pragma clang diagnostic pop
inline constexpr u64 kOffAux = offsetof(TlbEntry, aux);
inline constexpr u64 kOffTagR = offsetof(TlbEntry, tag_r);
inline constexpr u64 kOffTagW = offsetof(TlbEntry, tag_w);
inline constexpr u64 kOffAddend = offsetof(TlbEntry, addend);
// By how much a staged store's lookup returns further on: the two jumps behind its call.
inline constexpr s32 kStagedReturn = 6 + 5;
static_assert(sizeof(TlbEntry) == 32 && sizeof(TargetEntry) == 16 && sizeof(x86::Segment) == 24);

}  // namespace tessera::soft::jit
