// The opener: which format a file is taken for, and who may be opened at all.
#include "backends/block/open/open_disk.h"

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdlib>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <random>
#include <sys/wait.h>
#include <unistd.h>

#include "backends/block/file/host_file.h"
#include "backends/block/qcow2/check.h"
#include "backends/block/qcow2/create.h"
#include "backends/block/testing/block_rig.h"

namespace tessera {
namespace {

using namespace block::testing_rig;
using ::testing::HasSubstr;

std::string error_of(const DiskOptions& options) {
    const auto disk = open_disk(options);
    return disk ? "" : disk.error().message;
}

std::vector<u8> qcow2_header() {
    std::vector<u8> bytes(64 * kKiB);
    const u8 magic[] = {'Q', 'F', 'I', 0xFB, 0, 0, 0, 3};
    std::ranges::copy(magic, bytes.begin());
    return bytes;
}

TEST(OpenDiskTest, APlainFileIsARawDisk) {
    const Folder folder;
    for (const char* name : {"disk", "disk.img", "disk.raw", "disk.iso"}) {
        const auto disk = open_disk({.path = folder.file(name, kMiB)});
        ASSERT_TRUE(disk.has_value()) << disk.error().message;
        EXPECT_EQ((*disk)->info().size, kMiB);
        EXPECT_EQ((*disk)->info().name, folder / name);
    }
}

// CVE-2026-24708 and its like: a guest writes an image's header to its raw disk, and the next start believes
// it.
TEST(OpenDiskTest, AHeaderThatAGuestWroteToARawDiskIsNeverBelieved) {
    const Folder folder;
    const std::string path = folder.file("disk.img", kMiB);
    {
        auto disk = open_disk({.path = path});
        ASSERT_TRUE(disk.has_value());
        ASSERT_EQ(write(**disk, 0, qcow2_header()), BlockStatus::Ok);
    }
    EXPECT_THAT(error_of({.path = path}), HasSubstr("say format=qcow2 if you trust it"));
    const auto disk = open_disk({.path = path, .format = DiskFormat::Raw});
    ASSERT_TRUE(disk.has_value()) << disk.error().message;
    EXPECT_EQ(read(**disk, 0, 64 * kKiB), qcow2_header());
}

TEST(OpenDiskTest, ImagesOfOtherProgramsAreNotTakenForPlainDisks) {
    const Folder folder;
    const std::pair<const char*, u64> magics[] = {
        {"KDMV", 0}, {"vhdxfile", 0}, {"conectix", 0}, {"\x7f\x10\xda\xbe", 0x40}};
    for (const auto& [magic, offset] : magics) {
        std::vector<u8> bytes(4096);
        std::copy_n(magic, std::char_traits<char>::length(magic), bytes.begin() + static_cast<long>(offset));
        const std::string path = folder.file("image", bytes);
        EXPECT_THAT(error_of({.path = path}), HasSubstr("format=raw"));
        EXPECT_EQ(error_of({.path = path, .format = DiskFormat::Raw}), "");
    }
}

TEST(OpenDiskTest, ANameThatSaysQcow2IsHeldToIt) {
    const Folder folder;
    const std::string path = folder.file("disk.qcow2", kMiB);
    EXPECT_THAT(error_of({.path = path}), HasSubstr("this is not a qcow2 image"));
    EXPECT_THAT(error_of({.path = path, .format = DiskFormat::Qcow2}),
                HasSubstr("this is not a qcow2 image"));
    EXPECT_THAT(error_of({.path = path, .format = DiskFormat::Raw}), HasSubstr("rename it"));
    EXPECT_EQ(error_of({.path = path, .format = DiskFormat::Raw, .read_only = true}), "");
}

TEST(OpenDiskTest, TheErrorNamesTheFile) {
    const Folder folder;
    EXPECT_THAT(error_of({.path = folder / "none"}), HasSubstr("no such file"));
    EXPECT_THAT(error_of({.path = folder / "none"}), HasSubstr(folder / "none"));
}

// An image in `folder` with so much of a disk, some of it written, and a backing file if one is named.
std::string make_image(const Folder& folder, const std::string& name, const std::string& backing = "",
                       const std::string& backing_format = "") {
    block::BlockLog log;
    auto file = block::HostFile::create(folder / name, log);
    EXPECT_TRUE(file.has_value()) << file.error().message;
    EXPECT_TRUE(
        block::qcow2::create(
            **file,
            {.size = 2 * kMiB, .cluster = 4096, .backing_name = backing, .backing_format = backing_format})
            .has_value());
    return folder / name;
}

TEST(BackingTest, AQcow2NeighbourIsOpened) {
    const Folder folder;
    const std::string base = make_image(folder, "base.qcow2");
    {
        auto disk = open_disk({.path = base});
        ASSERT_TRUE(disk.has_value()) << disk.error().message;
        ASSERT_EQ(write(**disk, 4096, pattern(8192, 1)), BlockStatus::Ok);
    }
    const std::string top = make_image(folder, "top.qcow2", "base.qcow2", "qcow2");
    auto disk = open_disk({.path = top});
    ASSERT_TRUE(disk.has_value()) << disk.error().message;
    EXPECT_EQ(read(**disk, 4096, 8192), pattern(8192, 1));
    ASSERT_EQ(write(**disk, 4096 + 512, pattern(512, 2)), BlockStatus::Ok);
    auto expected = pattern(8192, 1);
    std::ranges::copy(pattern(512, 2), expected.begin() + 512);
    EXPECT_EQ(read(**disk, 4096, 8192), expected);
    EXPECT_THAT(error_of({.path = base}), HasSubstr("is in use"))
        << "what is below is locked against writers";
    EXPECT_EQ(error_of({.path = base, .read_only = true}), "");
    disk->reset();
    EXPECT_THAT(error_of({.path = top, .backing = BackingPolicy::Off}), HasSubstr("backing=off"));
}

TEST(BackingTest, WhatTheUserDidNotNameIsNotOpened) {
    const Folder folder;
    const Folder elsewhere;
    (void)folder.file("secret", pattern(kMiB, 1));
    const std::string far = make_image(elsewhere, "far.qcow2");
    std::filesystem::create_symlink(far, folder / "near.qcow2");
    std::filesystem::create_directory(folder / "below");
    (void)make_image(folder, "below/inner.qcow2");
    const struct {
        const char* name;
        std::string backing;
        const char* format;
        const char* says;
    } cases[] = {
        {"raw.qcow2", "secret", "raw", "backing=on"},
        {"absolute.qcow2", far, "qcow2", "not in the image's own directory"},
        {"dots.qcow2", std::filesystem::relative(far, folder / ".").string(), "qcow2", "own directory"},
        {"link.qcow2", "near.qcow2", "qcow2", "own directory"},
        {"inner.qcow2", "below/inner.qcow2", "qcow2", "own directory"},
        {"passwords.qcow2", "/etc/passwd", "raw", "backing=on"},
        {"noformat.qcow2", "secret", "", "backing_format="},
        {"vmdk.qcow2", "secret", "vmdk", "cannot be read"},
        {"json.qcow2", "json:{\"driver\":\"raw\"}", "raw", "backing=on"},
        {"notqcow2.qcow2", "secret", "qcow2", "does not begin like one"},
        {"gone.qcow2", "gone", "qcow2", "own directory"},
    };
    for (const auto& one : cases) {
        const std::string image = make_image(folder, one.name, one.backing, one.format);
        EXPECT_THAT(error_of({.path = image}), HasSubstr(one.says)) << one.name;
        EXPECT_THAT(error_of({.path = image, .snapshot = true}), HasSubstr(one.says)) << one.name;
    }
    const auto disk = open_disk({.path = folder / "raw.qcow2", .backing = BackingPolicy::On});
    ASSERT_TRUE(disk.has_value()) << disk.error().message;
    EXPECT_EQ(read(**disk, 0, kMiB), pattern(kMiB, 1));
    EXPECT_EQ(error_of({.path = folder / "noformat.qcow2",
                        .backing = BackingPolicy::On,
                        .backing_format = DiskFormat::Raw}),
              "");
}

TEST(BackingTest, ChainsEnd) {
    const Folder folder;
    EXPECT_THAT(
        error_of({.path = make_image(folder, "self.qcow2", "self.qcow2", "qcow2"), .read_only = true}),
        HasSubstr("its own backing file"));
    EXPECT_THAT(error_of({.path = folder / "self.qcow2"}), HasSubstr("self.qcow2"));
    (void)make_image(folder, "one.qcow2", "two.qcow2", "qcow2");
    (void)make_image(folder, "two.qcow2", "one.qcow2", "qcow2");
    EXPECT_NE(error_of({.path = folder / "one.qcow2", .read_only = true}), "");
    (void)make_image(folder, "0.qcow2");
    for (int i = 1; i <= 40; ++i)
        (void)make_image(folder, fmt::format("{}.qcow2", i), fmt::format("{}.qcow2", i - 1), "qcow2");
    EXPECT_EQ(error_of({.path = folder / "20.qcow2"}), "");
    EXPECT_THAT(error_of({.path = folder / "40.qcow2"}), HasSubstr("chain"));
}

TEST(SnapshotTest, WritesAreThrownAway) {
    const Folder folder;
    const std::string raw = folder.file("disk.img", pattern(kMiB + 512, 1));
    const std::string qcow2 = make_image(folder, "disk.qcow2");
    {
        auto disk = open_disk({.path = qcow2});
        ASSERT_EQ(write(**disk, 0, pattern(kMiB + 512, 1)), BlockStatus::Ok);
    }
    for (const std::string& path : {raw, qcow2}) {
        const auto before = folder.content(std::filesystem::path(path).filename().string());
        {
            const DiskOptions options{.path = path, .snapshot = true};
            auto disk = open_disk(options);
            auto other = open_disk(options);
            ASSERT_TRUE(disk.has_value()) << disk.error().message;
            ASSERT_TRUE(other.has_value()) << "two may use one disk so";
            EXPECT_FALSE((*disk)->info().read_only);
            EXPECT_EQ(read(**disk, 0, kMiB), read(**other, 0, kMiB));
            ASSERT_EQ(write(**disk, 512, pattern(4096, 2)), BlockStatus::Ok);
            ASSERT_EQ(flush(**disk), BlockStatus::Ok);
            EXPECT_EQ(read(**disk, 512, 4096), pattern(4096, 2));
            ASSERT_EQ(run(**disk, BlockOperation::WriteZeroes, 8192, {}, 8192), BlockStatus::Ok);
            EXPECT_EQ(read(**disk, 8192, 8192), std::vector<u8>(8192));
            EXPECT_EQ(read(**other, 0, 512 * kKiB), [] {
                auto all = pattern(kMiB + 512, 1);
                all.resize(512 * kKiB);
                return all;
            }());
        }
        EXPECT_TRUE(folder.content(std::filesystem::path(path).filename().string()) == before);
    }
}

// A monitor that is killed in the middle of its work: the image is free of errors, and has what was flushed.
TEST(KillTest, AKilledWriterLeavesAGoodImage) {
    const Folder folder;
    for (int round = 0; round < 12; ++round) {
        const std::string path = make_image(folder, fmt::format("disk{}.qcow2", round));
        std::array<int, 2> pipe_ends{};
        ASSERT_EQ(pipe(pipe_ends.data()), 0);
        const pid_t child = fork();
        ASSERT_GE(child, 0);
        if (child == 0) {
            auto disk = open_disk({.path = path});
            if (!disk) _exit(1);
            std::minstd_rand random(static_cast<u32>(round));
            for (u8 count = 1;; ++count) {
                // The first cluster counts the flushes; the others are noise.
                std::vector<u8> mark(512, count);
                if (write(**disk, 0, mark) != BlockStatus::Ok) _exit(1);
                for (int i = 0; i < 6; ++i)
                    (void)write(**disk, 8 * 512 + random() % 4000 * 512,
                                pattern(4096, static_cast<u32>(random())));
                (void)run(**disk, BlockOperation::Discard, 4096 + random() % 400 * 4096, {}, 8192);
                if (flush(**disk) != BlockStatus::Ok || ::write(pipe_ends[1], &count, 1) != 1) _exit(1);
                if (count == 250) pause();
            }
        }
        (void)close(pipe_ends[1]);
        u8 acknowledged = 0;
        for (int i = 0; i <= round * 3; ++i) ASSERT_EQ(::read(pipe_ends[0], &acknowledged, 1), 1);
        ASSERT_EQ(kill(child, SIGKILL), 0);
        while (::read(pipe_ends[0], &acknowledged, 1) == 1) {
        }
        int status = 0;
        ASSERT_EQ(waitpid(child, &status, 0), child);
        (void)close(pipe_ends[0]);
        const int code = std::system(("qemu-img check -f qcow2 " + path + " > /dev/null 2>&1").c_str());
        EXPECT_TRUE(WEXITSTATUS(code) == 0 || WEXITSTATUS(code) == 3) << code;
        auto disk = open_disk({.path = path});
        ASSERT_TRUE(disk.has_value()) << disk.error().message;
        EXPECT_GE(read(**disk, 0, 512)[0], acknowledged) << "a flush was acknowledged and is lost";
    }
}

// Many requests in flight at once, of all kinds, each writer on sectors of its own.
class DiskStress : public ::testing::TestWithParam<std::pair<DiskEngine, CacheMode>> {};

TEST_P(DiskStress, ParallelRequestsOfAllKindsKeepEachSectorsData) {
    const Folder folder(Folder::Place::Real);
    const auto& [engine, cache] = GetParam();
    constexpr u64 kSectors = 4096;
    constexpr u64 kLanes = 16;
    constexpr int kRounds = 60;
    for (const bool raw : {false, true}) {
        const std::string path =
            raw ? folder.file("disk.img", kSectors * 512) : make_image(folder, "disk.qcow2");
        std::vector<std::vector<u8>> model(kSectors, std::vector<u8>(512));
        {
            auto disk = open_disk({.path = path, .cache = cache, .engine = engine});
            if (!disk && disk.error().code == Errc::Unsupported) GTEST_SKIP() << disk.error().message;
            ASSERT_TRUE(disk.has_value()) << disk.error().message;
            std::minstd_rand random(1);
            for (int round = 0; round < kRounds; ++round) {
                std::vector<std::vector<u8>> bytes(kLanes + 2);
                std::vector<iovec> pieces(kLanes + 2);
                std::vector<Waited> requests(kLanes + 2);
                std::vector<BlockRequest*> all;
                for (u64 lane = 0; lane < kLanes; ++lane) {
                    // Sectors lane, lane + 16, ...: neighbours in one cluster belong to different lanes.
                    const u64 sector = random() % (kSectors / kLanes) * kLanes + lane;
                    Waited& request = requests[lane];
                    request.offset = sector * 512;
                    request.length = 512;
                    if (random() % 8 == 0) {
                        request.operation = BlockOperation::WriteZeroes;
                        request.may_unmap = random() % 2 == 0;
                        model[sector].assign(512, 0);
                    } else {
                        bytes[lane] = pattern(512, static_cast<u32>(random()));
                        model[sector] = bytes[lane];
                        pieces[lane] = {.iov_base = bytes[lane].data(), .iov_len = 512};
                        request.operation = BlockOperation::Write;
                        request.buffers = std::span(&pieces[lane], 1);
                        request.force_unit_access = random() % 32 == 0;
                    }
                    all.push_back(&request);
                }
                requests[kLanes].operation = BlockOperation::Flush;
                if (random() % 4 == 0) all.push_back(&requests[kLanes]);
                std::ranges::shuffle(all, random);
                (*disk)->submit(all);
                for (BlockRequest* request : all)
                    ASSERT_EQ(static_cast<Waited*>(request)->wait(), BlockStatus::Ok);
            }
            for (u64 sector = 0; sector < kSectors; ++sector)
                ASSERT_TRUE(read(**disk, sector * 512, 512) == model[sector]) << sector;
        }
        auto disk = open_disk({.path = path, .read_only = true});
        ASSERT_TRUE(disk.has_value());
        for (u64 sector = 0; sector < kSectors; ++sector)
            ASSERT_TRUE(read(**disk, sector * 512, 512) == model[sector]) << sector;
        if (raw) continue;
        block::BlockLog log;
        const auto file = block::HostFile::open(path, {.access = block::FileAccess::ReadOnly}, log);
        const auto report = block::qcow2::check(**file, block::qcow2::Repair::No);
        ASSERT_TRUE(report.has_value());
        EXPECT_EQ(report->corruptions + report->leaks, 0U) << ::testing::PrintToString(report->messages);
    }
}

INSTANTIATE_TEST_SUITE_P(Disk, DiskStress,
                         ::testing::Values(std::pair{DiskEngine::Threads, CacheMode::Unsafe},
                                           std::pair{DiskEngine::IoUring, CacheMode::Unsafe},
                                           std::pair{DiskEngine::Threads, CacheMode::None},
                                           std::pair{DiskEngine::IoUring, CacheMode::None}));

}  // namespace
}  // namespace tessera
