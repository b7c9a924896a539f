#include "app/disk_option.h"

#include <gtest/gtest.h>

#include "app/options.h"

namespace tessera::app {
namespace {

std::string refusal(std::string_view text) {
    const auto disk = parse_disk(text);
    return disk ? "accepted" : disk.error();
}

TEST(DiskOptionTest, AFileIsEnough) {
    const auto disk = parse_disk("root.img");
    ASSERT_TRUE(disk);
    EXPECT_EQ(disk->file.path, "root.img");
    EXPECT_FALSE(disk->file.read_only);
    EXPECT_FALSE(disk->file.format);
    EXPECT_EQ(disk->file.cache, CacheMode::Writeback);
    EXPECT_EQ(disk->queues, 1U);
    EXPECT_EQ(disk->serial, "");
}

TEST(DiskOptionTest, EverySettingArrives) {
    const auto disk = parse_disk(
        "a.qcow2,ro,serial=abc,queues=4,format=qcow2,cache=none,snapshot,backing=off,engine=threads");
    ASSERT_TRUE(disk) << disk.error();
    EXPECT_TRUE(disk->file.read_only);
    EXPECT_EQ(disk->serial, "abc");
    EXPECT_EQ(disk->queues, 4U);
    EXPECT_EQ(disk->file.format, DiskFormat::Qcow2);
    EXPECT_EQ(disk->file.cache, CacheMode::None);
    EXPECT_TRUE(disk->file.snapshot);
    EXPECT_EQ(disk->file.backing, BackingPolicy::Off);
    EXPECT_EQ(disk->file.engine, DiskEngine::Threads);
}

TEST(DiskOptionTest, ADiskMayBeOfAnotherKind) {
    EXPECT_EQ(parse_disk("a")->interface, DiskInterface::Virtio);
    EXPECT_EQ(parse_disk("a,if=ahci")->interface, DiskInterface::Ahci);
    EXPECT_EQ(parse_disk("a,if=virtio")->interface, DiskInterface::Virtio);
    EXPECT_NE(refusal("a,if=ide").find("virtio, ahci"), std::string::npos);
    EXPECT_NE(refusal("a,if=ahci,queues=2").find("queues are for if=virtio"), std::string::npos);
}

TEST(DiskOptionTest, DoubledCommasBelongToTheName) {
    const auto disk = parse_disk("a,,b.img,serial=x,,y,ro");
    ASSERT_TRUE(disk);
    EXPECT_EQ(disk->file.path, "a,b.img");
    EXPECT_EQ(disk->serial, "x,y");
    EXPECT_TRUE(disk->file.read_only);
}

TEST(DiskOptionTest, WhatIsWrongIsNamed) {
    EXPECT_NE(refusal("").find("FILE"), std::string::npos);
    EXPECT_NE(refusal(",ro").find("FILE"), std::string::npos);
    EXPECT_NE(refusal("f,rw").find("--disk f,rw: rw: the settings are if=virtio|ahci, ro"),
              std::string::npos);
    EXPECT_NE(refusal("f,ro=1").find("ro=1"), std::string::npos);
    EXPECT_NE(refusal("f,queues=17").find("1 to 16"), std::string::npos);
    EXPECT_NE(refusal("f,queues=0").find("1 to 16"), std::string::npos);
    EXPECT_NE(refusal("f,queues=2x").find("1 to 16"), std::string::npos);
    EXPECT_NE(refusal("f,serial=").find("1 to 20 bytes"), std::string::npos);
    EXPECT_NE(refusal("f,serial=123456789012345678901").find("1 to 20 bytes"), std::string::npos);
    EXPECT_NE(refusal("f,cache=writethrough").find("writeback, none, directsync, unsafe"), std::string::npos);
    EXPECT_NE(refusal("f,ro,ro").find("ro: given twice"), std::string::npos);
    EXPECT_NE(refusal("f,").find("an empty setting"), std::string::npos);
    EXPECT_NE(refusal("f,format=vmdk").find("raw, qcow2"), std::string::npos);
}

TEST(DiskOptionTest, ACdIsAFileOrNone) {
    const auto disc = parse_cdrom("a,,b.iso,serial=cd,format=raw");
    ASSERT_TRUE(disc) << disc.error();
    EXPECT_EQ(disc->file.path, "a,b.iso");
    EXPECT_TRUE(disc->file.read_only);
    EXPECT_FALSE(disc->empty);
    EXPECT_EQ(disc->serial, "cd");
    EXPECT_TRUE(parse_cdrom("none")->empty);
    EXPECT_NE(parse_cdrom("").error().find("none for an empty drive"), std::string::npos);
    EXPECT_NE(parse_cdrom("f,ro").error().find("--cdrom f,ro: ro: the settings are serial"),
              std::string::npos);
}

TEST(DiskOptionTest, TheMicrovmHasNoPciForAhci) {
    const auto refused = [](const char* option, const char* value) {
        const std::vector<const char*> words = {"run",     "--kernel", "k",  "--machine",
                                                "microvm", option,     value};
        const Command command = parse_command_line(words);
        const auto* answer = std::get_if<Answer>(&command);
        return answer == nullptr ? "accepted" : answer->text;
    };
    EXPECT_NE(refused("--cdrom", "a.iso").find("--cdrom a.iso: microvm has no PCI"), std::string::npos);
    EXPECT_NE(refused("--disk", "a,if=ahci").find("--disk a,if=ahci: microvm has no PCI"), std::string::npos);
    EXPECT_EQ(refused("--disk", "a"), "accepted");
}

TEST(DiskOptionTest, DisksComeInTheOrderGiven) {
    const std::vector<const char*> words = {"run", "--kernel", "k", "--disk", "a", "--disk", "b,ro", "--rng"};
    const Command command = parse_command_line(words);
    const auto* run = std::get_if<RunOptions>(&command);
    ASSERT_NE(run, nullptr);
    ASSERT_EQ(run->disks.size(), 2U);
    EXPECT_EQ(run->disks[0].file.path, "a");
    EXPECT_TRUE(run->disks[1].file.read_only);
    EXPECT_TRUE(run->rng);
}

}  // namespace
}  // namespace tessera::app
