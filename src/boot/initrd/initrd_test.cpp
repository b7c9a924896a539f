#include "boot/initrd/initrd.h"

#include <cstring>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <string>

namespace tessera::boot {
namespace {

using testing::HasSubstr;

// A cpio entry as [cpio(5)] "New ASCII Format" prints it.
std::string entry(const std::string& name, const std::string& data) {
    std::string out =
        fmt::format("070701{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}", 1,
                    0100644, 0, 0, 1, 0, data.size(), 0, 0, 0, 0, name.size() + 1, 0);
    out += name + '\0';
    out.resize((out.size() + 3) / 4 * 4);
    out += data;
    out.resize((out.size() + 3) / 4 * 4);
    return out;
}
std::string archive() {
    return entry("init", "#!/bin/sh\n") + entry("TRAILER!!!", "");
}

std::string verdict(const std::string& file) {
    const auto status = check_initrd("initrd.img", std::as_bytes(std::span(file)));
    return status ? "accepted" : status.error().message;
}

TEST(InitrdTest, AcceptsArchivesPlainPaddedAndChained) {
    EXPECT_EQ(verdict(archive()), "accepted");
    EXPECT_EQ(verdict(archive() + std::string(512, '\0')), "accepted");
    EXPECT_EQ(verdict(archive() + std::string(512, '\0') + archive()), "accepted");
    EXPECT_EQ(verdict(archive() + "\x1f\x8b rest"), "accepted");  // microcode first
    EXPECT_EQ(verdict(entry("init", "x")), "accepted");           // no trailer: Linux takes it
}

TEST(InitrdTest, AcceptsCompressedArchivesAndFileSystems) {
    for (const char* magic :
         {"\x1f\x8b", "BZh9", "\xfd\x37zXZ", "\x28\xb5\x2f\xfd", "\x02\x21\x4c\x18", "hsqs"})
        EXPECT_EQ(verdict(std::string(magic) + std::string(100, 'x')), "accepted") << magic;
    std::string ext2(4096, '\0');
    ext2[1080] = '\x53';
    ext2[1081] = '\xef';
    EXPECT_EQ(verdict(ext2), "accepted");
}

TEST(InitrdTest, RefusesOtherFiles) {
    EXPECT_THAT(verdict(""), HasSubstr("initrd.img: the initrd file is empty"));
    EXPECT_THAT(verdict("hello"), HasSubstr("initrd.img: not an initrd"));
    EXPECT_THAT(verdict(std::string(4096, '\0')), HasSubstr("not an initrd"));
    EXPECT_THAT(verdict("\x7f\x45LF" + std::string(100, 'x')), HasSubstr("but a kernel"));
    std::string kernel(4096, '\0');
    kernel.replace(0x202, 4, "HdrS");
    EXPECT_THAT(verdict(kernel), HasSubstr("but a kernel"));
}

TEST(InitrdTest, RefusesEntriesThatAreCut) {
    const std::string whole = entry("init", std::string(1000, 'x'));
    for (std::size_t size = 6; size < whole.size(); ++size)
        ASSERT_THAT(verdict(whole.substr(0, size)), HasSubstr("initrd.img: truncated")) << size;
    EXPECT_THAT(verdict(entry("a", "b") + whole.substr(0, 500)),
                HasSubstr("truncated: the cpio entry at 0x74"));
}

TEST(InitrdTest, RefusesDamagedHeaders) {
    std::string file = archive();
    file[54] = 'g';
    EXPECT_THAT(verdict(file), HasSubstr("damaged: no cpio entry at 0x0"));
    file = archive();
    file.replace(94, 8, "FFFFFFFF");
    EXPECT_THAT(verdict(file), HasSubstr("damaged"));
    file = archive();
    file.replace(94, 8, "00000000");
    EXPECT_THAT(verdict(file), HasSubstr("damaged"));
    file = archive();
    file.replace(54, 8, "FFFFFFFF");
    EXPECT_THAT(verdict(file), HasSubstr("truncated"));
}

}  // namespace
}  // namespace tessera::boot
