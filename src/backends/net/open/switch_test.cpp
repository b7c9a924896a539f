// A virtual switch: cards without machines that see each other through a process of its own.
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <random>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <thread>

#include "backends/net/open/open_net.h"
#include "backends/net/switch/mac_table.h"
#include "backends/net/switch/offload.h"
#include "backends/net/testing/fake_card.h"
#include "backends/net/usernet/testing/frames.h"

namespace tessera::net {
namespace {

using namespace usernet::testing;  // NOLINT(google-build-using-namespace): packets by hand
using testing::FakeCard;
using usernet::MacAddress;

// --- Learning ---

MacAddress mac_of(u32 number) {
    return {{2, 0, static_cast<u8>(number >> 24), static_cast<u8>(number >> 16), static_cast<u8>(number >> 8),
             static_cast<u8>(number)}};
}

TEST(MacTableTest, LearnsMovesAndForgets) {
    MacTable table;
    table.learn(mac_of(1), 5, 1000);
    EXPECT_EQ(table.find(mac_of(1), 1000), 5U);
    EXPECT_FALSE(table.find(mac_of(2), 1000).has_value());
    table.learn(mac_of(1), 6, 2000);
    EXPECT_EQ(table.find(mac_of(1), 2000), 6U);
    EXPECT_FALSE(table.find(mac_of(1), 2001 + MacTable::kForgetMs).has_value());
    table.forget_member(6);
    EXPECT_EQ(table.size(), 0U);
    table.learn({{1, 0, 0, 0, 0, 1}}, 6, 1);
    EXPECT_EQ(table.size(), 0U) << "a group has no place";
}

TEST(MacTableTest, AMemberThatMakesAddressesUpFillsOnlyItsOwnPlaces) {
    MacTable table;
    table.learn(mac_of(1), 1, 1000);
    for (u32 i = 100; i < 10'000; ++i) table.learn(mac_of(i), 2, 1000);
    EXPECT_EQ(table.size(), 1 + MacTable::kMostOfOne);
    EXPECT_EQ(table.find(mac_of(1), 1000), 1U);
    table.learn(mac_of(20'000), 2, 2000 + MacTable::kForgetMs);
    EXPECT_EQ(table.find(mac_of(20'000), 2000 + MacTable::kForgetMs), 2U) << "old ones make room";
}

// --- What a card would do ---

const Buffer kOther{10, 0, 2, 16};
const Buffer kOtherMac{0x52, 0x54, 0, 0x12, 0x34, 0x57};

// A large segment from the guest with the header that asks for cutting.
Buffer large_segment(std::size_t size, u16 mss, u8 flags = kAck | kPsh) {
    Buffer data(size);
    for (std::size_t i = 0; i < size; ++i) data[i] = static_cast<u8>(i * 13);
    Buffer made = usernet::testing::frame(0x0800,
                                          ipv4(kGuest, kOther, 6,
                                               tcp(kGuest, kOther,
                                                   {.source = 1,
                                                    .target = 2,
                                                    .sequence = 5000,
                                                    .acknowledged = 9,
                                                    .flags = flags,
                                                    .data = data})),
                                          kOtherMac);
    NetHeader net{.flags = NetHeader::kNeedsChecksum, .gso_type = NetHeader::kGsoTcp4, .header_length = 54};
    net.gso_size = mss;
    net.checksum_start = 34;
    net.checksum_offset = 16;
    std::memcpy(made.data(), &net, sizeof net);
    return made;
}

std::vector<Received> completed(const Buffer& whole) {
    NetHeader net;
    std::memcpy(&net, whole.data(), sizeof net);
    Buffer ethernet = cut(whole, sizeof net);
    std::vector<Received> frames;
    complete_frame(net, ethernet, [&](std::span<const u8> frame) {
        frames.push_back(receive(Buffer(sizeof net) + Buffer(frame.begin(), frame.end())));
    });
    return frames;
}

TEST(OffloadTest, LargeSegmentsAreCutWithRightNumbersAndSums) {
    const auto frames = completed(large_segment(4000, 1460, kAck | kPsh | kFin));
    ASSERT_EQ(frames.size(), 3U);
    u32 sequence = 5000;
    Buffer data;
    for (std::size_t i = 0; i < frames.size(); ++i) {
        EXPECT_TRUE(sum_is_right(frames[i]));
        const ReceivedTcp t = as_tcp(frames[i]);
        EXPECT_EQ(t.sequence, sequence);
        EXPECT_EQ(t.flags & (kFin | kPsh), i == 2 ? kFin | kPsh : 0) << "the last one's only";
        EXPECT_EQ(read16(frames[i].packet, 4), 7 + i) << "identifications go on";
        sequence += static_cast<u32>(t.data.size());
        data = data + t.data;
    }
    EXPECT_EQ(data.size(), 4000U);
    EXPECT_EQ(data[3999], static_cast<u8>(3999 * 13));
}

TEST(OffloadTest, ChecksumsAreFilledIn) {
    Buffer whole =
        usernet::testing::frame(0x0800, ipv4(kGuest, kOther, 17, udp(kGuest, kOther, 1, 2, text("odd"))));
    // What a guest leaves there: the sum over the pseudo header.
    patch16(whole, 26 + 26, static_cast<u16>(~checksum_of(pseudo(kGuest, kOther, 17, 11))));
    NetHeader net{.flags = NetHeader::kNeedsChecksum, .checksum_start = 34, .checksum_offset = 6};
    std::memcpy(whole.data(), &net, sizeof net);
    const auto frames = completed(whole);
    ASSERT_EQ(frames.size(), 1U);
    EXPECT_TRUE(sum_is_right(frames[0]));
}

TEST(OffloadTest, HeadersThatLieAreDropped) {
    std::mt19937 random(5);
    const Buffer good = large_segment(3000, 1000);
    for (int round = 0; round < 20'000; ++round) {
        Buffer bad = cut(good, 0, 12 + 14 + random() % (good.size() - 25));
        for (int i = 0; i < 3; ++i)
            bad[random() % std::min<std::size_t>(bad.size(), 80)] ^= static_cast<u8>(random());
        NetHeader net;
        std::memcpy(&net, bad.data(), sizeof net);
        net.flags = 1;
        net.gso_type = random() % 2 == 0 ? NetHeader::kGsoTcp4 : NetHeader::kGsoTcp6;
        net.gso_size = static_cast<u16>(1 + random() % 2000);
        Buffer ethernet = cut(bad, sizeof net);
        std::size_t count = 0;
        complete_frame(net, ethernet, [&](std::span<const u8> frame) {
            ++count;
            EXPECT_LE(frame.size(), ethernet.size());
        });
        EXPECT_LE(count, 128U);
    }
}

// --- The switch itself ---

class SwitchTest : public ::testing::Test {
protected:
    SwitchTest() {
        std::string pattern = (std::filesystem::temp_directory_path() / "tessera-switch-XXXXXX").string();
        directory = mkdtemp(pattern.data());
        options.kind = NetKind::Switch;
        options.name = "lab";
        options.switch_directory = directory;
        options.helper_program = kThisProgram;
        options.restart_pause_ms = 5;
        auto made = EventLoop::create("test");
        EXPECT_TRUE(made.has_value());
        loop = std::move(*made);
    }
    ~SwitchTest() override {
        cards.clear();
        nets.clear();
        std::filesystem::remove_all(directory);
    }
    SwitchTest(const SwitchTest&) = delete;
    SwitchTest& operator=(const SwitchTest&) = delete;

    FakeCard& join() {
        auto opened = open_net(options, *loop);
        EXPECT_TRUE(opened.has_value()) << opened.error().message;
        nets.push_back(std::move(*opened));
        cards.push_back(std::make_unique<FakeCard>(*nets.back()));
        return *cards.back();
    }
    static Buffer plain(const Buffer& from, const Buffer& to, std::string_view payload) {
        return Buffer(sizeof(NetHeader)) + to + from + be16(0x88b5) + text(payload);
    }
    // The process that listens on the switch's socket's other end.
    [[nodiscard]] pid_t server() const {
        const File socket(::socket(AF_UNIX, SOCK_SEQPACKET, 0));
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        (directory + "/switch-lab.sock").copy(address.sun_path, sizeof address.sun_path - 1);
        if (::connect(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) < 0) return -1;
        return 1;
    }

    std::string directory;
    NetOptions options;
    std::unique_ptr<EventLoop> loop;
    std::vector<std::unique_ptr<NetBackend>> nets;
    std::vector<std::unique_ptr<FakeCard>> cards;
    const Buffer a{2, 0, 0, 0, 0, 0xa}, b{2, 0, 0, 0, 0, 0xb}, c{2, 0, 0, 0, 0, 0xc}, all = Buffer(6, 0xff);
};

TEST_F(SwitchTest, MembersSeeEachOtherAndOnlyWhatIsForThem) {
    FakeCard& one = join();
    FakeCard& two = join();
    FakeCard& three = join();
    EXPECT_TRUE(one.send(plain(a, all, "to all")));
    EXPECT_EQ(cut(two.take(), 26), text("to all"));
    EXPECT_EQ(cut(three.take(), 26), text("to all"));
    EXPECT_TRUE(two.send(plain(b, a, "to one")));
    EXPECT_EQ(cut(one.take(), 26), text("to one"));
    EXPECT_TRUE(one.send(plain(a, b, "to two")));
    EXPECT_EQ(cut(two.take(), 26), text("to two"));
    EXPECT_TRUE(one.send(plain(a, c, "nobody knows c")));
    EXPECT_EQ(cut(three.take(), 26), text("nobody knows c")) << "what was for others has not come here";
}

TEST_F(SwitchTest, LargeFramesAreCutForThoseWhoDoNotTakeThem) {
    FakeCard& one = join();
    FakeCard& two = join();
    EXPECT_TRUE(nets[0]->can_take().tso4);
    EXPECT_TRUE(one.send(large_segment(4000, 1460)));
    std::size_t bytes = 0;
    for (int i = 0; i < 3; ++i) {
        const Received r = receive(two.take());
        EXPECT_TRUE(sum_is_right(r));
        EXPECT_EQ(r.net.flags, 0);
        bytes += as_tcp(r).data.size();
    }
    EXPECT_EQ(bytes, 4000U);
    nets[1]->guest_takes({.checksum = true, .tso4 = true});
    // The switch hears of it in order with what is said behind it, by this member only: so it is asked.
    EXPECT_TRUE(two.send(plain(b, a, "now")));
    EXPECT_FALSE(one.take().empty());
    std::size_t frames = 0;
    for (int tries = 0; tries < 50 && frames != 1; ++tries) {
        EXPECT_TRUE(one.send(large_segment(4000, 1460)));
        frames = receive(two.take()).net.gso_type == NetHeader::kGsoTcp4 ? 1 : 0;
        while (frames == 0 && !two.take(std::chrono::milliseconds(20)).empty()) {
        }
    }
    EXPECT_EQ(frames, 1U);
}

TEST_F(SwitchTest, AMemberThatDoesNotReadHarmsNobody) {
    FakeCard& one = join();
    FakeCard& two = join();
    join();  // never reads
    for (int i = 0; i < 300; ++i) {
        Buffer large = plain(a, all, std::string(60'000, 'x'));
        while (!one.send(large)) (void)two.take(std::chrono::milliseconds(10));
        (void)two.take(std::chrono::milliseconds(0));
    }
    while (!two.take(std::chrono::milliseconds(50)).empty()) {
    }
    EXPECT_TRUE(one.send(plain(a, all, "still there")));
    EXPECT_EQ(cut(two.take(), 26), text("still there"));
}

TEST_F(SwitchTest, TheSwitchOutlivesTheMemberThatStartedIt) {
    join();
    FakeCard& two = join();
    FakeCard& three = join();
    cards[0].reset();
    nets[0].reset();
    EXPECT_TRUE(two.send(plain(b, all, "without one")));
    EXPECT_EQ(cut(three.take(), 26), text("without one"));
    EXPECT_TRUE(nets[1]->link_up());
}

TEST_F(SwitchTest, ItEndsWithItsLastMemberAndIsStartedAgain) {
    for (int round = 0; round < 3; ++round) {
        FakeCard& one = join();
        FakeCard& two = join();
        EXPECT_TRUE(one.send(plain(a, all, "hello")));
        EXPECT_EQ(cut(two.take(), 26), text("hello"));
        cards.clear();
        nets.clear();
        if (round == 1) continue;  // at once
        for (int i = 0; i < 100 && server() != -1; ++i) {
            // Each look is a visitor, so the switch is given time to be lonely.
            std::this_thread::sleep_for(std::chrono::seconds(1));
        }
        EXPECT_EQ(server(), -1);
    }
}

TEST_F(SwitchTest, WhenTheSwitchIsKilledItsMembersMeetAgainOnANewOne) {
    const File listener(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    (directory + "/switch-lab.sock").copy(address.sun_path, sizeof address.sun_path - 1);
    ASSERT_EQ(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    ASSERT_EQ(::listen(listener.get(), 8), 0);
    const auto first = spawn_with(kThisProgram, "switch-to-be-killed", listener.get());
    ASSERT_TRUE(first.has_value());
    FakeCard& one = join();
    FakeCard& two = join();
    EXPECT_TRUE(one.send(plain(a, all, "before")));
    EXPECT_EQ(cut(two.take(), 26), text("before"));
    ASSERT_EQ(::shutdown(listener.get(), SHUT_RDWR), 0);  // our copy must not keep it alive
    end_process(*first);
    EXPECT_TRUE(one.wait_for_link(false, 1));
    EXPECT_TRUE(two.wait_for_link(false, 1));
    EXPECT_TRUE(one.wait_for_link(true, 1));
    EXPECT_TRUE(two.wait_for_link(true, 1));
    EXPECT_TRUE(one.send(plain(a, all, "after")));
    EXPECT_EQ(cut(two.take(), 26), text("after"));
}

TEST_F(SwitchTest, StrangersInItsDirectoryAreRefused) {
    EXPECT_EQ(chmod(directory.c_str(), 0777), 0);
    const auto open_to_all = open_net(options, *loop);
    ASSERT_FALSE(open_to_all.has_value());
    EXPECT_NE(open_to_all.error().message.find("is not this user's alone"), std::string::npos);
    EXPECT_EQ(chmod(directory.c_str(), 0700), 0);
    options.helper_program = "/bin/false";
    const auto no_switch = open_net(options, *loop);
    ASSERT_FALSE(no_switch.has_value());
    EXPECT_NE(no_switch.error().message.find("--net switch=lab: "), std::string::npos);
}

}  // namespace
}  // namespace tessera::net
