// The user-mode network from end to end: a card without a machine, the confined helper process, and servers
// on this host's loopback.
#include <csignal>
#include <fstream>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <random>
#include <sys/socket.h>
#include <sys/wait.h>
#include <thread>

#include "backends/net/open/open_net.h"
#include "backends/net/open/open_user_net.h"
#include "backends/net/testing/fake_card.h"
#include "backends/net/usernet/testing/guest_tcp.h"

namespace tessera::net {
namespace {

using namespace usernet::testing;  // NOLINT(google-build-using-namespace): packets by hand
using testing::FakeCard;

// A socket of this host on 127.0.0.1, at a port the kernel chooses.
class Loopback {
public:
    explicit Loopback(int type) : file(::socket(AF_INET, type | SOCK_CLOEXEC, 0)) {
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        EXPECT_EQ(bind(file.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
        socklen_t size = sizeof address;
        EXPECT_EQ(getsockname(file.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
        port = ntohs(address.sin_port);
        if (type == SOCK_STREAM) {
            EXPECT_EQ(listen(file.get(), 10), 0);
        }
    }
    [[nodiscard]] File accept() const { return File(::accept4(file.get(), nullptr, nullptr, SOCK_CLOEXEC)); }

    File file;
    u16 port = 0;
};

File connect_to(u16 port) {
    File file(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(file.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    return file;
}

u16 free_port() {
    return Loopback(SOCK_STREAM).port;
}

std::string read_all(const File& file) {
    std::string text;
    std::array<char, 65536> part{};
    for (;;) {
        const ssize_t got = ::read(file.get(), part.data(), part.size());
        if (got <= 0) return text;
        text.append(part.data(), static_cast<std::size_t>(got));
    }
}

void write_all(const File& file, std::string_view text) {
    while (!text.empty()) {
        const ssize_t done = ::send(file.get(), text.data(), text.size(), MSG_NOSIGNAL);
        if (done <= 0) return;
        text.remove_prefix(static_cast<std::size_t>(done));
    }
}

std::string random_text(std::size_t size, unsigned seed) {
    std::mt19937 random(seed);
    std::string text(size, 0);
    for (char& c : text) c = static_cast<char>(random());
    return text;
}

class UserNetTest : public ::testing::Test {
protected:
    UserNetTest() {
        auto made = EventLoop::create("test");
        EXPECT_TRUE(made.has_value());
        loop = std::move(*made);
        options.host_loopback = true;
        options.helper_program = kThisProgram;
        options.ipv6 = Choice::Off;
    }
    void open() {
        auto opened = open_user_net(options, *loop);
        ASSERT_TRUE(opened.has_value()) << opened.error().message;
        net = std::move(*opened);
        card = std::make_unique<FakeCard>(*net);
        // Announces itself, so that forwards find it.
        EXPECT_TRUE(card->send(arp(1, kGuest, kGateway)));
        EXPECT_EQ(receive(card->take()).type, 0x0806U);
    }
    std::unique_ptr<GuestTcp> guest_tcp(u32 port, u32 own_port = 40000) {
        return std::make_unique<GuestTcp>([this](const Buffer& frame) { EXPECT_TRUE(card->send(frame)); },
                                          kGateway, port, own_port);
    }
    // Frames go to the guest until `done`; false if nothing comes for too long.
    bool run(GuestTcp& guest, const std::function<bool()>& done) {
        while (!done()) {
            const Buffer frame = card->take();
            if (frame.empty()) return false;
            (void)guest.take(frame);
            guest.push(1400);
        }
        return true;
    }

    NetOptions options;
    std::unique_ptr<EventLoop> loop;
    std::unique_ptr<LinkedNet> net;
    std::unique_ptr<FakeCard> card;
};

TEST_F(UserNetTest, BothStreamsOfATcpConnectionArriveWhole) {
    open();
    const Loopback server(SOCK_STREAM);
    const std::string upload = random_text(3'000'000, 1);
    const std::string download = random_text(3'000'000, 2);
    std::string uploaded;
    std::thread peer([&] {
        const File connection = server.accept();
        std::thread writer([&] {
            write_all(connection, download);
            (void)::shutdown(connection.get(), SHUT_WR);
        });
        uploaded = read_all(connection);
        writer.join();
    });
    const auto guest = guest_tcp(server.port);
    guest->scale = 4;
    guest->window = 300'000;
    guest->connect();
    guest->send(upload);
    guest->close();
    EXPECT_TRUE(run(*guest, [&] { return guest->remote_finished && guest->fin_acknowledged(); }));
    peer.join();
    EXPECT_TRUE(uploaded == upload);
    EXPECT_TRUE(guest->received == download);
}

TEST_F(UserNetTest, LargeFramesCarryAStreamToo) {
    open();
    net->guest_takes({.checksum = true, .tso4 = true});
    const Loopback server(SOCK_STREAM);
    const std::string download = random_text(5'000'000, 3);
    std::thread peer([&] { write_all(server.accept(), download); });
    const auto guest = guest_tcp(server.port);
    guest->scale = 7;
    guest->window = 1'000'000;
    guest->connect();
    EXPECT_TRUE(run(*guest, [&] { return guest->remote_finished; }));
    peer.join();
    EXPECT_TRUE(guest->received == download);
}

TEST_F(UserNetTest, APortWithoutAServerIsRefused) {
    open();
    const auto guest = guest_tcp(free_port());
    guest->connect();
    EXPECT_TRUE(run(*guest, [&] { return guest->was_reset; }));
}

TEST_F(UserNetTest, ASlowServerStopsTheGuestWithoutLosingAnything) {
    open();
    const Loopback server(SOCK_STREAM);
    const auto guest = guest_tcp(server.port);
    guest->connect();
    const std::string upload = random_text(12'000'000, 4);
    guest->send(upload);
    guest->close();
    // Until the window is closed, or nothing more is said.
    for (;;) {
        const Buffer frame = card->take(std::chrono::milliseconds(500));
        if (frame.empty()) break;
        (void)guest->take(frame);
        guest->push(1400);
    }
    EXPECT_FALSE(guest->all_acknowledged()) << "it cannot all be somewhere between";
    std::string uploaded;
    std::thread peer([&] { uploaded = read_all(server.accept()); });
    EXPECT_TRUE(run(*guest, [&] { return guest->fin_acknowledged(); }));
    peer.join();
    EXPECT_TRUE(uploaded == upload);
}

TEST_F(UserNetTest, ForwardedConnectionsReachTheGuest) {
    const u16 port = free_port();
    options.forwards = {{.host = {.address = usernet::IpAddress::v4(0x7f000001), .port = port},
                         .guest_port = 22,
                         .typed = "x:22"}};
    open();
    const File client = connect_to(port);
    // The guest's server, by hand.
    Received r = receive(card->take());
    while (r.protocol != 6) r = receive(card->take());
    const ReceivedTcp syn = as_tcp(r);
    EXPECT_EQ(r.from, kGateway);
    EXPECT_EQ(syn.target, 22U);
    const auto reply = [&](u32 sequence, u32 acknowledged, u8 flags, std::string_view data) {
        EXPECT_TRUE(card->send(ip_frame(ipv4(kGuest, kGateway, 6,
                                             tcp(kGuest, kGateway,
                                                 {.source = 22,
                                                  .target = syn.source,
                                                  .sequence = sequence,
                                                  .acknowledged = acknowledged,
                                                  .flags = flags,
                                                  .data = text(data)})))));
    };
    reply(100, syn.sequence + 1, kSyn | kAck, "");
    reply(101, syn.sequence + 1, kAck, "SSH-2.0");
    std::array<char, 7> banner{};
    EXPECT_EQ(::recv(client.get(), banner.data(), banner.size(), MSG_WAITALL), 7);
    EXPECT_EQ(std::string(banner.begin(), banner.end()), "SSH-2.0");
    write_all(client, "hello");
    std::string got;
    while (got.size() < 5) {
        const Buffer frame = card->take();
        ASSERT_FALSE(frame.empty());
        const ReceivedTcp t = as_tcp(receive(frame));
        got.append(t.data.begin(), t.data.end());
    }
    EXPECT_EQ(got, "hello");
}

TEST_F(UserNetTest, UdpGoesOutAndComesBackAndForwardsWork) {
    const u16 port = [] { return Loopback(SOCK_DGRAM).port; }();
    options.forwards = {{.transport = usernet::Transport::Udp,
                         .host = {.address = usernet::IpAddress::v4(0x7f000001), .port = port},
                         .guest_port = 69,
                         .typed = "x"}};
    open();
    const Loopback server(SOCK_DGRAM);
    EXPECT_TRUE(card->send(
        ip_frame(ipv4(kGuest, kGateway, 17, udp(kGuest, kGateway, 7, server.port, text("ping"))))));
    std::array<char, 100> buffer{};
    sockaddr_in from{};
    socklen_t size = sizeof from;
    ASSERT_EQ(recvfrom(server.file.get(), buffer.data(), buffer.size(), 0, reinterpret_cast<sockaddr*>(&from),
                       &size),
              4);
    EXPECT_EQ(sendto(server.file.get(), "pong", 4, 0, reinterpret_cast<sockaddr*>(&from), size), 4);
    const Received answer = receive(card->take());
    EXPECT_EQ(cut(answer.message, 8), text("pong"));
    EXPECT_EQ(read16(answer.message, 0), server.port);

    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(sendto(server.file.get(), "in", 2, 0, reinterpret_cast<sockaddr*>(&to), sizeof to), 2);
    const Received in = receive(card->take());
    EXPECT_EQ(read16(in.message, 2), 69U);
    EXPECT_EQ(cut(in.message, 8), text("in"));
    EXPECT_TRUE(card->send(
        ip_frame(ipv4(kGuest, kGateway, 17, udp(kGuest, kGateway, 69, read16(in.message, 0), text("out"))))));
    ASSERT_EQ(recv(server.file.get(), buffer.data(), buffer.size(), 0), 3);

    // Nobody listens at the next port: the guest is told.
    const u16 closed = Loopback(SOCK_DGRAM).port;
    EXPECT_TRUE(
        card->send(ip_frame(ipv4(kGuest, kGateway, 17, udp(kGuest, kGateway, 7, closed, text("x"))))));
    const Received error = receive(card->take());
    EXPECT_EQ(error.protocol, 1);
    EXPECT_EQ(error.message[1], 3);
}

TEST_F(UserNetTest, APortInUseIsNamedWithAdvice) {
    const Loopback occupied(SOCK_STREAM);
    options.forwards = {{.host = {.address = usernet::IpAddress::v4(0x7f000001), .port = occupied.port},
                         .guest_port = 22,
                         .typed = "2222:22"}};
    const auto failed = open_user_net(options, *loop);
    ASSERT_FALSE(failed.has_value());
    EXPECT_NE(failed.error().message.find("-p 2222:22: cannot listen on 127.0.0.1:"), std::string::npos)
        << failed.error().message;
    EXPECT_NE(failed.error().message.find("choose another port"), std::string::npos);
}

TEST_F(UserNetTest, AProgramThatIsNoHelperIsAnError) {
    options.helper_program = "/bin/true";
    EXPECT_FALSE(open_user_net(options, *loop).has_value());
    options.helper_program = "";
    EXPECT_FALSE(open_user_net(options, *loop).has_value());
    options.helper_program = "/nonexistent";
    EXPECT_FALSE(open_user_net(options, *loop).has_value());
}

TEST_F(UserNetTest, TheHelperDiesFiftyTimesAndTheNetworkComesBack) {
    options.restart_pause_ms = 1;
    open();
    for (unsigned round = 1; round <= 50; ++round) {
        const pid_t victim = net->process();
        ASSERT_GT(victim, 0);
        EXPECT_EQ(kill(victim, SIGKILL), 0);
        ASSERT_TRUE(card->wait_for_link(false, round));
        EXPECT_TRUE(card->send(arp(1, kGuest, kGateway))) << "without a cable frames are lost, not stuck";
        ASSERT_TRUE(card->wait_for_link(true, round));
        while (card->take(std::chrono::milliseconds(0)).size() != 0) {
        }
        EXPECT_TRUE(card->send(arp(1, kGuest, kGateway)));
        EXPECT_EQ(receive(card->take()).type, 0x0806U) << round;
    }
}

TEST_F(UserNetTest, TheHelperEndsWithUs) {
    open();
    const pid_t helper = net->process();
    card.reset();
    net.reset();
    EXPECT_EQ(kill(helper, 0), -1);
    EXPECT_EQ(errno, ESRCH);
}

// Whether a process runs; one that only waits to be reaped does not.
bool runs(pid_t process) {
    std::ifstream stat("/proc/" + std::to_string(process) + "/stat");
    std::string number;
    std::string name;
    std::string state;
    return static_cast<bool>(stat >> number >> name >> state) && state != "Z" && state != "X";
}

TEST_F(UserNetTest, TheHelperEndsWhenTheVmIsKilled) {
    std::array<int, 2> pipe{};
    ASSERT_EQ(::pipe(pipe.data()), 0);
    const pid_t vm = fork();
    if (vm == 0) {
        dup2(pipe[1], STDOUT_FILENO);
        execl("/proc/self/exe", "test", "vm", nullptr);
        _exit(1);
    }
    close(pipe[1]);
    const File output(pipe[0]);
    pid_t helper = 0;
    ASSERT_EQ(::read(output.get(), &helper, sizeof helper), static_cast<ssize_t>(sizeof helper));
    EXPECT_TRUE(runs(helper));
    kill(vm, SIGKILL);
    waitpid(vm, nullptr, 0);
    for (int i = 0; i < 1000 && runs(helper); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    EXPECT_FALSE(runs(helper));
}

TEST_F(UserNetTest, Ipv6ReachesServersOfTheHost) {
    options.ipv6 = Choice::On;
    open();
    const File server(::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in6 address{};
    address.sin6_family = AF_INET6;
    address.sin6_addr = in6addr_loopback;
    if (bind(server.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) < 0)
        GTEST_SKIP() << "this host has no IPv6";
    socklen_t size = sizeof address;
    getsockname(server.get(), reinterpret_cast<sockaddr*>(&address), &size);
    ASSERT_EQ(listen(server.get(), 1), 0);
    const std::string download = random_text(300'000, 6);
    std::thread peer([&] { write_all(File(accept(server.get(), nullptr, nullptr)), download); });
    const Buffer gateway6 = Buffer{0xfd, 0x54, 0x65, 0x73, 0x73, 0x65, 0x72, 0x61} + Buffer(7) + Buffer{2};
    GuestTcp guest([this](const Buffer& frame) { EXPECT_TRUE(card->send(frame)); }, gateway6,
                   ntohs(address.sin6_port), 40000);
    guest.connect();
    EXPECT_TRUE(run(guest, [&] { return guest.remote_finished; }));
    peer.join();
    EXPECT_TRUE(guest.received == download);
}

TEST_F(UserNetTest, ReportsItsConfinement) {
    open();
    const std::string report = net->report();
    for (const char* layer :
         {"namespaces:", "capabilities: none", "no new privileges: set", "system calls: allow-list"})
        EXPECT_NE(report.find(layer), std::string::npos) << report;
    const auto doctor = helper_report(kThisProgram);
    ASSERT_TRUE(doctor.has_value());
    EXPECT_EQ(*doctor, report);
}

// --- Started when used ---

TEST_F(UserNetTest, StartedWhenUsedItAnswersTheFirstFrame) {
    options.start = Start::WhenUsed;
    auto opened = open_user_net(options, *loop);
    ASSERT_TRUE(opened.has_value()) << opened.error().message;
    net = std::move(*opened);
    card = std::make_unique<FakeCard>(*net);
    EXPECT_TRUE(net->link_up());
    EXPECT_EQ(net->process(), -1);
    const unsigned before = card->rooms();
    const Buffer question = arp(1, kGuest, kGateway);
    EXPECT_FALSE(card->send(question));
    EXPECT_TRUE(card->wait_for_room(before));
    EXPECT_TRUE(card->send(question));
    EXPECT_EQ(receive(card->take()).type, 0x0806U);
    EXPECT_NE(net->process(), -1);
    EXPECT_NE(net->report().find("system calls: allow-list"), std::string::npos) << "it is confined";
    EXPECT_EQ(card->link_changes(), 0U);
}

TEST_F(UserNetTest, PortsAnswerFromTheStart) {
    options.start = Start::WhenUsed;
    PortForward forward;
    forward.host.port = free_port();
    forward.guest_port = 80;
    options.forwards.push_back(forward);
    auto opened = open_user_net(options, *loop);
    ASSERT_TRUE(opened.has_value()) << opened.error().message;
    EXPECT_NE((*opened)->process(), -1);
}

TEST_F(UserNetTest, StartedWhenUsedAProgramThatIsNotThereUnplugsTheCable) {
    std::vector<std::string> troubles;
    std::mutex mutex;
    options.start = Start::WhenUsed;
    options.restart_pause_ms = 1;
    options.helper_program = "/nowhere/tessera";
    options.on_trouble = [&](std::string_view why) {
        const std::scoped_lock guard(mutex);
        troubles.emplace_back(why);
    };
    auto opened = open_user_net(options, *loop);
    ASSERT_TRUE(opened.has_value()) << opened.error().message;
    net = std::move(*opened);
    card = std::make_unique<FakeCard>(*net);
    EXPECT_FALSE(card->send(arp(1, kGuest, kGateway)));
    EXPECT_TRUE(card->wait_for_link(false, 1));
    EXPECT_TRUE(card->send(arp(1, kGuest, kGateway)));
    card.reset();
    net.reset();
    ASSERT_EQ(troubles.size(), 1U);
    EXPECT_NE(troubles[0].find("/nowhere/tessera"), std::string::npos);
}

// --- Configuration ---

TEST(UserNetConfigTest, ReadsResolvConf) {
    const auto found = resolvers_of(
        "# nameserver 1.1.1.1\nnameserver 192.0.2.1\nsearch example\n"
        "nameserver\t2001:db8::1  # two\nnameserver fe80::1%eth0\nnameserverx 1.2.3.4\n"
        "nameserver\nnameserver 198.51.100.7");
    ASSERT_EQ(found.size(), 3U);
    EXPECT_EQ(found[0].address.text(), "192.0.2.1");
    EXPECT_EQ(found[1].address, usernet::IpAddress::parse("2001:db8::1"));
    EXPECT_EQ(found[2].address.text(), "198.51.100.7");
    EXPECT_EQ(found[2].port, 53);
    EXPECT_TRUE(resolvers_of("").empty());
}

TEST(UserNetConfigTest, AnotherNetworkKeepsThePlaces) {
    NetOptions options;
    options.network = usernet::IpAddress::parse("192.168.76.0");
    const auto config = user_net_config(options);
    ASSERT_TRUE(config.has_value());
    EXPECT_EQ(config->gateway.text(), "192.168.76.2");
    EXPECT_EQ(config->first_guest.text(), "192.168.76.15");
    options.network = usernet::IpAddress::parse("192.168.76.1");
    EXPECT_FALSE(user_net_config(options).has_value());
    options.network = usernet::IpAddress::parse("192.168.76.0");
    options.prefix_bits = 30;
    EXPECT_FALSE(user_net_config(options).has_value());
}

}  // namespace
}  // namespace tessera::net
