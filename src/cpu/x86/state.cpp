#include "cpu/x86/state.h"

namespace tessera::x86 {

namespace {

constexpr u32 kResetDataRights = rights::kS | rights::kPresent | rights::kWritable | rights::kAccessed;
constexpr u32 kResetCodeRights = kResetDataRights | rights::kCode;
constexpr u32 kFamilyModelStepping = 0x000a0f11;  // EDX after reset: CPUID.1:EAX

}  // namespace

State reset_state() {
    State s;
    for (auto& segment : s.seg)
        segment = {.selector = 0, .base = 0, .limit = 0xffff, .rights = kResetDataRights};
    s.seg[Cs] = {.selector = 0xf000, .base = 0xffff'0000, .limit = 0xffff, .rights = kResetCodeRights};
    s.ldtr = {.selector = 0, .base = 0, .limit = 0xffff, .rights = rights::kPresent | 2};
    s.tr = {.selector = 0, .base = 0, .limit = 0xffff, .rights = rights::kPresent | 11};
    s.gpr[Rdx] = kFamilyModelStepping;
    return s;
}

State init_state(const State& before) {
    State s = reset_state();
    s.fpu = before.fpu;
    s.mxcsr = before.mxcsr;
    s.ymm = before.ymm;
    s.xcr0 = before.xcr0;
    const u64 efer_after_init = 0;
    s.msr = before.msr;
    s.msr.efer = efer_after_init;
    // The software that named these addresses is gone.
    s.msr.kvm_system_time = s.msr.kvm_pv_eoi = s.msr.kvm_steal_time = 0;
    s.msr.kvm_async_pf = s.msr.kvm_async_pf_vector = 0;
    s.other_msrs = before.other_msrs;
    s.other_components = before.other_components;
    // CD and NW are kept by INIT.
    s.cr0 = cr0::kEt | (before.cr0 & (cr0::kCd | cr0::kNw));
    return s;
}

}  // namespace tessera::x86
