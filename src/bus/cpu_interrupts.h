// What an x86 CPU sees of its local APIC, whichever way the CPU is executed.
//
// Threads: every method is called on the CPU's own thread, except where it says otherwise. An implementation
// takes interrupts from other threads in an atomic inbox and calls CpuWaker::wake().
#pragma once

#include <optional>

#include "base/types.h"

namespace tessera {

// The other direction: "look at your interrupt inputs". Thread-safe, cheap, may be called at any time.
class CpuWaker {
public:
    CpuWaker() = default;
    CpuWaker(const CpuWaker&) = delete;
    CpuWaker& operator=(const CpuWaker&) = delete;
    virtual ~CpuWaker() = default;
    virtual void wake() = 0;
};

enum class MsrResult : u8 { Ok, NotMine, GeneralProtection };

class CpuInterrupts {
public:
    CpuInterrupts() = default;
    CpuInterrupts(const CpuInterrupts&) = delete;
    CpuInterrupts& operator=(const CpuInterrupts&) = delete;
    virtual ~CpuInterrupts() = default;

    // Non-maskable events since the last call, in one word; each is reported once. A SIPI behind an INIT is
    // reported by the call after the one that reports the INIT (and the waker is called again).
    struct Events {
        bool nmi = false;
        bool smi = false;
        bool init = false;
        std::optional<u8> sipi;  // start page: the CPU starts at sipi << 12
    };
    virtual Events take_events() = 0;

    // Whether an interrupt above the processor priority (or an ExtINT from the 8259A) waits.
    [[nodiscard]] virtual bool interrupt_pending() = 0;
    // Accepts it: IRR -> ISR, or the 8259A's acknowledge cycle. Nothing if it went away meanwhile.
    virtual std::optional<u8> acknowledge() = 0;

    // CR8, which is TPR[7:4].
    [[nodiscard]] virtual u8 cr8() = 0;
    virtual void set_cr8(u8 value) = 0;

    // IA32_APIC_BASE (0x1B), IA32_TSC_DEADLINE (0x6E0), x2APIC (0x800-0x8FF).
    virtual MsrResult read_msr(u32 index, u64& value) = 0;
    virtual MsrResult write_msr(u32 index, u64 value) = 0;

    // The xAPIC page. `page` is the physical address of the page the access goes to; false if it is not this
    // APIC's page now (disabled, x2APIC mode, moved), and the access belongs to the memory bus.
    [[nodiscard]] virtual bool owns_page(u64 page) const = 0;
    virtual u32 read_register(u32 offset) = 0;  // aligned 32-bit registers only
    virtual void write_register(u32 offset, u32 value) = 0;

    // CPUID leaves 1 and 0xB report these.
    [[nodiscard]] virtual u32 apic_id() const = 0;
    [[nodiscard]] virtual bool is_bootstrap() const = 0;
    // CPUID.1:EDX.APIC and CPUID.1:ECX.x2APIC follow IA32_APIC_BASE.
    [[nodiscard]] virtual bool globally_enabled() const = 0;

    // The CPU's TSC is its source plus this, since IA32_TSC or IA32_TSC_ADJUST was written: moves the TSC
    // deadline.
    virtual void set_tsc_offset(s64 offset) = 0;

    // --- For guests that end interrupts without a word to the APIC (soft/paravirt.h). An APIC without it
    // says no. Whether `vector` is the only interrupt in service, its end concerns nobody else (edge), and
    // none is requested.
    [[nodiscard]] virtual bool eoi_can_wait(u8 /*vector*/) { return false; }
    // Whether any interrupt is requested, deliverable now or not.
    [[nodiscard]] virtual bool requested() { return true; }
    // As a write to EOI.
    virtual void end_of_interrupt() {}
    // Sends an interrupt to the CPU with this APIC ID, as ICR would; only vector and delivery mode of
    // `icr_low` count. False if there is nothing that could send it.
    virtual bool send_physical(u32 /*icr_low*/, u32 /*apic_id*/) { return false; }

    // INIT keeps the APIC ID and IA32_APIC_BASE [SDM 3A 11.4.7.3]; power-on reset does not.
    virtual void init_reset() = 0;
};

// For tests and for machines without an APIC.
class NoInterrupts final : public CpuInterrupts {
public:
    Events take_events() override { return {}; }
    [[nodiscard]] bool interrupt_pending() override { return false; }
    std::optional<u8> acknowledge() override { return std::nullopt; }
    [[nodiscard]] u8 cr8() override { return cr8_; }
    void set_cr8(u8 value) override { cr8_ = value & 0xf; }
    MsrResult read_msr(u32 /*index*/, u64& /*value*/) override { return MsrResult::NotMine; }
    MsrResult write_msr(u32 /*index*/, u64 /*value*/) override { return MsrResult::NotMine; }
    [[nodiscard]] bool owns_page(u64 /*page*/) const override { return false; }
    u32 read_register(u32 /*offset*/) override { return 0; }
    void write_register(u32 /*offset*/, u32 /*value*/) override {}
    [[nodiscard]] u32 apic_id() const override { return 0; }
    [[nodiscard]] bool is_bootstrap() const override { return true; }
    [[nodiscard]] bool globally_enabled() const override { return false; }
    void set_tsc_offset(s64 /*offset*/) override {}
    void init_reset() override { cr8_ = 0; }

private:
    u8 cr8_ = 0;
};

}  // namespace tessera
