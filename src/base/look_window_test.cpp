#include "base/look_window.h"

#include <gtest/gtest.h>

namespace tessera {
namespace {

using Came = LookWindow::Came;

constexpr u64 kShort = 100'000;   // such as for another thread to wake and answer
constexpr u64 kLong = 4'000'000;  // such as until a tick

// Looks in vain until it does not look any more.
void give_up(LookWindow& window) {
    for (int i = 0; i < 10 && window.ns() != 0; ++i) window.waited(kShort, Came::WhileAsleep);
    ASSERT_EQ(window.ns(), 0U);
}

TEST(LookWindowTest, WhoWaitsLongNeverLooks) {
    LookWindow window;
    for (int i = 0; i < 1000; ++i) {
        EXPECT_EQ(window.ns(), 0U);
        window.waited(kLong, Came::WhileAsleep);
    }
}

TEST(LookWindowTest, AShortWaitIsATry) {
    LookWindow window;
    window.waited(kShort, Came::WhileAsleep);
    EXPECT_GT(window.ns(), 0U);
    EXPECT_LE(window.ns(), 50'000U);
}

TEST(LookWindowTest, WhatPaysGoesOn) {
    LookWindow window;
    window.waited(kShort, Came::WhileAsleep);
    for (int i = 0; i < 1000; ++i) {
        window.waited(20'000, Came::WhileLooking);
        EXPECT_EQ(window.ns(), LookWindow::kMostNs);
    }
}

TEST(LookWindowTest, InVainItIsHalvedAndEndsSoon) {
    LookWindow window;
    window.waited(kShort, Came::WhileAsleep);
    const u64 first = window.ns();
    window.waited(kLong, Came::WhileAsleep);
    EXPECT_EQ(window.ns(), first / 2);
    window.waited(kLong, Came::WhileAsleep);
    window.waited(kLong, Came::WhileAsleep);
    EXPECT_EQ(window.ns(), 0U);
}

TEST(LookWindowTest, WhatNeverPaysIsTriedEverLessOften) {
    LookWindow window;
    u64 looked = 0;
    constexpr int kWaits = 10'000;
    for (int i = 0; i < kWaits; ++i) {
        looked += window.ns();
        window.waited(kShort, Came::WhileAsleep);
    }
    EXPECT_LT(looked, kWaits * kShort / 100) << "a hundredth of the time";
    EXPECT_GT(looked, 0U);
}

TEST(LookWindowTest, OnceItPaysItIsTriedSoonAgain) {
    LookWindow window;
    for (int i = 0; i < 1000; ++i) window.waited(kShort, Came::WhileAsleep);
    while (window.ns() == 0) window.waited(kShort, Came::WhileAsleep);
    window.waited(10'000, Came::WhileLooking);
    give_up(window);
    window.waited(kShort, Came::WhileAsleep);
    EXPECT_GT(window.ns(), 0U);
}

}  // namespace
}  // namespace tessera
