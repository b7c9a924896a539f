#include "backends/unix_socket/unix_socket.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <optional>
#include <sys/socket.h>
#include <sys/stat.h>

namespace tessera {
namespace {

struct UnixSocketTest : testing::Test {
    UnixSocketTest() {
        std::string name = testing::TempDir() + "tessera-unix-XXXXXX";
        folder = mkdtemp(name.data());
    }
    ~UnixSocketTest() override { std::filesystem::remove_all(folder); }
    UnixSocketTest(const UnixSocketTest&) = delete;
    UnixSocketTest& operator=(const UnixSocketTest&) = delete;
    [[nodiscard]] std::string path() const { return folder + "/socket"; }
    [[nodiscard]] std::string refusal(const std::string& where) const {
        const auto opened = UnixListener::open("--port", where);
        return opened ? "" : opened.error().message;
    }
    std::string folder;
};

TEST_F(UnixSocketTest, SomebodyWhoConnectsIsHeard) {
    auto listener = UnixListener::open("--port", path());
    ASSERT_TRUE(listener) << listener.error().message;
    EXPECT_FALSE(listener->accept().is_open());
    const File client = connect_unix(path());
    ASSERT_TRUE(client.is_open());
    const File server = listener->accept();
    ASSERT_TRUE(server.is_open());
    ASSERT_EQ(send(client.get(), "abc", 3, 0), 3);
    char text[4] = {};
    EXPECT_EQ(recv(server.get(), text, sizeof text, 0), 3);
    EXPECT_STREQ(text, "abc");
}

TEST_F(UnixSocketTest, TheSocketIsItsOwnersAloneAndGoesWithIt) {
    std::optional<UnixListener> moved;
    {
        auto listener = UnixListener::open("--port", path());
        ASSERT_TRUE(listener);
        struct stat info{};
        ASSERT_EQ(stat(path().c_str(), &info), 0);
        EXPECT_EQ(info.st_mode & 0777, 0600U);
        moved = *std::move(listener);
    }
    EXPECT_TRUE(std::filesystem::exists(path()));
    moved.reset();
    EXPECT_FALSE(std::filesystem::exists(path()));
    EXPECT_FALSE(connect_unix(path()).is_open());
}

TEST_F(UnixSocketTest, ALeftOverSocketIsReplacedAndNothingElse) {
    {
        auto listener = UnixListener::open("--port", path());
        ASSERT_TRUE(listener);
        EXPECT_EQ(refusal(path()),
                  "--port: cannot listen at '" + path() + "': another program listens there");
        std::filesystem::rename(path(), folder + "/left");
    }
    ASSERT_TRUE(std::filesystem::exists(folder + "/left"));
    const auto again = UnixListener::open("--port", folder + "/left");
    EXPECT_TRUE(again);
    std::ofstream(path()) << "precious";
    EXPECT_NE(refusal(path()).find("no socket"), std::string::npos);
    EXPECT_EQ(std::filesystem::file_size(path()), 8U);
    EXPECT_NE(refusal(folder + "/none/socket").find("No such file"), std::string::npos);
    EXPECT_NE(refusal(std::string(108, 'x')).find("1 to 107 bytes"), std::string::npos);
    EXPECT_NE(refusal("").find("1 to 107 bytes"), std::string::npos);
}

// Who comes later and takes the name keeps it.
TEST_F(UnixSocketTest, AnotherOnesSocketIsNotRemoved) {
    auto first = UnixListener::open("--port", path());
    ASSERT_TRUE(first);
    std::filesystem::remove(path());
    const auto second = UnixListener::open("--port", path());
    ASSERT_TRUE(second);
    *first = UnixListener();
    EXPECT_TRUE(connect_unix(path()).is_open());
}

}  // namespace
}  // namespace tessera
