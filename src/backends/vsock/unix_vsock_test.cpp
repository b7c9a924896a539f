#include "backends/vsock/unix_vsock.h"

#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <gtest/gtest.h>
#include <optional>
#include <poll.h>
#include <sys/socket.h>
#include <vector>

namespace tessera {
namespace {

using namespace std::chrono_literals;
using Kind = VsockEvent::Kind;
using Then = VsockBackend::Received::Then;

struct UnixVsockTest : testing::Test, VsockPeer {
    UnixVsockTest() {
        std::string name = testing::TempDir() + "tessera-vsock-XXXXXX";
        folder = mkdtemp(name.data());
        auto made = UnixVsock::create(*loop, path());
        EXPECT_TRUE(made) << made.error().message;
        vsock = *std::move(made);
        vsock->connect(this);
    }
    ~UnixVsockTest() override { std::filesystem::remove_all(folder); }
    // Before the peer is being destroyed.
    void TearDown() override {
        if (vsock != nullptr) vsock->connect(nullptr);
        vsock.reset();
    }
    UnixVsockTest(const UnixVsockTest&) = delete;
    UnixVsockTest& operator=(const UnixVsockTest&) = delete;
    void events_waiting() override {
        const std::lock_guard guard(mutex);
        waiting = true;
        changed.notify_all();
    }

    [[nodiscard]] std::string path() const { return folder + "/vsock"; }
    // The next event of this kind; others are passed over.
    std::optional<VsockEvent> next(Kind kind) {
        for (;;) {
            VsockEvent event;
            while (vsock->next_event(event))
                if (event.kind == kind) return event;
            std::unique_lock guard(mutex);
            if (!changed.wait_for(guard, 10s, [this] { return waiting; })) return std::nullopt;
            waiting = false;
        }
    }
    static void say(const File& socket, std::string_view text) {
        EXPECT_EQ(::send(socket.get(), text.data(), text.size(), MSG_NOSIGNAL), std::ssize(text));
    }
    // Up to the end, or so many bytes.
    static std::string hear(const File& socket, std::size_t size) {
        std::string text;
        while (text.size() < size) {
            pollfd state{.fd = socket.get(), .events = POLLIN, .revents = 0};
            if (poll(&state, 1, 10'000) != 1) return text + " (nothing more)";
            std::string some(size - text.size(), 0);
            const ssize_t got = recv(socket.get(), some.data(), some.size(), 0);
            if (got <= 0) break;
            text.append(some, 0, static_cast<std::size_t>(got));
        }
        return text;
    }
    std::size_t send(VsockId id, std::string_view text) {
        const iovec piece{.iov_base = const_cast<char*>(text.data()), .iov_len = text.size()};
        return vsock->send(id, {&piece, 1});
    }
    std::string receive(VsockId id, Then* then = nullptr) {
        std::string text;
        for (;;) {
            std::array<u8, 5> buffer{};
            const auto got = vsock->receive(id, buffer);
            text.append(buffer.begin(), buffer.begin() + static_cast<std::ptrdiff_t>(got.bytes));
            if (then != nullptr) *then = got.then;
            if (got.then != Then::More) return text;
        }
    }
    // A program that is connected to the guest's port 80.
    File connected(VsockId& id) {
        File program = connect_unix(path());
        say(program, "CONNECT 80\n");
        const auto asked = next(Kind::Request);
        EXPECT_TRUE(asked);
        if (!asked) return program;
        EXPECT_EQ(asked->value, 80U);
        id = asked->id;
        vsock->accepted(id, 1'073'741'824);
        EXPECT_EQ(hear(program, 14), "OK 1073741824\n");
        return program;
    }

    std::string folder;
    std::unique_ptr<EventLoop> loop = *EventLoop::create("test");
    std::unique_ptr<UnixVsock> vsock;
    std::mutex mutex;
    std::condition_variable changed;
    bool waiting = false;
};

TEST_F(UnixVsockTest, AProgramReachesAPortOfTheGuest) {
    VsockId id = 0;
    const File program = connected(id);
    EXPECT_EQ(id % 2, 1U);
    say(program, "hello guest");
    ASSERT_TRUE(next(Kind::Readable));
    std::string text = receive(id);
    while (text.size() < 11) {
        ASSERT_TRUE(next(Kind::Readable));
        text += receive(id);
    }
    EXPECT_EQ(text, "hello guest");
    EXPECT_EQ(send(id, "hello host"), 10U);
    EXPECT_EQ(hear(program, 10), "hello host");
}

// It need not wait for the answer.
TEST_F(UnixVsockTest, WhatFollowsTheCommandIsTheGuests) {
    const File program = connect_unix(path());
    say(program, "CONNE");
    say(program, "CT 7\nearly");
    const auto asked = next(Kind::Request);
    ASSERT_TRUE(asked);
    EXPECT_EQ(asked->value, 7U);
    vsock->accepted(asked->id, 5);
    ASSERT_TRUE(next(Kind::Readable));
    EXPECT_EQ(receive(asked->id), "early");
}

TEST_F(UnixVsockTest, ARefusedProgramIsHungUp) {
    const File program = connect_unix(path());
    say(program, "CONNECT 80\n");
    const auto asked = next(Kind::Request);
    ASSERT_TRUE(asked);
    vsock->close(asked->id);
    EXPECT_EQ(hear(program, 1), "");
}

TEST_F(UnixVsockTest, OtherWordsAreHungUp) {
    for (const std::string& words :
         {std::string("GET / HTTP/1.1\r\n"), std::string("CONNECT\n"), std::string("CONNECT \n"),
          std::string("CONNECT -1\n"), std::string("CONNECT 4294967296\n"), std::string("CONNECT 80 \n"),
          std::string("connect 80\n"), std::string("\n"), std::string(32, '0'), std::string(1000, 'x')}) {
        const File program = connect_unix(path());
        say(program, words);
        const std::string answer = hear(program, 1);
        EXPECT_EQ(answer, "") << words;
    }
    VsockEvent event;
    EXPECT_FALSE(vsock->next_event(event));
}

// C16
TEST_F(UnixVsockTest, ProgramsThatSayNothingHaveALimit) {
    std::vector<File> programs;
    for (std::size_t i = 0; i < UnixVsock::kMostUnanswered; ++i) {
        programs.push_back(connect_unix(path()));
        ASSERT_TRUE(programs.back().is_open());
    }
    const File late = connect_unix(path());
    EXPECT_EQ(hear(late, 1), "");
    programs.pop_back();
    // The place is free when the loop has noticed.
    for (unsigned i = 0; i < 1000; ++i) {
        const File again = connect_unix(path());
        if (::send(again.get(), "CONNECT 1\n", 10, MSG_NOSIGNAL) != 10) continue;
        pollfd state{.fd = again.get(), .events = POLLIN, .revents = 0};
        if (poll(&state, 1, 20) == 0) break;
    }
    EXPECT_TRUE(next(Kind::Request));
}

TEST_F(UnixVsockTest, ProgramsThatSayNothingAreHungUpInTheEnd) {
    auto hurried = UnixVsock::create(*loop, path() + ".other", 1ms);
    ASSERT_TRUE(hurried);
    const File silent = connect_unix(path() + ".other");
    EXPECT_EQ(hear(silent, 1), "");
    const File slow = connect_unix(path() + ".other");
    (void)::send(slow.get(), "CONN", 4, MSG_NOSIGNAL);
    EXPECT_EQ(hear(slow, 1), "");
}

TEST_F(UnixVsockTest, TheGuestReachesAProgram) {
    auto listener = UnixListener::open("test", path() + "_1234");
    ASSERT_TRUE(listener);
    vsock->open(2, 1234);
    const auto opened = next(Kind::Opened);
    ASSERT_TRUE(opened);
    EXPECT_EQ(opened->id, 2U);
    const File program = listener->accept();
    ASSERT_TRUE(program.is_open());
    EXPECT_EQ(send(2, "hello"), 5U);
    EXPECT_EQ(hear(program, 5), "hello");
    vsock->open(4, 1235);
    const auto gone = next(Kind::Gone);
    ASSERT_TRUE(gone);
    EXPECT_EQ(gone->id, 4U);
}

TEST_F(UnixVsockTest, WhatTheProgramDoesNotReadWaits) {
    VsockId id = 0;
    const File program = connected(id);
    const std::string much(UnixVsock::kRoom, 'x');
    std::size_t sent = 0;
    std::size_t forwarded = 0;
    while (forwarded == sent) {
        forwarded += send(id, much);
        sent += much.size();
        VsockEvent event;
        while (vsock->next_event(event))
            if (event.kind == Kind::Forwarded) forwarded += event.value;
    }
    vsock->end_of_sending(id);
    EXPECT_EQ(hear(program, sent), std::string(sent, 'x'));
    EXPECT_EQ(hear(program, 1), "") << "the end comes after what waited";
    while (forwarded < sent) {
        const auto event = next(Kind::Forwarded);
        ASSERT_TRUE(event);
        forwarded += event->value;
    }
    EXPECT_EQ(forwarded, sent);
}

TEST_F(UnixVsockTest, AProgramsEndIsToldHalfAndWhole) {
    VsockId id = 0;
    File program = connected(id);
    say(program, "bye");
    ASSERT_EQ(shutdown(program.get(), SHUT_WR), 0);
    std::string text;
    Then then = Then::Later;
    while (then == Then::Later) {
        ASSERT_TRUE(next(Kind::Readable));
        text += receive(id, &then);
    }
    EXPECT_EQ(text, "bye");
    EXPECT_EQ(then, Then::End);
    EXPECT_EQ(send(id, "still"), 5U);
    EXPECT_EQ(hear(program, 5), "still");
    program = File();
    while (then != Then::Closed) {
        ASSERT_TRUE(next(Kind::Readable));
        (void)receive(id, &then);
    }
    EXPECT_EQ(send(id, "nobody"), 0U);
    EXPECT_TRUE(next(Kind::Gone));
}

TEST_F(UnixVsockTest, AGuestThatReceivesNoMoreIsNotWrittenTo) {
    VsockId id = 0;
    const File program = connected(id);
    vsock->end_of_receiving(id);
    EXPECT_LT(::send(program.get(), "x", 1, MSG_NOSIGNAL), 0);
}

TEST_F(UnixVsockTest, AfterTheEndOfAllNothingIsLeft) {
    VsockId id = 0;
    const File program = connected(id);
    const File silent = connect_unix(path());
    vsock->close_all();
    EXPECT_EQ(hear(program, 1), "");
    EXPECT_EQ(send(id, "x"), 0U);
    EXPECT_TRUE(receive(id).empty());
    vsock->close(id);
    VsockId again = 0;
    const File next_program = connected(again);
    EXPECT_NE(again, id);
    vsock->connect(nullptr);
    vsock.reset();
    EXPECT_EQ(hear(next_program, 1), "");
    EXPECT_FALSE(std::filesystem::exists(path()));
}

}  // namespace
}  // namespace tessera
