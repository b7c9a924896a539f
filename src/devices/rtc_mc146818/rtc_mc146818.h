// MC146818A real-time clock with 128 bytes of CMOS memory [MC146818A]: time of day, alarm, periodic and
// update interrupts. Leaves out the square-wave pin and daylight saving. The battery is always good: reset
// keeps time and memory.
#pragma once

#include <array>
#include <span>
#include <utility>

#include "base/clock.h"
#include "base/flags.h"
#include "base/result.h"
#include "bus/io_device.h"
#include "bus/irq_line.h"
#include "devices/rtc_mc146818/calendar.h"
#include "devices/rtc_mc146818/rtc_mc146818_regs.h"
#include "snapshot/state_visitor.h"

namespace tessera::rtc_mc146818 {

// Port 0x70: index and NMI mask; port 0x71: data.
inline constexpr u64 kPortCount = 2;

struct Config {
    // Seconds to add to UTC for the time the clock shows when new. 0: the clock runs on UTC.
    s64 utc_offset_seconds = 0;
};

class Rtc final : public IoDevice {
public:
    Rtc(Config config, IrqLine irq, Clock& clock, TimerQueue& timers);

    // One byte wide. Two bytes at the index port are index and data, as the ISA bus splits them.
    IoStatus read(u64 offset, std::span<std::byte> out) override;
    IoStatus write(u64 offset, std::span<const std::byte> in) override;
    // The RESET pin [MC146818A]: interrupts off; time, memory, divider and format stay.
    void reset();

    // --- Board side; call with the device's lock held. ---

    // What firmware does before an operating system starts: clock running, BCD, 24 hours.
    void firmware_init();
    // Presets a byte of memory (0x0e to 0x7f but the century). False: `index` is not memory.
    bool preset(u8 index, u8 value);
    // Bit 7 of port 0x70: 1 keeps NMIs from the CPU. GAP: nothing on the board raises NMIs through it.
    [[nodiscard]] bool nmi_masked() const { return state_.nmi_mask != 0; }

    void visit_state(StateVisitor& v) { (void)visit(v, state_); }
    Status load(StateVisitor& v);

private:
    struct State {
        CmosBytes cmos{};  // the time bytes count only while the clock is frozen
        u8 index = 0;
        u8 nmi_mask = 0;
        u8 a = kDivider32KHz | 6;                 // divider and rate (1024 Hz)
        Flags<RegisterB> modes = RegisterB::H24;  // SET, DM, 24/12, DSE
        Flags<RegisterB> enables;                 // PIE, AIE, UIE, SQWE
        Flags<RegisterC> flags;                   // PF, AF, UF
        u64 offset_seconds = 0;                   // two's complement: RTC = UTC shifted by phase, plus this
        u32 phase_ns = 0;                         // a second of the RTC begins this long before UTC's
        u8 weekday_shift = 0;
        u64 seen_second = 0;  // two's complement: updates up to this RTC second are in UF and AF
        u64 seen_period = 0;  // periods up to this one are in PF
    };

    // False: the memory does not have its size.
    static bool visit(StateVisitor& v, State& s);

    [[nodiscard]] Format format() const {
        return {.binary = state_.modes.has(RegisterB::DM), .hours24 = state_.modes.has(RegisterB::H24)};
    }
    [[nodiscard]] bool divider_runs() const { return (state_.a & kDividerMask) == kDivider32KHz; }
    // Whether the time advances: not while a guest sets it, not while the divider is stopped.
    [[nodiscard]] bool running() const { return divider_runs() && !state_.modes.has(RegisterB::SET); }
    [[nodiscard]] u64 shifted_wall_ns() const;
    [[nodiscard]] s64 rtc_seconds() const;
    [[nodiscard]] u64 period_ticks() const;
    [[nodiscard]] u64 period_count() const;
    [[nodiscard]] bool update_in_progress() const;
    [[nodiscard]] bool irq_level() const {
        return (state_.flags.raw() & state_.enables.raw() & kFlagBits) != 0;
    }

    u8 read_data();
    void write_data(u8 value);
    void write_a(u8 value);
    void write_b(u8 value);
    void write_time(u8 index, u8 value);

    void freeze() { encode_time(rtc_seconds(), format(), state_.weekday_shift, state_.cmos); }
    void thaw();
    void set_running_time(const CmosBytes& cmos);
    void account();
    void arm();
    void on_deadline() { sync(); }
    void sync();

    State state_;
    IrqLine irq_;
    Clock& clock_;
    MemberTimer<Rtc, &Rtc::on_deadline> timer_;
};

static_assert(Snapshotable<Rtc>);

}  // namespace tessera::rtc_mc146818
