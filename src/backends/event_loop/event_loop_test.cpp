#include "backends/event_loop/event_loop.h"

#include <array>
#include <atomic>
#include <chrono>
#include <future>
#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <thread>
#include <unistd.h>

namespace tessera {
namespace {

class EventLoopTest : public testing::TestWithParam<EventLoop::Idle> {
protected:
    static std::unique_ptr<EventLoop> make_loop() {
        auto loop = EventLoop::create("test", GetParam());
        EXPECT_TRUE(loop.has_value());
        return std::move(*loop);
    }
};
INSTANTIATE_TEST_SUITE_P(Idle, EventLoopTest,
                         testing::Values(EventLoop::Idle::Sleeps, EventLoop::Idle::LooksFirst),
                         [](const auto& info) {
                             return info.param == EventLoop::Idle::Sleeps ? "Sleeps" : "LooksFirst";
                         });

TEST_P(EventLoopTest, RunsTasksInOrderOnItsOwnThread) {
    const auto loop = make_loop();
    std::vector<int> order;
    bool on_loop = false;
    loop->post([&] { order.push_back(1); });
    loop->post([&] { order.push_back(2); });
    EXPECT_TRUE(loop->run([&] {
        order.push_back(3);
        on_loop = loop->is_this_thread();
    }));
    EXPECT_EQ(order, (std::vector{1, 2, 3}));
    EXPECT_TRUE(on_loop);
    EXPECT_FALSE(loop->is_this_thread());
}

TEST_P(EventLoopTest, RunFromTheLoopItselfDoesNotDeadlock) {
    const auto loop = make_loop();
    int depth = 0;
    EXPECT_TRUE(loop->run([&] { EXPECT_TRUE(loop->run([&] { depth = 2; })); }));
    EXPECT_EQ(depth, 2);
}

TEST_P(EventLoopTest, RunSaysSoWhenTheLoopHasEnded) {
    const auto loop = make_loop();
    loop->stop();
    bool ran = false;
    EXPECT_FALSE(loop->run([&] { ran = true; }));
    EXPECT_FALSE(ran);
}

TEST_P(EventLoopTest, TellsOfReadableDescriptorsUntilForgotten) {
    const auto loop = make_loop();
    std::array<int, 2> fds{};
    ASSERT_EQ(pipe(fds.data()), 0);
    std::promise<u32> first;
    int calls = 0;
    loop->run([&] {
        EXPECT_TRUE(loop->watch(fds[0], EPOLLIN,
                                [&](u32 events) {
                                    char byte = 0;
                                    EXPECT_EQ(read(fds[0], &byte, 1), 1);
                                    if (++calls == 1) first.set_value(events);
                                })
                        .has_value());
    });
    ASSERT_EQ(write(fds[1], "a", 1), 1);
    EXPECT_NE(first.get_future().get() & EPOLLIN, 0U);
    loop->run([&] { loop->forget(fds[0]); });
    ASSERT_EQ(write(fds[1], "b", 1), 1);
    loop->run([] {});
    EXPECT_EQ(calls, 1);
    (void)close(fds[0]);
    (void)close(fds[1]);
}

TEST_P(EventLoopTest, AHandlerMayForgetItsOwnDescriptor) {
    const auto loop = make_loop();
    std::array<int, 2> fds{};
    ASSERT_EQ(pipe(fds.data()), 0);
    std::promise<void> called;
    loop->run([&] {
        EXPECT_TRUE(loop->watch(fds[0], EPOLLIN,
                                [&](u32) {
                                    loop->forget(fds[0]);
                                    called.set_value();
                                })
                        .has_value());
    });
    ASSERT_EQ(write(fds[1], "a", 1), 1);
    called.get_future().get();
    loop->run([] {});  // a second call would break the promise
    (void)close(fds[0]);
    (void)close(fds[1]);
}

TEST_P(EventLoopTest, RefusesRegularFilesAsUnsupported) {
    const auto loop = make_loop();
    std::FILE* file = std::tmpfile();
    ASSERT_NE(file, nullptr);
    loop->run([&] {
        const Status status = loop->watch(fileno(file), EPOLLIN, [](u32) {});
        ASSERT_FALSE(status.has_value());
        EXPECT_EQ(status.error().code, Errc::Unsupported);
    });
    (void)std::fclose(file);
}

class Countdown final : public DeadlineHandler {
public:
    explicit Countdown(std::vector<u64> waits) : waits_(std::move(waits)) {}
    u64 run_due() override {
        if (calls == waits_.size()) {
            if (!finished) done.set_value();
            finished = true;
            return kNothingDue;
        }
        return waits_[calls++];
    }
    std::promise<void> done;
    std::size_t calls = 0;
    bool finished = false;

private:
    std::vector<u64> waits_;
};

TEST_P(EventLoopTest, ComesBackForEveryDeadlineTheHandlerNames) {
    const auto loop = make_loop();
    Countdown handler({1'000'000, 500'000, 0, 2'000'000});
    loop->run([&] { loop->add(handler); });
    const auto begin = std::chrono::steady_clock::now();
    loop->wake_in(0);
    handler.done.get_future().get();
    // Never early: the waits add up to 3.5 ms.
    EXPECT_GE(std::chrono::steady_clock::now() - begin, std::chrono::microseconds(3500));
    loop->run([&] { loop->remove(handler); });
}

// Whether the thread looks, stops looking or sleeps when something comes: it is not missed.
TEST_P(EventLoopTest, NothingIsMissedAtAnyMomentOfAWait) {
    const auto loop = make_loop();
    std::array<int, 2> fds{};
    ASSERT_EQ(pipe(fds.data()), 0);
    std::atomic<int> heard = 0;
    loop->run([&] {
        EXPECT_TRUE(loop->watch(fds[0], EPOLLIN, [&](u32) {
            char byte = 0;
            EXPECT_EQ(read(fds[0], &byte, 1), 1);
            ++heard;
        }));
    });
    for (int round = 0; round < 3000; ++round) {
        EXPECT_TRUE(loop->run([] {}));
        // From nothing to beyond what it looks for.
        const auto until = std::chrono::steady_clock::now() + std::chrono::microseconds(round % 60);
        while (std::chrono::steady_clock::now() < until) {
        }
        if (round % 4 == 0) {
            EXPECT_EQ(write(fds[1], "x", 1), 1);
            while (heard.load() != round / 4 + 1) std::this_thread::yield();
        }
    }
    loop->stop();
    for (const int fd : fds) (void)close(fd);
}

TEST_P(EventLoopTest, ManyThreadsPostWithoutLosingATask) {
    const auto loop = make_loop();
    constexpr int kEach = 2000;
    int count = 0;
    {
        std::vector<std::jthread> threads;
        for (int t = 0; t < 4; ++t)
            threads.emplace_back([&] {
                for (int i = 0; i < kEach; ++i) {
                    loop->post([&] { ++count; });
                    loop->wake_in(static_cast<u64>(i));
                }
            });
    }
    loop->run([] {});
    EXPECT_EQ(count, 4 * kEach);
}

}  // namespace
}  // namespace tessera
