// The host's files as disks see them: both engines, all cache modes, and what goes wrong.
#include "backends/block/file/host_file.h"

#include <csignal>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "backends/block/testing/block_rig.h"

namespace tessera::block {
namespace {

using testing_rig::Folder;
using testing_rig::pattern;
using testing_rig::Waited;

class FileTest : public ::testing::Test {
protected:
    std::unique_ptr<HostFile> open(const std::string& path, const HostFileOptions& options = {}) {
        auto file = HostFile::open(path, options, log_);
        EXPECT_TRUE(file.has_value()) << file.error().message;
        return file ? *std::move(file) : nullptr;
    }
    Folder folder_{Folder::Place::Real};
    BlockLog log_{[](const std::string&) {}};
};

struct Way {
    DiskEngine engine;
    CacheMode cache;
};

class EachWay : public FileTest, public ::testing::WithParamInterface<Way> {
protected:
    // Null where the host cannot (io_uring in a container, O_DIRECT on a tmpfs): nothing to test there.
    std::unique_ptr<HostFile> open_this_way(const std::string& path) {
        auto file = HostFile::open(path, {.cache = GetParam().cache, .engine = GetParam().engine}, log_);
        if (file) return *std::move(file);
        EXPECT_EQ(file.error().code, Errc::Unsupported) << file.error().message;
        return nullptr;
    }
};

TEST_P(EachWay, WhatIsWrittenIsRead) {
    const auto file = open_this_way(folder_.file("disk", 8 * kMiB));
    if (!file) GTEST_SKIP() << "the host lacks it";
    for (const u64 offset : {u64{0}, u64{512}, u64{4096}, 3 * kMiB + 1536})
        for (const u64 length : {u64{512}, u64{4096}, 2 * kMiB + 512}) {
            const auto bytes = pattern(length, static_cast<u32>(offset + length));
            ASSERT_EQ(file->write(offset, std::span(bytes)), BlockStatus::Ok);
            std::vector<u8> back(length);
            ASSERT_EQ(file->read(offset, std::span(back)), BlockStatus::Ok);
            EXPECT_EQ(back, bytes);
        }
    EXPECT_EQ(file->sync(), BlockStatus::Ok);
    EXPECT_EQ(file->size(), 8 * kMiB);
}

TEST_P(EachWay, ManyRequestsOfManyPiecesAtOnce) {
    const auto file = open_this_way(folder_.file("disk", 4 * kMiB));
    if (!file) GTEST_SKIP() << "the host lacks it";
    constexpr u32 kRequests = 400;  // more than the ring has room for
    constexpr u64 kLength = 8192;
    std::vector<std::vector<u8>> bytes;
    std::vector<std::vector<iovec>> pieces(kRequests);
    std::vector<Waited> writes(kRequests);
    std::vector<BlockRequest*> all;
    for (u32 i = 0; i < kRequests; ++i) {
        bytes.push_back(pattern(kLength, i));
        // Pieces of 1, 2, 3 ... bytes: no alignment at all.
        for (u64 at = 0, step = 1; at < kLength; at += std::min(step++, kLength - at))
            pieces[i].push_back({bytes[i].data() + at, std::min(step, kLength - at)});
        writes[i].operation = BlockOperation::Write;
        writes[i].offset = i * kLength;
        writes[i].length = kLength;
        writes[i].buffers = pieces[i];
        writes[i].force_unit_access = i % 7 == 0;
        all.push_back(&writes[i]);
    }
    file->submit(all);
    for (Waited& write : writes) ASSERT_EQ(write.wait(), BlockStatus::Ok);
    Waited flush;
    flush.operation = BlockOperation::Flush;
    BlockRequest* const one = &flush;
    file->submit(std::span(&one, 1));
    ASSERT_EQ(flush.wait(), BlockStatus::Ok);

    const auto before = bytes;
    for (u32 i = 0; i < kRequests; ++i) {
        std::ranges::fill(bytes[i], u8{0});
        writes[i].again();
        writes[i].operation = BlockOperation::Read;
    }
    file->submit(all);
    for (Waited& write : writes) ASSERT_EQ(write.wait(), BlockStatus::Ok);
    EXPECT_TRUE(bytes == before);
}

TEST_P(EachWay, MoreThan1024PiecesAreDoneInSeveralCalls) {
    const auto file = open_this_way(folder_.file("disk", 4 * kMiB));
    if (!file) GTEST_SKIP() << "the host lacks it";
    auto bytes = pattern(2500 * 512, 5);
    std::vector<iovec> pieces;
    for (u64 at = 0; at < bytes.size(); at += 512) pieces.push_back({bytes.data() + at, 512});
    Waited request;
    request.operation = BlockOperation::Write;
    request.offset = 1024;
    request.length = bytes.size();
    request.buffers = pieces;
    BlockRequest* const one = &request;
    file->submit(std::span(&one, 1));
    ASSERT_EQ(request.wait(), BlockStatus::Ok);
    const auto written = bytes;
    std::ranges::fill(bytes, u8{0});
    request.again();
    request.operation = BlockOperation::Read;
    file->submit(std::span(&one, 1));
    ASSERT_EQ(request.wait(), BlockStatus::Ok);
    EXPECT_TRUE(bytes == written);
}

TEST_P(EachWay, PastTheEndReadsAsZeroesAndWritesMakeTheFileLonger) {
    const auto file = open_this_way(folder_.file("disk", pattern(700, 1)));
    if (!file) GTEST_SKIP() << "the host lacks it";
    std::vector<u8> back(2048, 0xEE);
    ASSERT_EQ(file->read(512, std::span(back)), BlockStatus::Ok);
    const auto start = pattern(700, 1);
    EXPECT_TRUE(std::equal(start.begin() + 512, start.end(), back.begin()));
    EXPECT_TRUE(std::all_of(back.begin() + 188, back.end(), [](u8 byte) { return byte == 0; }));

    std::ranges::fill(back, u8{0xEE});
    const iovec piece{.iov_base = back.data(), .iov_len = 1024};
    Waited request;
    request.operation = BlockOperation::Read;
    request.offset = 512;
    request.length = 1024;
    request.buffers = std::span(&piece, 1);
    BlockRequest* const one = &request;
    file->submit(std::span(&one, 1));
    ASSERT_EQ(request.wait(), BlockStatus::Ok);
    EXPECT_TRUE(std::equal(start.begin() + 512, start.end(), back.begin()));
    EXPECT_TRUE(std::all_of(back.begin() + 188, back.begin() + 1024, [](u8 byte) { return byte == 0; }));

    const auto tail = pattern(512, 9);
    ASSERT_EQ(file->write(1024, std::span(tail)), BlockStatus::Ok);
    EXPECT_EQ(file->size(), 1536U);
    const auto whole = folder_.content("disk");
    ASSERT_EQ(whole.size(), 1536U);
    EXPECT_TRUE(std::equal(start.begin(), start.end(), whole.begin()));
    EXPECT_TRUE(std::equal(tail.begin(), tail.end(), whole.begin() + 1024));
}

TEST_P(EachWay, DiscardAndZeroesMakeHolesAndKeepTheRest) {
    const auto file = open_this_way(folder_.file("disk", pattern(kMiB, 3)));
    if (!file) GTEST_SKIP() << "the host lacks it";
    auto model = pattern(kMiB, 3);
    ASSERT_EQ(file->write_zeroes(4096, 8192, Unmap::No), BlockStatus::Ok);
    ASSERT_EQ(file->write_zeroes(65536 + 512, 1024, Unmap::Allowed), BlockStatus::Ok);
    std::fill_n(model.begin() + 4096, 8192, u8{0});
    std::fill_n(model.begin() + 65536 + 512, 1024, u8{0});
    if (file->discard(512 * kKiB, 256 * kKiB) == BlockStatus::Ok)
        std::fill_n(model.begin() + 512 * kKiB, 256 * kKiB, u8{0});
    std::vector<u8> back(kMiB);
    ASSERT_EQ(file->read(0, std::span(back)), BlockStatus::Ok);
    EXPECT_TRUE(back == model);
    EXPECT_EQ(file->size(), kMiB);
}

std::string name_of(const ::testing::TestParamInfo<Way>& way) {
    const std::array caches{"Writeback", "None", "DirectSync", "Unsafe"};
    return std::string(way.param.engine == DiskEngine::Threads ? "Threads" : "IoUring") +
           caches[static_cast<std::size_t>(way.param.cache)];
}

INSTANTIATE_TEST_SUITE_P(FileTest, EachWay,
                         ::testing::Values(Way{DiskEngine::Threads, CacheMode::Writeback},
                                           Way{DiskEngine::IoUring, CacheMode::Writeback},
                                           Way{DiskEngine::Threads, CacheMode::None},
                                           Way{DiskEngine::IoUring, CacheMode::None},
                                           Way{DiskEngine::IoUring, CacheMode::DirectSync},
                                           Way{DiskEngine::Threads, CacheMode::Unsafe}),
                         name_of);

TEST_F(FileTest, HolesAreSeen) {
    const auto file = open(folder_.file("disk", 16 * kMiB));
    const auto bytes = pattern(kMiB, 1);
    ASSERT_EQ(file->write(8 * kMiB, std::span(bytes)), BlockStatus::Ok);
    u64 data = 0;
    u64 holes = 0;
    for (u64 at = 0; at < file->size();) {
        const auto stretch = file->stretch(at);
        ASSERT_GT(stretch.length, 0U);
        (stretch.hole ? holes : data) += stretch.length;
        at += stretch.length;
    }
    EXPECT_EQ(data + holes, 16 * kMiB);
    EXPECT_GE(data, kMiB);
    EXPECT_EQ(file->stretch(16 * kMiB).length, 0U);
}

TEST_F(FileTest, TwoWritersAreKeptApart) {
    const std::string path = folder_.file("disk", kMiB);
    auto first = open(path);
    const auto second = HostFile::open(path, {}, log_);
    ASSERT_FALSE(second.has_value());
    EXPECT_THAT(second.error().message, ::testing::HasSubstr(path));
    EXPECT_THAT(second.error().message, ::testing::HasSubstr("another virtual machine"));
    EXPECT_FALSE(HostFile::open(path, {.access = FileAccess::ReadOnly}, log_).has_value());
    first.reset();
    const auto reader = open(path, {.access = FileAccess::ReadOnly});
    const auto reader2 = open(path, {.access = FileAccess::ReadOnly});
    EXPECT_NE(reader2, nullptr);
    EXPECT_FALSE(HostFile::open(path, {}, log_).has_value());
}

TEST_F(FileTest, ReadOnlyFilesAreNotWritten) {
    const auto file = open(folder_.file("disk", kMiB), {.access = FileAccess::ReadOnly});
    const auto bytes = pattern(512, 1);
    EXPECT_EQ(file->write(0, std::span(bytes)), BlockStatus::OutOfRange);
    EXPECT_EQ(file->discard(0, 4096), BlockStatus::OutOfRange);
    EXPECT_EQ(file->write_zeroes(0, 4096, Unmap::No), BlockStatus::OutOfRange);
    EXPECT_EQ(file->sync(), BlockStatus::Ok);
}

TEST_F(FileTest, OnlyFilesAndBlockDevicesAreDisks) {
    const std::string fifo = folder_ / "fifo";
    ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
    for (const std::string& path : {fifo, std::string("/dev/null"), folder_ / "."}) {
        const auto file = HostFile::open(path, {.access = FileAccess::ReadOnly}, log_);
        ASSERT_FALSE(file.has_value()) << path;
        EXPECT_THAT(file.error().message, ::testing::HasSubstr(path));
    }
    const auto missing = HostFile::open(folder_ / "missing", {}, log_);
    ASSERT_FALSE(missing.has_value());
    EXPECT_EQ(missing.error().code, Errc::NotFound);
}

TEST_F(FileTest, AWriteTheHostRefusesIsLoggedWithItsPlace) {
    struct stat about{};
    if (stat("/dev/full", &about) != 0) GTEST_SKIP() << "no /dev/full";
    // A limit of the file's size is the one shortage that any user can make: EFBIG is an error of I/O, not of
    // room.
    const auto file = open(folder_.file("disk", kMiB));
    rlimit before{};
    ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
    const auto handler = std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{.rlim_cur = 2 * kMiB, .rlim_max = before.rlim_max};
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
    const auto bytes = pattern(2 * kMiB, 1);
    EXPECT_EQ(file->write(kMiB, std::span(bytes)), BlockStatus::IoError);
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
    (void)std::signal(SIGXFSZ, handler);
    EXPECT_THAT(log_.last(), ::testing::HasSubstr("write at byte 1048576"));
}

TEST_F(FileTest, TemporaryFilesHaveNoName) {
    const auto file = HostFile::temporary(log_);
    ASSERT_TRUE(file.has_value()) << file.error().message;
    const auto bytes = pattern(512, 1);
    EXPECT_EQ((*file)->write(kMiB, std::span(bytes)), BlockStatus::Ok);
    EXPECT_EQ((*file)->size(), kMiB + 512);
}

TEST(BlockLogTest, TellsTheFirstFailuresOnly) {
    std::vector<std::string> lines;
    BlockLog log([&](const std::string& line) { lines.push_back(line); });
    for (int i = 0; i < 1000; ++i) log.say("no luck");
    EXPECT_EQ(lines.size(), 17U);
    EXPECT_THAT(lines.back(), ::testing::HasSubstr("no more"));
}

}  // namespace
}  // namespace tessera::block
