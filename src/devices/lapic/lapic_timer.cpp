#include "devices/lapic/lapic_timer.h"

#include <algorithm>

namespace tessera::lapic {

namespace {
constexpr u64 kNsPerSecond = 1'000'000'000;
constexpr u64 kLastDeadlineNs = Timer::kIdle - 1;

u64 saturating_add(u64 a, u64 b) {
    return b > kLastDeadlineNs - std::min(a, kLastDeadlineNs) ? kLastDeadlineNs : a + b;
}
}  // namespace

static_assert(LapicTimer::kBusHz == kNsPerSecond, "counts are used as nanoseconds");

u64 LapicTimer::elapsed_ns() const {
    const u64 now = clock_.now_ns();
    return now > state_.start_ns ? now - state_.start_ns : 0;
}

u32 LapicTimer::current_count() const {
    if (mode() != TimerMode::OneShot && mode() != TimerMode::Periodic) return 0;
    const u64 ticks = elapsed_ns() >> shift();
    if (ticks < state_.count) return static_cast<u32>(state_.count - ticks);
    // Ran out. expire_if_due() has not seen it yet; what the counter shows does not depend on that.
    if (mode() == TimerMode::OneShot || state_.initial == 0 || state_.count == 0) return 0;
    return static_cast<u32>(state_.initial - (ticks - state_.count) % state_.initial);
}

void LapicTimer::set_mode(TimerMode next) {
    if (next == mode()) return;
    const bool was_counter = mode() == TimerMode::OneShot || mode() == TimerMode::Periodic;
    const bool is_counter = next == TimerMode::OneShot || next == TimerMode::Periodic;
    if (!was_counter || !is_counter) {
        state_.initial = 0;
        state_.count = 0;
        state_.deadline = 0;
    } else {
        state_.count = current_count();
        state_.start_ns = clock_.now_ns();
    }
    state_.mode = static_cast<u8>(next);
    arm();
}

void LapicTimer::set_initial_count(u32 count) {
    // [SDM 3A 11.5.4.1] In TSC-deadline mode writes are ignored.
    if (mode() != TimerMode::OneShot && mode() != TimerMode::Periodic) return;
    state_.initial = count;
    state_.count = count;
    state_.start_ns = clock_.now_ns();
    state_.earliest_ns = 0;
    arm();
}

// The count goes on from where it is at the new rate.
void LapicTimer::set_divide(u32 configuration) {
    const u32 count = current_count();
    state_.divide = static_cast<u8>(configuration & 0x0b);
    state_.count = count;
    state_.start_ns = clock_.now_ns();
    arm();
}

void LapicTimer::set_deadline(u64 guest_tsc) {
    if (mode() != TimerMode::TscDeadline) return;
    state_.deadline = guest_tsc;
    arm();
}

void LapicTimer::set_tsc_offset(s64 offset) {
    state_.tsc_offset = static_cast<u64>(offset);
    if (state_.deadline != 0) arm();
}

void LapicTimer::disarm() {
    if (!armed_) return;
    armed_ = false;
    wakeup_.cancel();
}

void LapicTimer::arm() {
    u64 at = 0;
    switch (mode()) {
        case TimerMode::OneShot:
        case TimerMode::Periodic:
            if (state_.count == 0) return disarm();
            at = std::max(saturating_add(state_.start_ns, u64{state_.count} << shift()), state_.earliest_ns);
            break;
        case TimerMode::TscDeadline: {
            if (state_.deadline == 0) return disarm();
            const u64 now = guest_tsc();
            // Already reached: the caller's expire_if_due() finds it without a detour through the queue.
            if (now >= state_.deadline) return disarm();
            const u128 ns = (u128{state_.deadline - now} * kNsPerSecond + tsc_.hz() - 1) / tsc_.hz();
            at = saturating_add(clock_.now_ns(),
                                ns > kLastDeadlineNs ? kLastDeadlineNs : static_cast<u64>(ns));
            break;
        }
        case TimerMode::Reserved: return disarm();
    }
    armed_ = true;
    wakeup_.arm(at);
}

bool LapicTimer::counter_due() {
    if (state_.count == 0) return false;
    const u64 length = u64{state_.count} << shift();
    const u64 elapsed = elapsed_ns();
    if (elapsed < length) return false;
    if (mode() == TimerMode::OneShot || state_.initial == 0) {
        state_.count = 0;
        return true;
    }
    // Periods that went by unseen are one interrupt, as they are in IRR.
    const u64 period = u64{state_.initial} << shift();
    state_.start_ns += length + (elapsed - length) / period * period;
    state_.count = state_.initial;
    return true;
}

bool LapicTimer::deadline_due() {
    if (state_.deadline == 0 || guest_tsc() < state_.deadline) return false;
    state_.deadline = 0;  // [SDM 3A 11.5.4.1] disarmed: reads as zero
    return true;
}

bool LapicTimer::expire_if_due() {
    const bool counter = mode() == TimerMode::OneShot || mode() == TimerMode::Periodic;
    const bool due = counter ? counter_due() : deadline_due();
    if (due && counter && state_.count != 0)
        state_.earliest_ns = saturating_add(clock_.now_ns(), kShortestPeriodNs);
    if (due || !armed_) arm();
    return due;
}

void LapicTimer::reset() {
    const u64 offset = state_.tsc_offset;
    state_ = State{};
    state_.tsc_offset = offset;
    disarm();
}

void LapicTimer::visit(StateVisitor& v, State& s) {
    auto& [mode, divide, initial, count, start_ns, earliest_ns, deadline, tsc_offset] = s;
    v.field(100, "timer_mode", mode);
    v.field(101, "timer_divide", divide);
    v.field(102, "timer_initial_count", initial);
    v.field(103, "timer_count", count);
    v.field(104, "timer_start_ns", start_ns);
    v.field(107, "timer_earliest_ns", earliest_ns);
    v.field(105, "timer_tsc_deadline", deadline);
    v.field(106, "timer_tsc_offset", tsc_offset);
}

void LapicTimer::restore(const State& state) {
    state_ = state;
    // No timer of ours waits longer for its next period; one from a hostile file would never run.
    state_.earliest_ns = std::min(state_.earliest_ns, saturating_add(clock_.now_ns(), kShortestPeriodNs));
    arm();
}

}  // namespace tessera::lapic
