#include "backends/block/raw/raw_disk.h"

#include "backends/block/testing/block_rig.h"
#include "backends/block/testing/memory_file.h"

namespace tessera::block {
namespace {

using namespace testing_rig;

std::unique_ptr<RawDisk> open(const std::string& path, FileAccess access = FileAccess::ReadWrite) {
    auto log = std::make_unique<BlockLog>([](const std::string&) {});
    auto file = HostFile::open(path, {.access = access}, *log);
    EXPECT_TRUE(file.has_value()) << file.error().message;
    return std::make_unique<RawDisk>(std::move(log), *std::move(file));
}

TEST(RawDiskTest, SectorsAreTheFilesBytes) {
    const Folder folder;
    const auto start = pattern(64 * kKiB, 1);
    const auto disk = open(folder.file("disk.img", start));
    EXPECT_EQ(disk->info().size, 64 * kKiB);
    EXPECT_EQ(disk->info().logical_block, 512U);
    EXPECT_FALSE(disk->info().read_only);
    EXPECT_EQ(read(*disk, 0, 64 * kKiB), start);
    EXPECT_EQ(write(*disk, 1024, pattern(512, 7)), BlockStatus::Ok);
    EXPECT_EQ(flush(*disk), BlockStatus::Ok);
    auto model = start;
    std::ranges::copy(pattern(512, 7), model.begin() + 1024);
    EXPECT_EQ(folder.content("disk.img"), model);
}

// A file of 1000 bytes is a disk of two sectors; the file becomes 1024 bytes long when the second is written.
TEST(RawDiskTest, ALengthThatIsNoWholeNumberOfSectorsIsRoundedUp) {
    const Folder folder;
    const auto start = pattern(1000, 1);
    auto disk = open(folder.file("disk.img", start));
    EXPECT_EQ(disk->info().size, 1024U);
    auto whole = start;
    whole.resize(1024);
    EXPECT_EQ(read(*disk, 0, 1024), whole);
    EXPECT_EQ(folder.content("disk.img").size(), 1000U);
    EXPECT_EQ(write(*disk, 512, pattern(512, 2)), BlockStatus::Ok);
    EXPECT_EQ(folder.content("disk.img").size(), 1024U);
    EXPECT_EQ(read(*disk, 512, 512), pattern(512, 2));
}

TEST(RawDiskTest, WhatTheControllerShouldHaveCheckedIsRefused) {
    const Folder folder;
    const auto disk = open(folder.file("disk.img", 64 * kKiB));
    std::vector<u8> bytes(1024);
    const auto request = [&](BlockOperation operation, u64 offset, u64 length, u64 in_buffers) {
        Waited one;
        const iovec piece{.iov_base = bytes.data(), .iov_len = in_buffers};
        one.operation = operation;
        one.offset = offset;
        one.length = length;
        one.buffers = std::span(&piece, 1);
        BlockRequest* const pointer = &one;
        disk->submit(std::span(&pointer, 1));
        return one.wait();
    };
    for (const auto operation : {BlockOperation::Read, BlockOperation::Write}) {
        EXPECT_EQ(request(operation, 64 * kKiB, 512, 512), BlockStatus::OutOfRange);
        EXPECT_EQ(request(operation, 64 * kKiB - 512, 1024, 1024), BlockStatus::OutOfRange);
        EXPECT_EQ(request(operation, ~u64{0} - 511, 512, 512), BlockStatus::OutOfRange);
        EXPECT_EQ(request(operation, 0, ~u64{0} - 511, 512), BlockStatus::OutOfRange);
        EXPECT_EQ(request(operation, 1, 512, 512), BlockStatus::OutOfRange);
        EXPECT_EQ(request(operation, 0, 100, 100), BlockStatus::OutOfRange);
        EXPECT_EQ(request(operation, 0, 1024, 512), BlockStatus::OutOfRange);
        EXPECT_EQ(request(operation, 0, 0, 0), BlockStatus::Ok);
    }
    for (const auto operation : {BlockOperation::Discard, BlockOperation::WriteZeroes}) {
        EXPECT_EQ(request(operation, 64 * kKiB, 512, 0), BlockStatus::OutOfRange);
        EXPECT_EQ(request(operation, 512, ~u64{0} - 511, 0), BlockStatus::OutOfRange);
        EXPECT_EQ(request(operation, 0, 0, 0), BlockStatus::Ok);
    }
    EXPECT_EQ(folder.content("disk.img").size(), 64 * kKiB);
}

TEST(RawDiskTest, AReadOnlyDiskRefusesEveryChange) {
    const Folder folder;
    const auto disk = open(folder.file("disk.img", pattern(4096, 1)), FileAccess::ReadOnly);
    EXPECT_TRUE(disk->info().read_only);
    EXPECT_EQ(write(*disk, 0, pattern(512, 2)), BlockStatus::OutOfRange);
    EXPECT_EQ(run(*disk, BlockOperation::Discard, 0, {}, 4096), BlockStatus::OutOfRange);
    EXPECT_EQ(run(*disk, BlockOperation::WriteZeroes, 0, {}, 4096), BlockStatus::OutOfRange);
    EXPECT_EQ(flush(*disk), BlockStatus::Ok);
    EXPECT_EQ(read(*disk, 0, 4096), pattern(4096, 1));
}

TEST(RawDiskTest, DiscardAndWriteZeroes) {
    const Folder folder;
    const auto disk = open(folder.file("disk.img", pattern(kMiB, 1)));
    EXPECT_EQ(run(*disk, BlockOperation::WriteZeroes, 512, {}, 64 * kKiB, true), BlockStatus::Ok);
    EXPECT_EQ(run(*disk, BlockOperation::WriteZeroes, kMiB - 1024, {}, 1024, false), BlockStatus::Ok);
    EXPECT_EQ(read(*disk, 512, 64 * kKiB), std::vector<u8>(64 * kKiB));
    EXPECT_EQ(read(*disk, kMiB - 1024, 1024), std::vector<u8>(1024));
    auto model = pattern(kMiB, 1);
    EXPECT_EQ(read(*disk, 0, 512), std::vector(model.begin(), model.begin() + 512));
    EXPECT_EQ(run(*disk, BlockOperation::Discard, 0, {}, kMiB), BlockStatus::Ok);
}

// The file's writes replayed to every prefix: what a flush acknowledged is there, and each sector is old or
// new.
TEST(RawDiskTest, EveryPrefixOfTheLogHasTheAcknowledgedFlushes) {
    constexpr u64 kSectors = 64;
    MemoryFile::Medium medium;
    medium.bytes.resize(kSectors * 512);
    medium.logging = true;
    RawDisk disk(std::make_unique<MemoryFile>(medium));
    std::minstd_rand random(1);
    // For each sector the seeds written to it, with the log's length before; and the flushes, as (end,
    // begin).
    std::vector<std::vector<std::pair<u64, u32>>> written(kSectors, {{0, 0}});
    std::vector<std::pair<u64, u64>> flushes{{0, 0}};
    for (u32 seed = 1; seed < 300; ++seed) {
        const u64 began = medium.log.size();
        if (seed % 10 == 0) {
            ASSERT_EQ(flush(disk), BlockStatus::Ok);
            flushes.emplace_back(medium.log.size(), began);
            continue;
        }
        const u64 sector = random() % kSectors;
        written[sector].emplace_back(began, seed);
        ASSERT_EQ(write(disk, sector * 512, pattern(512, seed)), BlockStatus::Ok);
    }
    std::vector<u8> now(kSectors * 512);
    for (u64 at = 0; at <= medium.log.size(); ++at) {
        u64 durable = 0;
        for (const auto& [end, begin] : flushes)
            if (end <= at) durable = begin;
        for (u64 sector = 0; sector < kSectors; ++sector) {
            const auto found = std::span(now).subspan(sector * 512, 512);
            bool allowed = false;
            for (const auto& [began, seed] : written[sector]) {
                if (began < durable) allowed = false;  // overwritten by this one, durably
                if (began <= at)
                    allowed = allowed || std::ranges::equal(
                                             found, seed == 0 ? std::vector<u8>(512) : pattern(512, seed));
            }
            ASSERT_TRUE(allowed) << "sector " << sector << " at " << at;
        }
        if (at < medium.log.size()) MemoryFile::apply(now, medium.log[at]);
    }
}

}  // namespace
}  // namespace tessera::block
