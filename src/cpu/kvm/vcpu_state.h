// x86::State out of a vCPU of KVM's and into it. [LINUX-KVM api]
//
// KVM has no place for these parts of a State. What becomes of them:
//
//   fpu.cs, fpu.ds          lost (0): KVM keeps the 64-bit form of the x87 pointers
//   fpu.tag                 a register is empty or not; the rest follows from its contents
//   pdpte                   outside PAE paging nothing uses them: lost (0)
//   seg, ldtr, tr           of an unusable one AMD's processors keep only that and the DPL; their G bit
//                           follows from the limit; "accessed" and a TR's "busy" are always set. In real and
//                           virtual-8086 mode the DPL (of SS) is what that mode means by it, and outside
//                           long mode there is no L bit: KVM insists
//   msr.tsc_offset          see tsc_offset() below; read() leaves 0
//   msr.misc_enable         bits 7, 11 and 12 are the host's
//   msr.* of 0              stay, where the host has no such MSR; other values are an error
//   shadow_is_mov_ss        AMD's processors have one bit for both shadows, which is read as STI's
//   paravirt_eoi_offered    KVM takes an offer back before KVM_RUN returns, and the software CPU in
//                           prepare_to_leave()
//   activity                Shutdown, and all of it without a local APIC in the kernel, is kept here, for
//                           the run loop: KVM_RUN knows only guests that run
//   event_*                 software interrupts and exceptions are not reported: their instruction is
//                           executed again
//
// GAP: the state of nested guests (KVM_GET_NESTED_STATE), SMM.
#pragma once

#include <vector>

#include "base/result.h"
#include "base/types.h"
#include "cpu/kvm/host.h"
#include "cpu/kvm/linux_kvm.h"
#include "cpu/kvm/vcpu_msrs.h"
#include "cpu/kvm/xsave_area.h"
#include "cpu/x86/state.h"

namespace tessera::kvm {

// On the vCPU's own thread, while nobody is in KVM_RUN. KVM_CAP_EXCEPTION_PAYLOAD must not be enabled: KVM
// then keeps parts of an exception where the architecture has none.
class VcpuState {
public:
    // The vCPU has its CPUID (KVM_SET_CPUID2) and has not run; whether local APICs are in the kernel is
    // settled. The descriptor is borrowed.
    [[nodiscard]] static Result<VcpuState> create(const Host& host, int vcpu);

    // Reading lets KVM act on what is pending (INIT, SIPI, NMI), as KVM_RUN would first.
    [[nodiscard]] Result<x86::State> read(Extent extent = Extent::Whole) const;
    // The local APIC, APIC_BASE and CR8 stay. After an error the vCPU holds some of the old state and some
    // of the new. Unsupported: the state uses what this host does not have.
    [[nodiscard]] Status write(const x86::State& state, Extent extent = Extent::Whole);

    // The vCPU still holds what read() said: writes what differs, as far as Extent::Registers goes.
    [[nodiscard]] Status update(const x86::State& before, const x86::State& after);

    // What KVM_RUN would not know: see above. Running unless the last write() said otherwise.
    [[nodiscard]] x86::Activity kept_activity() const { return kept_activity_; }
    // A run loop without APICs in the kernel halts and starts its CPUs itself.
    void keep_activity(x86::Activity activity) { kept_activity_ = activity; }

    // The guest's TSC less the host's. Without KVM_CAP_VCPU_ATTRIBUTES it is measured, and as exact as that.
    [[nodiscard]] Result<u64> tsc_offset() const;
    // [SDM 3B 17.17.3] Leaves IA32_TSC_ADJUST as it is. A KVM that interprets may give its guests the host's
    // TSC whatever is asked: what counts is what tsc_offset() says then.
    [[nodiscard]] Status set_tsc_offset(u64 offset) const;

    [[nodiscard]] Result<u64> apic_base() const;
    [[nodiscard]] Status set_apic_base(u64 value) const;
    [[nodiscard]] Result<u64> cr8() const;
    [[nodiscard]] Status set_cr8(u64 value) const;

private:
    VcpuState(const Host& host, int vcpu, VcpuMsrs msrs, XsaveArea xsave);

    [[nodiscard]] Result<kvm_sregs2> get_sregs() const;
    [[nodiscard]] Status set_sregs(const kvm_sregs2& sregs) const;
    [[nodiscard]] Status read_activity(x86::State& out) const;
    [[nodiscard]] Status read_events(x86::State& out) const;
    [[nodiscard]] Status read_registers(x86::State& out) const;
    [[nodiscard]] Status read_sregs(x86::State& out) const;
    [[nodiscard]] Status read_debug(x86::State& out) const;
    [[nodiscard]] Status read_extended(x86::State& out, Extent extent) const;
    [[nodiscard]] Result<std::vector<u8>> get_xsave() const;
    [[nodiscard]] Status write_sregs(const x86::State& in) const;
    [[nodiscard]] Status write_registers(const x86::State& in) const;
    [[nodiscard]] Status check_mode(const x86::State& in) const;
    [[nodiscard]] Status write_xcr0(const x86::State& in) const;
    [[nodiscard]] Status write_debug(const x86::State& in) const;
    [[nodiscard]] Status write_events(const x86::State& in) const;
    [[nodiscard]] Status write_activity(const x86::State& in);

    int vcpu_;
    VcpuMsrs msrs_;
    XsaveArea xsave_;
    bool has_sregs2_;
    bool has_xsave2_;
    bool has_attributes_;
    bool apic_in_kernel_ = false;
    x86::Activity kept_activity_ = x86::Activity::Running;
};

}  // namespace tessera::kvm
