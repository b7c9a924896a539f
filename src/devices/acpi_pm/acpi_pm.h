// ACPI fixed hardware [ACPI 6.5 4.8]: PM1a event and control blocks, the PM timer, the GPE0 block, and the
// SCI. The machine is always in ACPI mode (FADT.SMI_CMD = 0). Of the sleeping states only S5 exists:
// soft-off.
#pragma once

#include <span>
#include <utility>

#include "base/clock.h"
#include "base/flags.h"
#include "base/result.h"
#include "bus/io_device.h"
#include "bus/irq_line.h"
#include "devices/acpi_pm/acpi_pm_regs.h"
#include "devices/reset_control/machine_events.h"
#include "snapshot/state_visitor.h"

namespace tessera::acpi_pm {

// Offsets in the PM block; the FADT's PM1a_EVT_BLK, PM1a_CNT_BLK and PM_TMR_BLK are its base and these.
inline constexpr u64 kPm1StatusOffset = 0x0;
inline constexpr u64 kPm1EnableOffset = 0x2;
inline constexpr u64 kPm1ControlOffset = 0x4;
inline constexpr u64 kPmTimerOffset = 0x8;
inline constexpr u64 kPmBlockSize = 0xc;
// The GPE0 block: 16 status bits, then 16 enable bits.
inline constexpr u64 kGpe0BlockSize = 0x4;
inline constexpr unsigned kGpeCount = 16;

// What the FADT says in TMR_VAL_EXT.
enum class TimerWidth : u8 { Bits24 = 24, Bits32 = 32 };

struct Config {
    u8 s5_sleep_type = 5;  // SLP_TYPa of the DSDT's \_S5
    TimerWidth timer_width = TimerWidth::Bits32;
};

class AcpiPm final : public IoDevice {
public:
    AcpiPm(Config config, IrqLine sci, MachineEvents& machine, Clock& clock, TimerQueue& timers)
        : config_(config),
          sci_(std::move(sci)),
          machine_(machine),
          clock_(clock),
          carry_timer_(timers, *this),
          gpe0_(*this) {
        state_.halves_seen = timer_halves();
    }

    // The PM block. Naturally aligned accesses of 1, 2 or 4 bytes; bytes without a register read as zero.
    IoStatus read(u64 offset, std::span<std::byte> out) override;
    IoStatus write(u64 offset, std::span<const std::byte> in) override;
    // The GPE0 block, to be put on the bus under the same lock.
    IoDevice& gpe0() { return gpe0_; }
    void reset();

    // --- Host side; call with the device's lock held. ---

    // Asks the guest to shut down. False: the guest has not enabled the button, so nobody is listening (yet).
    bool press_power_button();
    // The real-time clock's alarm output rose.
    void rtc_alarm();
    // A general-purpose event's input; its status bit is set while the input is high and stays until cleared.
    void set_gpe(unsigned gpe, bool high);

    // Sleep requests for states that do not exist.
    [[nodiscard]] u64 refused_sleeps() const { return refused_sleeps_; }

    void visit_state(StateVisitor& v);
    Status load(StateVisitor& v);

private:
    struct State {
        Flags<Pm1Status> status;
        Flags<Pm1Enable> enable;
        u16 control = 0;  // SLP_TYP and BM_RLD
        u16 gpe_latched = 0;
        u16 gpe_enable = 0;
        u16 gpe_inputs = 0;   // as their sources drive them
        u64 halves_seen = 0;  // how often the timer's highest bit had toggled when TMR_STS last took notice
    };

    class Gpe0 final : public IoDevice {
    public:
        explicit Gpe0(AcpiPm& owner) : owner_(owner) {}
        IoStatus read(u64 offset, std::span<std::byte> out) override { return owner_.read_gpe0(offset, out); }
        IoStatus write(u64 offset, std::span<const std::byte> in) override {
            return owner_.write_gpe0(offset, in);
        }

    private:
        AcpiPm& owner_;
    };

    static void visit(StateVisitor& v, State& s);
    IoStatus read_gpe0(u64 offset, std::span<std::byte> out);
    IoStatus write_gpe0(u64 offset, std::span<const std::byte> in);

    [[nodiscard]] u64 ticks() const;
    [[nodiscard]] u64 timer_halves() const;
    [[nodiscard]] u32 timer_value() const;
    [[nodiscard]] u8 read_byte(u64 offset, u32 timer) const;
    void write_byte(u64 offset, u8 value);
    void write_control(u16 value);
    [[nodiscard]] u16 gpe_status() const { return state_.gpe_latched | state_.gpe_inputs; }
    [[nodiscard]] bool sci_level() const;
    void note_carry();
    void arm_carry();
    void on_carry() { sync(); }
    void sync();

    Config config_;
    State state_;
    u64 refused_sleeps_ = 0;
    IrqLine sci_;
    MachineEvents& machine_;
    Clock& clock_;
    MemberTimer<AcpiPm, &AcpiPm::on_carry> carry_timer_;
    Gpe0 gpe0_;
};

static_assert(Snapshotable<AcpiPm>);

}  // namespace tessera::acpi_pm
