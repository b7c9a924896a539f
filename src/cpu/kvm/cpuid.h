// What CPUID says to a guest under KVM: what the host supports, the model allows, and the board is.
// [LINUX-KVM cpuid], [SDM 2A CPUID], [APM 3 appendix E]
//
// Vendor, family, model and stepping are always the host's: a guest chooses its defences against its
// processor's faults by them. A named model has the features of x86::cpuid() as far as the host has them, so
// that the guest can go on in the software CPU; of KVM's own offers it gets those that may stop working
// there. The host's speculation controls are not among them: for those there is `host`.
// GAP: AMX, which a process has to ask its kernel for (ARCH_REQ_XCOMP_GUEST_PERM).
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/types.h"
#include "cpu/kvm/host.h"
#include "cpu/kvm/linux_kvm.h"
#include "cpu/x86/cpuid.h"

namespace tessera::kvm {

enum class LocalApics : u8 {
    Kernel,  // irqchip=kernel and split
    User,
};

struct CpuidRequest {
    std::optional<x86::FeatureLevel> level = std::nullopt;  // none: all that the host has
    unsigned cpus = 1;
    u32 apic_id = 0;  // of this CPU
    u64 tsc_khz = 0;  // of the guest's TSC; 0: not known
    LocalApics apics = LocalApics::Kernel;
    bool nested = false;     // VMX or SVM, where the host has it and the model is the host's
    bool hypercalls = true;  // features by which the guest calls KVM
};

struct GuestCpuid {
    std::vector<kvm_cpuid_entry2> entries;  // for KVM_SET_CPUID2
    unsigned physical_address_bits = 36;
};

// `supported`: KVM_GET_SUPPORTED_CPUID. The error lists what x86-64-v2 or -v3 wants and the host lacks.
[[nodiscard]] Result<GuestCpuid> guest_cpuid(std::span<const kvm_cpuid_entry2> supported,
                                             const CpuidRequest& request);
[[nodiscard]] Result<GuestCpuid> guest_cpuid(const Host& host, const CpuidRequest& request);

// KVM_SET_CPUID2: before the vCPU runs for the first time.
[[nodiscard]] Status set_cpuid(int vcpu, std::span<const kvm_cpuid_entry2> entries);

}  // namespace tessera::kvm
