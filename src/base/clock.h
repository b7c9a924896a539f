// Time as chips and CPUs see it. Implemented by the VM (host clocks), by tests (a clock set by hand), by
// replay.
#pragma once

#include <optional>

#include "base/types.h"

namespace tessera {

class Clock {
public:
    Clock() = default;
    Clock(const Clock&) = delete;
    Clock& operator=(const Clock&) = delete;
    virtual ~Clock() = default;

    // Nanoseconds of guest time since the VM was powered on; stands still while the VM is paused. Monotonic.
    [[nodiscard]] virtual u64 now_ns() const = 0;
    // Nanoseconds since 1970-01-01 00:00 UTC, for the real-time clock.
    [[nodiscard]] virtual u64 wall_ns() const = 0;
};

// The counter guests' time-stamp counters are derived from: guest TSC = ticks() + the CPU's own offset.
class TscSource {
public:
    TscSource() = default;
    TscSource(const TscSource&) = delete;
    TscSource& operator=(const TscSource&) = delete;
    virtual ~TscSource() = default;
    [[nodiscard]] virtual u64 ticks() const = 0;
    [[nodiscard]] virtual u64 hz() const = 0;  // constant, > 0
    // If ticks() is the processor's counter (RDTSC) less a number that changes only while no guest code runs:
    // that number.
    [[nodiscard]] virtual std::optional<u64> processor_offset() const { return std::nullopt; }
};

// A one-shot timer; its owner keeps it, the queue only borrows it. The owner must outlive the queue's use
// of it: a timer cancels itself when destroyed.
class TimerQueue;

class Timer {
public:
    explicit Timer(TimerQueue& queue) : queue_(queue) {}
    Timer(const Timer&) = delete;
    Timer& operator=(const Timer&) = delete;
    virtual ~Timer();

    // (Re)arms for an absolute time of Clock::now_ns(); a time in the past fires soon. Thread-safe.
    void arm(u64 deadline_ns);
    void cancel();

    // Called by the queue with the owning device's lock held, never from inside arm().
    virtual void fire() = 0;

    static constexpr u64 kIdle = ~u64{0};
    u64 queue_deadline_ns = kIdle;  // belongs to the queue

private:
    TimerQueue& queue_;
};

class TimerQueue {
public:
    TimerQueue() = default;
    TimerQueue(const TimerQueue&) = delete;
    TimerQueue& operator=(const TimerQueue&) = delete;
    virtual ~TimerQueue() = default;
    virtual void arm(Timer& timer, u64 deadline_ns) = 0;
    virtual void cancel(Timer& timer) = 0;
};

inline Timer::~Timer() {
    queue_.cancel(*this);
}
inline void Timer::arm(u64 deadline_ns) {
    queue_.arm(*this, deadline_ns);
}
inline void Timer::cancel() {
    queue_.cancel(*this);
}

// A timer that calls a member function: MemberTimer<Pit, &Pit::on_deadline> timer_{queue, *this};
template <typename T, void (T::*Method)()>
class MemberTimer final : public Timer {
public:
    MemberTimer(TimerQueue& queue, T& owner) : Timer(queue), owner_(owner) {}
    void fire() override { (owner_.*Method)(); }

private:
    T& owner_;
};

}  // namespace tessera
