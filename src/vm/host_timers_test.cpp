#include "vm/host_timers.h"

#include <functional>
#include <future>
#include <gtest/gtest.h>
#include <thread>

#include "vm/host_time.h"

namespace tessera {
namespace {

class CallingTimer final : public Timer {
public:
    CallingTimer(TimerQueue& queue, std::function<void()> call) : Timer(queue), call_(std::move(call)) {}
    void fire() override { call_(); }

private:
    std::function<void()> call_;
};

// Knows who holds it, which std::mutex does not tell.
class CheckedLock final : public Lock {
public:
    void lock() override {
        mutex_.lock();
        holder = std::this_thread::get_id();
    }
    void unlock() override {
        holder = std::thread::id{};
        mutex_.unlock();
    }
    std::atomic<std::thread::id> holder;

private:
    std::mutex mutex_;
};

struct HostTimersTest : testing::Test {
    HostTimersTest() { tsc.thaw(); }
    HostTsc tsc;
    HostClock clock{tsc};
    std::unique_ptr<EventLoop> loop = std::move(*EventLoop::create("timers"));
    CheckedLock lock;
    HostTimers timers{*loop, clock, lock};
};

TEST_F(HostTimersTest, FiresOnTheLoopNotBeforeItsTimeWithTheDomainsLockHeld) {
    std::promise<u64> fired;
    CallingTimer timer(timers, [&] {
        EXPECT_EQ(lock.holder.load(), std::this_thread::get_id());
        EXPECT_TRUE(loop->is_this_thread());
        fired.set_value(clock.now_ns());
    });
    const u64 deadline = clock.now_ns() + 3'000'000;
    timer.arm(deadline);
    EXPECT_GE(fired.get_future().get(), deadline);
    EXPECT_EQ(timer.queue_deadline_ns, Timer::kIdle);
}

TEST_F(HostTimersTest, APastDeadlineFiresSoonButNotInsideArm) {
    std::promise<void> fired;
    CallingTimer timer(timers, [&] { fired.set_value(); });
    {
        const LockGuard guard(lock);
        timer.arm(0);
        EXPECT_EQ(fired.get_future().wait_for(std::chrono::seconds(0)), std::future_status::timeout);
        fired = std::promise<void>();
    }
    fired.get_future().get();
}

TEST_F(HostTimersTest, FiresInOrderOfDeadline) {
    std::vector<int> order;
    std::promise<void> done;
    CallingTimer third(timers, [&] {
        order.push_back(3);
        done.set_value();
    });
    CallingTimer first(timers, [&] { order.push_back(1); });
    CallingTimer second(timers, [&] { order.push_back(2); });
    const u64 base = clock.now_ns() + 2'000'000;
    third.arm(base + 2000);
    first.arm(base);
    second.arm(base + 1000);
    done.get_future().get();
    EXPECT_EQ(order, (std::vector{1, 2, 3}));
}

TEST_F(HostTimersTest, ATimerCancelledUnderTheLockDoesNotFire) {
    bool fired = false;
    CallingTimer timer(timers, [&] { fired = true; });
    {
        const LockGuard guard(lock);
        timer.arm(clock.now_ns());
        loop->post([] {});
        timer.cancel();
    }
    std::promise<void> later;
    CallingTimer marker(timers, [&] { later.set_value(); });
    marker.arm(clock.now_ns() + 1'000'000);
    later.get_future().get();
    EXPECT_FALSE(fired);
}

TEST_F(HostTimersTest, RearmingMovesTheDeadline) {
    int fired = 0;
    std::promise<void> done;
    CallingTimer timer(timers, [&] {
        ++fired;
        done.set_value();
    });
    timer.arm(clock.now_ns() + 3'600'000'000'000);
    timer.arm(clock.now_ns() + 1'000'000);
    done.get_future().get();
    EXPECT_EQ(fired, 1);
}

TEST_F(HostTimersTest, NothingFiresWhileSuspended) {
    std::promise<void> fired;
    auto future = fired.get_future();
    CallingTimer timer(timers, [&] { fired.set_value(); });
    timers.suspend();
    tsc.freeze();
    timer.arm(clock.now_ns());
    loop->run([] {});
    EXPECT_EQ(future.wait_for(std::chrono::milliseconds(5)), std::future_status::timeout);
    tsc.thaw();
    timers.resume();
    future.get();
}

TEST_F(HostTimersTest, ATimerThatRearmsItselfInThePastDoesNotStopTheLoop) {
    CallingTimer* self = nullptr;
    CallingTimer timer(timers, [&] { self->arm(0); });
    self = &timer;
    timer.arm(0);
    for (int i = 0; i < 5; ++i) EXPECT_TRUE(loop->run([] {}));
    loop->stop();
}

TEST_F(HostTimersTest, ThreadsArmAndCancelAtOnce) {
    std::atomic<int> fired = 0;
    {
        std::vector<std::jthread> threads;
        for (int t = 0; t < 3; ++t)
            threads.emplace_back([&] {
                CallingTimer timer(timers, [&] { fired.fetch_add(1); });
                for (int i = 0; i < 500; ++i) {
                    timer.arm(clock.now_ns() + static_cast<u64>(i % 7) * 1000);
                    if (i % 3 == 0) timer.cancel();
                }
                const LockGuard guard(lock);
                timer.cancel();
            });
    }
    loop->run([] {});
    SUCCEED() << fired.load();
}

}  // namespace
}  // namespace tessera
