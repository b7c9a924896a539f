#include "vm/host_file.h"

#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>

namespace tessera {
namespace {

std::string temporary(const std::string& name) {
    return testing::TempDir() + "tessera_host_file_" + name;
}

TEST(HostFileTest, HoldsTheWholeFile) {
    const std::string path = temporary("whole");
    std::ofstream(path) << "abc";
    const auto file = HostFile::open(path);
    ASSERT_TRUE(file.has_value());
    ASSERT_EQ((*file)->bytes().size(), 3U);
    EXPECT_EQ((*file)->bytes()[2], std::byte{'c'});
    // A later change of the file does not reach us.
    std::filesystem::resize_file(path, 0);
    EXPECT_EQ((*file)->bytes()[0], std::byte{'a'});
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
