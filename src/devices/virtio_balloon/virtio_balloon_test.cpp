#include "devices/virtio_balloon/virtio_balloon.h"

#include <gtest/gtest.h>

#include "devices/virtio/testing/hostile_driver_suite.h"
#include "devices/virtio_balloon/virtio_balloon_rig.h"

namespace tessera::virtio_balloon {
namespace {

using virtio::BenchRam;
using virtio::Segment;
using BalloonBench = virtio::Bench<BalloonKit, virtio::OverMmio, virtio::RingKind::Split>;

constexpr u64 kAt = 0x10'0000;

struct VirtioBalloonTest : testing::Test {
    void put(u16 queue, const std::vector<Segment>& pieces) {
        ASSERT_TRUE(bench.queues[queue]->add(pieces));
        bench.port.notify(queue);
        ASSERT_TRUE(bench.run());
    }
    void inflate(const std::vector<u32>& pages) {
        std::memcpy(bench.ram.at(kAt), pages.data(), pages.size() * 4);
        put(0, {{kAt, static_cast<u32>(pages.size() * 4), false}});
        EXPECT_TRUE(bench.queues[0]->take());
    }
    u32 config(u64 offset) {
        std::array<std::byte, 4> data{};
        EXPECT_EQ(bench.port.read_config(offset, data), IoStatus::Ok);
        return std::bit_cast<u32>(data);
    }
    void set_config(u64 offset, u32 value) {
        EXPECT_EQ(bench.port.write_config(offset, std::bit_cast<std::array<std::byte, 4>>(value)),
                  IoStatus::Ok);
    }
    std::vector<std::pair<u64, u64>> released() {
        std::vector<std::pair<u64, u64>> pages;
        for (const auto& span : bench.kit.host.released)
            pages.emplace_back(span.data() - bench.ram.at(0), span.size());
        return pages;
    }
    using Pages = std::vector<std::pair<u64, u64>>;
    BalloonBench bench;
};

TEST_F(VirtioBalloonTest, NeighbouringPagesAreReleasedTogether) {
    ASSERT_TRUE(bench.start());
    inflate({0x180, 0x181, 0x182, 0x190, 0x18f});
    EXPECT_EQ(released(), (Pages{{0x18'0000, 0x3000}, {0x19'0000, 0x1000}, {0x18'f000, 0x1000}}));
    EXPECT_EQ(bench.kit.device.released(), 0x5000U);
}

TEST_F(VirtioBalloonTest, WhatIsNoRamIsLeftAlone) {
    ASSERT_TRUE(bench.start());
    inflate({static_cast<u32>(BenchRam::kHole >> 12), static_cast<u32>(BenchRam::kRom >> 12), 0xffff'ffff,
             0x8000'0000, 0x180});
    EXPECT_EQ(released(), (Pages{{0x18'0000, 0x1000}}));
}

TEST_F(VirtioBalloonTest, RequestsAreCutToSomePages) {
    ASSERT_TRUE(bench.start());
    for (u32 i = 0; i < 5000; ++i) std::memcpy(bench.ram.at(kAt + u64{i} * 4), "\x80\x01\0\0", 4);
    put(0, {{kAt, 20'000, false}});
    EXPECT_TRUE(bench.queues[0]->take());
    EXPECT_EQ(released().size(), 4096U);
}

TEST_F(VirtioBalloonTest, WhoKeepsCodeOfAPageIsTold) {
    struct Observer final : CodeWriteObserver {
        void on_code_write(u64 address, u64 size) override { told.emplace_back(address, size); }
        std::vector<std::pair<u64, u64>> told;
    } observer;
    bench.ram.map.set_code_observer(&observer);
    ASSERT_TRUE(bench.start());
    inflate({0x180});
    EXPECT_EQ(observer.told, (Pages{{0x18'0000, 0x1000}}));
    bench.ram.map.set_code_observer(nullptr);
}

TEST_F(VirtioBalloonTest, ATargetIsToldAndTheAnswerRead) {
    ASSERT_TRUE(bench.start());
    bench.kit.device.set_target(0x12'3456);
    EXPECT_TRUE(bench.port.interrupted());
    EXPECT_EQ(config(0), 0x123U);
    set_config(4, 0x100);
    EXPECT_EQ(bench.kit.device.actual(), 0x10'0000U);
    set_config(0, 7);
    EXPECT_EQ(config(0), 0x123U) << "the host's";
    bench.kit.device.set_target(~u64{0});
    EXPECT_EQ(config(0), 0xffff'ffffU);
    bench.device.reset();
    EXPECT_EQ(config(0), 0xffff'ffffU) << "a wish outlives a reset";
    EXPECT_EQ(config(4), 0U);
}

TEST_F(VirtioBalloonTest, ReportedPagesAreReleasedInWholePages) {
    ASSERT_TRUE(bench.start());
    put(3, {{0x18'0000, 0x4000, true}, {0x19'0800, 0x2000, true}, {0x1a'0001, 0xffe, true}});
    EXPECT_TRUE(bench.queues[3]->take());
    EXPECT_EQ(released(), (Pages{{0x18'0000, 0x4000}, {0x19'1000, 0x1000}}));
}

TEST_F(VirtioBalloonTest, PoisonedPagesAreNotReleasedWhenReported) {
    ASSERT_TRUE(bench.start());
    set_config(12, 0xaaaa'aaaa);
    put(3, {{0x18'0000, 0x1000, true}});
    EXPECT_TRUE(released().empty());
    set_config(12, 0);
    put(3, {{0x18'0000, 0x1000, true}});
    EXPECT_EQ(released().size(), 1U);
}

TEST_F(VirtioBalloonTest, QueuesOfWhatIsNotAgreedOnDoNotCount) {
    ASSERT_TRUE(bench.start(u64{1} << kFeatureStatistics));
    put(2, {{0x18'0000, 0x1000, true}});
    EXPECT_EQ(released().size(), 1U);
}

TEST_F(VirtioBalloonTest, StatisticsAreReadAndAskedForAgain) {
    ASSERT_TRUE(bench.start());
    const auto fill = [this](u64 free) {
        std::memset(bench.ram.at(kAt), 0xff, 40);
        const std::array<u8, 20> entries = {4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 1, 2, 3, 4, 5, 6, 7, 8};
        std::memcpy(bench.ram.at(kAt), entries.data(), entries.size());
        std::memcpy(bench.ram.at(kAt + 2), &free, sizeof free);
    };
    fill(1000);
    put(2, {{kAt, 25, false}});
    EXPECT_FALSE(bench.queues[2]->take()) << "the buffer stays";
    EXPECT_EQ(bench.kit.device.statistic(StatisticTag::FreeMemory), 1000U);
    EXPECT_EQ(bench.kit.device.statistic(StatisticTag::TotalMemory), std::nullopt);
    bench.port.notify(2);
    ASSERT_TRUE(bench.run());
    bench.kit.device.request_statistics();
    EXPECT_TRUE(bench.port.interrupted());
    EXPECT_TRUE(bench.queues[2]->take());
    ASSERT_TRUE(bench.run());
    bench.kit.device.request_statistics();
    EXPECT_FALSE(bench.queues[2]->take()) << "asked already";
    fill(2000);
    put(2, {{kAt, 20, false}});
    EXPECT_EQ(bench.kit.device.statistic(StatisticTag::FreeMemory), 2000U);
}

}  // namespace
}  // namespace tessera::virtio_balloon

TESSERA_JOIN_HOSTILE_DRIVER_SUITE(VirtioBalloon, tessera::virtio_balloon::BalloonKit);
