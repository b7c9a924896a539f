#include "devices/virtio_rng/virtio_rng.h"

#include <gtest/gtest.h>

#include "devices/virtio/testing/hostile_driver_suite.h"
#include "devices/virtio_rng/virtio_rng_rig.h"

namespace tessera::virtio_rng {
namespace {

using virtio::Segment;
using RngBench = virtio::Bench<RngKit, virtio::OverMmio, virtio::RingKind::Split>;

constexpr u64 kAt = RngBench::kBuffers;

TEST(VirtioRngTest, FillsAllPiecesInOrder) {
    RngBench bench;
    ASSERT_TRUE(bench.start());
    const std::vector<Segment> pieces = {{kAt, 3, true}, {kAt + 100, 2, true}};
    const auto id = bench.queue().add(pieces);
    bench.kick();
    ASSERT_TRUE(bench.run());
    const auto used = bench.queue().take();
    ASSERT_TRUE(used);
    EXPECT_EQ(used->id, *id);
    EXPECT_EQ(used->length, 5U);
    EXPECT_EQ(*bench.ram.at(kAt), std::byte{1});
    EXPECT_EQ(*bench.ram.at(kAt + 2), std::byte{3});
    EXPECT_EQ(*bench.ram.at(kAt + 3), std::byte{0});
    EXPECT_EQ(*bench.ram.at(kAt + 101), std::byte{5});
}

TEST(VirtioRngTest, TellsHowMuchItHad) {
    RngBench bench;
    bench.kit.source.most = 10;
    ASSERT_TRUE(bench.start());
    const std::vector<Segment> pieces = {{kAt, 64, true}};
    (void)bench.queue().add(pieces);
    bench.kick();
    ASSERT_TRUE(bench.run());
    EXPECT_EQ(bench.queue().take()->length, 10U);
}

// 100,000 bytes in a tenth of a second, and not more.
TEST(VirtioRngTest, TheRateIsBoundedAndGoesOnByItself) {
    RngBench bench;
    ASSERT_TRUE(bench.start());
    const std::vector<Segment> pieces = {{kAt, 60'000, true}};
    for (int i = 0; i < 4; ++i) ASSERT_TRUE(bench.queue().add(pieces));
    bench.kick();
    ASSERT_TRUE(bench.run());
    EXPECT_EQ(bench.queue().take()->length, 60'000U);
    EXPECT_EQ(bench.queue().take()->length, 40'000U);
    EXPECT_FALSE(bench.queue().take());
    bench.kit.clock.advance(VirtioRng::kPeriodNs);
    ASSERT_TRUE(bench.run());
    EXPECT_EQ(bench.queue().take()->length, 60'000U);
    EXPECT_EQ(bench.queue().take()->length, 40'000U);
}

TEST(VirtioRngTest, AResetForgetsTheTimer) {
    RngBench bench;
    ASSERT_TRUE(bench.start());
    const std::vector<Segment> pieces = {{kAt, 60'000, true}};
    for (int i = 0; i < 4; ++i) ASSERT_TRUE(bench.queue().add(pieces));
    bench.kick();
    ASSERT_TRUE(bench.run());
    EXPECT_EQ(bench.kit.clock.armed_count(), 1U);
    bench.device.reset();
    EXPECT_EQ(bench.kit.clock.armed_count(), 0U);
}

TEST(VirtioRngTest, NeitherAResetNorASnapshotGivesMore) {
    RngBench bench;
    ASSERT_TRUE(bench.start());
    const std::vector<Segment> pieces = {{kAt, 60'000, true}};
    ASSERT_TRUE(bench.queue().add(pieces));
    bench.kick();
    ASSERT_TRUE(bench.run());
    ASSERT_TRUE(bench.start()) << "with a reset";
    for (int i = 0; i < 2; ++i) ASSERT_TRUE(bench.queue().add(pieces));
    bench.kick();
    ASSERT_TRUE(bench.run());
    EXPECT_EQ(bench.queue().take()->length, 40'000U);
    EXPECT_FALSE(bench.queue().take());
    const auto saved = testing_rig::saved(bench);
    RngBench copy;
    copy.copy_surroundings(bench);
    ASSERT_TRUE(testing_rig::load(copy, saved));
    copy.core().resume();
    ASSERT_TRUE(copy.run());
    EXPECT_FALSE(copy.queue().take());
    copy.kit.clock.advance(VirtioRng::kPeriodNs);
    ASSERT_TRUE(copy.run());
    EXPECT_EQ(copy.queue().take()->length, 60'000U);
}

}  // namespace
}  // namespace tessera::virtio_rng

TESSERA_JOIN_HOSTILE_DRIVER_SUITE(VirtioRng, tessera::virtio_rng::RngKit);
