#include "vm/host_file.h"

#include <cstring>
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>

namespace tessera {
namespace {

std::string temporary(const std::string& name) {
    return testing::TempDir() + "tessera_host_file_" + name;
}

TEST(HostFileTest, ReadsTheWholeFileAgainAndAgain) {
    const std::string path = temporary("whole");
    std::ofstream(path) << "abc";
    const auto file = HostFile::open(path);
    ASSERT_TRUE(file.has_value());
    const auto first = (*file)->read();
    ASSERT_TRUE(first.has_value());
    ASSERT_EQ(first->bytes().size(), 3U);
    EXPECT_EQ(first->bytes()[2], std::byte{'c'});
    // A later change of the file does not reach what was read.
    std::filesystem::resize_file(path, 1);
    EXPECT_EQ(first->bytes()[2], std::byte{'c'});
    EXPECT_EQ((*file)->read()->bytes().size(), 1U);
    std::filesystem::resize_file(path, 0);
    EXPECT_NE((*file)->read().error().message.find("is empty now"), std::string::npos);
    std::filesystem::remove(path);
}

TEST(HostFileTest, ARemovedOrReplacedFileStaysWhatItWas) {
    const std::string path = temporary("replaced");
    std::ofstream(path) << "old";
    const auto file = HostFile::open(path);
    ASSERT_TRUE(file.has_value());
    std::filesystem::remove(path);
    std::ofstream(path) << "new";
    EXPECT_EQ((*file)->read()->bytes()[0], std::byte{'o'});
    std::filesystem::remove(path);
    EXPECT_EQ((*file)->read()->bytes()[0], std::byte{'o'});
}

TEST(HostFileTest, ReadsFilesOfManyPieces) {
    const std::string path = temporary("large");
    std::string text((5 << 20) + 7, ' ');
    for (std::size_t at = 0; at < text.size(); ++at) text[at] = static_cast<char>(at * 2654435761U >> 13);
    std::ofstream(path, std::ios::binary) << text;
    const auto pages = (*HostFile::open(path))->read();
    ASSERT_TRUE(pages.has_value());
    ASSERT_EQ(pages->bytes().size(), text.size());
    EXPECT_EQ(std::memcmp(pages->bytes().data(), text.data(), text.size()), 0);
    std::filesystem::remove(path);
}

TEST(HostFileTest, SaysWhichFileIsMissing) {
    const auto file = HostFile::open(temporary("missing"));
    ASSERT_FALSE(file.has_value());
    EXPECT_EQ(file.error().code, Errc::NotFound);
    EXPECT_NE(file.error().message.find(temporary("missing")), std::string::npos);
}

TEST(HostFileTest, RefusesDirectoriesEmptyFilesAndDevices) {
    const std::string empty = temporary("empty");
    std::ofstream{empty};
    for (const auto& [path, reason] : {std::pair<std::string, std::string>{testing::TempDir(), "directory"},
                                       {empty, "empty"},
                                       {"/dev/null", "not a regular file"}}) {
        const auto file = HostFile::open(path);
        ASSERT_FALSE(file.has_value()) << path;
        EXPECT_NE(file.error().message.find(reason), std::string::npos) << file.error().message;
    }
    std::filesystem::remove(empty);
}

}  // namespace
}  // namespace tessera
