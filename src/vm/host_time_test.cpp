#include "vm/host_time.h"

#include <gtest/gtest.h>
#include <thread>

namespace tessera {
namespace {

class HostTimeTest : public testing::TestWithParam<HostTsc::Source> {};

TEST_P(HostTimeTest, StandsStillUntilThawedAndWhileFrozen) {
    HostTsc tsc(GetParam());
    const HostClock clock(tsc);
    EXPECT_EQ(tsc.ticks(), 0U);
    EXPECT_EQ(clock.now_ns(), 0U);
    tsc.thaw();
    while (tsc.ticks() < 1000) {
    }
    tsc.freeze();
    const u64 frozen = tsc.ticks();
    const u64 frozen_ns = clock.now_ns();
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    EXPECT_EQ(tsc.ticks(), frozen);
    EXPECT_EQ(clock.now_ns(), frozen_ns);
    tsc.thaw();
    EXPECT_GE(tsc.ticks(), frozen);
    // Two milliseconds of standing still are not made up for: less than a full second has passed.
    EXPECT_LT(clock.now_ns() - frozen_ns, 1'000'000'000U);
}

TEST_P(HostTimeTest, NanosecondsAreTicksDividedByTheFrequency) {
    HostTsc tsc(GetParam());
    const HostClock clock(tsc);
    tsc.thaw();
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    tsc.freeze();
    const double expected = static_cast<double>(tsc.ticks()) * 1e9 / static_cast<double>(tsc.hz());
    EXPECT_NEAR(static_cast<double>(clock.now_ns()), expected, 2 + expected * 1e-6);
}

TEST_P(HostTimeTest, GuestTimeGoesAsFastAsTheHosts) {
    HostTsc tsc(GetParam());
    const HostClock clock(tsc);
    tsc.thaw();
    const auto begin = std::chrono::steady_clock::now();
    const u64 guest_begin = clock.now_ns();
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    const u64 guest = clock.now_ns() - guest_begin;
    const auto host =
        std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - begin).count();
    // The guest's interval lies inside the host's, whatever the scheduler does; a wrong frequency shows as
    // too long here or as a sleep that is too short below.
    EXPECT_LE(static_cast<double>(guest), host * 1.001 + 1000);
    EXPECT_GE(guest, 49'900'000U);
}

TEST_P(HostTimeTest, RestartBeginsAtZeroAgain) {
    HostTsc tsc(GetParam());
    tsc.thaw();
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    tsc.freeze();
    tsc.restart();
    EXPECT_EQ(tsc.ticks(), 0U);
}

INSTANTIATE_TEST_SUITE_P(Sources, HostTimeTest,
                         testing::Values(HostTsc::Source::Auto, HostTsc::Source::Monotonic));

TEST(HostClockTest, WallTimeIsUnixTime) {
    const HostTsc tsc;
    const HostClock clock(tsc);
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    const double host_ns = std::chrono::duration<double, std::nano>(now).count();
    EXPECT_NEAR(static_cast<double>(clock.wall_ns()), host_ns, 5e9);
}

}  // namespace
}  // namespace tessera
