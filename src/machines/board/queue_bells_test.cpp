#include "machines/board/queue_bells.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <gtest/gtest.h>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

namespace tessera {
namespace {

// An engine of ours: keeps what hangs, and rings it when the test writes to the address.
class FakeHost final : public DoorbellHost {
public:
    Status hang(const Doorbell& bell, int event) override {
        ++tries;
        if (full) return fail(Errc::HostFailure, "full");
        for (const auto& [other, where] : hung) EXPECT_NE(other, bell) << "hangs already";
        hung.emplace_back(bell, event);
        return {};
    }
    void take_down(const Doorbell& bell, int event) override {
        EXPECT_EQ(std::erase(hung, std::pair(bell, event)), 1U);
    }
    // False: it would have been the bus's.
    bool write(u64 address) {
        const auto it = std::ranges::find_if(hung, [&](const auto& h) { return h.first.address == address; });
        if (it == hung.end()) return false;
        const u64 one = 1;
        return ::write(it->second, &one, sizeof one) == static_cast<ssize_t>(sizeof one);
    }
    std::vector<std::pair<Doorbell, int>> hung;
    unsigned tries = 0;
    bool full = false;
};

// Two queues, of which the doorbells are 4 bytes apart from 0x10 on.
struct QueueBellsTest : testing::Test {
    ~QueueBellsTest() override { loop->stop(); }
    static Doorbell doorbell_of(unsigned queue) { return {.address = 0x10 + u64{4} * queue, .width = 2}; }
    void hang_up(unsigned queue) {
        ASSERT_TRUE(loop->run([&] { bells.hang_up(queue); }));
    }
    // The loop has looked at its descriptors since.
    void settle() {
        ASSERT_TRUE(loop->run([&] { bells.listen(); }));
    }

    FakeHost host;
    std::unique_ptr<EventLoop> loop = *EventLoop::create("test");
    std::array<std::atomic<unsigned>, 2> rung{};
    QueueBells bells{*loop, 2, &doorbell_of, [this](unsigned queue) { ++rung[queue]; }};
};

TEST_F(QueueBellsTest, HangWhenTheirQueueIsWorkedForAndNotBefore) {
    bells.use(&host);
    bells.on_place(0x1000);
    EXPECT_TRUE(host.hung.empty());
    hang_up(1);
    hang_up(1);
    ASSERT_EQ(host.hung.size(), 1U);
    EXPECT_EQ(host.hung[0].first, (Doorbell{.address = 0x1014, .width = 2}));
    EXPECT_TRUE(host.write(0x1014));
    settle();
    EXPECT_EQ(rung[0], 0U);
    EXPECT_EQ(rung[1], 1U);
}

TEST_F(QueueBellsTest, NothingHangsWithoutAnEngineOrAPlace) {
    hang_up(0);
    bells.on_place(0x1000);
    hang_up(0);
    bells.use(&host);
    bells.on_place(std::nullopt);
    hang_up(0);
    EXPECT_EQ(host.tries, 0U);
    bells.on_place(0x1000);
    hang_up(2);  // there is none
    EXPECT_EQ(host.tries, 0U);
}

TEST_F(QueueBellsTest, AMoveTakesThemDownAndTheyHangAtTheNewPlace) {
    bells.use(&host);
    bells.on_place(0x1000);
    hang_up(0);
    bells.on_place(std::nullopt);
    EXPECT_TRUE(host.hung.empty());
    bells.on_place(0x2000);
    EXPECT_TRUE(host.hung.empty());
    hang_up(0);
    EXPECT_FALSE(host.write(0x1010));
    EXPECT_TRUE(host.write(0x2010));
    settle();
    EXPECT_EQ(rung[0], 1U);
}

TEST_F(QueueBellsTest, WhatWasRungBeforeAMoveIsHeardAfterIt) {
    bells.use(&host);
    bells.on_place(0x1000);
    hang_up(0);
    ASSERT_TRUE(loop->run([&] {
        EXPECT_TRUE(host.write(0x1010));
        bells.on_place(std::nullopt);
    }));
    settle();
    EXPECT_EQ(rung[0], 1U);
}

// While another engine has the guest nothing is hung, what hangs stays for when the first one has it again,
// and moves go on to count.
TEST_F(QueueBellsTest, AnotherEngineHangsNothing) {
    bells.use(&host);
    bells.on_place(0x1000);
    hang_up(0);
    bells.use(nullptr);
    hang_up(1);
    EXPECT_EQ(host.hung.size(), 1U);
    bells.use(&host);
    hang_up(0);
    EXPECT_EQ(host.tries, 1U);
    hang_up(1);
    EXPECT_EQ(host.hung.size(), 2U);
    bells.use(nullptr);
    bells.on_place(0x3000);
    EXPECT_TRUE(host.hung.empty());
    hang_up(0);
    EXPECT_TRUE(host.hung.empty());
    bells.use(&host);
    hang_up(0);
    EXPECT_TRUE(host.write(0x3010));
}

TEST_F(QueueBellsTest, AHostWithoutRoomIsAskedOnceAtEachPlace) {
    host.full = true;
    bells.use(&host);
    bells.on_place(0x1000);
    hang_up(0);
    hang_up(0);
    EXPECT_EQ(host.tries, 1U);
    bells.on_place(std::nullopt);  // takes nothing down
    host.full = false;
    bells.on_place(0x2000);
    hang_up(0);
    EXPECT_EQ(host.hung.size(), 1U);
}

// Rung at the old place, and there is no room at the new one.
TEST_F(QueueBellsTest, WhatWasRungIsHeardBeforeItsDescriptorGoes) {
    bells.use(&host);
    bells.on_place(0x1000);
    hang_up(0);
    ASSERT_TRUE(loop->run([&] {
        EXPECT_TRUE(host.write(0x1010));
        bells.on_place(0x2000);
        host.full = true;
        bells.hang_up(0);
        EXPECT_EQ(rung[0], 1U);
    }));
    bells.on_place(0x3000);
    host.full = false;
    hang_up(0);
    EXPECT_TRUE(host.write(0x3010));
    settle();
    EXPECT_EQ(rung[0], 2U);
}

TEST_F(QueueBellsTest, AGuestThatMovesItsDeviceAllTheTimeStaysWithTheBus) {
    bells.use(&host);
    for (unsigned n = 0; n < 1000; ++n) {
        bells.on_place(0x1000 + u64{n % 2} * 0x1000);
        hang_up(0);
        hang_up(1);
    }
    EXPECT_EQ(host.tries, 2 * QueueBells::kMostMoves);
    EXPECT_TRUE(host.hung.empty());
    bells.use(&host);
    hang_up(0);
    EXPECT_EQ(host.hung.size(), 1U);
}

// Firmware and drivers look for places before they use anything.
TEST_F(QueueBellsTest, MovesOfADeviceNobodyUsesDoNotCount) {
    bells.use(&host);
    for (unsigned n = 0; n < 1000; ++n) bells.on_place(0x1000 + u64{n % 2} * 0x1000);
    hang_up(0);
    EXPECT_EQ(host.hung.size(), 1U);
}

TEST_F(QueueBellsTest, AfterTheirEndNothingRings) {
    bells.use(&host);
    bells.on_place(0x1000);
    hang_up(0);
    bells.end();
    EXPECT_TRUE(host.write(0x1010));
    ASSERT_TRUE(loop->run([] {}));
    ASSERT_TRUE(loop->run([] {}));
    EXPECT_EQ(rung[0], 0U);
    hang_up(1);
    EXPECT_EQ(host.hung.size(), 1U);
}

// A guest with two CPUs: one moves the device, the other one kicks. What was rung is heard, however it ends.
TEST_F(QueueBellsTest, MovesAndKicksMeet) {
    struct LockedHost final : DoorbellHost {
        Status hang(const Doorbell& bell, int event) override {
            const std::scoped_lock guard(mutex);
            return fake.hang(bell, event);
        }
        void take_down(const Doorbell& bell, int event) override {
            const std::scoped_lock guard(mutex);
            fake.take_down(bell, event);
        }
        bool write(u64 address) {
            const std::scoped_lock guard(mutex);
            return fake.write(address);
        }
        std::mutex mutex;
        FakeHost fake;
    } locked;
    bells.use(&locked);
    std::atomic<bool> stop = false;
    unsigned hits = 0;
    std::thread kicker([&] {
        for (unsigned n = 0; n < 200'000 && !stop; ++n)
            if (locked.write(0x1010)) ++hits;
    });
    std::thread mover([&] {
        for (unsigned n = 0; n < 2000; ++n) {
            if (n % QueueBells::kMostMoves == 0) bells.use(&locked);
            bells.on_place(n % 2 == 0 ? std::optional<u64>(0x1000) : std::nullopt);
        }
        stop = true;
    });
    for (unsigned n = 0; n < 500; ++n) hang_up(0);
    mover.join();
    kicker.join();
    settle();
    EXPECT_EQ(rung[0] > 0, hits > 0);
    EXPECT_TRUE(locked.fake.hung.empty());
    bells.end();
}

}  // namespace
}  // namespace tessera
