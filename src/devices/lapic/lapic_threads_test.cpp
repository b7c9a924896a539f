// Several CPUs as host threads interrupt each other, while an "event thread" fires timers and moves pins.
// What must hold: nothing is lost, and ThreadSanitizer has nothing to say. Runs in the tsan preset too.
#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <gtest/gtest.h>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "devices/lapic/lapic_fabric.h"

namespace tessera::lapic {
namespace {

constexpr u32 kMsrIcr = 0x830;
constexpr u32 kMsrEoi = 0x80b;
constexpr u32 kMsrSvr = 0x80f;
constexpr u32 kMsrLvtTimer = 0x832;
constexpr u32 kMsrLvtLint0 = 0x835;
constexpr u32 kMsrDeadline = 0x6e0;

// A clock any thread may read and one thread moves.
class SharedClock final : public Clock, public TscSource {
public:
    [[nodiscard]] u64 now_ns() const override { return now_.load(std::memory_order_acquire); }
    [[nodiscard]] u64 wall_ns() const override { return now_ns(); }
    [[nodiscard]] u64 ticks() const override { return now_ns(); }
    [[nodiscard]] u64 hz() const override { return 1'000'000'000; }
    void advance(u64 ns) { now_.fetch_add(ns, std::memory_order_acq_rel); }

private:
    std::atomic<u64> now_ = 0;
};

// As the VM's: a lock of its own, fire() called with the lock of the timers' domain but never from arm().
class LockedTimerQueue final : public TimerQueue {
public:
    void arm(Timer& timer, u64 deadline_ns) override {
        const std::scoped_lock lock(mutex_);
        std::erase(armed_, &timer);
        timer.queue_deadline_ns = deadline_ns;
        armed_.push_back(&timer);
    }
    void cancel(Timer& timer) override {
        const std::scoped_lock lock(mutex_);
        std::erase(armed_, &timer);
        timer.queue_deadline_ns = Timer::kIdle;
    }
    void run(u64 now_ns) {
        for (;;) {
            Timer* due = nullptr;
            {
                const std::scoped_lock lock(mutex_);
                const auto at =
                    std::ranges::find_if(armed_, [&](Timer* t) { return t->queue_deadline_ns <= now_ns; });
                if (at == armed_.end()) return;
                due = *at;
                armed_.erase(at);
                due->queue_deadline_ns = Timer::kIdle;
            }
            due->fire();
        }
    }

private:
    std::mutex mutex_;
    std::vector<Timer*> armed_;
};

// A CPU that sleeps until woken, as the VM's vCPU thread does.
class Sleeper final : public CpuWaker {
public:
    void wake() override {
        {
            const std::scoped_lock lock(mutex_);
            woken_ = true;
        }
        condition_.notify_one();
    }
    void sleep() {
        std::unique_lock lock(mutex_);
        condition_.wait(lock, [this] { return woken_; });
        woken_ = false;
    }

private:
    std::mutex mutex_;
    std::condition_variable condition_;
    bool woken_ = false;
};

struct Machine {
    explicit Machine(unsigned count) : sleepers(count) {
        for (u32 id = 0; id < count; ++id) {
            cpus.push_back(
                std::make_unique<Lapic>(Lapic::Config{.apic_id = id}, clock, clock, timers, fabric));
            fabric.add(*cpus.back());
            cpus.back()->connect_waker(sleepers[id]);
            EXPECT_EQ(cpus.back()->write_msr(0x1b, 0xfee0'0c00), MsrResult::Ok);
            EXPECT_EQ(cpus.back()->write_msr(kMsrSvr, 0x1ff), MsrResult::Ok);
        }
    }
    SharedClock clock;
    LockedTimerQueue timers;
    LapicFabric fabric;
    std::vector<Sleeper> sleepers;
    std::vector<std::unique_ptr<Lapic>> cpus;
};

// Each CPU owns one vector on every other CPU and sends it again only when the last one was taken: had one
// been lost, the sender would wait for ever (and the test time out).
TEST(LapicThreadsTest, NoInterProcessorInterruptIsLost) {
    constexpr unsigned kCpus = 4;
    constexpr unsigned kRounds = 5'000;
    Machine machine(kCpus);
    // taken[to][from]
    std::array<std::array<std::atomic<unsigned>, kCpus>, kCpus> taken{};
    std::atomic<unsigned> finished = 0;

    const auto run = [&](unsigned self) {
        Lapic& lapic = *machine.cpus[self];
        std::array<unsigned, kCpus> sent{};
        bool counted = false;
        for (;;) {
            while (const auto vector = lapic.acknowledge()) {
                const unsigned from = *vector - 0x40u;
                ASSERT_LT(from, kCpus);
                (void)lapic.write_msr(kMsrEoi, 0);
                taken[self][from].fetch_add(1);
                machine.sleepers[from].wake();
            }
            bool all = true;
            for (unsigned to = 0; to < kCpus; ++to) {
                if (to == self) continue;
                if (sent[to] < kRounds && taken[to][self].load() == sent[to]) {
                    ++sent[to];
                    EXPECT_EQ(lapic.write_msr(kMsrIcr, u64{to} << 32 | 0x4000 | (0x40 + self)),
                              MsrResult::Ok);
                }
                all = all && taken[to][self].load() == kRounds;
            }
            if (all && !counted) {
                counted = true;
                if (finished.fetch_add(1) + 1 == kCpus)
                    for (Sleeper& sleeper : machine.sleepers) sleeper.wake();
            }
            if (finished.load() == kCpus) return;
            if (!lapic.interrupt_pending()) machine.sleepers[self].sleep();
        }
    };
    std::vector<std::thread> threads;
    threads.reserve(kCpus);
    for (unsigned i = 0; i < kCpus; ++i) threads.emplace_back(run, i);
    for (auto& thread : threads) thread.join();
    for (unsigned to = 0; to < kCpus; ++to)
        for (unsigned from = 0; from < kCpus; ++from)
            EXPECT_EQ(taken[to][from].load(), to == from ? 0u : kRounds);
}

// The CPU re-arms its deadline in each handler; a second thread moves time and fires.
TEST(LapicThreadsTest, EveryTscDeadlineFires) {
    constexpr unsigned kCpus = 2;
    constexpr unsigned kRounds = 2'000;
    Machine machine(kCpus);
    std::atomic<unsigned> running = kCpus;
    const auto run = [&](unsigned self) {
        Lapic& lapic = *machine.cpus[self];
        EXPECT_EQ(lapic.write_msr(kMsrLvtTimer, 0x40050), MsrResult::Ok);
        for (unsigned round = 0; round < kRounds; ++round) {
            const u64 deadline = machine.clock.ticks() + 1'000 + u64{round % 7} * 500;
            EXPECT_EQ(lapic.write_msr(kMsrDeadline, deadline), MsrResult::Ok);
            while (!lapic.interrupt_pending()) machine.sleepers[self].sleep();
            EXPECT_GE(machine.clock.ticks(), deadline);
            EXPECT_EQ(lapic.acknowledge(), 0x50);
            (void)lapic.write_msr(kMsrEoi, 0);
        }
        running.fetch_sub(1);
    };
    std::vector<std::thread> threads;
    threads.reserve(kCpus);
    for (unsigned i = 0; i < kCpus; ++i) threads.emplace_back(run, i);
    while (running.load() != 0) {
        machine.clock.advance(700);
        machine.timers.run(machine.clock.now_ns());
        std::this_thread::yield();
    }
    for (auto& thread : threads) thread.join();
}

// Messages of every kind at once, with the receiver changing what senders match against. A CPU that takes
// nothing any more keeps the senders going until the test times out.
TEST(LapicThreadsTest, EveryKindOfMessageAgainstARunningCpu) {
    constexpr unsigned kMessages = 20'000;
    Machine machine(2);
    std::atomic<bool> stop = false;
    std::atomic<unsigned> taken = 0;
    std::thread cpu([&] {
        Lapic& lapic = *machine.cpus[0];
        (void)lapic.write_msr(kMsrLvtLint0, 0x4f);
        u64 n = 0;
        while (!stop.load()) {
            const auto events = lapic.take_events();
            if (events.init) {
                lapic.init_reset();
                (void)lapic.write_msr(kMsrSvr, 0x1ff);
            }
            if (lapic.acknowledge()) {
                taken.fetch_add(1);
                (void)lapic.write_msr(kMsrEoi, 0);
            }
            if (++n % 64 == 0) (void)lapic.write_msr(kMsrSvr, n % 128 == 0 ? 0x1ff : 0xff);
            if (n % 256 == 0) std::this_thread::yield();
        }
    });
    std::vector<std::thread> senders;
    senders.reserve(2);
    for (unsigned s = 0; s < 2; ++s)
        senders.emplace_back([&, s] {
            for (unsigned i = 0; i < kMessages || taken.load() < 100; ++i) {
                ApicMessage m;
                m.destination = i % 5 == 0 ? ApicMessage::kBroadcast : 1;
                m.destination_mode = i % 5 == 0 ? DestinationMode::Physical : DestinationMode::Logical;
                m.delivery_mode = static_cast<DeliveryMode>(i % 64 == 0 ? 5 : i % 5);
                m.vector = static_cast<u8>(s * 64 + i);
                m.trigger = i % 3 == 0 ? TriggerMode::Level : TriggerMode::Edge;
                machine.fabric.deliver(m);
                if (s == 0) machine.fabric.lint_pins().set_level(0, i % 2 == 0);
            }
        });
    for (auto& sender : senders) sender.join();
    stop.store(true);
    cpu.join();
}

}  // namespace
}  // namespace tessera::lapic
