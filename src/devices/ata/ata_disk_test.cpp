#include "devices/ata/ata_disk.h"

#include <gtest/gtest.h>
#include <numeric>
#include <string>
#include <vector>

#include "devices/virtio_blk/virtio_blk_rig.h"

namespace tessera::ata {
namespace {

using virtio_blk::MemoryDisk;

// Says what a disk is, and counts.
class Sized final : public BlockBackend {
public:
    [[nodiscard]] const BlockInfo& info() const override { return info_; }
    void submit(std::span<BlockRequest* const> /*requests*/) override {}
    explicit Sized(BlockInfo info) : info_(std::move(info)) {}

private:
    BlockInfo info_;
};

constexpr u8 kReady = 0x50;
constexpr u8 kFailed = 0x51;
constexpr u8 kAbort = 4;
constexpr u8 kNotFound = 0x10;

struct AtaDiskTest : testing::Test {
    // 512 sectors.
    MemoryDisk backend;
    AtaDisk disk{{.serial = "number one"}, backend};
    Command command;

    Step begin(AtaDisk& to, const Taskfile& taskfile) {
        command = {};
        command.taskfile = taskfile;
        return to.begin(command);
    }
    Step begin(const Taskfile& taskfile) { return begin(disk, taskfile); }
    // A command without data; status and error.
    std::pair<u8, u8> plain(const Taskfile& taskfile) {
        EXPECT_EQ(begin(taskfile), Step::Done);
        return {command.result.status.raw(), command.result.error.raw()};
    }
    std::vector<u16> identify(AtaDisk& of) {
        EXPECT_EQ(begin(of, {.command = 0xec}), Step::ToHost);
        EXPECT_EQ(command.protocol, Protocol::PioIn);
        EXPECT_EQ(std::accumulate(command.buffer.begin(), command.buffer.end(), u8{0}), 0) << "checksum";
        std::vector<u16> words;
        for (std::size_t n = 0; n < command.buffer.size(); n += 2)
            words.push_back(static_cast<u16>(command.buffer[n] | command.buffer[n + 1] << 8));
        EXPECT_EQ(of.go_on(command, BlockStatus::Ok), Step::Done);
        return words;
    }
    static std::string text(const std::vector<u16>& words, std::size_t first, std::size_t count) {
        std::string out;
        for (std::size_t n = first; n < first + count; ++n) {
            out += static_cast<char>(words[n] >> 8);
            out += static_cast<char>(words[n] & 0xff);
        }
        return out;
    }
};

using Answer = std::pair<u8, u8>;

TEST_F(AtaDiskTest, IdentifyDeviceTellsTheWholeDisk) {
    const auto words = identify(disk);
    EXPECT_EQ(words[0], 0x40) << "fixed";
    EXPECT_EQ(text(words, 10, 10), "number one          ");
    EXPECT_EQ(text(words, 27, 6), "Tessera disk");
    EXPECT_EQ(words[47], 0x8010) << "16 sectors at once by READ MULTIPLE";
    EXPECT_EQ(words[49] & 0x300, 0x300) << "DMA, LBA";
    EXPECT_EQ(words[59], 0x110);
    EXPECT_EQ(words[60] | u32{words[61]} << 16, 512U);
    EXPECT_EQ(words[75], 31) << "queue depth, less one";
    EXPECT_EQ(words[76] & 0x100, 0x100) << "NCQ";
    EXPECT_EQ(words[82] & 0x69, 0x69) << "SMART, power management, write cache, look-ahead";
    EXPECT_EQ(words[83] & 0xf400, 0x7400) << "48 bits, flushes, and the fixed bits";
    EXPECT_EQ(words[84] & 0xc060, 0x4060) << "logs, FUA";
    EXPECT_EQ(words[85] & 0x20, 0x20) << "the write cache is on";
    EXPECT_EQ(words[88] >> 8, 0x40) << "Ultra DMA 6";
    EXPECT_EQ(words[100], 512);
    EXPECT_EQ(words[106], 0x6003) << "eight logical sectors in a physical one";
    EXPECT_EQ(words[105], 8) << "blocks of ranges to trim";
    EXPECT_EQ(words[128], 0) << "no security";
    EXPECT_EQ(words[169], 1) << "TRIM";
    EXPECT_EQ(words[217], 1) << "does not rotate";
}

TEST_F(AtaDiskTest, LargeDisksAndLargeSectors) {
    Sized large({.size = u64{3} << 40, .name = "large"});
    AtaDisk three({.serial = "x"}, large);
    auto words = identify(three);
    EXPECT_EQ(words[60] | u32{words[61]} << 16, 0x0fff'ffffU) << "as far as 28 bits reach";
    EXPECT_EQ(words[100] | u64{words[101]} << 16 | u64{words[102]} << 32, (u64{3} << 40) / 512);
    EXPECT_EQ(words[105], 0) << "no TRIM";
    Sized native({.size = 1 << 20, .logical_block = 4096, .physical_block = 4096, .name = "4Kn"});
    AtaDisk four({.serial = "x"}, native);
    words = identify(four);
    EXPECT_EQ(words[106], 0x5000);
    EXPECT_EQ(words[117], 2048) << "words in a sector";
    EXPECT_EQ(words[100], 256);
    EXPECT_EQ(begin(four, {.command = 0x25, .device = 0x40, .count = 2, .lba = 3}), Step::Backend);
    EXPECT_EQ(command.offset, 3U * 4096);
    EXPECT_EQ(command.length, 2U * 4096);
}

TEST_F(AtaDiskTest, RangesInEveryKindOfAddress) {
    struct Case {
        Taskfile taskfile;
        u64 offset;
        u64 length;
        Protocol protocol;
    };
    const std::vector<Case> cases = {
        {{.command = 0xc8, .device = 0x40, .count = 2, .lba = 7}, 7, 2, Protocol::DmaIn},
        {{.command = 0xca, .device = 0x40, .count = 0, .lba = 0}, 0, 256, Protocol::DmaOut},
        {{.command = 0x20, .device = 0x40, .count = 0x101, .lba = 1}, 1, 1, Protocol::PioIn},
        {{.command = 0x30, .device = 0x40, .count = 3, .lba = 9}, 9, 3, Protocol::PioOut},
        {{.command = 0x24, .device = 0x40, .count = 300, .lba = 9}, 9, 300, Protocol::PioIn},
        {{.command = 0x34, .device = 0x40, .count = 3, .lba = 9}, 9, 3, Protocol::PioOut},
        {{.command = 0xc4, .device = 0x40, .count = 20, .lba = 9}, 9, 20, Protocol::PioIn},
        {{.command = 0x39, .device = 0x40, .count = 20, .lba = 9}, 9, 20, Protocol::PioOut},
        {{.command = 0x35, .device = 0x40, .count = 512, .lba = 0}, 0, 512, Protocol::DmaOut},
        // Cylinder 0, head 1, sector 2 of 63 in a track.
        {{.command = 0xc8, .device = 0x01, .count = 1, .lba = 2}, 64, 1, Protocol::DmaIn},
        {{.command = 0x60, .device = 0x40, .features = 4, .count = 5 << 3, .lba = 9}, 9, 4, Protocol::Queued},
    };
    for (const Case& c : cases) {
        ASSERT_EQ(begin(c.taskfile), Step::Backend) << unsigned{c.taskfile.command};
        EXPECT_EQ(command.offset, c.offset * 512) << unsigned{c.taskfile.command};
        EXPECT_EQ(command.length, c.length * 512) << unsigned{c.taskfile.command};
        EXPECT_EQ(command.protocol, c.protocol) << unsigned{c.taskfile.command};
        EXPECT_EQ(disk.go_on(command, BlockStatus::Ok), Step::Done);
        EXPECT_EQ(command.result.status.raw(), kReady);
    }
}

TEST_F(AtaDiskTest, RangesBeyondTheEndAreNotFound) {
    const std::vector<Taskfile> cases = {
        {.command = 0x25, .device = 0x40, .count = 1, .lba = 512},
        {.command = 0x25, .device = 0x40, .count = 2, .lba = 511},
        {.command = 0x35, .device = 0x40, .count = 0, .lba = 0},
        {.command = 0x25, .device = 0x40, .count = 1, .lba = 0xffff'ffff'ffff},
        {.command = 0xc8, .device = 0x4f, .count = 0, .lba = 0xff'ffff},
        {.command = 0xc8, .device = 0, .count = 1, .lba = 0},
        {.command = 0x42, .device = 0x40, .count = 2, .lba = 511}};
    for (const Taskfile& taskfile : cases) {
        const auto [status, error] = plain(taskfile);
        EXPECT_EQ(status, kFailed);
        EXPECT_EQ(error, kNotFound);
    }
    EXPECT_EQ(plain({.command = 0x40, .device = 0x40, .count = 2, .lba = 510}), (Answer{kReady, 0}))
        << "verify";
}

TEST_F(AtaDiskTest, DurableWrites) {
    const auto durable = [&](const Taskfile& taskfile) {
        EXPECT_EQ(begin(taskfile), Step::Backend);
        return command.force_unit_access;
    };
    const Taskfile write{.command = 0x35, .device = 0x40, .count = 1};
    const Taskfile fua{.command = 0x3d, .device = 0x40, .count = 1};
    const Taskfile queued{.command = 0x61, .device = 0x40, .features = 1};
    const Taskfile queued_fua{.command = 0x61, .device = 0xc0, .features = 1};
    EXPECT_FALSE(durable(write));
    EXPECT_TRUE(durable(fua));
    EXPECT_FALSE(durable(queued));
    EXPECT_TRUE(durable(queued_fua));
    EXPECT_EQ(begin({.command = 0xef, .features = 0x82}), Step::Backend) << "what is cached is flushed";
    EXPECT_EQ(command.operation, BlockOperation::Flush);
    EXPECT_TRUE(durable(write));
    EXPECT_EQ(identify(disk)[85] & 0x20, 0);
    EXPECT_EQ(plain({.command = 0xef, .features = 0x02}), (Answer{kReady, 0}));
    EXPECT_FALSE(durable(write));
    EXPECT_EQ(begin({.command = 0xea}), Step::Backend);
    EXPECT_EQ(command.operation, BlockOperation::Flush);
    EXPECT_EQ(disk.go_on(command, BlockStatus::NoSpace), Step::Done);
    EXPECT_EQ(command.result.status.raw() & 0x21, 0x21) << "a flush that failed is a fault of the device";
}

TEST_F(AtaDiskTest, TrimJoinsRangesAndChecksThemFirst) {
    const auto put = [&](std::size_t entry, u64 lba, u64 sectors) {
        const u64 value = lba | sectors << 48;
        for (unsigned n = 0; n < 8; ++n) command.buffer[entry * 8 + n] = static_cast<u8>(value >> (8 * n));
    };
    const Taskfile trim{.command = 0x06, .device = 0x40, .features = 1, .count = 2};
    ASSERT_EQ(begin(trim), Step::FromHost);
    ASSERT_EQ(command.buffer.size(), 1024U);
    std::ranges::fill(command.buffer, u8{0});
    put(0, 8, 8);
    put(1, 16, 4);
    put(3, 100, 10);
    put(127, 511, 1);
    for (const auto& [first, count] : std::vector<std::pair<u64, u64>>{{8, 12}, {100, 10}, {511, 1}}) {
        ASSERT_EQ(disk.go_on(command, BlockStatus::Ok), Step::Backend);
        EXPECT_EQ(command.operation, BlockOperation::Discard);
        EXPECT_EQ(command.offset, first * 512);
        EXPECT_EQ(command.length, count * 512);
    }
    EXPECT_EQ(disk.go_on(command, BlockStatus::Ok), Step::Done);
    EXPECT_EQ(command.result.status.raw(), kReady);
    ASSERT_EQ(begin(trim), Step::FromHost);
    put(127, 511, 2);
    EXPECT_EQ(disk.go_on(command, BlockStatus::Ok), Step::Done)
        << "the last is beyond the end: nothing is done";
    EXPECT_EQ(command.result.error.raw(), kNotFound);
    for (const Taskfile& bad : {Taskfile{.command = 0x06, .features = 1, .count = 0},
                                Taskfile{.command = 0x06, .features = 1, .count = 9},
                                Taskfile{.command = 0x06, .features = 0, .count = 1}})
        EXPECT_EQ(plain(bad), (Answer{kFailed, kAbort}));
}

TEST_F(AtaDiskTest, AReadOnlyDiskTakesNoWrites) {
    backend.set_read_only();
    AtaDisk fixed({.serial = "x"}, backend);
    for (const u8 opcode : {u8{0x35}, u8{0x30}, u8{0xca}, u8{0x61}, u8{0x3d}}) {
        EXPECT_EQ(begin(fixed, {.command = opcode, .device = 0x40, .features = 1, .count = 1}), Step::Done);
        EXPECT_EQ(command.result.error.raw(), kAbort);
        fixed.reset(ResetKind::Hardware);
    }
    EXPECT_EQ(begin(fixed, {.command = 0x06, .features = 1, .count = 1}), Step::Done);
    EXPECT_EQ(identify(fixed)[169], 0);
}

TEST_F(AtaDiskTest, SettingsAndWhatBringsThemBack) {
    EXPECT_EQ(plain({.command = 0xc6, .count = 4}), (Answer{kReady, 0}));
    EXPECT_EQ(plain({.command = 0xc6, .count = 3}), (Answer{kFailed, kAbort}));
    EXPECT_EQ(plain({.command = 0xc6, .count = 32}), (Answer{kFailed, kAbort}));
    EXPECT_EQ(identify(disk)[59], 0x104);
    EXPECT_EQ(plain({.command = 0xef, .features = 3, .count = 0x22}), (Answer{kReady, 0}));
    EXPECT_EQ(identify(disk)[63] >> 8, 4) << "multiword DMA 2";
    EXPECT_EQ(plain({.command = 0xef, .features = 3, .count = 0x47}), (Answer{kFailed, kAbort}));
    EXPECT_EQ(plain({.command = 0xef, .features = 0x99}), (Answer{kFailed, kAbort}));
    EXPECT_EQ(plain({.command = 0xef, .features = 0x66}), (Answer{kReady, 0}));
    disk.reset(ResetKind::Software);
    EXPECT_EQ(identify(disk)[59], 0x104) << "kept, as was asked for";
    disk.reset(ResetKind::Hardware);
    EXPECT_EQ(identify(disk)[59], 0x110);
    EXPECT_EQ(plain({.command = 0xc6, .count = 0}), (Answer{kReady, 0}));
    EXPECT_EQ(plain({.command = 0xc4, .device = 0x40, .count = 1}), (Answer{kFailed, kAbort})) << "not set";
}

TEST_F(AtaDiskTest, PowerModes) {
    const auto mode = [&] {
        (void)plain({.command = 0xe5});
        return command.result.count;
    };
    EXPECT_EQ(mode(), 0xff);
    (void)plain({.command = 0xe0});
    EXPECT_EQ(mode(), 0);
    (void)plain({.command = 0xe1});
    EXPECT_EQ(mode(), 0x80);
    (void)begin({.command = 0x25, .device = 0x40, .count = 1});
    EXPECT_EQ(mode(), 0xff);
}

TEST_F(AtaDiskTest, NativeMaximum) {
    EXPECT_EQ(plain({.command = 0x27, .device = 0x40}), (Answer{kReady, 0}));
    EXPECT_EQ(command.result.lba, 511U);
    EXPECT_EQ(plain({.command = 0xf8, .device = 0x40}), (Answer{kReady, 0}));
    EXPECT_EQ(command.result.lba, 511U);
    EXPECT_EQ(command.result.device, 0x40);
}

TEST_F(AtaDiskTest, SmartIsWell) {
    constexpr u64 kKey = 0xc2'4f'00;
    EXPECT_EQ(plain({.command = 0xb0, .features = 0xda, .lba = kKey}), (Answer{kReady, 0}));
    EXPECT_EQ(command.result.lba, kKey);
    EXPECT_EQ(plain({.command = 0xb0, .features = 0xda}), (Answer{kFailed, kAbort})) << "without the key";
    ASSERT_EQ(begin({.command = 0xb0, .features = 0xd0, .count = 1, .lba = kKey}), Step::ToHost);
    EXPECT_EQ(std::accumulate(command.buffer.begin(), command.buffer.end(), u8{0}), 0);
    ASSERT_EQ(begin({.command = 0xb0, .features = 0xd5, .count = 1, .lba = kKey | 1}), Step::ToHost);
    EXPECT_EQ(begin({.command = 0xb0, .features = 0xd5, .count = 2, .lba = kKey | 1}), Step::Done);
    EXPECT_EQ(plain({.command = 0xb0, .features = 0xd4, .lba = kKey | 1}), (Answer{kFailed, kAbort}))
        << "no self tests";
    EXPECT_EQ(plain({.command = 0xb0, .features = 0xd9, .lba = kKey}), (Answer{kReady, 0}));
    EXPECT_EQ(plain({.command = 0xb0, .features = 0xda, .lba = kKey}), (Answer{kFailed, kAbort})) << "off";
    EXPECT_EQ(identify(disk)[85] & 1, 0);
    EXPECT_EQ(plain({.command = 0xb0, .features = 0xd8, .lba = kKey}), (Answer{kReady, 0}));
}

TEST_F(AtaDiskTest, LogsAreListedAndBounded) {
    for (const u8 opcode : {u8{0x2f}, u8{0x47}}) {
        ASSERT_EQ(begin({.command = opcode, .count = 1, .lba = 0}), Step::ToHost);
        EXPECT_EQ(command.protocol, opcode == 0x2f ? Protocol::PioIn : Protocol::DmaIn);
        EXPECT_EQ(command.buffer[0], 1) << "version";
        EXPECT_EQ(command.buffer[0x20], 1) << "the queue's errors";
        EXPECT_EQ(command.buffer[0x60], 2) << "identity";
    }
    ASSERT_EQ(begin({.command = 0x2f, .count = 2, .lba = 0x30}), Step::ToHost);
    EXPECT_EQ(command.buffer[8], 2) << "two pages";
    EXPECT_EQ(command.buffer[512], 0x40) << "the second of which is IDENTIFY DEVICE's";
    ASSERT_EQ(begin({.command = 0x2f, .count = 1, .lba = 0x130}), Step::ToHost);
    EXPECT_EQ(command.buffer[0], 0x40);
    for (const Taskfile& bad :
         {Taskfile{.command = 0x2f, .count = 0, .lba = 0}, Taskfile{.command = 0x2f, .count = 2, .lba = 0x10},
          Taskfile{.command = 0x2f, .count = 1, .lba = 0x55},
          Taskfile{.command = 0x2f, .count = 2, .lba = 0x130},
          Taskfile{.command = 0x2f, .count = 0xffff, .lba = 0x30},
          Taskfile{.command = 0x2f, .count = 1, .lba = 0xff'0000'ff30}})
        EXPECT_EQ(plain(bad), (Answer{kFailed, kAbort}));
}

TEST_F(AtaDiskTest, WhatThereIsNotIsAborted) {
    for (const u8 opcode :
         {u8{0x00}, u8{0xf1}, u8{0xf2}, u8{0xf4}, u8{0xf5}, u8{0xf6}, u8{0xf9}, u8{0x37}, u8{0x92}, u8{0xa0},
          u8{0xa1}, u8{0xb1}, u8{0xb4}, u8{0x45}, u8{0x63}, u8{0x64}, u8{0x65}, u8{0xe4}})
        EXPECT_EQ(plain({.command = opcode}), (Answer{kFailed, kAbort})) << unsigned{opcode};
}

}  // namespace
}  // namespace tessera::ata
