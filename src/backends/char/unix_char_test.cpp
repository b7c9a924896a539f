#include "backends/char/unix_char.h"

#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

namespace tessera {
namespace {

using namespace std::chrono_literals;

class SlowGuest final : public CharPeer {
public:
    std::size_t receive(std::span<const u8> bytes) override {
        const std::scoped_lock guard(mutex);
        const std::size_t take = std::min(bytes.size(), room);
        received.append(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(take));
        room -= take;
        changed.notify_all();
        return take;
    }
    void receive_break() override {}
    void transmit_ready() override {
        const std::scoped_lock guard(mutex);
        may_send = true;
        changed.notify_all();
    }
    void attended(bool somebody) override {
        const std::scoped_lock guard(mutex);
        with_somebody = somebody;
        ++visits;
        changed.notify_all();
    }
    template <typename Condition>
    bool wait(Condition condition) {
        std::unique_lock guard(mutex);
        return changed.wait_for(guard, 10s, condition);
    }
    bool wait_for_text(const std::string& text) {
        return wait([&] { return received == text; });
    }
    bool wait_for_visits(unsigned count) {
        return wait([&] { return visits == count; });
    }
    void make_room(std::size_t bytes) {
        const std::scoped_lock guard(mutex);
        room = bytes;
    }
    std::mutex mutex;
    std::condition_variable changed;
    std::string received;
    std::size_t room = 1000;
    bool may_send = false;
    bool with_somebody = true;
    unsigned visits = 0;
};

struct UnixCharTest : testing::Test {
    UnixCharTest() {
        std::string name = testing::TempDir() + "tessera-char-XXXXXX";
        folder = mkdtemp(name.data());
        auto made = UnixChar::create(*loop, "--port", path());
        EXPECT_TRUE(made) << made.error().message;
        cable = *std::move(made);
        cable->connect(&guest);
    }
    ~UnixCharTest() override {
        cable.reset();
        std::filesystem::remove_all(folder);
    }
    UnixCharTest(const UnixCharTest&) = delete;
    UnixCharTest& operator=(const UnixCharTest&) = delete;
    [[nodiscard]] std::string path() const { return folder + "/socket"; }
    std::size_t put(std::string_view text) {
        return cable->put_some({reinterpret_cast<const u8*>(text.data()), text.size()});
    }
    static std::string read(const File& client, std::size_t most) {
        pollfd ready{.fd = client.get(), .events = POLLIN, .revents = 0};
        EXPECT_EQ(poll(&ready, 1, 10'000), 1);
        std::string text(most, 0);
        const ssize_t got = recv(client.get(), text.data(), most, 0);
        text.resize(static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
        return text;
    }
    static void say(const File& client, std::string_view text) {
        EXPECT_EQ(send(client.get(), text.data(), text.size(), MSG_NOSIGNAL),
                  static_cast<ssize_t>(text.size()));
    }

    std::string folder;
    std::unique_ptr<EventLoop> loop = *EventLoop::create("test");
    SlowGuest guest;
    std::unique_ptr<UnixChar> cable;
};

TEST_F(UnixCharTest, AProgramTalksToTheGuest) {
    EXPECT_FALSE(guest.with_somebody);
    const File client = connect_unix(path());
    ASSERT_TRUE(guest.wait_for_visits(2));
    EXPECT_TRUE(guest.with_somebody);
    say(client, "ping");
    EXPECT_TRUE(guest.wait_for_text("ping"));
    EXPECT_EQ(put("pong"), 4U);
    EXPECT_EQ(read(client, 100), "pong");
}

TEST_F(UnixCharTest, WhatNobodyIsThereToReadIsLost) {
    EXPECT_EQ(put(std::string(1'000'000, 'x')), 1'000'000U);
    const File client = connect_unix(path());
    ASSERT_TRUE(guest.wait_for_visits(2));
    EXPECT_EQ(put("fresh"), 5U);
    EXPECT_EQ(read(client, 100), "fresh");
}

// C17: what is kept for either side is bounded.
TEST_F(UnixCharTest, BothSidesWaitForEachOther) {
    const File client = connect_unix(path());
    ASSERT_TRUE(guest.wait_for_visits(2));
    guest.make_room(3);
    say(client, "abcdef");
    EXPECT_TRUE(guest.wait_for_text("abc"));
    guest.make_room(100);
    cable->receive_ready();
    EXPECT_TRUE(guest.wait_for_text("abcdef"));

    const std::string much(100'000, 'x');
    std::size_t sent = 0;
    for (unsigned i = 0; i < 1000; ++i) {
        const std::size_t took = put(much);
        sent += took;
        if (took < much.size() && i > 100) break;
        (void)loop->run([] {});
    }
    EXPECT_LT(sent, 10'000'000U) << "somewhere it has to stop";
    std::size_t came = 0;
    while (came < sent) {
        const std::string some = read(client, 65536);
        ASSERT_FALSE(some.empty());
        came += some.size();
    }
    EXPECT_TRUE(guest.wait([&] { return guest.may_send; }));
}

TEST_F(UnixCharTest, ProgramsComeOneAfterTheOther) {
    File first = connect_unix(path());
    ASSERT_TRUE(guest.wait_for_visits(2));
    const File second = connect_unix(path());
    say(second, "second");
    say(first, "first ");
    EXPECT_TRUE(guest.wait_for_text("first "));
    first = File();
    EXPECT_TRUE(guest.wait_for_text("first second"));
    EXPECT_TRUE(guest.wait_for_visits(4));
}

TEST_F(UnixCharTest, WhatAProgramSaidBeforeItLeftIsHeard) {
    guest.make_room(0);
    {
        const File client = connect_unix(path());
        say(client, std::string(6000, 'y'));
    }
    (void)loop->run([] {});
    guest.make_room(100'000);
    cable->receive_ready();
    EXPECT_TRUE(guest.wait_for_text(std::string(6000, 'y')));
    EXPECT_TRUE(guest.wait([&] { return !guest.with_somebody; }));
}

TEST_F(UnixCharTest, AGuestThatWaitsGoesOnWhenTheProgramLeaves) {
    File client = connect_unix(path());
    ASSERT_TRUE(guest.wait_for_visits(2));
    for (unsigned i = 0; i < 100; ++i) {
        (void)put(std::string(100'000, 'x'));
        (void)loop->run([] {});
    }
    client = File();
    EXPECT_TRUE(guest.wait([&] { return guest.may_send && !guest.with_somebody; }));
}

}  // namespace
}  // namespace tessera
