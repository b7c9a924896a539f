// A virtual machine of the kernel's: its memory, its interrupt chips if it has any, its vCPUs' descriptors.
#pragma once

#include <optional>
#include <vector>

#include "base/file.h"
#include "base/result.h"
#include "base/types.h"
#include "cpu/kvm/host.h"
#include "cpu/kvm/kernel_irqchip.h"
#include "cpu/kvm/linux_kvm.h"
#include "memory/memory_map.h"

namespace tessera::kvm {

// Which interrupt chips the kernel executes.
enum class Irqchip : u8 {
    Kernel,  // local APICs, I/O APIC, the 8259A pair, the 8254
    Split,   // local APICs
    User,    // none: ours do everything
};

// What KernelVm gives to KVM_SET_USER_MEMORY_REGION: a slot for each region, in their order.
[[nodiscard]] std::vector<kvm_userspace_memory_region> memory_slots(const MemoryMap& memory);

class KernelVm {
public:
    // Every region of `memory` becomes a slot; ROM is read only to the guest. The map does not change later.
    // `host` stays longer. The error names the call, or the region.
    [[nodiscard]] static Result<KernelVm> create(const Host& host, Irqchip irqchip, const MemoryMap& memory);

    [[nodiscard]] int fd() const { return vm_.get(); }
    [[nodiscard]] Irqchip irqchip() const { return irqchip_; }
    // Null with Irqchip::User.
    [[nodiscard]] const KernelIrqchip* chips() const { return chips_ ? &*chips_ : nullptr; }
    [[nodiscard]] Result<File> add_vcpu(u32 apic_id) const;
    // Accesses to these MSRs, and to those that the kernel does not know, leave the guest.
    [[nodiscard]] Status watch_msrs(const Host& host) const;
    // Guest time in nanoseconds, which the paravirtual clock shows.
    [[nodiscard]] Status set_clock(u64 ns) const;

private:
    KernelVm(File vm, Irqchip irqchip) : vm_(std::move(vm)), irqchip_(irqchip) {}
    [[nodiscard]] Status add_memory(const MemoryMap& memory) const;

    File vm_;
    Irqchip irqchip_;
    std::optional<KernelIrqchip> chips_;
};

}  // namespace tessera::kvm
