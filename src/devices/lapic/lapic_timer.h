// The local APIC's timer [SDM 3A 11.5.4]: a counter at the bus clock (one-shot, periodic) or a deadline of
// the time-stamp counter. Owner's thread only. The event thread's part is one bit in the inbox: it says "look
// at your timer", and expire_if_due() decides by the clock whether something fell due. So a stale or early
// wake-up does no harm, and periodic re-arming happens on the owner's thread, where no lock is needed.
#pragma once

#include "base/clock.h"
#include "base/types.h"
#include "devices/lapic/lapic_regs.h"
#include "snapshot/state_visitor.h"

namespace tessera::lapic {

class LapicTimer {
public:
    // The bus clock the counter divides. Guests measure it; CPUID leaf 0x15 may tell them.
    static constexpr u64 kBusHz = 1'000'000'000;
    // DEVIATION: a periodic timer interrupts at most this often, because a period of a few ns would only keep
    // the host busy; the counter itself runs as programmed.
    static constexpr u64 kShortestPeriodNs = 20'000;

    // `wakeup` is armed here and its fire() posts Post::Timer.
    LapicTimer(const Clock& clock, const TscSource& tsc, Timer& wakeup)
        : clock_(clock), tsc_(tsc), wakeup_(wakeup) {}

    // A switch to or from TSC-deadline mode disarms [SDM 3A 11.5.4.1].
    void set_mode(TimerMode next);
    void set_initial_count(u32 count);  // starts, or with 0 stops
    [[nodiscard]] u32 initial_count() const { return state_.initial; }
    [[nodiscard]] u32 current_count() const;
    void set_divide(u32 configuration);
    [[nodiscard]] u32 divide() const { return state_.divide; }
    void set_deadline(u64 guest_tsc);  // 0 disarms; ignored out of its mode
    [[nodiscard]] u64 deadline() const { return state_.deadline; }
    void set_tsc_offset(s64 offset);

    // The queue has fired the wake-up and holds it no longer.
    void wakeup_fired() { armed_ = false; }
    // Whether the counter or the deadline has been reached since the last call. Arms the next wake-up.
    bool expire_if_due();

    // All but the TSC offset, which belongs to the CPU.
    void reset();

    struct State {
        u8 mode = 0;
        u8 divide = 0;
        u32 initial = 0;
        u32 count = 0;        // value at start_ns; 0: stopped
        u64 start_ns = 0;     // of Clock::now_ns()
        u64 earliest_ns = 0;  // no periodic interrupt before (kShortestPeriodNs)
        u64 deadline = 0;     // guest TSC; 0: disarmed
        u64 tsc_offset = 0;
    };
    static void visit(StateVisitor& v, State& s);
    [[nodiscard]] static bool valid(const State& s) { return s.mode < 4 && (s.divide & ~u8{0x0b}) == 0; }
    [[nodiscard]] const State& state() const { return state_; }
    void restore(const State& state);

private:
    [[nodiscard]] TimerMode mode() const { return static_cast<TimerMode>(state_.mode); }
    // log2 of the divisor. Bits 3, 1, 0: 000 is 2, 110 is 128, 111 is 1 [SDM 3A Figure 11-10].
    [[nodiscard]] unsigned shift() const {
        return ((state_.divide & 3u) + (state_.divide >> 1 & 4u) + 1) & 7u;
    }
    [[nodiscard]] u64 guest_tsc() const { return tsc_.ticks() + state_.tsc_offset; }
    [[nodiscard]] u64 elapsed_ns() const;
    void arm();
    void disarm();
    bool counter_due();
    bool deadline_due();

    State state_;
    bool armed_ = false;  // the queue may hold the wake-up
    const Clock& clock_;
    const TscSource& tsc_;
    Timer& wakeup_;
};

}  // namespace tessera::lapic
