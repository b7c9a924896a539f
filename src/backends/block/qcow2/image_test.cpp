// Images against a model and against qemu-img, in every shape of the format.
#include "backends/block/qcow2/image.h"

#include <gmock/gmock.h>
#include <thread>

#include "backends/block/qcow2/image_rig.h"
#include "backends/block/raw/raw_source.h"

namespace tessera::block::qcow2 {
namespace {

using ::testing::HasSubstr;

struct Shape {
    u64 cluster = 64 * kKiB;
    u32 refcount_bits = 16;
    u32 version = 3;
    Compression compression = Compression::Zlib;
};

class EachShape : public ::testing::TestWithParam<Shape> {};

u64 disk_size_for(u64 cluster) {
    return std::clamp<u64>(cluster * 200, 300 * kKiB, 24 * kMiB) / 512 * 512 + 512;
}

CreateOptions options_for(const Shape& shape) {
    return {.size = disk_size_for(shape.cluster),
            .version = shape.version,
            .cluster = shape.cluster,
            .refcount_bits = shape.refcount_bits,
            .compression = shape.compression};
}

TEST_P(EachShape, ANewImageIsEmptyAndGoodForQemu) {
    const Folder folder;
    BlockLog log;
    {
        auto file = HostFile::create(folder / "disk.qcow2", log);
        ASSERT_TRUE(file.has_value()) << file.error().message;
        ASSERT_TRUE(create(**file, options_for(GetParam())).has_value());
    }
    std::string output;
    EXPECT_EQ(qemu_check(folder / "disk.qcow2", &output), 0) << output;
    const auto info = run_program("qemu-img info " + folder / "disk.qcow2");
    EXPECT_THAT(info.output, HasSubstr(fmt::format("cluster_size: {}", GetParam().cluster)));
    if (GetParam().version == 3) {
        EXPECT_THAT(info.output, HasSubstr(fmt::format("refcount bits: {}", GetParam().refcount_bits)));
    }
}

// Random writes, zeroes, discards, flushes and reopenings: the disk is what the model is, the image stays
// free of errors, and qemu-img reads the same from it.
TEST_P(EachShape, RandomOperationsAgreeWithAModelAndWithQemu) {
    const Folder folder;
    BlockLog log;
    const std::string path = folder / "disk.qcow2";
    const CreateOptions options = options_for(GetParam());
    {
        auto file = HostFile::create(path, log);
        ASSERT_TRUE(file.has_value());
        ASSERT_TRUE(create(**file, options).has_value());
    }
    Model model(options.size);
    std::minstd_rand random(static_cast<u32>(GetParam().cluster + GetParam().refcount_bits));
    for (int round = 0; round < 3; ++round) {
        auto file = HostFile::open(path, {.cache = CacheMode::Unsafe}, log);
        ASSERT_TRUE(file.has_value());
        auto image = Image::open(*std::move(file), nullptr, {}, log);
        ASSERT_TRUE(image.has_value()) << image.error().message;
        for (int i = 0; i < 60; ++i) ASSERT_EQ(random_step(**image, model, random, false), BlockStatus::Ok);
        ASSERT_TRUE(read_all(**image) == model.bytes);
        image->reset();
        std::string output;
        ASSERT_EQ(qemu_check(path, &output), 0) << output;
    }
    BlockLog check_log;
    auto file = HostFile::open(path, {.access = FileAccess::ReadOnly}, check_log);
    ASSERT_TRUE(file.has_value());
    const auto report = check(**file, Repair::No);
    ASSERT_TRUE(report.has_value()) << report.error().message;
    EXPECT_EQ(report->corruptions + report->leaks, 0U) << ::testing::PrintToString(report->messages);
    file->reset();
    ASSERT_EQ(run_program(fmt::format("qemu-img convert -f qcow2 -O raw {} {}", path, folder / "raw")).code,
              0);
    EXPECT_TRUE(folder.content("raw") == model.bytes);
}

TEST_P(EachShape, WhatQemuWritesIsRead) {
    const Folder folder;
    const u64 size = disk_size_for(GetParam().cluster);
    auto content = pattern(size, 11);
    std::fill_n(content.begin() + 4096, size / 3, u8{0});
    // Half of it can be compressed.
    for (u64 i = size / 2; i < size; ++i) content[i] = static_cast<u8>(i >> 9);
    folder.file("raw", content);
    const std::string format =
        fmt::format("-o cluster_size={},refcount_bits={},compat={}{}", GetParam().cluster,
                    GetParam().refcount_bits, GetParam().version == 2 ? "0.10" : "1.1",
                    GetParam().compression == Compression::Zstd ? ",compression_type=zstd" : "");
    BlockLog log;
    for (const char* compress : {"", "-c"}) {
        const std::string path = folder / "disk.qcow2";
        const auto made = run_program(fmt::format("qemu-img convert -f raw -O qcow2 {} {} {} {}", compress,
                                                  format, folder / "raw", path));
        ASSERT_EQ(made.code, 0) << made.output;
        Model model(size);
        model.bytes = content;
        {
            auto file = HostFile::open(path, {.cache = CacheMode::Unsafe}, log);
            ASSERT_TRUE(file.has_value());
            auto image = Image::open(*std::move(file), nullptr, {}, log);
            ASSERT_TRUE(image.has_value()) << image.error().message;
            ASSERT_TRUE(read_all(**image) == content);
            std::minstd_rand random(7);
            for (int i = 0; i < 50; ++i)
                ASSERT_EQ(random_step(**image, model, random, false), BlockStatus::Ok);
            ASSERT_TRUE(read_all(**image) == model.bytes);
        }
        std::string output;
        ASSERT_EQ(qemu_check(path, &output), 0) << output;
        ASSERT_EQ(
            run_program(fmt::format("qemu-img convert -f qcow2 -O raw {} {}", path, folder / "back")).code,
            0);
        ASSERT_TRUE(folder.content("back") == model.bytes);
    }
}

TEST_P(EachShape, CompressedClustersOfOursAreReadByQemu) {
    const Folder folder;
    BlockLog log;
    const std::string path = folder / "disk.qcow2";
    const CreateOptions options = options_for(GetParam());
    std::vector<u8> content(options.size);
    for (u64 i = 0; i < content.size(); ++i) content[i] = static_cast<u8>((i >> 7) * 7 + (i & 3));
    const auto noise = pattern(GetParam().cluster, 1);
    std::ranges::copy(noise, content.begin() + static_cast<std::ptrdiff_t>(2 * GetParam().cluster));
    {
        auto file = HostFile::create(path, log);
        ASSERT_TRUE(file.has_value());
        ASSERT_TRUE(create(**file, options).has_value());
        auto image = Image::open(*std::move(file), nullptr, {}, log);
        ASSERT_TRUE(image.has_value()) << image.error().message;
        for (u64 at = 0; at < options.size; at += options.cluster) {
            std::vector<u8> cluster(options.cluster);
            std::copy_n(content.begin() + static_cast<std::ptrdiff_t>(at),
                        std::min(options.cluster, options.size - at), cluster.begin());
            ASSERT_EQ((*image)->write_compressed(at, cluster), BlockStatus::Ok);
        }
        ASSERT_TRUE(read_all(**image) == content);
    }
    std::string output;
    ASSERT_EQ(qemu_check(path, &output), 0) << output;
    EXPECT_THAT(output, HasSubstr("compressed"));
    ASSERT_EQ(run_program(fmt::format("qemu-img convert -f qcow2 -O raw {} {}", path, folder / "raw")).code,
              0);
    EXPECT_TRUE(folder.content("raw") == content);
}

std::string text_of(const Shape& shape) {
    return fmt::format("V{}Cluster{}Refcount{}{}", shape.version, shape.cluster, shape.refcount_bits,
                       shape.compression == Compression::Zstd ? "Zstd" : "");
}
// Found by the test framework, which prints bytes otherwise.
void PrintTo(const Shape& shape, std::ostream* out) {  // NOLINT(readability-identifier-naming)
    *out << text_of(shape);
}
std::string name_of(const ::testing::TestParamInfo<Shape>& shape) {
    return text_of(shape.param);
}

INSTANTIATE_TEST_SUITE_P(
    Qcow2, EachShape,
    ::testing::Values(Shape{.cluster = 512}, Shape{.cluster = 512, .refcount_bits = 64},
                      Shape{.cluster = 1024, .refcount_bits = 1}, Shape{.cluster = 2048, .refcount_bits = 2},
                      Shape{.cluster = 4096, .compression = Compression::Zstd},
                      Shape{.cluster = 8192, .refcount_bits = 4}, Shape{.cluster = 16384, .refcount_bits = 8},
                      Shape{.cluster = 32768, .refcount_bits = 32}, Shape{}, Shape{.version = 2},
                      Shape{.cluster = 512, .version = 2}, Shape{.compression = Compression::Zstd},
                      Shape{.refcount_bits = 1}, Shape{.cluster = 128 * kKiB}, Shape{.cluster = 256 * kKiB},
                      Shape{.cluster = 512 * kKiB}, Shape{.cluster = kMiB},
                      Shape{.cluster = 2 * kMiB, .refcount_bits = 64}),
    name_of);

TEST(ImageTest, ABackingFileShowsThroughUntilItIsWrittenOver) {
    for (const u32 version : {2U, 3U}) {
        const Folder folder;
        const auto below = pattern(kMiB + 512, 3);  // shorter than the disk above it
        BlockLog log;
        MemoryImage memory;
        const u64 size = 3 * kMiB;
        memory.make({.size = size, .version = version, .cluster = 4096});
        Model model(size);
        model.write(0, below);
        MemoryFile::Medium base;
        base.bytes = below;
        std::minstd_rand random(version);
        for (int round = 0; round < 3; ++round) {
            auto image =
                memory.open({}, std::make_unique<RawSource>(std::make_unique<MemoryFile>(base, true)));
            ASSERT_TRUE(read_all(*image) == model.bytes);
            for (int i = 0; i < 100; ++i)
                ASSERT_EQ(random_step(*image, model, random, false), BlockStatus::Ok);
            ASSERT_TRUE(read_all(*image) == model.bytes);
            image.reset();
            const auto report = memory.checked();
            ASSERT_EQ(report.corruptions + report.leaks, 0U) << ::testing::PrintToString(report.messages);
        }
        EXPECT_TRUE(base.bytes == below);
    }
}

TEST(ImageTest, SnapshotsOfQemuKeepTheirData) {
    const Folder folder;
    const std::string path = folder / "disk.qcow2";
    BlockLog log;
    const u64 size = 2 * kMiB;
    ASSERT_EQ(
        run_program(fmt::format("qemu-img create -f qcow2 -o cluster_size=4096 {} {}", path, size)).code, 0);
    Model model(size);
    std::minstd_rand random(1);
    std::vector<std::vector<u8>> kept;
    for (int round = 0; round < 3; ++round) {
        {
            auto file = HostFile::open(path, {.cache = CacheMode::Unsafe}, log);
            ASSERT_TRUE(file.has_value());
            auto image = Image::open(*std::move(file), nullptr, {}, log);
            ASSERT_TRUE(image.has_value()) << image.error().message;
            EXPECT_EQ((*image)->snapshots().size(), static_cast<std::size_t>(round));
            for (int i = 0; i < 80; ++i)
                ASSERT_EQ(random_step(**image, model, random, false), BlockStatus::Ok);
            ASSERT_TRUE(read_all(**image) == model.bytes);
        }
        kept.push_back(model.bytes);
        std::string output;
        ASSERT_EQ(qemu_check(path, &output), 0) << output;
        ASSERT_EQ(run_program(fmt::format("qemu-img snapshot -c s{} {}", round, path)).code, 0);
        auto file = HostFile::open(path, {.access = FileAccess::ReadOnly}, log);
        const auto report = check(**file, Repair::No);
        ASSERT_TRUE(report.has_value());
        EXPECT_EQ(report->corruptions + report->leaks, 0U) << ::testing::PrintToString(report->messages);
    }
    for (std::size_t i = 0; i < kept.size(); ++i) {
        ASSERT_EQ(
            run_program(fmt::format("qemu-img convert -l s{} -O raw {} {}", i, path, folder / "raw")).code,
            0);
        EXPECT_TRUE(folder.content("raw") == kept[i]) << "snapshot " << i;
    }
}

TEST(ImageTest, ManyThreadsWriteTheirOwnSectorsOfSharedClusters) {
    MemoryImage memory;
    const u64 size = 4 * kMiB;
    memory.make({.size = size, .cluster = 16 * kKiB});
    auto image = memory.open();
    std::vector<std::thread> threads;
    constexpr u64 kThreads = 6;
    for (u64 t = 0; t < kThreads; ++t)
        threads.emplace_back([&, t] {
            std::minstd_rand random(static_cast<u32>(t));
            for (u64 sector = t; sector < size / 512; sector += kThreads) {
                EXPECT_EQ(image->write(sector * 512, pattern(512, static_cast<u32>(sector))),
                          BlockStatus::Ok);
                if (random() % 64 == 0) {
                    EXPECT_EQ(image->flush(), BlockStatus::Ok);
                }
            }
        });
    for (auto& thread : threads) thread.join();
    for (u64 sector = 0; sector < size / 512; ++sector) {
        std::vector<u8> back(512);
        ASSERT_EQ(image->read(sector * 512, std::span(back)), BlockStatus::Ok);
        ASSERT_TRUE(back == pattern(512, static_cast<u32>(sector))) << sector;
    }
    image.reset();
    const auto report = memory.checked();
    EXPECT_EQ(report.corruptions + report.leaks, 0U) << ::testing::PrintToString(report.messages);
}

TEST(ImageTest, DiscardedClustersAreUsedAgain) {
    MemoryImage memory;
    memory.make({.size = 64 * kMiB, .cluster = 64 * kKiB});
    auto image = memory.open();
    u64 largest = 0;
    for (int round = 0; round < 20; ++round) {
        ASSERT_EQ(image->write(static_cast<u64>(round) * kMiB, pattern(kMiB, 1)), BlockStatus::Ok);
        ASSERT_EQ(image->flush(), BlockStatus::Ok);
        ASSERT_EQ(image->discard(static_cast<u64>(round) * kMiB, kMiB), BlockStatus::Ok);
        ASSERT_EQ(image->flush(), BlockStatus::Ok);
        if (round == 2) largest = memory.medium.bytes.size();
    }
    EXPECT_EQ(memory.medium.bytes.size(), largest);
}

TEST(ImageTest, ResizeKeepsDataAndShowsZeroesInWhatIsNew) {
    for (const u64 cluster : {u64{512}, 4 * kKiB, 64 * kKiB}) {
        MemoryImage memory;
        memory.make({.size = 200 * kKiB, .cluster = cluster});
        auto image = memory.open();
        Model model(200 * kKiB);
        const auto bytes = pattern(200 * kKiB, 1);
        ASSERT_EQ(image->write(0, std::span<const u8>(bytes)), BlockStatus::Ok);
        model.write(0, bytes);
        for (const u64 size : {100 * kKiB + 512, 40 * kMiB, 3 * kMiB, 3 * kMiB + 512}) {
            const auto resized = image->resize(size);
            ASSERT_TRUE(resized.has_value()) << resized.error().message;
            model.bytes.resize(size);
            EXPECT_EQ(image->size(), size);
            ASSERT_TRUE(read_all(*image) == model.bytes) << size;
        }
        image.reset();
        const auto report = memory.checked();
        EXPECT_EQ(report.corruptions + report.leaks, 0U) << ::testing::PrintToString(report.messages);
    }
}

TEST(ImageTest, AutoclearBitsAreClearedBeforeTheFirstWriteOnly) {
    MemoryImage memory;
    memory.make({.size = kMiB});
    store_be(std::span(memory.medium.bytes), 88, u64{0x8000000000000001});
    {
        const auto reader = memory.open({.writable = false});
    }
    EXPECT_EQ(load_be<u64>(memory.medium.bytes, 88), 0x8000000000000001U);
    {
        const auto writer = memory.open();
    }
    EXPECT_EQ(load_be<u64>(memory.medium.bytes, 88), 0U);
}

TEST(ImageTest, AnImageMarkedCorruptIsOnlyRead) {
    MemoryImage memory;
    memory.make({.size = kMiB});
    store_be(std::span(memory.medium.bytes), 72, u64{2});
    const auto refused = Image::open(std::make_unique<MemoryFile>(memory.medium), nullptr, {}, memory.log);
    ASSERT_FALSE(refused.has_value());
    EXPECT_THAT(refused.error().message, HasSubstr("check -r all"));
    const auto reader = memory.open({.writable = false});
    EXPECT_EQ(read_all(*reader), std::vector<u8>(kMiB));
    EXPECT_EQ(reader->write(0, pattern(512, 1)), BlockStatus::OutOfRange);
}

// What lazy refcounts leave behind when their writer is killed: clusters that are used and not counted.
TEST(ImageTest, ADirtyImageIsRepairedWhenItIsOpenedForWriting) {
    MemoryImage memory;
    memory.make({.size = kMiB, .cluster = 4096, .lazy_refcounts = true});
    const auto bytes = pattern(kMiB, 1);
    ASSERT_EQ(memory.open()->write(0, std::span<const u8>(bytes)), BlockStatus::Ok);
    auto& file = memory.medium.bytes;
    store_be(std::span(file), 72, u64{1});
    const u64 block = load_be<u64>(file, load_be<u64>(file, 48));
    std::fill_n(file.begin() + static_cast<std::ptrdiff_t>(block) + 40, 400, u8{0});
    EXPECT_GT(memory.checked().corruptions, 100U);
    {
        const auto reader = memory.open({.writable = false});
        EXPECT_TRUE(read_all(*reader) == bytes);
    }
    EXPECT_EQ(load_be<u64>(file, 72), 1U);
    {
        const auto writer = memory.open();
        EXPECT_TRUE(read_all(*writer) == bytes);
        EXPECT_EQ(writer->write(0, pattern(64 * kKiB, 2)), BlockStatus::Ok);
    }
    EXPECT_EQ(load_be<u64>(file, 72), 0U);
    const auto report = memory.checked();
    EXPECT_EQ(report.corruptions + report.leaks, 0U) << ::testing::PrintToString(report.messages);
    const Folder folder;
    std::string output;
    EXPECT_EQ(qemu_check(folder.file("disk.qcow2", file), &output), 0) << output;
}

// Refcounts and flags of an image with a snapshot are spoiled at random: after a repair qemu-img finds
// nothing, and both the disk and the snapshot hold what they held.
TEST(RepairTest, RefcountsAndFlagsAreMadeAnewFromTheTables) {
    const Folder folder;
    BlockLog log([](const std::string&) {});
    for (u32 seed = 0; seed < 24; ++seed) {
        const std::string path = folder / "disk.qcow2";
        constexpr std::array<u64, 3> kClusters{512, 4096, 65536};
        const u64 cluster = kClusters[seed % 3];
        ASSERT_EQ(
            run_program(fmt::format("qemu-img create -f qcow2 -o cluster_size={},refcount_bits={} {} 1M",
                                    cluster, seed % 2 == 0 ? 16 : 64, path))
                .code,
            0);
        Model model(kMiB);
        std::minstd_rand random(seed);
        const auto work = [&] {
            auto file = HostFile::open(path, {.cache = CacheMode::Unsafe}, log);
            auto image = Image::open(*std::move(file), nullptr, {}, log);
            ASSERT_TRUE(image.has_value()) << image.error().message;
            for (int i = 0; i < 30; ++i)
                ASSERT_EQ(random_step(**image, model, random, false), BlockStatus::Ok);
        };
        work();
        const auto kept = model.bytes;
        ASSERT_EQ(run_program("qemu-img snapshot -c kept " + path).code, 0);
        work();
        auto bytes = folder.content("disk.qcow2");
        const u64 l1 = load_be<u64>(bytes, 40);
        const u64 table = load_be<u64>(bytes, 48);
        for (u64 i = 0; i < cluster / 8; ++i) {
            const u64 block = load_be<u64>(bytes, table + i * 8);
            if (block == 0) continue;
            if (seed % 5 == 4) {
                store_be(std::span(bytes), table + i * 8, u64{0});
                continue;
            }
            for (int k = 0; k < 20; ++k)
                bytes[block + random() % std::min<u64>(cluster, 512)] = static_cast<u8>(random() % 4);
        }
        for (u64 i = 0; i < load_be<u32>(bytes, 36); ++i)
            if (const u64 entry = load_be<u64>(bytes, l1 + i * 8); entry != 0) {
                if (random() % 2 == 0) store_be(std::span(bytes), l1 + i * 8, entry ^ kCopied);
                const u64 at = (entry & kOffsetMask) + random() % (cluster / 8) * 8;
                const u64 data = load_be<u64>(bytes, at);
                if (data != 0 && (data & kCompressed) == 0 && (data & kOffsetMask) != 0)
                    store_be(std::span(bytes), at, data ^ kCopied);
            }
        (void)folder.file("disk.qcow2", bytes);
        {
            auto file = HostFile::open(path, {.cache = CacheMode::Unsafe}, log);
            const auto report = check(**file, Repair::All);
            ASSERT_TRUE(report.has_value()) << report.error().message;
            EXPECT_EQ(report->corruptions_left() + report->leaks_left(), 0U);
            const auto again = check(**file, Repair::No);
            ASSERT_TRUE(again.has_value());
            EXPECT_EQ(again->corruptions + again->leaks, 0U) << ::testing::PrintToString(again->messages);
        }
        std::string output;
        EXPECT_EQ(qemu_check(path, &output), 0) << seed << output;
        ASSERT_EQ(run_program(fmt::format("qemu-img convert -O raw {} {}", path, folder / "raw")).code, 0);
        EXPECT_TRUE(folder.content("raw") == model.bytes);
        ASSERT_EQ(
            run_program(fmt::format("qemu-img convert -l kept -O raw {} {}", path, folder / "raw")).code, 0);
        EXPECT_TRUE(folder.content("raw") == kept);
        std::filesystem::remove(path);
    }
}

TEST(ImageTest, MemoryForTablesIsBounded) {
    MemoryImage memory;
    memory.make({.size = 64 * kMiB, .cluster = 512});
    auto image = memory.open({.l2_cache_bytes = 8 * kKiB, .refcount_cache_bytes = 8 * kKiB});
    std::minstd_rand random(1);
    for (int i = 0; i < 3000; ++i)
        ASSERT_EQ(image->write(random() % (64 * kMiB / 512) * 512, pattern(512, 1)), BlockStatus::Ok);
    image.reset();
    const auto report = memory.checked();
    EXPECT_EQ(report.corruptions + report.leaks, 0U);
}

}  // namespace
}  // namespace tessera::block::qcow2
