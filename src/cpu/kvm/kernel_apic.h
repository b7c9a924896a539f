// The local APIC in the kernel, as the interpreter sees it while it executes an instruction for KVM.
// Interrupts stay in the kernel, which delivers them at its next entry.
#pragma once

#include "bus/cpu_interrupts.h"

namespace tessera::kvm {

class KernelApic final : public CpuInterrupts {
public:
    explicit KernelApic(int vcpu) : vcpu_(vcpu) {}

    Events take_events() override { return {}; }
    [[nodiscard]] bool interrupt_pending() override { return false; }
    std::optional<u8> acknowledge() override { return std::nullopt; }
    [[nodiscard]] u8 cr8() override;
    void set_cr8(u8 value) override;
    MsrResult read_msr(u32 index, u64& value) override;
    MsrResult write_msr(u32 index, u64 value) override;
    [[nodiscard]] bool owns_page(u64 page) const override;
    u32 read_register(u32 offset) override;
    // GAP: the end of an interrupt that an instruction of the interpreter's announces by a register is not
    // heard.
    void write_register(u32 /*offset*/, u32 /*value*/) override {}
    [[nodiscard]] u32 apic_id() const override;
    [[nodiscard]] bool is_bootstrap() const override { return (base() & kBootstrap) != 0; }
    [[nodiscard]] bool globally_enabled() const override { return (base() & kEnabled) != 0; }
    void set_tsc_offset(s64 /*offset*/) override {}
    void init_reset() override {}

private:
    static constexpr u64 kBootstrap = 1 << 8, kX2apic = 1 << 10, kEnabled = 1 << 11;
    [[nodiscard]] u64 base() const;

    int vcpu_;
};

}  // namespace tessera::kvm
