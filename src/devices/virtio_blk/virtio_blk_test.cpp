#include "devices/virtio_blk/virtio_blk.h"

#include <gtest/gtest.h>
#include <thread>

#include "devices/virtio/testing/hostile_driver_suite.h"
#include "devices/virtio_blk/virtio_blk_rig.h"

namespace tessera::virtio_blk {
namespace {

using virtio::Segment;
using BlkBench = virtio::Bench<BlkKit, virtio::OverMmio, virtio::RingKind::Split>;

// [VIRTIO-1.2 5.2.6] Types and answers.
constexpr u32 kIn = 0;
constexpr u32 kOut = 1;
constexpr u32 kScsi = 2;
constexpr u32 kFlush = 4;
constexpr u32 kGetId = 8;
constexpr u32 kDiscard = 11;
constexpr u32 kWriteZeroes = 13;
constexpr u8 kOk = 0;
constexpr u8 kIoError = 1;
constexpr u8 kUnsupported = 2;
constexpr u8 kNone = 0xee;

constexpr u64 kAt = BlkBench::kBuffers;
constexpr u64 kData = kAt + 0x1000;
constexpr u64 kStatus = kAt + 0x800;

struct VirtioBlkTest : testing::Test {
    VirtioBlkTest() {
        for (std::size_t i = 0; i < bench.kit.disk.bytes.size(); ++i)
            bench.kit.disk.bytes[i] = static_cast<u8>(i / 512 * 7 + i);
    }
    void put(u32 type, u64 sector, std::vector<Segment> data) {
        BlkKit::header(bench.ram, kAt, type, sector);
        *bench.ram.at(kStatus) = std::byte{kNone};
        data.insert(data.begin(), {kAt, 16, false});
        data.push_back({kStatus, 1, true});
        ASSERT_TRUE(bench.queue().add(data));
        bench.kick();
        ASSERT_TRUE(bench.run());
    }
    u8 status() { return std::to_integer<u8>(*bench.ram.at(kStatus)); }
    u8 answer(u32 type, u64 sector, const std::vector<Segment>& data = {}) {
        put(type, sector, data);
        last = bench.queue().take();
        EXPECT_TRUE(last);
        return status();
    }
    u8 ranges(u32 type, const std::vector<RangeSegment>& segments) {
        std::memcpy(bench.ram.at(kData), segments.data(), segments.size() * sizeof(RangeSegment));
        return answer(type, 0, {{kData, static_cast<u32>(segments.size() * 16), false}});
    }
    u64 config(u64 offset, std::size_t width) {
        std::array<std::byte, 8> data{};
        EXPECT_EQ(bench.port.read_config(offset, std::span(data).first(width)), IoStatus::Ok);
        return std::bit_cast<u64>(data);
    }
    u8 memory(u64 address) { return std::to_integer<u8>(*bench.ram.at(address)); }
    std::vector<std::string>& log() { return bench.kit.disk.log; }
    BlkBench bench;
    std::optional<virtio::Used> last;
};

TEST_F(VirtioBlkTest, TellsWhatTheDiskIs) {
    EXPECT_EQ(config(0, 8), 512U);         // capacity
    EXPECT_EQ(config(8, 4), 512 * 1024U);  // size_max
    EXPECT_EQ(config(12, 4), 254U);        // seg_max
    EXPECT_EQ(config(20, 4), 512U);        // blk_size
    EXPECT_EQ(config(24, 1), 3U);          // 8 logical blocks in a physical one
    EXPECT_EQ(config(26, 2), 8U);
    EXPECT_EQ(config(28, 4), 128U);  // 64 KiB
    EXPECT_EQ(config(34, 2), 2U);    // queues
    EXPECT_EQ(config(40, 4), 16U);
    EXPECT_EQ(config(44, 4), 8U);
    EXPECT_EQ(config(52, 4), 16U);
    EXPECT_EQ(config(56, 1), 1U);
    // SIZE_MAX, SEG_MAX, BLK_SIZE, FLUSH, TOPOLOGY, CONFIG_WCE, MQ, DISCARD, WRITE_ZEROES
    EXPECT_EQ(bench.port.device_features() & 0xff'ffff, 0x7e46U);
}

TEST_F(VirtioBlkTest, ReadsIntoAllPieces) {
    ASSERT_TRUE(bench.start());
    EXPECT_EQ(answer(kIn, 5, {{kData, 100, true}, {kData + 0x800, 924, true}}), kOk);
    EXPECT_EQ(last->length, 1025U);
    EXPECT_EQ(memory(kData), static_cast<u8>(5 * 7 + 5 * 512));
    EXPECT_EQ(memory(kData + 0x800), bench.kit.disk.bytes[5 * 512 + 100]);
    EXPECT_EQ(memory(kData + 0x800 + 923), bench.kit.disk.bytes[7 * 512 - 1]);
    EXPECT_EQ(log(), (std::vector<std::string>{"read 5 2"}));
}

TEST_F(VirtioBlkTest, WritesAndFlushes) {
    ASSERT_TRUE(bench.start());
    std::memset(bench.ram.at(kData), 0x5a, 512);
    EXPECT_EQ(answer(kOut, 511, {{kData, 512, false}}), kOk);
    EXPECT_EQ(bench.kit.disk.bytes.back(), 0x5a);
    EXPECT_EQ(answer(kFlush, 0), kOk);
    EXPECT_EQ(log(), (std::vector<std::string>{"write 511 1", "flush 0 0"}));
}

// A header and a status that share a descriptor with data, in any cut.
TEST_F(VirtioBlkTest, AnyLayoutOfDescriptorsWillDo) {
    ASSERT_TRUE(bench.start());
    BlkKit::header(bench.ram, kAt, kOut, 1);
    std::memset(bench.ram.at(kAt + 16), 0x77, 512);
    const std::vector<Segment> pieces = {
        {kAt, 3, false}, {kAt + 3, 13 + 100, false}, {kAt + 116, 412, false}, {kStatus, 1, true}};
    ASSERT_TRUE(bench.queue().add(pieces));
    bench.kick();
    ASSERT_TRUE(bench.run());
    EXPECT_EQ(status(), kOk);
    EXPECT_EQ(bench.kit.disk.bytes[512], 0x77);
    EXPECT_EQ(bench.kit.disk.bytes[1023], 0x77);
    // Data and status in one.
    BlkKit::header(bench.ram, kAt, kIn, 1);
    const std::vector<Segment> one = {{kAt, 16, false}, {kData, 513, true}};
    ASSERT_TRUE(bench.queue().add(one));
    bench.kick();
    ASSERT_TRUE(bench.run());
    EXPECT_EQ(memory(kData + 511), 0x77);
    EXPECT_EQ(memory(kData + 512), kOk);
}

// C7
TEST_F(VirtioBlkTest, RangesAreCheckedWithoutOverflow) {
    ASSERT_TRUE(bench.start());
    const std::vector<Segment> one = {{kData, 512, true}};
    EXPECT_EQ(answer(kIn, 511, one), kOk);
    for (const u64 sector : {u64{512}, u64{1} << 32, u64{1} << 55, (u64{1} << 55) - 1, u64{1} << 63, ~u64{0},
                             ~u64{0} - 1, ~u64{0} / 512})
        EXPECT_EQ(answer(kIn, sector, one), kIoError) << sector;
    EXPECT_EQ(answer(kIn, 511, {{kData, 1024, true}}), kIoError);
    EXPECT_EQ(log().size(), 1U);
}

TEST_F(VirtioBlkTest, PartialSectorsAreErrors) {
    ASSERT_TRUE(bench.start());
    for (const u32 length : {1U, 511U, 513U}) EXPECT_EQ(answer(kIn, 0, {{kData, length, true}}), kIoError);
    EXPECT_EQ(answer(kOut, 0, {{kData, 100, false}}), kIoError);
    EXPECT_EQ(answer(kIn, 0), kOk) << "no sector is no error";
    EXPECT_TRUE(log().empty());
}

// C8
TEST_F(VirtioBlkTest, TheSerialNumberFitsWhateverRoomThereIs) {
    ASSERT_TRUE(bench.start());
    for (const u32 room : {0U, 1U, 8U, 19U, 20U, 21U, 600U}) {
        std::memset(bench.ram.at(kData), kNone, 700);
        const std::vector<Segment> some = {{kData, room, true}};
        EXPECT_EQ(answer(kGetId, 0, room == 0 ? std::vector<Segment>{} : some), kOk);
        const std::string expected("serial-1\0\0\0\0\0\0\0\0\0\0\0\0", 20);
        for (u32 i = 0; i < 700; ++i)
            EXPECT_EQ(memory(kData + i), i < std::min(room, 20U) ? static_cast<u8>(expected[i]) : kNone) << i;
    }
}

TEST_F(VirtioBlkTest, WhatItDoesNotKnowIsAnswered) {
    ASSERT_TRUE(bench.start());
    for (const u32 type : {kScsi, 3U, 5U, 6U, 7U, 9U, 10U, 12U, 14U, 15U, 0x8000'0000U, ~0U})
        EXPECT_EQ(answer(type, 0, {{kData, 512, true}}), kUnsupported) << type;
    EXPECT_TRUE(log().empty());
}

TEST_F(VirtioBlkTest, ShortHeadersAndMissingStatusAreGivenBack) {
    ASSERT_TRUE(bench.start());
    *bench.ram.at(kStatus) = std::byte{kNone};
    for (const std::vector<Segment>& pieces :
         std::vector<std::vector<Segment>>{{{kAt, 15, false}, {kStatus, 1, true}}, {{kStatus, 1, true}}}) {
        ASSERT_TRUE(bench.queue().add(pieces));
        bench.kick();
        ASSERT_TRUE(bench.run());
        EXPECT_TRUE(bench.queue().take());
        EXPECT_EQ(status(), kIoError);
    }
    const std::vector<Segment> no_status = {{kAt, 16, false}};
    ASSERT_TRUE(bench.queue().add(no_status));
    bench.kick();
    ASSERT_TRUE(bench.run());
    EXPECT_EQ(bench.queue().take()->length, 0U);
}

TEST_F(VirtioBlkTest, BackendErrorsAreToldInTheStatus) {
    ASSERT_TRUE(bench.start());
    const std::vector<Segment> one = {{kData, 512, true}};
    for (const BlockStatus failure : {BlockStatus::IoError, BlockStatus::NoSpace, BlockStatus::OutOfRange}) {
        bench.kit.disk.fail_with = failure;
        EXPECT_EQ(answer(kIn, 0, one), kIoError);
    }
    bench.kit.disk.fail_with = BlockStatus::Unsupported;
    EXPECT_EQ(answer(kIn, 0, one), kUnsupported);
    bench.kit.disk.fail_with = BlockStatus::Ok;
    EXPECT_EQ(answer(kIn, 0, one), kOk);
}

TEST_F(VirtioBlkTest, DiscardsAndZeroesOneRangeAfterAnother) {
    ASSERT_TRUE(bench.start());
    EXPECT_EQ(ranges(kDiscard, {{8, 8, 0}, {16, 0, 0}, {100, 1, 0}}), kOk);
    EXPECT_EQ(ranges(kWriteZeroes, {{3, 1, 0}, {5, 2, 1}}), kOk);
    EXPECT_EQ(log(),
              (std::vector<std::string>{"discard 8 8", "discard 100 1", "zero 3 1", "zero, unmap 5 2"}));
    EXPECT_EQ(bench.kit.disk.bytes[3 * 512], 0);
    EXPECT_NE(bench.kit.disk.bytes[4 * 512], 0);
}

TEST_F(VirtioBlkTest, BadRangesAreRefusedWhole) {
    ASSERT_TRUE(bench.start());
    EXPECT_EQ(ranges(kDiscard, {{8, 8, 0}, {511, 2, 0}}), kIoError);
    EXPECT_EQ(ranges(kDiscard, {{8, 8, 1}}), kUnsupported) << "unmap is for write zeroes";
    EXPECT_EQ(ranges(kWriteZeroes, {{8, 8, 2}}), kUnsupported);
    EXPECT_EQ(ranges(kWriteZeroes, {{~u64{0}, 1, 0}}), kIoError);
    EXPECT_EQ(ranges(kWriteZeroes, {{1, ~u32{0}, 0}}), kIoError);
    EXPECT_EQ(ranges(kDiscard, std::vector<RangeSegment>(17, {0, 1, 0})), kIoError);
    EXPECT_EQ(answer(kDiscard, 0), kIoError) << "none";
    EXPECT_EQ(answer(kDiscard, 0, {{kData, 15, false}}), kIoError);
    EXPECT_TRUE(log().empty());
    ASSERT_TRUE(bench.start(u64{1} << 13 | u64{1} << 14));
    EXPECT_EQ(ranges(kDiscard, {{8, 8, 0}}), kUnsupported) << "not agreed on";
}

TEST_F(VirtioBlkTest, TheCacheModeDecidesWhetherWritesAreThrough) {
    ASSERT_TRUE(bench.start());
    const std::vector<Segment> one = {{kData, 512, false}};
    EXPECT_EQ(config(32, 1), 1U);
    const std::array<std::byte, 1> off{};
    EXPECT_EQ(bench.port.write_config(32, off), IoStatus::Ok);
    EXPECT_EQ(config(32, 1), 0U);
    EXPECT_EQ(answer(kOut, 1, one), kOk);
    EXPECT_EQ(ranges(kWriteZeroes, {{3, 1, 0}}), kOk);
    EXPECT_EQ(log(), (std::vector<std::string>{"write through 1 1", "zero 3 1", "flush 0 0"}));
    // [VIRTIO-1.2 5.2.5.2] A driver that neither flushes nor chooses.
    ASSERT_TRUE(bench.start(u64{1} << 9 | u64{1} << 11));
    EXPECT_EQ(answer(kOut, 2, one), kOk);
    EXPECT_EQ(log().back(), "write through 2 1");
    // One that flushes.
    ASSERT_TRUE(bench.start(u64{1} << 11));
    EXPECT_EQ(answer(kOut, 2, one), kOk);
    EXPECT_EQ(log().back(), "write 2 1");
}

TEST(VirtioBlkReadOnlyTest, WritesFailAndAreNotOffered) {
    struct ReadOnlyKit : BlkKit {
        static MemoryDisk& read_only(MemoryDisk& disk) {
            disk.set_read_only();
            return disk;
        }
        VirtioBlk device{{}, read_only(disk)};
    };
    virtio::Bench<ReadOnlyKit, virtio::OverMmio, virtio::RingKind::Split> bench;
    ASSERT_TRUE(bench.start());
    EXPECT_EQ(bench.negotiated & (1 << 5 | 1 << 13 | 1 << 14), 1U << 5);
    for (const u32 type : {kOut, kDiscard, kWriteZeroes}) {
        BlkKit::header(bench.ram, kAt, type, 0);
        const std::vector<Segment> pieces = {{kAt, 16, false}, {kData, 512, false}, {kStatus, 1, true}};
        ASSERT_TRUE(bench.queue().add(pieces));
        bench.kick();
        ASSERT_TRUE(bench.run());
        EXPECT_NE(*bench.ram.at(kStatus), std::byte{kOk});
    }
    EXPECT_EQ(bench.kit.disk.submitted, 0U);
}

TEST_F(VirtioBlkTest, LateAnswersComeInAnyOrder) {
    ASSERT_TRUE(bench.start());
    bench.kit.disk.hold = true;
    std::vector<u16> ids;
    for (u64 i = 0; i < 4; ++i) {
        BlkKit::header(bench.ram, kAt + i * 64, kIn, i);
        const std::vector<Segment> pieces = {
            {kAt + i * 64, 16, false}, {kData + i * 512, 512, true}, {kStatus + i, 1, true}};
        ids.push_back(*bench.queue().add(pieces));
    }
    bench.kick();
    ASSERT_TRUE(bench.run());
    EXPECT_EQ(bench.kit.device.in_flight(), 4U);
    EXPECT_FALSE(bench.queue().take());
    EXPECT_TRUE(bench.kit.disk.finish_one([](std::size_t) { return 2; }));
    ASSERT_TRUE(bench.run());
    EXPECT_EQ(bench.queue().take()->id, ids[2]);
    EXPECT_TRUE(bench.port.interrupted());
    bench.kit.disk.finish_all();
    ASSERT_TRUE(bench.run());
    EXPECT_EQ(bench.queue().take()->id, ids[0]);
    EXPECT_EQ(bench.queue().take()->id, ids[1]);
    EXPECT_EQ(bench.queue().take()->id, ids[3]);
    EXPECT_EQ(bench.kit.device.in_flight(), 0U);
}

// C9
TEST_F(VirtioBlkTest, AResetWaitsForWhatIsInFlightAndForgetsIt) {
    ASSERT_TRUE(bench.start());
    bench.kit.disk.hold = true;
    put(kIn, 1, {{kData, 512, true}});
    bench.port.set_status(0);
    EXPECT_NE(bench.port.status(), 0);
    bench.kit.disk.finish_all();
    ASSERT_TRUE(bench.run());
    EXPECT_EQ(bench.port.status(), 0);
    EXPECT_EQ(status(), kNone) << "nobody is answered";
    EXPECT_FALSE(bench.queue().take());
    bench.kit.disk.hold = false;
    ASSERT_TRUE(bench.start());
    EXPECT_EQ(answer(kIn, 1, {{kData, 512, true}}), kOk);
}

// C9: a backend on a thread of its own, resets at any moment. What matters shows under sanitizers.
TEST_F(VirtioBlkTest, ResetsAtAnyMomentOfRequestsInFlight) {
    MemoryDisk& disk = bench.kit.disk;
    disk.hold = true;
    std::atomic<bool> stop = false;
    std::thread backend([&] {
        testing_rig::SeededChoices choices(2);
        while (!stop.load()) {
            if (!disk.finish_one([&](std::size_t size) { return choices.below(size); }))
                std::this_thread::yield();
        }
        disk.finish_all();
    });
    testing_rig::SeededChoices choices(1);
    for (unsigned i = 0; i < 1000; ++i) {
        if (bench.port.status() == 0 || choices.below(4) == 0) (void)bench.start();
        for (u64 n = choices.below(6); n != 0 && !bench.queues.empty(); --n) {
            const u64 at = kAt + n * 0x1000;
            BlkKit::header(bench.ram, at, choices.coin() ? kIn : kFlush, n);
            (void)bench.queue().add(BlkKit::request(at));
            bench.kick();
        }
        ASSERT_TRUE(bench.run());
        if (choices.coin()) bench.device.reset();
    }
    stop.store(true);
    backend.join();
    ASSERT_TRUE(bench.run());
    EXPECT_EQ(bench.kit.device.in_flight(), 0U);
    disk.hold = false;
    ASSERT_TRUE(bench.start());
    EXPECT_TRUE(bench.works());
}

// More requests than slots: they wait in the ring.
TEST(VirtioBlkSlotsTest, WhatFindsNoSlotIsServedLater) {
    BlkKit kit;
    virtio::BenchRam ram;
    virtio::BenchKicker kicker;
    virtio::Mmio chip(kit.device, ram.map, kicker, IrqLine::detached());
    const auto out = [&](u64 offset, u32 value) {
        (void)chip.write(offset, std::bit_cast<std::array<std::byte, 4>>(value));
    };
    virtio::GuestQueue queue(ram, 0x1'0000, 256, virtio::RingKind::Packed, false);
    out(0x70, 3);
    out(0x20, 1U << 28);
    out(0x24, 1);
    out(0x20, 1U << 0 | 1U << 2);
    out(0x70, 11);
    out(0x80, static_cast<u32>(queue.descriptors()));
    out(0x90, static_cast<u32>(queue.driver()));
    out(0xa0, static_cast<u32>(queue.device()));
    out(0x44, 1);
    out(0x70, 15);
    kit.disk.hold = true;
    // One table for all of them.
    BlkKit::header(ram, kAt, kIn, 0);
    const u64 table = kAt + 0x4000;
    queue.write_descriptor(table, kAt, 16, 0, 0);
    queue.write_descriptor(table + 16, kData, 512, 0, 2);
    queue.write_descriptor(table + 32, kStatus, 1, 0, 2);
    for (u16 i = 0; i < 256; ++i) queue.raw(i, table, 48, 4);
    out(0x50, 0);
    ASSERT_TRUE(kicker.run(chip.core()));
    EXPECT_EQ(kit.device.in_flight(), 128U);
    unsigned finished = 0;
    while (kit.disk.finish_one([](std::size_t size) { return size - 1; })) {
        ++finished;
        ASSERT_TRUE(kicker.run(chip.core()));
        EXPECT_LE(kit.device.in_flight(), 128U);
    }
    EXPECT_EQ(finished, 256U);
}

}  // namespace
}  // namespace tessera::virtio_blk

TESSERA_JOIN_HOSTILE_DRIVER_SUITE(VirtioBlk, tessera::virtio_blk::BlkKit);
