#include "vm/host_timers.h"

#include <algorithm>

namespace tessera {

HostTimers::HostTimers(EventLoop& loop, const Clock& clock, Lock& domain)
    : loop_(loop), clock_(clock), domain_(domain) {
    (void)loop_.run([this] { loop_.add(*this); });
}

HostTimers::~HostTimers() {
    // A loop that has ended calls nobody any more.
    (void)loop_.run([this] { loop_.remove(*this); });
}

void HostTimers::arm(Timer& timer, u64 deadline_ns) {
    {
        const std::scoped_lock guard(mutex_);
        if (timer.queue_deadline_ns == Timer::kIdle) armed_.push_back(&timer);
        // kIdle marks timers that are not in the queue; the end of time comes one nanosecond earlier.
        timer.queue_deadline_ns = std::min(deadline_ns, Timer::kIdle - 1);
        if (suspended_) return;
    }
    const u64 now = clock_.now_ns();
    loop_.wake_in(deadline_ns > now ? deadline_ns - now : 0);
}

void HostTimers::cancel(Timer& timer) {
    const std::scoped_lock guard(mutex_);
    if (timer.queue_deadline_ns == Timer::kIdle) return;
    timer.queue_deadline_ns = Timer::kIdle;
    std::erase(armed_, &timer);
}

void HostTimers::suspend() {
    const std::scoped_lock guard(mutex_);
    suspended_ = true;
}

void HostTimers::resume() {
    {
        const std::scoped_lock guard(mutex_);
        suspended_ = false;
    }
    loop_.wake_in(0);
}

// The armed timer that is due for longest, no longer armed.
Timer* HostTimers::take_due() {
    const std::scoped_lock guard(mutex_);
    if (suspended_) return nullptr;
    const auto first = std::ranges::min_element(armed_, {}, &Timer::queue_deadline_ns);
    if (first == armed_.end() || (*first)->queue_deadline_ns > clock_.now_ns()) return nullptr;
    Timer* due = *first;
    due->queue_deadline_ns = Timer::kIdle;
    armed_.erase(first);
    return due;
}

u64 HostTimers::next_wait() {
    const std::scoped_lock guard(mutex_);
    if (suspended_ || armed_.empty()) return kNothingDue;
    const u64 next = (*std::ranges::min_element(armed_, {}, &Timer::queue_deadline_ns))->queue_deadline_ns;
    const u64 now = clock_.now_ns();
    return next > now ? next - now : 0;
}

u64 HostTimers::run_due() {
    // Bounded: a timer that always rearms itself in the past must not starve the rest of the loop.
    constexpr int kMostAtOnce = 64;
    if (next_wait() == 0) {
        const LockGuard guard(domain_);
        for (int i = 0; i < kMostAtOnce; ++i) {
            Timer* due = take_due();
            if (due == nullptr) break;
            due->fire();
        }
    }
    return next_wait();
}

}  // namespace tessera
