// TAP interfaces in a user and network namespace of our own, where this user may make them. Skipped by name
// where the host permits no such namespaces or has no TAP device.
#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <functional>
#include <gtest/gtest.h>
#include <linux/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <thread>

#include "backends/net/tap/tap_net.h"
#include "backends/net/testing/fake_card.h"
#include "backends/net/usernet/testing/frames.h"

namespace tessera::net {
namespace {

using namespace usernet::testing;  // NOLINT(google-build-using-namespace): packets by hand
using testing::FakeCard;

bool write_text(const char* path, const std::string& text) {
    const File file(::open(path, O_WRONLY | O_CLOEXEC));
    return file.is_open() &&
           ::write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

bool ask(unsigned long what, const std::string& name, const std::function<void(ifreq&)>& fill) {
    const File any(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    ifreq request{};
    name.copy(request.ifr_name, IFNAMSIZ - 1);
    fill(request);
    return ioctl(any.get(), what, &request) == 0;
}

void set_address(sockaddr& to, const char* text) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    EXPECT_EQ(inet_pton(AF_INET, text, &address.sin_addr), 1);
    std::memcpy(&to, &address, sizeof address);
}

// The host's end of the cable becomes 10.0.2.2/24, and answers.
void bring_up(const std::string& name) {
    EXPECT_TRUE(ask(SIOCSIFADDR, name, [](ifreq& r) { set_address(r.ifr_addr, "10.0.2.2"); }));
    EXPECT_TRUE(ask(SIOCSIFNETMASK, name, [](ifreq& r) { set_address(r.ifr_netmask, "255.255.255.0"); }));
    EXPECT_TRUE(ask(SIOCSIFFLAGS, name, [](ifreq& r) { r.ifr_flags = IFF_UP | IFF_RUNNING; }));
}

class TapTest : public ::testing::Test {
protected:
    void SetUp() override {
        // ctest gives each case a process; this one leaves the host's network before it makes threads.
        const uid_t user = geteuid();
        const gid_t group = getegid();
        if (unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0) GTEST_SKIP() << "this host permits no namespaces";
        (void)write_text("/proc/self/setgroups", "deny");
        if (!write_text("/proc/self/uid_map", fmt::format("0 {} 1", user)) ||
            !write_text("/proc/self/gid_map", fmt::format("0 {} 1", group)))
            GTEST_SKIP() << "this host maps no users in namespaces";
        const File device(::open("/dev/net/tun", O_RDWR | O_CLOEXEC));
        if (!device.is_open()) GTEST_SKIP() << "/dev/net/tun: " << std::strerror(errno);
        auto made = EventLoop::create("test");
        ASSERT_TRUE(made.has_value());
        loop = std::move(*made);
    }
    void open(unsigned queues = 1) {
        auto opened = TapNet::open(*loop, "tap7", queues);
        ASSERT_TRUE(opened.has_value()) << opened.error().message;
        tap = std::move(*opened);
        bring_up("tap7");
        card = std::make_unique<FakeCard>(*tap);
    }
    // The next frame that is neither IPv6 nor ARP, of which the host's kernel sends some by itself; ARP is
    // answered.
    Received next() {
        for (;;) {
            const Buffer frame = card->take();
            if (frame.empty()) {
                ADD_FAILURE() << "nothing comes";
                return {};
            }
            const Received r = receive(frame);
            if (r.type == 0x0806 && read16(r.packet, 6) == 1 && cut(r.packet, 24, 4) == kGuest) {
                host_mac = cut(r.packet, 8, 6);
                EXPECT_TRUE(
                    card->send(usernet::testing::frame(0x0806,
                                                       be16(1) + be16(0x0800) + Buffer{6, 4} + be16(2) +
                                                           kGuestMac + kGuest + host_mac + kGateway,
                                                       host_mac)));
            }
            if (r.type == 0x0800) return r;
        }
    }
    Buffer host_mac;
    std::unique_ptr<EventLoop> loop;
    std::unique_ptr<TapNet> tap;
    std::unique_ptr<FakeCard> card;
};

TEST_F(TapTest, FramesReachTheHostAndItsAnswersComeBack) {
    open();
    EXPECT_TRUE(tap->can_take().tso4);
    const File server(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(7);
    ASSERT_EQ(bind(server.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    EXPECT_TRUE(card->send(usernet::testing::frame(
        0x0800, ipv4(kGuest, kGateway, 17, udp(kGuest, kGateway, 9, 7, text("to the host"))),
        Buffer(6, 0xff))));
    // A broadcast frame with a unicast packet in it is dropped by the host; by its address it is taken.
    address.sin_port = htons(9);
    ASSERT_EQ(inet_pton(AF_INET, "10.0.2.15", &address.sin_addr), 1);
    EXPECT_EQ(
        sendto(server.get(), "to the guest", 12, 0, reinterpret_cast<sockaddr*>(&address), sizeof address),
        12);
    const Received got = next();
    EXPECT_EQ(cut(got.message, 8), text("to the guest"));
    EXPECT_TRUE(sum_is_right(got)) << "the guest takes no offloads, so checksums are complete";
    EXPECT_TRUE(card->send(usernet::testing::frame(
        0x0800, ipv4(kGuest, kGateway, 17, udp(kGuest, kGateway, 9, 7, text("to the host"))), host_mac)));
    std::array<char, 64> buffer{};
    EXPECT_EQ(recv(server.get(), buffer.data(), buffer.size(), 0), 11);
}

TEST_F(TapTest, TheHostLeavesChecksumsToAGuestThatTakesThem) {
    open();
    tap->guest_takes({.checksum = true, .tso4 = true});
    const File client(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(80);
    ASSERT_EQ(inet_pton(AF_INET, "10.0.2.15", &address.sin_addr), 1);
    (void)::connect(client.get(), reinterpret_cast<sockaddr*>(&address), sizeof address);
    Received syn = next();
    while (syn.protocol != 6) syn = next();
    EXPECT_EQ(syn.net.flags, NetHeader::kNeedsChecksum);
    EXPECT_EQ(syn.net.checksum_start, 34);
    EXPECT_EQ(syn.net.checksum_offset, 16);
}

TEST_F(TapTest, SeveralQueuesAndFewerOfThem) {
    open(4);
    EXPECT_EQ(tap->max_queues(), 4U);
    tap->use_queues(1);
    tap->use_queues(4);
    tap->use_queues(2);
    EXPECT_EQ(tap->next_size(17), 0U) << "a queue that is not there";
}

TEST_F(TapTest, AnInterfaceInUseIsNamedWithAdvice) {
    open();
    const auto again = TapNet::open(*loop, "tap7", 1);
    ASSERT_FALSE(again.has_value());
    EXPECT_NE(again.error().message.find("--net tap=tap7: "), std::string::npos) << again.error().message;
    EXPECT_NE(again.error().message.find("another program uses it"), std::string::npos)
        << again.error().message;
    const auto other_kind = TapNet::open(*loop, "lo", 1);
    ASSERT_FALSE(other_kind.has_value());
    EXPECT_NE(other_kind.error().message.find("another kind"), std::string::npos)
        << other_kind.error().message;
}

TEST_F(TapTest, HostileHeadersAreTheKernelsToRefuse) {
    open();
    for (const u8 type : {u8{1}, u8{4}, u8{99}, u8{0x80}}) {
        Buffer bad = ip_frame(ipv4(kGuest, kGateway, 17, udp(kGuest, kGateway, 9, 7, text("x"))));
        bad[0] = 0xff;
        bad[1] = type;
        bad[6] = 0xff;
        bad[7] = 0xff;
        EXPECT_TRUE(card->send(bad)) << "taken, and lost";
    }
    EXPECT_TRUE(card->send(Buffer(13)));
}

// Without a namespace, as whoever runs the tests: an error that says what to do, or an interface.
TEST(TapRightsTest, WithoutRightsTheErrorSaysWhatToDo) {
    if (geteuid() == 0) GTEST_SKIP() << "root may do everything";
    auto loop = EventLoop::create("test");
    ASSERT_TRUE(loop.has_value());
    const auto refused = TapNet::open(**loop, "tessera-none", 1);
    ASSERT_FALSE(refused.has_value());
    EXPECT_NE(refused.error().message.find("--net tap=tessera-none: "), std::string::npos);
    EXPECT_NE(refused.error().message.find("; "), std::string::npos);
}

}  // namespace
}  // namespace tessera::net
