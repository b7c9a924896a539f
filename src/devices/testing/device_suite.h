// The tests every chip joins through its rig (see device_rig.h): in `<chip>_test.cpp`,
//
//     TESSERA_JOIN_DEVICE_SUITE(Pit8254, tessera::pit8254::PitRig);
//
// They prove that a snapshot holds everything, that reset is power-on, and that neither a guest nor a
// snapshot file can bring the chip down. What the chip is for, its own tests say.
#pragma once

#include <algorithm>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <string>

#include "devices/testing/device_rig.h"

namespace tessera::testing_rig {

inline constexpr u64 kSeeds = 40;
inline constexpr unsigned kPokes = 400;

template <typename R>
void poke_many(R& rig, u64 seed) {
    SeededChoices choices(seed);
    for (unsigned i = 0; i < kPokes; ++i) (void)rig.poke(choices);
    EXPECT_TRUE(choices.floating_bus_kept) << "a refused read changed the floating bus";
}

// Brings the second rig's clock to the first one's time.
template <typename R>
void same_time(const R& from, R& to) {
    if constexpr (requires { from.clock.now_ns(); })
        to.clock.advance(from.clock.now_ns() - to.clock.now_ns());
}

// The fields that differ, for people; empty when there are none.
inline std::string differences(const Saved& a, const Saved& b) {
    std::string text;
    for (const auto& [id, value] : a.numbers) {
        const auto other = b.numbers.find(id);
        if (other == b.numbers.end() || other->second != value)
            text += fmt::format("field {}: {:#x} and {}; ", id, value,
                                other == b.numbers.end() ? "nothing" : fmt::format("{:#x}", other->second));
    }
    for (const auto& [id, blob] : a.blobs)
        if (!b.blobs.contains(id) || b.blobs.at(id) != blob) text += fmt::format("blob {}; ", id);
    if (text.empty() && a != b) text = "other fields";
    return text;
}

template <typename R>
class DeviceSuite : public testing::Test {};

TYPED_TEST_SUITE_P(DeviceSuite);

TYPED_TEST_P(DeviceSuite, SavingChangesNothing) {
    for (u64 seed = 0; seed < kSeeds; ++seed) {
        TypeParam rig;
        poke_many(rig, seed);
        const Saved first = saved(rig);
        EXPECT_EQ(differences(first, saved(rig)), "") << "seed " << seed;
    }
}

TYPED_TEST_P(DeviceSuite, SnapshotHoldsEveryField) {
    for (u64 seed = 0; seed < kSeeds; ++seed) {
        TypeParam rig;
        poke_many(rig, seed);
        const Saved before = saved(rig);
        TypeParam copy;
        same_time(rig, copy);
        const Status loaded = load(copy, before);
        ASSERT_TRUE(loaded) << "seed " << seed << ": " << loaded.error().message;
        EXPECT_EQ(differences(saved(rig), saved(copy)), "") << "seed " << seed;
    }
}

TYPED_TEST_P(DeviceSuite, LoadMovesNoWire) {
    if constexpr (requires(TypeParam r) { r.wires.edges; }) {
        for (u64 seed = 0; seed < kSeeds; ++seed) {
            TypeParam rig;
            poke_many(rig, seed);
            const Saved before = saved(rig);
            TypeParam copy;
            same_time(rig, copy);
            copy.wires.edges.clear();
            ASSERT_TRUE(load(copy, before));
            EXPECT_TRUE(copy.wires.edges.empty()) << "seed " << seed;
        }
    }
}

// A restored chip answers every later access as the one it was saved from.
TYPED_TEST_P(DeviceSuite, ContinuesLikeTheOriginal) {
    for (u64 seed = 0; seed < kSeeds; ++seed) {
        TypeParam rig;
        poke_many(rig, seed);
        const Saved before = saved(rig);
        TypeParam copy;
        same_time(rig, copy);
        if constexpr (requires { copy.copy_surroundings(rig); }) copy.copy_surroundings(rig);
        ASSERT_TRUE(load(copy, before));
        if constexpr (requires { rig.end_what_a_snapshot_ends(); }) rig.end_what_a_snapshot_ends();
        SeededChoices here(seed + 1000);
        SeededChoices there(seed + 1000);
        for (unsigned i = 0; i < kPokes; ++i)
            ASSERT_EQ(u64{rig.poke(here)}, u64{copy.poke(there)}) << "seed " << seed << " poke " << i;
        EXPECT_EQ(differences(saved(rig), saved(copy)), "") << "seed " << seed;
        if constexpr (requires { copy.same_surroundings(rig); })
            EXPECT_TRUE(copy.same_surroundings(rig)) << "seed " << seed;
    }
}

TYPED_TEST_P(DeviceSuite, ResetEqualsConstruct) {
    TypeParam fresh;
    const Saved at_power_on = saved(fresh);
    fresh.device.reset();
    EXPECT_EQ(differences(at_power_on, saved(fresh)), "");
    for (u64 seed = 0; seed < kSeeds; ++seed) {
        TypeParam rig;
        poke_many(rig, seed);
        Saved expected;
        {
            TypeParam other;  // at the same time, because a state may hold the moment of its reset
            same_time(rig, other);
            other.device.reset();
            expected = saved(other);
        }
        if constexpr (requires { TypeParam::kKeptByReset; }) {
            const Saved poked = saved(rig);
            for (const unsigned id : TypeParam::kKeptByReset) {
                if (poked.numbers.contains(id)) expected.numbers[id] = poked.numbers.at(id);
                if (poked.blobs.contains(id)) expected.blobs[id] = poked.blobs.at(id);
            }
        }
        rig.device.reset();
        EXPECT_EQ(differences(expected, saved(rig)), "") << "seed " << seed;
    }
}

TYPED_TEST_P(DeviceSuite, HostileSnapshotIsRefusedWholeOrHarmless) {
    for (u64 seed = 0; seed < kSeeds * 10; ++seed) {
        SeededChoices choices(seed);
        TypeParam rig;
        poke_many(rig, seed);
        Saved bad = saved(rig);
        corrupt(bad, choices);
        TypeParam victim;
        same_time(rig, victim);
        const Saved before = saved(victim);
        const Status loaded = load(victim, bad);
        if (!loaded) {
            EXPECT_EQ(loaded.error().code, Errc::CorruptState);
            EXPECT_EQ(differences(before, saved(victim)), "") << "seed " << seed;
        }
        poke_many(victim, seed);
    }
}

REGISTER_TYPED_TEST_SUITE_P(DeviceSuite, SavingChangesNothing, SnapshotHoldsEveryField, LoadMovesNoWire,
                            ContinuesLikeTheOriginal, ResetEqualsConstruct,
                            HostileSnapshotIsRefusedWholeOrHarmless);

}  // namespace tessera::testing_rig

// At file scope; the rig by its full name.
#define TESSERA_JOIN_DEVICE_SUITE(Name, Rig)                \
    namespace tessera::testing_rig {                        \
    INSTANTIATE_TYPED_TEST_SUITE_P(Name, DeviceSuite, Rig); \
    }                                                       \
    static_assert(true, "takes the semicolon")
