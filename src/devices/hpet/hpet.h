// High precision event timer [HPET]: a counter of 64 bits at 100 MHz and three comparators, one-shot or
// periodic, that interrupt by I/O APIC pins, in place of the 8254 and the real-time clock, or by messages.
#pragma once

#include <array>
#include <optional>
#include <span>

#include "base/clock.h"
#include "base/flags.h"
#include "base/result.h"
#include "base/types.h"
#include "bus/io_device.h"
#include "bus/irq_line.h"
#include "bus/message_sink.h"
#include "devices/hpet/hpet_regs.h"
#include "snapshot/state_visitor.h"

namespace tessera::hpet {

inline constexpr unsigned kTimerCount = 3;
inline constexpr u64 kTickNs = 10;
inline constexpr u64 kPeriodFs = kTickNs * 1'000'000;
// The pins a timer can be routed to, all level-triggered and active low, as they are PCI's as well.
inline constexpr unsigned kFirstRoute = 20;
inline constexpr unsigned kRouteCount = 4;

class Hpet final : public IoDevice {
public:
    struct Wires {
        // Its pins are those of the I/O APIC; kFirstRoute to kFirstRoute + 3 are driven.
        IrqSink& io_apic;
        // Pin 0: timer 0 in place of the 8254; pin 8: timer 1 in place of the real-time clock.
        IrqSink& legacy;
        // High while these two are disconnected, and the timers are connected instead [HPET 2.3.5].
        IrqLine legacy_selected;
        MessageSink& messages;
    };
    // `vendor` is for the capabilities register: a PCI vendor.
    Hpet(u16 vendor, Wires wires, Clock& clock, TimerQueue& timers);

    // Double and quad words at their natural places [HPET 2.3.1]; anything else is refused.
    IoStatus read(u64 offset, std::span<std::byte> out) override;
    IoStatus write(u64 offset, std::span<const std::byte> in) override;
    void reset();

    void visit_state(StateVisitor& v) { visit(v, state_); }
    Status load(StateVisitor& v);

private:
    struct TimerState {
        Flags<TimerConfig> config{};  // NOLINT(readability-redundant-member-init)
        u64 comparator = ~u64{0};
        u64 period = 0;
        u64 message = 0;  // value, and the address above
    };
    struct State {
        Flags<Config> config;
        u8 held = 0;       // edge-triggered timers whose legacy wire is high since their last match
        u64 status = 0;    // of level-triggered timers
        u64 counter = 0;   // at start_ns, or while halted
        u64 start_ns = 0;  // when it was started
        u64 seen = 0;      // the counter up to which matches have been handled
        u64 fired_ns = 0;  // when the timers were last looked at because one was due
        std::array<TimerState, kTimerCount> timers{};
    };
    static constexpr unsigned kLines = kRouteCount + 2;

    static void visit(StateVisitor& v, State& s);
    [[nodiscard]] static bool valid(const State& s);
    [[nodiscard]] bool running() const { return state_.config.has(Config::Enable); }
    [[nodiscard]] u64 counter_now() const;
    [[nodiscard]] u64 capabilities() const;
    [[nodiscard]] std::optional<u64> read_register(u64 offset) const;
    void write_register(u64 offset, u64 value, u64 mask);
    void write_configuration(u64 value);
    void write_timer(unsigned n, u64 offset, u64 value, u64 mask);
    void write_comparator(TimerState& timer, u64 value, u64 mask);
    // Handles every match since the last time; whether there was one.
    bool advance();
    void fire(unsigned n);
    // The wire timer n is connected to; nothing: none, or messages.
    [[nodiscard]] std::optional<unsigned> line_of(unsigned n) const;
    // Whether the timer makes edges on a legacy wire.
    [[nodiscard]] static bool holds(const State& s, unsigned n);
    [[nodiscard]] bool line_level(unsigned line) const;
    void sync();
    void arm();
    void on_due();

    State state_;
    u16 vendor_;
    std::array<IrqLine, kLines> lines_;
    IrqLine legacy_selected_;
    MessageSink& messages_;
    Clock& clock_;
    MemberTimer<Hpet, &Hpet::on_due> timer_;
};

static_assert(Snapshotable<Hpet>);

}  // namespace tessera::hpet
