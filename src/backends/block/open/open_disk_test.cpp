// The opener: which format a file is taken for, and who may be opened at all.
#include "backends/block/open/open_disk.h"

#include <gmock/gmock.h>

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

}  // namespace
}  // namespace tessera
