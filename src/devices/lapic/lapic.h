// Local APIC with xAPIC registers, x2APIC MSRs and TSC-deadline timer, one per CPU. Leaves out: extended
// destination IDs and interrupt remapping.
//
// Threads: registers belong to the CPU's own thread. What comes from elsewhere (messages, pins, the timer) is
// posted into an Inbox, which the owner merges at the start of everything it does here. What senders have to
// know of a receiver (mode, logical ID, enabled) is published in one atomic word. So there is no lock, and
// interrupt_pending() with nothing there is two loads.
#pragma once

#include <array>
#include <atomic>
#include <optional>

#include "base/clock.h"
#include "base/result.h"
#include "base/types.h"
#include "bus/cpu_interrupts.h"
#include "devices/lapic/apic_fabric.h"
#include "devices/lapic/lapic_inbox.h"
#include "devices/lapic/lapic_regs.h"
#include "devices/lapic/lapic_timer.h"
#include "devices/lapic/vector_set.h"
#include "snapshot/state_visitor.h"

namespace tessera::lapic {

class Lapic final : public CpuInterrupts {
public:
    struct Config {
        u32 apic_id = 0;         // initial APIC ID of CPUID leaves 1 and 0xB
        bool bootstrap = false;  // power-on value of IA32_APIC_BASE.BSP
        bool x2apic = true;      // whether the CPU model has it; else its enable bit is reserved
        unsigned physical_address_bits = 46;
    };

    Lapic(const Config& config, const Clock& clock, const TscSource& tsc, TimerQueue& timers,
          ApicFabric& fabric);

    // While the machine is put together, before any thread runs. Each may be left out.
    void connect_waker(CpuWaker& waker) { waker_ = &waker; }
    void connect_eoi(EoiSink& sink) { eoi_sink_ = &sink; }
    void connect_pic(PicAcknowledge& pic) { pic_ = &pic; }

    // --- From any thread.
    // Accepts a message that is for this APIC (see matches). Wakes the CPU.
    void accept(const ApicMessage& message);
    // Whether `message` names this APIC.
    [[nodiscard]] bool matches(const ApicMessage& message) const;
    // Whether fixed interrupts are taken: globally and by software enabled.
    [[nodiscard]] bool accepts_fixed() const;
    // The pins: 0 is LINT0 (usually the 8259A pair's INTR), 1 is LINT1 (NMI).
    void set_lint(unsigned pin, bool high);
    [[nodiscard]] bool lint(unsigned pin) const { return (inbox_.pins() >> pin & 1) != 0; }

    // --- CpuInterrupts, on the CPU's thread.
    Events take_events() override;
    [[nodiscard]] bool interrupt_pending() override {
        if (!inbox_.empty()) [[unlikely]]
            merge_inbox();
        return deliverable_;
    }
    std::optional<u8> acknowledge() override;
    [[nodiscard]] u8 cr8() override { return static_cast<u8>(state_.tpr >> 4); }
    void set_cr8(u8 value) override;
    MsrResult read_msr(u32 index, u64& value) override;
    MsrResult write_msr(u32 index, u64 value) override;
    [[nodiscard]] bool owns_page(u64 page) const override;
    u32 read_register(u32 offset) override;
    void write_register(u32 offset, u32 value) override;
    [[nodiscard]] u32 apic_id() const override { return config_.apic_id; }
    [[nodiscard]] bool is_bootstrap() const override;
    [[nodiscard]] bool globally_enabled() const override;
    void set_tsc_offset(s64 offset) override;
    void init_reset() override;
    [[nodiscard]] bool eoi_can_wait(u8 vector) override;
    [[nodiscard]] bool requested() override;
    void end_of_interrupt() override;
    bool send_physical(u32 icr_low, u32 apic_id) override;

    // A source inside the CPU: the performance counters, the thermal sensor, corrected machine checks.
    void raise_local(Lvt entry);

    // --- While the CPU stands still.
    // Power-on. The pins' levels come from outside and stay.
    void reset();
    // As PC firmware hands over: software enabled, LINT0 takes the 8259A's INTR, LINT1 NMI [MP 1.4 3.6.2.2].
    void enter_virtual_wire_mode();
    void visit_state(StateVisitor& v);
    Status load(StateVisitor& v);

    struct State {
        u64 apic_base = 0;
        u8 tpr = 0;
        u32 ldr = 0;  // xAPIC only; x2APIC derives it
        u32 dfr = kDfrFlat;
        u32 svr = kSvrReset;
        VectorSet isr;
        VectorSet tmr;
        VectorSet irr;
        u32 esr = 0;
        u32 esr_pending = 0;  // becomes esr at the next write to ESR
        u64 icr = 0;
        std::array<u32, kLvtCount> lvt{};
        u32 events = 0;  // Post bits taken from the inbox for take_events(), with the start-up vector
        u8 pins = 0;     // as last seen
    };
    // For those who keep the same APIC in another form.
    struct Saved {
        State registers;
        LapicTimer::State timer;
    };
    // Everything, with what has fallen due by now taken in.
    [[nodiscard]] Saved saved();
    // Refuses what no local APIC can be. A deadline that has passed meanwhile is reached, the CPU is woken if
    // there is something for it.
    Status restore(const Saved& saved);

private:
    enum class Mode : u8 { Disabled, Xapic, X2apic };

    [[nodiscard]] static State initial_state(u64 apic_base);
    static void visit(StateVisitor& v, State& s);
    [[nodiscard]] bool valid(const State& s) const;

    // lapic.cpp: inbox, priorities, delivery.
    void merge_inbox();
    void merge_vectors();
    void merge_pins(Inbox::Taken taken);
    void on_timer_fire();  // event thread
    void post_and_wake(Post what);
    void run_timer();
    void run_timer_and_refresh();
    void settle();
    void deliver_lvt(Lvt entry);
    void deliver_pin(Lvt entry, bool rise, bool fall);
    void accept_vector(u8 vector, TriggerMode trigger);
    void log_error(Esr error);
    void publish();
    void refresh();
    void wake_if_news(bool deliverable_before);
    [[nodiscard]] bool pin_active(Lvt entry) const;
    [[nodiscard]] bool extint_pending() const;
    [[nodiscard]] u8 ppr() const;
    [[nodiscard]] Mode mode() const;
    [[nodiscard]] u32 logical_id() const;
    [[nodiscard]] u32& lvt(Lvt entry) { return state_.lvt[static_cast<unsigned>(entry)]; }
    [[nodiscard]] u32 lvt(Lvt entry) const { return state_.lvt[static_cast<unsigned>(entry)]; }
    [[nodiscard]] bool software_enabled() const;

    // lapic_registers.cpp: what the guest reads and writes.
    [[nodiscard]] std::optional<u32> read(Register reg);
    bool write(Register reg, u32 value);
    void illegal_register();
    [[nodiscard]] u8 arbitration_priority() const;
    void write_lvt(Lvt entry, u32 value);
    void write_svr(u32 value);
    void send_ipi(u32 low, u32 destination);
    void send_self(u8 vector);
    MsrResult write_apic_base(u64 value);
    MsrResult read_x2apic(Register reg, u64& value);
    MsrResult write_x2apic(Register reg, u64 value);

    const Config config_;
    ApicFabric& fabric_;
    CpuWaker* waker_ = nullptr;
    EoiSink* eoi_sink_ = nullptr;
    PicAcknowledge* pic_ = nullptr;

    // Owner's thread.
    State state_;
    bool deliverable_ = false;  // what interrupt_pending() answers while the inbox is empty
    MemberTimer<Lapic, &Lapic::on_timer_fire> wakeup_;
    LapicTimer timer_;

    // Any thread.
    std::atomic<u64> published_ = 0;  // see publish()
    Inbox inbox_;
};

static_assert(Snapshotable<Lapic>);

}  // namespace tessera::lapic
