// The rings as they should be used, and with a hostile other side.
#include <cstring>
#include <gtest/gtest.h>
#include <memory>
#include <random>
#include <sys/mman.h>
#include <sys/socket.h>
#include <thread>
#include <vector>

#include "backends/net/net_backend.h"
#include "backends/net/ring/link.h"

namespace tessera::net {
namespace {

class FrameRingTest : public ::testing::Test {
protected:
    bool put(const std::vector<u8>& frame) {
        std::array<std::span<u8>, 1> room;
        if (writer.reserve(frame.size(), room) == 0) return false;
        std::memcpy(room[0].data(), frame.data(), frame.size());
        woke = writer.commit(std::array{frame.size()});
        return true;
    }
    std::vector<u8> take() {
        const auto frame = reader.next();
        std::vector<u8> copy(frame.begin(), frame.end());
        woke = reader.pop();
        return copy;
    }
    static std::vector<u8> frame_of(std::size_t size, u8 seed) {
        std::vector<u8> frame(size);
        for (std::size_t i = 0; i < size; ++i) frame[i] = static_cast<u8>(i * 7 + seed);
        return frame;
    }

    RingControl control;
    std::vector<u8> memory = std::vector<u8>(kRingBytes);
    RingWriter writer{control, memory};
    RingReader reader{control, memory};
    bool woke = false;
};

TEST_F(FrameRingTest, FramesOfAllSizesComeOutAsTheyWentIn) {
    std::mt19937 random(1);
    std::vector<std::vector<u8>> inside;
    std::size_t first = 0;
    for (int step = 0; step < 20'000; ++step) {
        auto frame = frame_of(26 + random() % (step % 3 == 0 ? 65'000 : 100), static_cast<u8>(step));
        if (random() % 2 == 0 && put(frame)) inside.push_back(std::move(frame));
        if (random() % 2 == 0) {
            const auto got = take();
            if (first == inside.size()) {
                EXPECT_TRUE(got.empty());
            } else {
                ASSERT_EQ(got, inside[first]);
                inside[first++].clear();
            }
        }
    }
    EXPECT_GT(first, 5000U);
    EXPECT_FALSE(reader.broken() || writer.broken());
}

TEST_F(FrameRingTest, ABatchIsCutToWhatWasUsed) {
    std::array<std::span<u8>, 4> room;
    ASSERT_EQ(writer.reserve(1000, room), 4U);
    for (u8 i = 0; i < 4; ++i) std::memset(room[i].data(), i, 1000);
    (void)writer.commit(std::array<std::size_t, 2>{1000, 100});
    EXPECT_TRUE(put(frame_of(50, 9)));
    EXPECT_EQ(take(), std::vector<u8>(1000, 0));
    EXPECT_EQ(take(), std::vector<u8>(100, 1));
    EXPECT_EQ(take(), frame_of(50, 9));
    EXPECT_TRUE(take().empty());
}

TEST_F(FrameRingTest, AFullRingTakesNothingAndWakesTheWriterWhenHalfEmpty) {
    int count = 0;
    while (put(frame_of(60'000, 1))) ++count;
    EXPECT_GE(count, 30);
    EXPECT_TRUE(writer.want_room(60'000));
    int taken = 0;
    bool told = false;
    while (!told && taken < count) {
        EXPECT_FALSE(take().empty());
        told = woke;
        ++taken;
    }
    EXPECT_TRUE(told);
    EXPECT_LT(taken, count);
    EXPECT_FALSE(writer.want_room(60'000));
    EXPECT_FALSE(writer.drained());
}

TEST_F(FrameRingTest, ASleepingReaderIsWokenOnce) {
    EXPECT_TRUE(reader.sleep());
    EXPECT_TRUE(put(frame_of(60, 1)));
    EXPECT_TRUE(woke);
    EXPECT_TRUE(put(frame_of(60, 2)));
    EXPECT_FALSE(woke);
    EXPECT_FALSE(reader.sleep()) << "there is something";
    take();
    take();
    EXPECT_TRUE(writer.drained());
}

TEST_F(FrameRingTest, TwoThreadsNeverMissAWakeUp) {
    constexpr int kFrames = 200'000;
    std::atomic<u32> reader_bell = 0;
    std::atomic<u32> writer_bell = 0;
    std::thread producer([&] {
        std::mt19937 random(2);
        for (int i = 0; i < kFrames; ++i) {
            const std::size_t size = 26 + random() % 3000;
            std::array<std::span<u8>, 1> room;
            while (writer.reserve(size, room) == 0) {
                const u32 rung = writer_bell.load();
                if (writer.want_room(size)) writer_bell.wait(rung);
            }
            std::memcpy(room[0].data(), &i, sizeof i);
            if (writer.commit(std::array{size})) {
                ++reader_bell;
                reader_bell.notify_one();
            }
        }
    });
    for (int i = 0; i < kFrames;) {
        const u32 rung = reader_bell.load();
        const auto frame = reader.next();
        if (frame.empty()) {
            if (reader.sleep()) reader_bell.wait(rung);
            continue;
        }
        int number = 0;
        std::memcpy(&number, frame.data(), sizeof number);
        EXPECT_EQ(number, i);
        ++i;
        if (reader.pop()) {
            ++writer_bell;
            writer_bell.notify_one();
        }
    }
    producer.join();
}

TEST_F(FrameRingTest, AHostileWriterCannotLeadTheReaderOutside) {
    std::mt19937 random(3);
    for (int round = 0; round < 20'000; ++round) {
        RingControl hostile;
        RingReader victim(hostile, memory);
        hostile.tail =
            random() % 4 == 0 ? static_cast<u32>(random()) : static_cast<u32>(random() % 4096 * 16);
        for (int i = 0; i < 3; ++i) {
            const RingRecord record{
                .length = random() % 3 == 0 ? RingRecord::kSkip : static_cast<u32>(random() % 80'000),
                .stride =
                    random() % 2 == 0 ? static_cast<u32>(random()) : static_cast<u32>(random() % 8192 * 16)};
            const std::size_t at = i == 0 ? 0 : random() % (kRingBytes / 16) * 16;
            std::memcpy(&memory[at], &record, sizeof record);
        }
        for (int i = 0; i < 10; ++i) {
            const auto frame = victim.next();
            if (!frame.empty()) {
                EXPECT_GE(frame.data(), memory.data());
                EXPECT_LE(frame.data() + frame.size(), memory.data() + memory.size());
            }
            (void)victim.pop();
        }
    }
}

TEST_F(FrameRingTest, AHostileReaderCannotLeadTheWriterOutside) {
    for (const u32 head : {16U, 1U, 0x80000000U, 0x7fffffffU}) {
        RingControl hostile;
        RingWriter victim(hostile, memory);
        hostile.head = head;
        std::array<std::span<u8>, 1> room;
        EXPECT_EQ(victim.reserve(100, room), 0U);
        EXPECT_TRUE(victim.broken());
    }
}

// --- Link ---

class LinkTest : public ::testing::Test {
protected:
    LinkTest() {
        std::array<int, 2> pair{};
        EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair.data()), 0);
        a = File(pair[0]);
        b = File(pair[1]);
    }
    File a;
    File b;
};

TEST_F(LinkTest, CarriesFramesBothWays) {
    auto maker = Link::create(a.get());
    ASSERT_TRUE(maker.has_value());
    auto other = Link::adopt(b.get(), File(dup((*maker)->memory())));
    ASSERT_TRUE(other.has_value());
    for (auto [from, to] : {std::pair{maker->get(), other->get()}, std::pair{other->get(), maker->get()}}) {
        std::array<std::span<u8>, 1> room;
        ASSERT_EQ(from->out().reserve(40, room), 1U);
        std::memset(room[0].data(), 'x', 40);
        (void)from->out().commit(std::array<std::size_t, 1>{40});
        const auto got = to->in().next();
        EXPECT_EQ(std::string(got.begin(), got.end()), std::string(40, 'x'));
        (void)to->in().pop();
    }
}

TEST_F(LinkTest, MemoryThatCouldShrinkOrIsTooSmallIsRefused) {
    File small(memfd_create("small", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    EXPECT_FALSE(Link::adopt(b.get(), std::move(small)).has_value());
    File unsealed(memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    ASSERT_EQ(ftruncate(unsealed.get(), 4096 + 2 * kRingBytes), 0);
    EXPECT_FALSE(Link::adopt(b.get(), std::move(unsealed)).has_value());
    EXPECT_FALSE(Link::adopt(b.get(), File(dup(a.get()))).has_value()) << "a socket";
}

TEST_F(LinkTest, MessagesCarryFiles) {
    Message message;
    EXPECT_EQ(receive_message(b.get(), message), Receipt::Nothing);
    EXPECT_TRUE(send_message(a.get(), MessageType::Hello, std::array<u8, 3>{1, 2, 3}, std::array{0, 1}));
    EXPECT_EQ(receive_message(b.get(), message), Receipt::Message);
    EXPECT_EQ(message.type, MessageType::Hello);
    EXPECT_EQ(message.content, (std::vector<u8>{1, 2, 3}));
    EXPECT_EQ(message.files.size(), 2U);
    const u8 unknown = 99;
    EXPECT_EQ(send(a.get(), &unknown, 1, 0), 1);
    EXPECT_EQ(receive_message(b.get(), message), Receipt::Gone);
    a = File();
    EXPECT_EQ(receive_message(b.get(), message), Receipt::Gone);
    EXPECT_FALSE(send_message(b.get(), MessageType::Wake));
}

TEST(NetHeaderTest, OnlyWhatWasAgreedIsSane) {
    const NetOffloads all{
        .checksum = true, .tso4 = true, .tso6 = true, .ecn = true, .ufo = true, .uso = true};
    EXPECT_EQ(unpack_offloads(pack(all)), all);
    EXPECT_EQ(unpack_offloads(pack({.tso6 = true, .uso = true})), (NetOffloads{.tso6 = true, .uso = true}));
    const NetHeader sums{.flags = 1, .checksum_start = 34, .checksum_offset = 16};
    EXPECT_TRUE(header_is_sane({}, 60, {}));
    EXPECT_TRUE(header_is_sane(sums, 60, {.checksum = true}));
    EXPECT_FALSE(header_is_sane(sums, 60, {}));
    EXPECT_FALSE(header_is_sane(sums, 51, all)) << "the checksum lies behind the end";
    NetHeader large = sums;
    large.gso_type = NetHeader::kGsoTcp4;
    EXPECT_FALSE(header_is_sane(large, 60, all)) << "pieces of zero bytes";
    large.gso_size = 1460;
    EXPECT_TRUE(header_is_sane(large, 3000, all));
    EXPECT_FALSE(header_is_sane(large, 3000, {.checksum = true}));
    large.header_length = 3001;
    EXPECT_FALSE(header_is_sane(large, 3000, all));
    for (const int type : {2, 6, 7, 127}) {
        large.header_length = 54;
        large.gso_type = static_cast<u8>(type);
        EXPECT_FALSE(header_is_sane(large, 3000, all)) << type;
    }
    EXPECT_FALSE(header_is_sane({.flags = 4}, 60, all));
}

}  // namespace
}  // namespace tessera::net
