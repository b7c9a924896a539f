// The VM's end of a cable whose other end does what it likes.
#include "backends/net/cable/linked_net.h"

#include <cstring>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <thread>

#include "backends/net/testing/fake_card.h"

namespace tessera::net {
namespace {

using testing::FakeCard;

// The other end, in this process.
class Other {
public:
    explicit Other(File socket) : socket_(std::move(socket)) {}
    // Takes the hello and says that it is ready.
    void greet() {
        Message hello = wait();
        EXPECT_EQ(hello.type, MessageType::Hello);
        ASSERT_FALSE(hello.files.empty());
        memory = File(dup(hello.files[0].get()));
        auto adopted = Link::adopt(socket_.get(), std::move(hello.files[0]));
        ASSERT_TRUE(adopted.has_value());
        link = std::move(*adopted);
        EXPECT_EQ(wait().type, MessageType::Offloads);
        send_message(socket_.get(), MessageType::Ready, std::array<u8, 2>{'o', 'k'});
    }
    Message wait() {
        Message message;
        pollfd ready{.fd = socket_.get(), .events = POLLIN, .revents = 0};
        EXPECT_EQ(poll(&ready, 1, 10'000), 1);
        EXPECT_EQ(receive_message(socket_.get(), message), Receipt::Message);
        return message;
    }
    void put(const NetHeader& header, std::size_t size = 60) const {
        std::array<std::span<u8>, 1> room;
        ASSERT_EQ(link->out().reserve(sizeof header + size, room), 1U);
        std::memset(room[0].data(), 'f', room[0].size());
        std::memcpy(room[0].data(), &header, sizeof header);
        (void)link->out().commit(std::array{sizeof header + size});
        link->wake_peer();
    }
    [[nodiscard]] int socket() const { return socket_.get(); }

    std::unique_ptr<Link> link;
    File memory;

private:
    File socket_;
};

class LinkedNetTest : public ::testing::Test {
protected:
    LinkedNetTest() {
        auto made = EventLoop::create("test");
        EXPECT_TRUE(made.has_value());
        loop = std::move(*made);
    }
    // Each time the net reaches for its other end, there is a new one.
    LinkedNet::Peer peer() {
        LinkedNet::Peer made;
        made.first_pause_ms = 1;
        made.reach = [this]() -> Result<Far> {
            std::array<int, 2> pair{};
            EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair.data()), 0);
            const std::scoped_lock guard(mutex);
            if (greeter.joinable()) greeter.join();
            others.push_back(std::make_unique<Other>(File(pair[1])));
            greeter = std::thread([other = others.back().get()] { other->greet(); });
            return Far{.socket = File(pair[0])};
        };
        return made;
    }
    void open() {
        auto opened = LinkedNet::create(*loop, peer());
        ASSERT_TRUE(opened.has_value()) << opened.error().message;
        net = std::move(*opened);
        card = std::make_unique<FakeCard>(*net);
        EXPECT_EQ(net->report(), "ok");
    }
    // The process is to be started when the card is used; the first `failures` attempts fail.
    void open_unused(unsigned failures = 0) {
        LinkedNet::Peer made = peer();
        made.start = Start::WhenUsed;
        made.reach = [works = made.reach, failures]() mutable -> Result<Far> {
            if (failures == 0) return works();
            --failures;
            return fail(Errc::HostFailure, "no processes left");
        };
        made.on_trouble = [this](std::string_view why) {
            const std::scoped_lock guard(mutex);
            troubles.emplace_back(why);
        };
        auto opened = LinkedNet::create(*loop, std::move(made));
        ASSERT_TRUE(opened.has_value()) << opened.error().message;
        net = std::move(*opened);
        card = std::make_unique<FakeCard>(*net);
    }
    bool started() {
        loop->run([] {});
        const std::scoped_lock guard(mutex);
        return !others.empty();
    }
    Other& other() {
        const std::scoped_lock guard(mutex);
        if (greeter.joinable()) greeter.join();
        return *others.back();
    }
    void TearDown() override {
        card.reset();
        net.reset();
        if (greeter.joinable()) greeter.join();
    }
    // The cable is cut, and there is a new one that works.
    void expect_replaced(unsigned times = 1) {
        EXPECT_TRUE(card->wait_for_link(false, times));
        EXPECT_TRUE(card->wait_for_link(true, times));
        other().put({});
        EXPECT_EQ(card->take().size(), 72U);
    }

    std::mutex mutex;
    std::vector<std::unique_ptr<Other>> others;
    std::vector<std::string> troubles;
    std::thread greeter;
    std::unique_ptr<EventLoop> loop;
    std::unique_ptr<LinkedNet> net;
    std::unique_ptr<FakeCard> card;
};

TEST_F(LinkedNetTest, FramesAreCutToTheRoomThereIs) {
    open();
    other().put({}, 100);
    std::array<u8, 30> room{};
    while (net->next_size(0) == 0) std::this_thread::yield();
    EXPECT_EQ(net->next_size(0), 112U);
    const std::array<iovec, 2> pieces{iovec{.iov_base = room.data(), .iov_len = 10},
                                      iovec{.iov_base = &room[10], .iov_len = 20}};
    EXPECT_EQ(net->receive(0, pieces), 30U);
    EXPECT_EQ(room[11], 0);
    EXPECT_EQ(room[12], 'f');
    EXPECT_EQ(net->next_size(0), 0U);
    EXPECT_EQ(net->receive(0, pieces), 0U);
}

TEST_F(LinkedNetTest, AFullCableTakesNothingUntilThereIsRoom) {
    open();
    const std::vector<u8> frame(60'000, 'g');
    const unsigned before = card->rooms();
    int sent = 0;
    while (card->send(frame)) ++sent;
    EXPECT_GT(sent, 30);
    EXPECT_FALSE(card->send(frame));
    Link& link = *other().link;
    for (int i = 0; i < sent; ++i) {
        EXPECT_EQ(link.in().next().size(), frame.size());
        if (link.in().pop()) link.wake_peer();
    }
    EXPECT_TRUE(card->wait_for_room(before));
    EXPECT_TRUE(card->send(frame));
}

TEST_F(LinkedNetTest, HeadersTheGuestHasNotAgreedToAreNotPassedOn) {
    open();
    NetHeader sums{.flags = NetHeader::kNeedsChecksum};
    sums.checksum_start = 34;
    sums.checksum_offset = 6;
    for (int i = 0; i < 1000; ++i) other().put(sums);
    other().put({}, 61);
    EXPECT_EQ(card->take().size(), 73U) << "the first that it takes";
    net->guest_takes({.checksum = true});
    EXPECT_EQ(other().wait().content, std::vector<u8>{1});
    other().put(sums);
    EXPECT_EQ(card->take().at(0), NetHeader::kNeedsChecksum);
}

TEST_F(LinkedNetTest, HeadersNobodyAgreesToCutTheCable) {
    open();
    NetHeader wild{.flags = NetHeader::kNeedsChecksum};
    wild.checksum_start = 60'000;
    other().put(wild);
    EXPECT_EQ(card->take(std::chrono::milliseconds(0)).size(), 0U);
    expect_replaced();
}

TEST_F(LinkedNetTest, TheHeaderThatWasCheckedIsTheOneTheGuestGets) {
    open();
    other().put({});
    while (net->next_size(0) == 0) std::this_thread::yield();
    // Between the look and the copy the other side writes a header that nobody has agreed to.
    const std::size_t kPage = 4096;
    auto* const bytes = static_cast<u8*>(mmap(nullptr, kPage + 2 * std::size_t{kRingBytes},
                                              PROT_READ | PROT_WRITE, MAP_SHARED, other().memory.get(), 0));
    ASSERT_NE(bytes, MAP_FAILED);
    std::memset(bytes + kPage + kRingBytes + sizeof(RingRecord), 0xff, sizeof(NetHeader));
    const std::vector<u8> frame = card->take();
    ASSERT_EQ(frame.size(), 72U);
    EXPECT_EQ(std::vector<u8>(frame.begin(), frame.begin() + 12), std::vector<u8>(12, 0));
    munmap(bytes, kPage + 2 * std::size_t{kRingBytes});
}

TEST_F(LinkedNetTest, NonsenseInTheRingOrOnTheSocketCutsTheCable) {
    open();
    {
        Other& now = other();
        auto* const tail =
            static_cast<u8*>(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, now.memory.get(), 0));
        ASSERT_NE(tail, MAP_FAILED);
        const u32 wild = 0xfffffff1;
        std::memcpy(tail + 2048, &wild, sizeof wild);  // the second ring's writer
        now.link->wake_peer();
        (void)card->take(std::chrono::milliseconds(0));
        munmap(tail, 4096);
    }
    expect_replaced(1);
    const u8 unknown = 77;
    EXPECT_EQ(::send(other().socket(), &unknown, 1, 0), 1);
    expect_replaced(2);
    send_message(other().socket(), MessageType::Ready);  // once too often
    expect_replaced(3);
}

TEST_F(LinkedNetTest, AFloodOfMessagesDoesNotStopTheLoop) {
    open();
    std::atomic<bool> done = false;
    std::thread flood([&, socket = other().socket()] {
        while (!done) send_message(socket, MessageType::Wake);
    });
    for (int i = 0; i < 100; ++i) {
        EXPECT_TRUE(loop->run([] {}));
        other().put({});
        EXPECT_EQ(card->take().size(), 72U);
    }
    done = true;
    flood.join();
}

TEST_F(LinkedNetTest, WithoutACableFramesAreLostAndNothingWaits) {
    open();
    loop->run([] {});
    {
        const std::scoped_lock guard(mutex);
        if (greeter.joinable()) greeter.join();
        others.clear();  // gone
    }
    EXPECT_TRUE(card->wait_for_link(false, 1));
    EXPECT_TRUE(card->send(std::vector<u8>(100)));
    EXPECT_TRUE(card->wait_for_link(true, 1));
    EXPECT_TRUE(net->link_up());
}

TEST_F(LinkedNetTest, AnUnusedCableIsUpWithNobodyBehindIt) {
    open_unused();
    EXPECT_TRUE(net->link_up());
    net->guest_takes({.checksum = true});
    EXPECT_EQ(net->next_size(0), 0U);
    EXPECT_FALSE(started());
    EXPECT_EQ(net->process(), -1);
}

TEST_F(LinkedNetTest, TheFirstFrameStartsTheProcessAndReachesIt) {
    open_unused();
    net->guest_takes({.checksum = true});
    const unsigned before = card->rooms();
    const std::vector<u8> frame(100, 'x');
    EXPECT_FALSE(card->send(frame)) << "it has to wait";
    EXPECT_TRUE(card->wait_for_room(before));
    EXPECT_TRUE(card->send(frame));
    EXPECT_TRUE(started());
    while (other().link->in().next().empty()) std::this_thread::yield();
    EXPECT_EQ(other().link->in().next().size(), 100U);
    EXPECT_TRUE(net->link_up());
    other().put({});
    EXPECT_EQ(card->take().size(), 72U);
    EXPECT_EQ(card->link_changes(), 0U) << "the guest has seen nothing of it";
    EXPECT_TRUE(troubles.empty());
}

TEST_F(LinkedNetTest, OnceStartedItIsAsIfTheProcessHadBeenThereFromTheStart) {
    open_unused();
    const unsigned before = card->rooms();
    EXPECT_FALSE(card->send(std::vector<u8>(100)));
    EXPECT_TRUE(card->wait_for_room(before));
    other().put({});
    EXPECT_EQ(card->take().size(), 72U);
    {
        const std::scoped_lock guard(mutex);
        if (greeter.joinable()) greeter.join();
        others.clear();
    }
    expect_replaced();
}

TEST_F(LinkedNetTest, AProcessThatDoesNotStartLeavesTheCableUnpluggedUntilItDoes) {
    open_unused(3);
    const unsigned before = card->rooms();
    EXPECT_FALSE(card->send(std::vector<u8>(100)));
    EXPECT_TRUE(card->wait_for_link(false, 1));
    EXPECT_TRUE(card->wait_for_room(before)) << "without a cable there is room for everything";
    EXPECT_TRUE(card->send(std::vector<u8>(100)));
    EXPECT_TRUE(card->wait_for_link(true, 1));
    other().put({});
    EXPECT_EQ(card->take().size(), 72U);
    EXPECT_EQ(troubles, std::vector<std::string>{"no processes left"}) << "told once";
}

TEST_F(LinkedNetTest, AProcessThatEndsBeforeItIsReadyIsTrouble) {
    LinkedNet::Peer dying;
    dying.first_pause_ms = 1;
    dying.start = Start::WhenUsed;
    dying.reach = []() -> Result<Far> {
        std::array<int, 2> pair{};
        EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair.data()), 0);
        const File hello_is_dropped(pair[1]);
        return Far{.socket = File(pair[0])};
    };
    dying.on_trouble = [this](std::string_view why) {
        const std::scoped_lock guard(mutex);
        troubles.emplace_back(why);
    };
    auto opened = LinkedNet::create(*loop, std::move(dying));
    ASSERT_TRUE(opened.has_value());
    net = std::move(*opened);
    card = std::make_unique<FakeCard>(*net);
    EXPECT_FALSE(card->send(std::vector<u8>(100)));
    EXPECT_TRUE(card->wait_for_link(false, 1));
    const std::scoped_lock guard(mutex);
    ASSERT_EQ(troubles.size(), 1U);
    EXPECT_NE(troubles[0].find("helper process"), std::string::npos);
}

TEST_F(LinkedNetTest, FramesThatAreNoneAreTakenAndLost) {
    open();
    EXPECT_TRUE(card->send(std::vector<u8>(12 + 13)));
    EXPECT_TRUE(card->send(std::vector<u8>(12 + kMaxFrame + 1)));
    EXPECT_TRUE(card->send(std::vector<u8>(12 + 14, 'x')));
    while (other().link->in().next().empty()) std::this_thread::yield();
    EXPECT_EQ(other().link->in().next().size(), 26U);
    (void)other().link->in().pop();
    EXPECT_TRUE(other().link->in().next().empty());
}

}  // namespace
}  // namespace tessera::net
