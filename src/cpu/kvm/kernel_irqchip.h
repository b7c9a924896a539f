// The interrupt chips that KVM has in the kernel, as calls on a VM and its vCPUs: local APICs, and with
// Kind::Kernel also I/O APIC, 8259A pair and 8254. Knows no chips of ours. [LINUX-KVM api]
#pragma once

#include <span>
#include <vector>

#include "base/result.h"
#include "base/types.h"
#include "cpu/kvm/linux_kvm.h"

namespace tessera::kvm {

// A message signalled interrupt as KVM takes it: address bits 63:40 are bits 31:8 of the destination
// (KVM_X2APIC_API).
struct Msi {
    u64 address = 0;
    u32 data = 0;
    friend bool operator==(const Msi&, const Msi&) = default;
};

// An input of a chip in the kernel.
struct ChipInput {
    u32 chip = 0;  // KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_IRQCHIP_IOAPIC
    u32 pin = 0;
};

// What a global interrupt number (GSI) stands for; one may stand for several inputs.
struct InputRoute {
    u32 gsi = 0;
    ChipInput input;
};
struct MessageRoute {
    u32 gsi = 0;
    Msi message;
    friend bool operator==(const MessageRoute&, const MessageRoute&) = default;
};

class KernelIrqchip {
public:
    enum class Kind : u8 {
        Kernel,  // all chips are in the kernel
        Split,   // only the local APICs
    };
    static constexpr unsigned kIoApicPins = KVM_IOAPIC_NUM_PINS;

    // Gives the VM, which has no vCPUs yet, its chips. Routes are to be set. The descriptor is borrowed.
    [[nodiscard]] static Result<KernelIrqchip> create(int vm, Kind kind);

    [[nodiscard]] Kind kind() const { return kind_; }

    // Replaces all routes.
    [[nodiscard]] Status set_routes(std::span<const InputRoute> inputs,
                                    std::span<const MessageRoute> messages) const;
    // The level of the wire behind a GSI. Thread-safe, as is everything up to the chips' states.
    [[nodiscard]] Status set_level(u32 gsi, bool high) const;
    // Whether any local APIC took it is not told: a message that names nobody is lost, as on real buses.
    [[nodiscard]] Status send(const Msi& message) const;

    // A write to the eventfd `event` is an edge of `gsi`; with `resample` (or -1) it is a level that ends
    // when the guest ends the interrupt, which is told by that eventfd.
    [[nodiscard]] Status add_irqfd(int event, u32 gsi, int resample = -1) const;
    [[nodiscard]] Status remove_irqfd(int event, u32 gsi) const;

    // A tick of the 8254 that the guest is too late for is gone, as with a real one; until this is called KVM
    // keeps it, in no state that it gives. Takes 10 to 20 ms. Kind::Kernel only; thread-safe.
    [[nodiscard]] Status drop_late_ticks() const;

    // --- The chips' states, while no vCPU runs. Those of the I/O APIC, the 8259A pair and the 8254 are there
    // with Kind::Kernel.
    [[nodiscard]] Result<kvm_pic_state> pic(bool slave) const;
    [[nodiscard]] Status set_pic(bool slave, const kvm_pic_state& state) const;
    [[nodiscard]] Result<kvm_ioapic_state> io_apic() const;
    [[nodiscard]] Status set_io_apic(const kvm_ioapic_state& state) const;
    [[nodiscard]] Result<kvm_pit_state2> pit() const;
    [[nodiscard]] Status set_pit(const kvm_pit_state2& state) const;

private:
    KernelIrqchip(int vm, Kind kind) : vm_(vm), kind_(kind) {}

    int vm_;
    Kind kind_;
};

// --- A vCPU's local APIC in the kernel, while the vCPU does not run.

[[nodiscard]] Result<kvm_lapic_state> read_local_apic(int vcpu);
[[nodiscard]] Status write_local_apic(int vcpu, const kvm_lapic_state& state);
[[nodiscard]] Result<u64> read_vcpu_msr(int vcpu, u32 index);
[[nodiscard]] Status write_vcpu_msr(int vcpu, u32 index, u64 value);
// KVM_NMI.
[[nodiscard]] Status raise_nmi(int vcpu);
// KVM takes a timer's interrupt into IRR only on its way through KVM_RUN, and what waits for that is part of
// no state it gives. This goes that way without executing anything in the guest, and without handlers of
// signals running. The last exit of the vCPU has been completed. Gives the vectors whose ends KVM had still
// to tell the I/O APIC (Kind::Split). GAP: a triple fault that KVM has noticed and not told is an error here.
[[nodiscard]] Result<std::vector<u8>> take_timer_interrupts(int vcpu, kvm_run& run);

}  // namespace tessera::kvm
