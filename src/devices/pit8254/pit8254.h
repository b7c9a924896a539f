// 8254 interval timer with the PC's port 0x61: counter 0 to IRQ 0, counter 1 (once memory refresh) to
// nothing, counter 2 gated and read through port 0x61. Leaves out: the sound of the speaker.
#pragma once

#include <array>
#include <utility>

#include "base/clock.h"
#include "base/result.h"
#include "base/types.h"
#include "bus/io_device.h"
#include "bus/irq_line.h"
#include "devices/pit8254/pit8254_counter.h"
#include "snapshot/state_visitor.h"

namespace tessera::pit8254 {

class Pit8254 final {
public:
    static constexpr u64 kInputHz = 1'193'182;
    static constexpr u64 kCounterBase = 0x40;
    static constexpr u64 kCounterPorts = 4;
    static constexpr u64 kSpeakerBase = 0x61;
    static constexpr u64 kSpeakerPorts = 1;
    // DEVIATION: the wire of counter 0 rises at most this often by itself, because a count of 2 (596 kHz)
    // would only keep the host busy; a guest that reads the counter sees it run as programmed.
    static constexpr u64 kShortestPeriodNs = 20'000;

    // `out0` is counter 0's OUT: ISA interrupt 0. OUT2 goes nowhere but port 0x61.
    Pit8254(const Clock& clock, TimerQueue& timers, IrqLine out0)
        : clock_(clock), out0_(std::move(out0)), wakeup_(timers, *this) {
        reset();
    }

    // Byte accesses only.
    [[nodiscard]] IoDevice& counter_ports() { return counter_ports_; }
    [[nodiscard]] IoDevice& speaker_port() { return speaker_port_; }

    void reset();
    void visit_state(StateVisitor& v);
    Status load(StateVisitor& v);

    struct State {
        std::array<Counter::State, kCounters> counters;
        u8 port61 = 0;        // the writable bits
        u64 earliest_ns = 0;  // no rise by itself before (kShortestPeriodNs)
        u8 wire = 0;          // what OUT 0's wire shows
    };
    [[nodiscard]] State state() const;
    // Shows on the wire what fell due by now, which the timer queue may be late to do.
    void catch_up() { sync(); }
    // Refuses what no 8254 can be. The wire's other end is not told its level.
    Status restore(const State& state);

    // The clock tick that `ns` of the clock belong to, and the first moment of a tick.
    [[nodiscard]] static Counter::Tick tick_at(u64 ns);
    [[nodiscard]] static u64 ns_of(Counter::Tick tick);

private:
    class CounterPorts final : public IoDevice {
    public:
        explicit CounterPorts(Pit8254& pit) : pit_(pit) {}
        IoStatus read(u64 offset, std::span<std::byte> out) override;
        IoStatus write(u64 offset, std::span<const std::byte> in) override;

    private:
        Pit8254& pit_;
    };
    class SpeakerPort final : public IoDevice {
    public:
        explicit SpeakerPort(Pit8254& pit) : pit_(pit) {}
        IoStatus read(u64 offset, std::span<std::byte> out) override;
        IoStatus write(u64 offset, std::span<const std::byte> in) override;

    private:
        Pit8254& pit_;
    };

    static void visit(StateVisitor& v, State& s);
    [[nodiscard]] static bool valid(const State& s);
    [[nodiscard]] Counter::Tick now() const;
    void write_control(u8 value);
    [[nodiscard]] u8 read_port61();
    void on_deadline() { sync(); }
    // Shows counter 0's OUT on its wire and arms the timer for its next rise.
    void sync();
    void arm(Counter::Tick at);

    const Clock& clock_;
    std::array<Counter, kCounters> counters_;
    u8 port61_ = 0;        // the writable bits
    u64 earliest_ns_ = 0;  // no rise by itself before (kShortestPeriodNs)
    IrqLine out0_;
    MemberTimer<Pit8254, &Pit8254::on_deadline> wakeup_;
    bool armed_ = false;
    CounterPorts counter_ports_{*this};
    SpeakerPort speaker_port_{*this};
};

static_assert(Snapshotable<Pit8254>);

}  // namespace tessera::pit8254
