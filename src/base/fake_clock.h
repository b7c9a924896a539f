// Clock and timer queue that tests and fuzzers move by hand.
#pragma once

#include <algorithm>
#include <vector>

#include "base/clock.h"

namespace tessera {

class FakeClock final : public Clock, public TimerQueue {
public:
    [[nodiscard]] u64 now_ns() const override { return now_ns_; }
    [[nodiscard]] u64 wall_ns() const override { return wall_base_ns + now_ns_; }

    void arm(Timer& timer, u64 deadline_ns) override {
        cancel(timer);
        timer.queue_deadline_ns = deadline_ns;
        armed_.push_back(&timer);
    }
    void cancel(Timer& timer) override {
        std::erase(armed_, &timer);
        timer.queue_deadline_ns = Timer::kIdle;
    }

    // Moves time forward, firing what falls due on the way in order of deadline.
    void advance(u64 ns) {
        const u64 target = now_ns_ + ns;
        for (;;) {
            const auto next = std::ranges::min_element(armed_, {}, &Timer::queue_deadline_ns);
            if (next == armed_.end() || (*next)->queue_deadline_ns > target) break;
            Timer& due = **next;
            now_ns_ = std::max(now_ns_, due.queue_deadline_ns);
            cancel(due);
            due.fire();
        }
        now_ns_ = target;
    }
    [[nodiscard]] std::size_t armed_count() const { return armed_.size(); }
    // The earliest deadline, Timer::kIdle when nothing is armed.
    [[nodiscard]] u64 next_deadline_ns() const {
        u64 next = Timer::kIdle;
        for (const Timer* t : armed_) next = std::min(next, t->queue_deadline_ns);
        return next;
    }

    u64 wall_base_ns = 0;

private:
    u64 now_ns_ = 0;
    std::vector<Timer*> armed_;
};

// A 1 GHz time-stamp counter that follows a FakeClock.
class FakeTsc final : public TscSource {
public:
    explicit FakeTsc(const Clock& clock) : clock_(clock) {}
    [[nodiscard]] u64 ticks() const override { return clock_.now_ns(); }
    [[nodiscard]] u64 hz() const override { return 1'000'000'000; }

private:
    const Clock& clock_;
};

}  // namespace tessera
