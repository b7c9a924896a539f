// The MSRs of a vCPU that are state: those with a field in x86::Msrs by name, the others as pairs.
// Not here: EFER, FS and GS base (special registers), the local APIC's (APIC_BASE, 0x800-0x8ff,
// TSC_DEADLINE), IA32_TSC (see VcpuState::tsc_offset), what Hyper-V's guests use (it is not offered to them).
#pragma once

#include <span>
#include <vector>

#include "base/result.h"
#include "base/types.h"
#include "cpu/kvm/host.h"
#include "cpu/kvm/linux_kvm.h"
#include "cpu/x86/state.h"

namespace tessera::kvm {

// How much of a State is meant.
enum class Extent : u8 {
    Whole,
    // All but other_msrs and other_components: what it takes to execute instructions.
    Registers,
};

class VcpuMsrs {
public:
    // Finds out which there are, and remembers the values at power-on: the vCPU has its CPUID, and has not
    // run.
    [[nodiscard]] static Result<VcpuMsrs> create(const Host& host, int vcpu);

    [[nodiscard]] Status read(int vcpu, x86::State& out, Extent extent) const;
    // Writes what differs from the present values. Of other_msrs, those that `in` lacks get their power-on
    // values.
    [[nodiscard]] Status write(int vcpu, const x86::State& in, Extent extent) const;

    // Writes those with a field that differ.
    [[nodiscard]] static Status update(int vcpu, const x86::Msrs& before, const x86::Msrs& after);

private:
    VcpuMsrs() = default;

    std::vector<u32> named_;             // those with a field that can be read
    std::vector<kvm_msr_entry> others_;  // those without, with their values at power-on
};

// KVM_GET_MSRS of any number. What cannot be read is left out.
[[nodiscard]] Result<std::vector<kvm_msr_entry>> get_msrs(int vcpu, std::span<const u32> indices);
// KVM_SET_MSRS. The error names the first that is refused.
[[nodiscard]] Status set_msrs(int vcpu, std::span<const kvm_msr_entry> entries);

}  // namespace tessera::kvm
