#include "backends/block/transfer/transfer.h"

#include <gmock/gmock.h>

#include "backends/block/open/open_disk.h"
#include "backends/block/qcow2/image_rig.h"

namespace tessera::block {
namespace {

using namespace testing_rig;
using qcow2::qemu_check;
using qcow2::run_program;
using ::testing::HasSubstr;

std::vector<u8> mixed_content() {
    std::vector<u8> content(9 * kMiB + 1536);
    const auto noise = pattern(kMiB, 1);
    std::ranges::copy(noise, content.begin() + 3 * kMiB + 512);
    for (u64 i = 6 * kMiB; i < content.size(); ++i) content[i] = static_cast<u8>(i >> 8);
    return content;
}

std::vector<u8> all_of(const DiskOptions& options) {
    const auto disk = open_disk(options);
    EXPECT_TRUE(disk.has_value()) << disk.error().message;
    return disk ? read(**disk, 0, (*disk)->info().size) : std::vector<u8>();
}

TEST(TransferTest, CopiesGoThroughEveryFormatUnchanged) {
    const Folder folder;
    const auto content = mixed_content();
    (void)folder.file("a.img", content);
    using qcow2::Compression;
    struct Way {
        DiskFormat format;
        bool compress;
        Compression compression;
        u64 cluster;
    };
    std::string from = folder / "a.img";
    int number = 0;
    for (const Way& way : {Way{DiskFormat::Qcow2, false, Compression::Zlib, 64 * kKiB},
                           Way{DiskFormat::Qcow2, true, Compression::Zlib, 64 * kKiB},
                           Way{DiskFormat::Raw, false, Compression::Zlib, 64 * kKiB},
                           Way{DiskFormat::Qcow2, true, Compression::Zstd, 2 * kMiB},
                           Way{DiskFormat::Qcow2, true, Compression::Zlib, 512}}) {
        const bool raw = way.format == DiskFormat::Raw;
        const std::string to = folder / fmt::format("copy{}{}", ++number, raw ? ".img" : ".qcow2");
        u64 last = 0;
        Copy copy{.from = {.path = from},
                  .to = {.path = to,
                         .format = way.format,
                         .qcow2 = {.cluster = way.cluster, .compression = way.compression}},
                  .compress = way.compress,
                  .progress = [&](u64 done, u64 total) {
                      EXPECT_GT(done, last);
                      EXPECT_EQ(total, content.size());
                      last = done;
                  }};
        const auto copied = copy_disk(std::move(copy));
        ASSERT_TRUE(copied.has_value()) << copied.error().message;
        EXPECT_EQ(last, content.size());
        EXPECT_TRUE(all_of({.path = to}) == content);
        if (!raw) {
            std::string output;
            EXPECT_EQ(qemu_check(to, &output), 0) << output;
        }
        const auto report = describe_disk({.path = to});
        ASSERT_TRUE(report.has_value());
        EXPECT_EQ(report->size, content.size());
        EXPECT_LT(report->allocated, content.size()) << "zeroes take no room";
        from = to;
    }
}

TEST(TransferTest, ACopyThatFailsLeavesNoFileAndNoneIsOverwritten) {
    const Folder folder;
    const auto there = folder.file("there", pattern(512, 1));
    EXPECT_FALSE(copy_disk({.from = {.path = folder / "none"},
                            .to = {.path = folder / "new.img", .qcow2 = {}},
                            .progress = nullptr})
                     .has_value());
    EXPECT_FALSE(std::filesystem::exists(folder / "new.img"));
    const auto refused =
        copy_disk({.from = {.path = there}, .to = {.path = there, .qcow2 = {}}, .progress = nullptr});
    ASSERT_FALSE(refused.has_value());
    EXPECT_THAT(refused.error().message, HasSubstr("exists already"));
    EXPECT_EQ(folder.content("there"), pattern(512, 1));
}

TEST(TransferTest, ACommitMovesAnOverlayIntoItsBackingFile) {
    for (const bool raw_base : {false, true}) {
        const Folder folder;
        const std::string base = folder / (raw_base ? "base.img" : "base.qcow2");
        ASSERT_TRUE(create_disk({.path = base,
                                 .format = raw_base ? DiskFormat::Raw : DiskFormat::Qcow2,
                                 .qcow2 = {.size = kMiB}})
                        .has_value());
        const std::string top = folder / "top.qcow2";
        ASSERT_TRUE(create_disk({.path = top,
                                 .format = DiskFormat::Qcow2,
                                 .qcow2 = {.size = 2 * kMiB,
                                           .backing_name = raw_base ? "base.img" : "base.qcow2",
                                           .backing_format = raw_base ? "raw" : "qcow2"}})
                        .has_value());
        const DiskOptions options{.path = top, .backing = BackingPolicy::On};
        std::vector<u8> model(2 * kMiB);
        {
            const auto disk = open_disk(options);
            ASSERT_TRUE(disk.has_value()) << disk.error().message;
            for (const u64 at : {u64{0}, 700 * kKiB, 2 * kMiB - 64 * kKiB}) {
                ASSERT_EQ(write(**disk, at, pattern(64 * kKiB, 3)), BlockStatus::Ok);
                std::ranges::copy(pattern(64 * kKiB, 3), model.begin() + static_cast<std::ptrdiff_t>(at));
            }
        }
        const auto committed = commit_disk(options, nullptr);
        ASSERT_TRUE(committed.has_value()) << committed.error().message;
        EXPECT_TRUE(all_of({.path = base}) == model);
        EXPECT_TRUE(all_of(options) == model);
        const auto report = check_disk({.path = top}, qcow2::Repair::No, nullptr);
        ASSERT_TRUE(report.has_value());
        EXPECT_EQ(report->allocated, 0U);
        EXPECT_EQ(report->corruptions + report->leaks, 0U);
    }
}

// Overlays of qemu-img's making over both kinds of base: the same disk for both of us, before and after a
// commit.
TEST(TransferTest, OverlaysOfQemuAreReadWrittenAndCommitted) {
    for (const char* format : {"raw", "qcow2"}) {
        const Folder folder;
        auto model = mixed_content();
        (void)folder.file("plain", model);
        const std::string base = folder / (std::string("base.") + format);
        const std::string top = folder / "top.qcow2";
        ASSERT_EQ(
            run_program(fmt::format("qemu-img convert -f raw -O {} {} {}", format, folder / "plain", base))
                .code,
            0);
        const auto made = run_program(fmt::format(
            "qemu-img create -f qcow2 -o cluster_size=4096 -b {} -F {} {} 12M", base, format, top));
        ASSERT_EQ(made.code, 0) << made.output;
        model.resize(12 * kMiB);
        const DiskOptions options{.path = top, .backing = BackingPolicy::On};
        EXPECT_TRUE(all_of(options) == model);
        {
            const auto disk = open_disk(options);
            ASSERT_TRUE(disk.has_value()) << disk.error().message;
            std::minstd_rand random(1);
            for (int i = 0; i < 60; ++i) {
                const u64 at = random() % (12 * kMiB / 512 - 40) * 512;
                const auto bytes = pattern((1 + random() % 40) * 512, static_cast<u32>(i));
                if (i % 5 == 0) {
                    ASSERT_EQ(run(**disk, BlockOperation::WriteZeroes, at, {}, bytes.size(), true),
                              BlockStatus::Ok);
                    std::fill_n(model.begin() + static_cast<std::ptrdiff_t>(at), bytes.size(), u8{0});
                } else {
                    ASSERT_EQ(write(**disk, at, bytes), BlockStatus::Ok);
                    std::ranges::copy(bytes, model.begin() + static_cast<std::ptrdiff_t>(at));
                }
            }
        }
        const auto as_qemu_reads = [&](const std::string& path, const char* kind) {
            EXPECT_EQ(
                run_program(fmt::format("qemu-img convert -f {} -O raw {} {}", kind, path, folder / "out"))
                    .code,
                0);
            return folder.content("out");
        };
        EXPECT_EQ(qemu_check(top), 0);
        EXPECT_TRUE(as_qemu_reads(top, "qcow2") == model);
        ASSERT_TRUE(commit_disk(options, nullptr).has_value());
        EXPECT_EQ(qemu_check(top), 0);
        EXPECT_TRUE(as_qemu_reads(base, format) == model);
        EXPECT_TRUE(as_qemu_reads(top, "qcow2") == model);
    }
}

TEST(TransferTest, DisksAreResized) {
    const Folder folder;
    for (const char* name : {"disk.img", "disk.qcow2"}) {
        const std::string path = folder / name;
        const bool raw = std::string(name) == "disk.img";
        ASSERT_TRUE(
            create_disk(
                {.path = path, .format = raw ? DiskFormat::Raw : DiskFormat::Qcow2, .qcow2 = {.size = kMiB}})
                .has_value());
        for (const u64 size : {5 * kGiB, 2 * kMiB}) {
            const auto resized = resize_disk({.path = path}, size);
            ASSERT_TRUE(resized.has_value()) << resized.error().message;
            EXPECT_EQ(describe_disk({.path = path})->size, size);
        }
    }
}

TEST(TransferTest, ADiskInUseCanBeLookedAtButNotChanged) {
    const Folder folder;
    const std::string path = folder / "disk.qcow2";
    ASSERT_TRUE(
        create_disk({.path = path, .format = DiskFormat::Qcow2, .qcow2 = {.size = kMiB}}).has_value());
    const auto disk = open_disk({.path = path});
    ASSERT_TRUE(disk.has_value());
    EXPECT_TRUE(describe_disk({.path = path}).has_value());
    const auto refused = resize_disk({.path = path}, 2 * kMiB);
    ASSERT_FALSE(refused.has_value());
    EXPECT_THAT(refused.error().message, HasSubstr("is in use"));
    EXPECT_FALSE(check_disk({.path = path}, qcow2::Repair::No, nullptr).has_value());
}

TEST(TransferTest, PreallocatedRawDisksHaveTheirRoom) {
    const Folder folder;
    ASSERT_TRUE(
        create_disk({.path = folder / "disk", .qcow2 = {.size = kMiB}, .preallocate = true}).has_value());
    EXPECT_GE(describe_disk({.path = folder / "disk"})->allocated, kMiB);
}

}  // namespace
}  // namespace tessera::block
