// A timer queue on the event loop's thread, one per lock domain: the chips of the board share one, every
// local APIC has its own, so that processors arming their timers do not meet.
#pragma once

#include <mutex>
#include <vector>

#include "backends/event_loop/event_loop.h"
#include "base/clock.h"
#include "bus/lock.h"

namespace tessera {

class MutexLock final : public Lock {
public:
    void lock() override { mutex_.lock(); }
    void unlock() override { mutex_.unlock(); }

private:
    std::mutex mutex_;
};

// fire() runs with `domain` held. A holder of the domain's lock that cancels a timer knows it will not fire;
// without the lock, a fire() that has begun may still be going on.
class HostTimers final : public TimerQueue, public DeadlineHandler {
public:
    // Registers with the loop, and leaves it when destroyed; neither while the loop runs this queue.
    HostTimers(EventLoop& loop, const Clock& clock, Lock& domain);
    HostTimers(const HostTimers&) = delete;
    HostTimers& operator=(const HostTimers&) = delete;
    ~HostTimers() override;

    void arm(Timer& timer, u64 deadline_ns) override;
    void cancel(Timer& timer) override;

    // The guest's clock stands still or goes again.
    void suspend();
    void resume();

    u64 run_due() override;

private:
    [[nodiscard]] Timer* take_due();
    [[nodiscard]] u64 next_wait();

    EventLoop& loop_;
    const Clock& clock_;
    Lock& domain_;
    std::mutex mutex_;
    std::vector<Timer*> armed_;  // few: a scan beats a heap
    bool suspended_ = false;
};

}  // namespace tessera
