#include "backends/char/stdio_char.h"

#include <algorithm>
#include <array>
#include <fcntl.h>
#include <future>
#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <unistd.h>

namespace tessera {
namespace {

using namespace std::chrono_literals;

// A guest that takes a few bytes at a time.
class SlowGuest final : public CharPeer {
public:
    std::size_t receive(std::span<const u8> bytes) override {
        const std::scoped_lock guard(mutex);
        const std::size_t take = std::min(bytes.size(), room);
        received.append(reinterpret_cast<const char*>(bytes.data()), take);
        room -= take;
        changed.notify_all();
        return take;
    }
    void receive_break() override {
        const std::scoped_lock guard(mutex);
        received += "<break>";
        changed.notify_all();
    }
    void transmit_ready() override {
        const std::scoped_lock guard(mutex);
        may_send = true;
        changed.notify_all();
    }
    bool wait_for(const std::string& text) {
        std::unique_lock guard(mutex);
        return changed.wait_for(guard, 10s, [&] { return received == text; });
    }
    void make_room(std::size_t bytes) {
        const std::scoped_lock guard(mutex);
        room = bytes;
    }
    std::mutex mutex;
    std::condition_variable changed;
    std::string received;
    std::size_t room = 16;
    bool may_send = false;
};

std::string read_until(int fd, std::string_view end) {
    std::string text;
    while (!text.ends_with(end)) {
        pollfd ready{.fd = fd, .events = POLLIN, .revents = 0};
        std::array<char, 4096> buffer{};
        if (poll(&ready, 1, 10'000) != 1) break;
        const ssize_t got = read(fd, buffer.data(), buffer.size());
        if (got <= 0) break;
        text.append(buffer.data(), static_cast<std::size_t>(got));
    }
    return text;
}

struct StdioCharTest : testing::Test {
    void open(int in_fd, int out_fd) {
        auto made = StdioChar::create(*loop, {.in = in_fd,
                                              .out = out_fd,
                                              .on_quit = [this] { quit.set_value(); },
                                              .on_statistics = [this] { asked.set_value(); }});
        ASSERT_TRUE(made.has_value()) << made.error().message;
        stdio = std::move(*made);
        stdio->connect(&guest);
    }
    void open_pipes() {
        ASSERT_EQ(pipe(to_guest.data()), 0);
        ASSERT_EQ(pipe(from_guest.data()), 0);
        open(to_guest[0], from_guest[1]);
    }
    void open_terminal() {
        ASSERT_EQ(openpty(&master, &slave, nullptr, nullptr, nullptr), 0);
        open(slave, slave);
    }
    void say(std::string_view text) {
        for (const char c : text) EXPECT_TRUE(stdio->put(static_cast<u8>(c)));
    }
    ~StdioCharTest() override {
        if (stdio) stdio->connect(nullptr);
        stdio.reset();
        for (const int fd : {to_guest[0], to_guest[1], from_guest[0], from_guest[1], master, slave})
            if (fd >= 0) (void)close(fd);
    }
    std::unique_ptr<EventLoop> loop = std::move(*EventLoop::create("stdio"));
    SlowGuest guest;
    std::promise<void> quit;
    std::promise<void> asked;  // for statistics
    std::unique_ptr<StdioChar> stdio;
    std::array<int, 2> to_guest{-1, -1};
    std::array<int, 2> from_guest{-1, -1};
    int master = -1;
    int slave = -1;
};

TEST_F(StdioCharTest, PipesCarryEveryByteBothWays) {
    open_pipes();
    ASSERT_EQ(write(to_guest[1], "ls\x01x\n", 5), 5);
    EXPECT_TRUE(guest.wait_for("ls\x01x\n")) << "escape keys are a terminal's";
    say("hello\n");
    EXPECT_EQ(read_until(from_guest[0], "\n"), "hello\n");
}

TEST_F(StdioCharTest, WhatTheGuestHasNoRoomForArrivesLater) {
    open_pipes();
    std::string sent;
    for (int i = 0; i < 100; ++i) sent += static_cast<char>('a' + i % 26);
    ASSERT_EQ(write(to_guest[1], sent.data(), sent.size()), static_cast<ssize_t>(sent.size()));
    for (std::size_t have = 16; have < sent.size(); have = std::min(have + 16, sent.size())) {
        ASSERT_TRUE(guest.wait_for(sent.substr(0, have)));
        guest.make_room(16);
        stdio->receive_ready();
    }
    EXPECT_TRUE(guest.wait_for(sent));
}

TEST_F(StdioCharTest, AFullPipeMakesTheGuestWaitAndLosesNothing) {
    open_pipes();
    std::string sent;
    // Numbers, so that no place in it looks like its end.
    std::string numbers;
    for (int i = 100'000; numbers.size() < 1'000'000; ++i) numbers += std::to_string(i);
    while (sent.size() < 1'000'000) {
        const char c = numbers[sent.size()];
        if (!stdio->put(static_cast<u8>(c))) break;
        sent += c;
    }
    ASSERT_LT(sent.size(), 1'000'000U) << "never refused";
    sent += '\n';
    std::string got = read_until(from_guest[0], std::string_view(sent).substr(sent.size() - 200, 199));
    {
        std::unique_lock guard(guest.mutex);
        EXPECT_TRUE(guest.changed.wait_for(guard, 10s, [&] { return guest.may_send; }));
    }
    say("\n");
    got += read_until(from_guest[0], "\n");
    EXPECT_EQ(got, sent);
}

TEST_F(StdioCharTest, TheEndOfInputEndsOnlyTheInput) {
    open_pipes();
    ASSERT_EQ(write(to_guest[1], "bye", 3), 3);
    (void)close(std::exchange(to_guest[1], -1));
    EXPECT_TRUE(guest.wait_for("bye"));
    say("still here\n");
    EXPECT_EQ(read_until(from_guest[0], "\n"), "still here\n");
}

TEST_F(StdioCharTest, AReaderThatGoesAwayDoesNotStopTheGuest) {
    open_pipes();
    (void)close(std::exchange(from_guest[0], -1));
    for (int i = 0; i < 200'000; ++i)
        while (!stdio->put('x')) std::this_thread::yield();
}

TEST_F(StdioCharTest, RegularFilesWork) {
    std::FILE* in = std::tmpfile();
    std::FILE* out = std::tmpfile();
    ASSERT_EQ(std::fputs("from a file", in), 1);
    std::rewind(in);
    open(fileno(in), fileno(out));
    EXPECT_TRUE(guest.wait_for("from a file"));
    say("to a file");
    stdio->drain(10s);
    std::array<char, 32> text{};
    std::rewind(out);
    EXPECT_STREQ(std::fgets(text.data(), text.size(), out), "to a file");
    stdio->connect(nullptr);
    stdio.reset();
    (void)std::fclose(in);
    (void)std::fclose(out);
}

TEST_F(StdioCharTest, TerminalKeysAreRawAndCtrlAXQuits) {
    open_terminal();
    ASSERT_EQ(write(master, "a\x03\x04\x01\x01\r", 6), 6);
    EXPECT_TRUE(guest.wait_for("a\x03\x04\x01\r")) << "Ctrl-c and Ctrl-d are the guest's";
    ASSERT_EQ(write(master, "\x01x", 2), 2);
    EXPECT_EQ(quit.get_future().wait_for(10s), std::future_status::ready);
}

TEST_F(StdioCharTest, QuittingWorksWhileTheGuestDoesNotRead) {
    open_terminal();
    guest.make_room(0);
    const std::string typed(1000, 'z');
    ASSERT_EQ(write(master, typed.data(), typed.size()), 1000);
    ASSERT_EQ(write(master, "\x01x", 2), 2);
    EXPECT_EQ(quit.get_future().wait_for(10s), std::future_status::ready);
}

TEST_F(StdioCharTest, BreakAndHelp) {
    open_terminal();
    ASSERT_EQ(write(master,
                    "k\x01"
                    "b",
                    3),
              3);
    EXPECT_TRUE(guest.wait_for("k<break>"));
    ASSERT_EQ(write(master, "\x01h", 2), 2);
    const std::string help = read_until(master, "to the guest\r\n");
    EXPECT_NE(help.find("quit"), std::string::npos) << help;
}

TEST_F(StdioCharTest, CtrlASAsksForStatistics) {
    open_terminal();
    ASSERT_EQ(write(master, "\x01s", 2), 2);
    EXPECT_EQ(asked.get_future().wait_for(10s), std::future_status::ready);
}

TEST_F(StdioCharTest, TimeStampsBeginEveryLine) {
    open_terminal();
    ASSERT_EQ(write(master, "\x01t", 2), 2);
    (void)read_until(master, "on]\r\n");
    say("one\r\ntwo\r\n");
    const std::string text = read_until(master, "two\r\n");
    EXPECT_EQ(std::ranges::count(text, '['), 2) << text;
    EXPECT_NE(text.find("] one\r\n["), std::string::npos) << text;
}

}  // namespace
}  // namespace tessera
