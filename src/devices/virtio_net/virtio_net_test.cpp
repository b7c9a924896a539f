#include "devices/virtio_net/virtio_net.h"

#include <gtest/gtest.h>

#include "devices/virtio/testing/hostile_driver_suite.h"
#include "devices/virtio_net/virtio_net_rig.h"

namespace tessera::virtio_net {
namespace {

using virtio::Segment;
using Bytes = FakeCable::Bytes;

constexpr u64 kAt = 0x10'0000;
constexpr u16 kRx = 0;
constexpr u16 kTx = 1;
constexpr u64 bit(unsigned n) {
    return u64{1} << n;
}

template <typename B>
struct VirtioNetTest : testing::Test {
    void start(u64 without = 0) {
        ASSERT_TRUE(bench.start(without));
        control_queue = (bench.negotiated & bit(22)) != 0 ? 4 : 2;
    }
    FakeCable& cable() { return bench.kit.cable; }
    virtio::GuestQueue& queue(u16 index) { return *bench.queues[index]; }
    void kick(u16 index) {
        bench.port.notify(index);
        ASSERT_TRUE(bench.run());
    }
    std::optional<u16> add(u16 index, const std::vector<Segment>& pieces) { return queue(index).add(pieces); }
    // Sends a frame behind this header, in one piece.
    void send(const NetHeader& header, const Bytes& frame) {
        std::memcpy(bench.ram.at(kAt), &header, sizeof header);
        std::memcpy(bench.ram.at(kAt + 12), frame.data(), frame.size());
        ASSERT_TRUE(add(kTx, {{kAt, static_cast<u32>(12 + frame.size()), false}}));
        kick(kTx);
        const auto used = queue(kTx).take();
        ASSERT_TRUE(used);
        EXPECT_EQ(used->length, 0U);
    }
    void arrive(const Bytes& frame, const NetHeader& header = {}) {
        cable().arrive(frame, 0, header);
        ASSERT_TRUE(bench.run());
    }
    Bytes memory(u64 address, std::size_t size) {
        Bytes bytes(size);
        std::memcpy(bytes.data(), bench.ram.at(address), size);
        return bytes;
    }
    NetHeader header_at(u64 address) {
        NetHeader header;
        std::memcpy(&header, bench.ram.at(address), sizeof header);
        return header;
    }
    // Class, command, data; the answer.
    u8 command(const Bytes& bytes) {
        std::memcpy(bench.ram.at(kAt), bytes.data(), bytes.size());
        *bench.ram.at(kAt + 0x1000) = std::byte{0xee};
        EXPECT_TRUE(
            add(control_queue, {{kAt, static_cast<u32>(bytes.size()), false}, {kAt + 0x1000, 1, true}}));
        kick(control_queue);
        EXPECT_TRUE(queue(control_queue).take());
        return std::to_integer<u8>(*bench.ram.at(kAt + 0x1000));
    }
    u64 config(u64 offset, std::size_t width) {
        std::array<std::byte, 8> data{};
        EXPECT_EQ(bench.port.read_config(offset, std::span(data).first(width)), IoStatus::Ok);
        return std::bit_cast<u64>(data);
    }
    B bench;
    u16 control_queue = 4;
};
using Rings = testing::Types<
    virtio::Bench<NetKit, virtio::OverMmio, virtio::RingKind::Split>,
    virtio::Bench<NetKit, virtio::OverPci<virtio::PciInterrupts::Messages>, virtio::RingKind::Packed>>;
TYPED_TEST_SUITE(VirtioNetTest, Rings);

const Bytes kFrame = [] {
    Bytes frame = {0x52, 0x54, 0, 0x12, 0x34, 0x56, 2, 0, 0, 0, 0, 1, 8, 0};
    for (u8 i = 0; i < 86; ++i) frame.push_back(i);
    return frame;
}();

TYPED_TEST(VirtioNetTest, TellsWhatTheCardIs) {
    EXPECT_EQ(this->config(0, 4) | this->config(4, 2) << 32, 0x5634'1200'5452U);
    EXPECT_EQ(this->config(6, 2), 1U);  // up
    EXPECT_EQ(this->config(8, 2), 2U);  // pairs
    EXPECT_EQ(this->config(10, 2), 1500U);
    EXPECT_EQ(this->config(12, 4), 10'000U);
    EXPECT_EQ(this->config(16, 1), 1U);
    // Bits 0 to 3, 5, 7 to 23; 28, 29, 32, 34; 54 to 56 and 63.
    EXPECT_EQ(this->bench.port.device_features(), 0x81c0'0005'30ff'ffafU);
}

TYPED_TEST(VirtioNetTest, SendsWhatItIsGivenInAnyCut) {
    this->start();
    this->send({}, kFrame);
    ASSERT_EQ(this->cable().sent.size(), 1U);
    EXPECT_EQ(this->cable().sent[0].size(), 12 + kFrame.size());
    EXPECT_TRUE(std::ranges::equal(std::span(this->cable().sent[0]).subspan(12), kFrame));
    ASSERT_TRUE(this->add(kTx, {{kAt, 5, false}, {kAt + 5, 20, false}, {kAt + 25, 87, false}}));
    this->kick(kTx);
    ASSERT_EQ(this->cable().sent.size(), 2U);
    EXPECT_EQ(this->cable().sent[1], this->cable().sent[0]);
}

TYPED_TEST(VirtioNetTest, HeadersThatMakeNoSenseSendNothing) {
    this->start();
    const std::vector<NetHeader> bad = {
        {.flags = 4},
        {.flags = 1, .checksum_start = 90, .checksum_offset = 9},  // ends at 101 of 100
        {.flags = 1, .checksum_start = 0xffff, .checksum_offset = 0xffff},
        {.gso_type = 1, .gso_size = 100},  // without a checksum to complete
        {.flags = 1, .gso_type = 1},       // pieces of nothing
        {.flags = 1, .gso_type = 2, .gso_size = 100},
        {.flags = 1, .gso_type = 6, .gso_size = 100},
        {.flags = 1, .gso_type = 0x83, .gso_size = 100},  // ECN is TCP's
        {.gso_type = 0x80},
    };
    for (const NetHeader& header : bad) this->send(header, kFrame);
    EXPECT_TRUE(this->cable().sent.empty());
    for (const u8 good : {u8{1}, u8{4}, u8{3}, u8{5}, u8{0x81}})
        this->send(
            {.flags = 1, .gso_type = good, .gso_size = 50, .checksum_start = 34, .checksum_offset = 16},
            kFrame);
    EXPECT_EQ(this->cable().sent.size(), 5U);
}

TYPED_TEST(VirtioNetTest, OffloadsNotAgreedOnSendNothing) {
    this->start(bit(0) | bit(11) | bit(12) | bit(13) | bit(14) | bit(56));
    this->send({.flags = 1, .checksum_start = 34, .checksum_offset = 16}, kFrame);
    this->send({.flags = 1, .gso_type = 1, .gso_size = 50}, kFrame);
    EXPECT_TRUE(this->cable().sent.empty());
    this->send({}, kFrame);
    EXPECT_EQ(this->cable().sent.size(), 1U);
}

TYPED_TEST(VirtioNetTest, FramesOfNoSizeAreGivenBackUnsent) {
    this->start();
    for (const u32 length : {1U, 11U, 12U, 25U}) {
        ASSERT_TRUE(this->add(kTx, {{kAt, length, false}}));
        this->kick(kTx);
        EXPECT_TRUE(this->queue(kTx).take()) << length;
    }
    ASSERT_TRUE(this->add(kTx, {{kAt, 65536 + 18 + 13, false}}));
    this->kick(kTx);
    EXPECT_TRUE(this->queue(kTx).take());
    ASSERT_TRUE(this->add(kTx, {{kAt, 100, true}}));
    this->kick(kTx);
    EXPECT_TRUE(this->queue(kTx).take());
    EXPECT_TRUE(this->cable().sent.empty());
}

TYPED_TEST(VirtioNetTest, AFullCableHoldsFramesBackInOrder) {
    this->start();
    this->cable().room = 2;
    std::memset(this->bench.ram.at(kAt), 0, 12);
    std::memset(this->bench.ram.at(kAt + 0x600), 5, 64);
    for (u8 i = 0; i < 5; ++i) {
        std::memset(this->bench.ram.at(kAt + 0x100 + 0x100 * i), i, 0x100);
        ASSERT_TRUE(this->add(kTx, {{kAt, 12, false}, {kAt + 0x100 + u64{0x100} * i, 64, false}}));
    }
    EXPECT_TRUE(this->queue(kTx).kick_wanted());
    this->kick(kTx);
    EXPECT_EQ(this->cable().sent.size(), 2U);
    EXPECT_EQ(this->bench.core().queue(kTx).in_flight(), 0U) << "what did not leave is still in the ring";
    this->kick(kTx);
    EXPECT_EQ(this->cable().sent.size(), 2U) << "a kick makes no room";
    ASSERT_TRUE(this->add(kTx, {{kAt, 12, false}, {kAt + 0x600, 64, false}}));
    EXPECT_FALSE(this->queue(kTx).kick_wanted()) << "nor of those that come while there is no room";
    this->cable().room = 2;
    this->cable().card->transmit_ready();
    ASSERT_TRUE(this->bench.run());
    this->cable().room = 100;
    this->cable().card->transmit_ready();
    ASSERT_TRUE(this->bench.run());
    ASSERT_EQ(this->cable().sent.size(), 6U);
    for (u8 i = 0; i < 6; ++i) EXPECT_EQ(this->cable().sent[i][12], i);
    unsigned used = 0;
    while (this->queue(kTx).take()) ++used;
    EXPECT_EQ(used, 6U);
    ASSERT_TRUE(this->add(kTx, {{kAt, 12, false}, {kAt + 0x600, 64, false}}));
    EXPECT_TRUE(this->queue(kTx).kick_wanted());
}

// What is no frame goes back as used in its turn; none overtakes a frame that waits, and none is lost.
TYPED_TEST(VirtioNetTest, AFullCableHoldsBackWhatIsNoFrameAsWell) {
    this->start();
    this->cable().room = 1;
    std::memset(this->bench.ram.at(kAt), 0, 0x100);
    std::vector<u16> ids;
    for (const u32 length : {12 + 64, 3, 12 + 65, 13, 12 + 66, 4}) {
        const auto id = this->add(kTx, {{kAt, length, false}});
        ASSERT_TRUE(id);
        ids.push_back(*id);
    }
    this->kick(kTx);
    for (unsigned i = 0; i < 2; ++i) EXPECT_EQ(this->queue(kTx).take()->id, ids[i]);
    EXPECT_FALSE(this->queue(kTx).take()) << "the third is a frame that waits";
    this->cable().room = 100;
    this->cable().card->transmit_ready();
    ASSERT_TRUE(this->bench.run());
    for (unsigned i = 2; i < 6; ++i) EXPECT_EQ(this->queue(kTx).take()->id, ids[i]);
    ASSERT_EQ(this->cable().sent.size(), 3U);
    for (unsigned i = 0; i < 3; ++i) EXPECT_EQ(this->cable().sent[i].size(), 12U + 64 + i);
}

// The copy sends what the original has not, and nothing twice.
TYPED_TEST(VirtioNetTest, ASnapshotHoldsFramesTheBackendHadNoRoomFor) {
    this->start();
    this->cable().room = 1;
    std::memset(this->bench.ram.at(kAt), 0, 0x100);
    for (const u32 length : {64, 65, 66}) ASSERT_TRUE(this->add(kTx, {{kAt, 12 + length, false}}));
    this->kick(kTx);
    const auto before = testing_rig::saved(this->bench);
    TypeParam copy;
    copy.copy_surroundings(this->bench);
    copy.kit.cable.room = 100;
    ASSERT_TRUE(testing_rig::load(copy, before));
    copy.core().resume();
    ASSERT_TRUE(copy.run());
    const auto& sent = copy.kit.cable.sent;
    ASSERT_EQ(sent.size(), 3U);
    for (unsigned i = 0; i < 3; ++i) EXPECT_EQ(sent[i].size(), 12U + 64 + i);
    unsigned used = 0;
    while (copy.queues[kTx]->take()) ++used;
    EXPECT_EQ(used, 3U);
}

// The link of the host the guest is brought back on is not the one it knew.
TYPED_TEST(VirtioNetTest, ARestoredDriverIsToldThatTheLinkIsAnother) {
    this->start();
    this->cable().card->link_changed(false);
    ASSERT_TRUE(this->bench.run());
    EXPECT_EQ(this->config(6, 2), 0U);
    const auto before = testing_rig::saved(this->bench);
    TypeParam copy;
    copy.copy_surroundings(this->bench);
    ASSERT_TRUE(copy.run()) << "up, there, long before";
    ASSERT_TRUE(testing_rig::load(copy, before));
    (void)copy.port.interrupted();
    const u8 generation = copy.core().config_generation();
    copy.core().resume();
    ASSERT_TRUE(copy.run());
    EXPECT_TRUE(copy.port.interrupted());
    EXPECT_NE(copy.core().config_generation(), generation);
    std::array<std::byte, 2> status{};
    EXPECT_EQ(copy.port.read_config(6, status), IoStatus::Ok);
    EXPECT_EQ(status[0], std::byte{1});
}

// C17: a queue whose driver has stopped taking frames is not kept waiting by another's frames.
TYPED_TEST(VirtioNetTest, PatienceWithOneQueueIsNotPutOffByAnother) {
    this->start();
    this->cable().arrive(kFrame, 0);
    ASSERT_TRUE(this->bench.run());
    for (u64 tenth = 0; tenth < 10; ++tenth) {
        this->cable().arrive(kFrame, 1);
        ASSERT_TRUE(this->bench.run());
        EXPECT_EQ(this->cable().waiting[0].size(), 1U) << tenth;
        ASSERT_TRUE(this->add(2, {{kAt + tenth * 0x1000, 2000, true}}));
        this->kick(2);
        EXPECT_TRUE(this->queue(2).take());
        this->cable().arrive(kFrame, 1);
        ASSERT_TRUE(this->bench.run());
        this->bench.kit.clock.advance(VirtioNet::kPatienceNs / 10);
        ASSERT_TRUE(this->bench.run());
        ASSERT_TRUE(this->add(2, {{kAt + tenth * 0x1000, 2000, true}}));
        this->kick(2);
        EXPECT_TRUE(this->queue(2).take());
    }
    EXPECT_EQ(this->cable().waiting[0].size(), 0U);
    EXPECT_EQ(this->cable().dropped, 1U);
}

TYPED_TEST(VirtioNetTest, ReceivesIntoABuffer) {
    this->start();
    ASSERT_TRUE(this->add(kRx, {{kAt, 2000, true}}));
    this->kick(kRx);
    this->arrive(kFrame, {.flags = 2});
    const auto used = this->queue(kRx).take();
    ASSERT_TRUE(used);
    EXPECT_EQ(used->length, 12 + kFrame.size());
    EXPECT_EQ(this->header_at(kAt).flags, 2);
    EXPECT_EQ(this->header_at(kAt).buffers, 1);
    EXPECT_EQ(this->memory(kAt + 12, kFrame.size()), kFrame);
    EXPECT_TRUE(this->bench.port.interrupted());
}

TYPED_TEST(VirtioNetTest, MergesAsManyBuffersAsItTakes) {
    this->start();
    for (u64 i = 0; i < 8; ++i) ASSERT_TRUE(this->add(kRx, {{kAt + i * 0x100, 20, true}}));
    this->kick(kRx);
    this->arrive(kFrame);  // 112 bytes: five of 20, and 12
    Bytes all;
    for (u64 i = 0; i < 6; ++i) {
        const auto used = this->queue(kRx).take();
        ASSERT_TRUE(used) << i;
        EXPECT_EQ(used->length, i < 5 ? 20U : 12U);
        const Bytes part = this->memory(kAt + i * 0x100, used->length);
        all.insert(all.end(), part.begin(), part.end());
    }
    EXPECT_FALSE(this->queue(kRx).take()) << "what was not needed stays";
    EXPECT_EQ(this->header_at(kAt).buffers, 6);
    all.erase(all.begin(), all.begin() + 12);
    EXPECT_EQ(all, kFrame);
    // The two left, and four more.
    for (u64 i = 0; i < 4; ++i) ASSERT_TRUE(this->add(kRx, {{kAt + i * 0x100, 20, true}}));
    this->kick(kRx);
    this->arrive(kFrame);
    for (u64 i = 0; i < 6; ++i) EXPECT_TRUE(this->queue(kRx).take());
}

TYPED_TEST(VirtioNetTest, WithoutMergingAFrameThatDoesNotFitIsDropped) {
    this->start(bit(15));
    ASSERT_TRUE(this->add(kRx, {{kAt, 100, true}}));
    ASSERT_TRUE(this->add(kRx, {{kAt + 0x1000, 2000, true}}));
    this->kick(kRx);
    this->arrive(kFrame);
    EXPECT_EQ(this->cable().dropped, 1U);
    EXPECT_FALSE(this->queue(kRx).take());
    this->arrive(Bytes(kFrame.begin(), kFrame.begin() + 60));
    EXPECT_EQ(this->queue(kRx).take()->length, 72U) << "the buffer is there for the next one";
}

// C17
TYPED_TEST(VirtioNetTest, WithoutBuffersFramesWaitForTheGuestAndNotForEver) {
    this->start();
    this->kick(kRx);
    for (int i = 0; i < 3; ++i) this->arrive(kFrame);
    EXPECT_EQ(this->cable().waiting[0].size(), 3U);
    ASSERT_TRUE(this->add(kRx, {{kAt, 2000, true}}));
    EXPECT_TRUE(this->queue(kRx).kick_wanted()) << "the next refill is awaited";
    this->kick(kRx);
    EXPECT_TRUE(this->queue(kRx).take());
    EXPECT_EQ(this->cable().waiting[0].size(), 2U);
    this->bench.kit.clock.advance(VirtioNet::kPatienceNs);
    ASSERT_TRUE(this->bench.run());
    EXPECT_EQ(this->cable().dropped, 1U);
    EXPECT_EQ(this->cable().waiting[0].size(), 1U);
}

// C17: all the room there is does not hold the frame; the next one gets through.
TYPED_TEST(VirtioNetTest, AFrameThatNeverFitsBlocksNobodyForEver) {
    this->start();
    for (u64 i = 0; i < 3; ++i) ASSERT_TRUE(this->add(kRx, {{kAt + i * 0x100, 24, true}}));
    this->kick(kRx);
    this->cable().arrive(kFrame);
    this->arrive(Bytes(kFrame.begin(), kFrame.begin() + 20));
    EXPECT_FALSE(this->queue(kRx).take());
    this->bench.kit.clock.advance(VirtioNet::kPatienceNs);
    ASSERT_TRUE(this->bench.run());
    EXPECT_EQ(this->cable().dropped, 1U);
    EXPECT_EQ(this->queue(kRx).take()->length, 24U);
    EXPECT_EQ(this->queue(kRx).take()->length, 8U);
}

TYPED_TEST(VirtioNetTest, FramesTheGuestCannotTakeAreNotGivenToIt) {
    this->start(bit(1) | bit(7) | bit(8) | bit(9) | bit(10) | bit(54) | bit(55));
    ASSERT_TRUE(this->add(kRx, {{kAt, 2000, true}}));
    this->kick(kRx);
    this->arrive(kFrame, {.flags = 1, .checksum_start = 34, .checksum_offset = 16});
    this->arrive(kFrame, {.flags = 1, .gso_type = 1, .gso_size = 500});
    EXPECT_FALSE(this->queue(kRx).take());
    EXPECT_EQ(this->cable().guest, NetOffloads{});
    this->arrive(kFrame);
    EXPECT_TRUE(this->queue(kRx).take());
}

TYPED_TEST(VirtioNetTest, TheDriverChoosesWhichFramesItGets) {
    this->start();
    for (u64 i = 0; i < 12; ++i) ASSERT_TRUE(this->add(kRx, {{kAt + 0x2000 + i * 0x800, 0x800, true}}));
    const auto gets = [this](const Bytes& to) {
        Bytes frame = kFrame;
        std::ranges::copy(to, frame.begin());
        this->arrive(frame);
        return this->queue(kRx).take().has_value();
    };
    const Bytes own = {0x52, 0x54, 0, 0x12, 0x34, 0x56};
    const Bytes other = {2, 0, 0, 0, 0, 9};
    const Bytes group = {1, 0, 0x5e, 0, 0, 1};
    const Bytes everyone(6, 0xff);
    EXPECT_TRUE(gets(other)) << "at first all of them";
    EXPECT_EQ(this->command({0, 0, 0}), 0);
    EXPECT_TRUE(gets(own));
    EXPECT_FALSE(gets(other));
    EXPECT_FALSE(gets(group));
    EXPECT_TRUE(gets(everyone));
    Bytes tables = {1, 0, 1, 0, 0, 0};
    tables.insert(tables.end(), other.begin(), other.end());
    tables.insert(tables.end(), {1, 0, 0, 0});
    tables.insert(tables.end(), group.begin(), group.end());
    EXPECT_EQ(this->command(tables), 0);
    EXPECT_TRUE(gets(other));
    EXPECT_TRUE(gets(group));
    EXPECT_EQ(this->command({0, 3, 1}), 0);  // no multicast
    EXPECT_FALSE(gets(group));
    EXPECT_EQ(this->command({0, 5, 1}), 0);  // no broadcast
    EXPECT_FALSE(gets(everyone));
    EXPECT_EQ(this->command({1, 1, 2, 0, 0, 0, 0, 7}), 0);  // another address
    EXPECT_EQ(this->config(5, 1), 7U);
    EXPECT_FALSE(gets(own));
}

TYPED_TEST(VirtioNetTest, VlansAreFilteredOnceAgreedOn) {
    this->start();
    for (u64 i = 0; i < 8; ++i) ASSERT_TRUE(this->add(kRx, {{kAt + 0x2000 + i * 0x800, 0x800, true}}));
    EXPECT_EQ(this->command({0, 0, 0}), 0);
    Bytes tagged = kFrame;
    tagged[12] = 0x81;
    tagged[13] = 0;
    tagged[14] = 0x61;  // priority 3, VLAN 123h
    tagged[15] = 0x23;
    const auto gets = [&] {
        this->arrive(tagged);
        return this->queue(kRx).take().has_value();
    };
    EXPECT_FALSE(gets());
    EXPECT_EQ(this->command({2, 0, 0x23, 0x01}), 0);
    EXPECT_TRUE(gets());
    EXPECT_EQ(this->command({2, 1, 0x23, 0x01}), 0);
    EXPECT_FALSE(gets());
}

TYPED_TEST(VirtioNetTest, CommandsThatMakeNoSenseAreRefused) {
    this->start();
    for (const Bytes& bytes : std::vector<Bytes>{{},
                                                 {0},
                                                 {0, 0},
                                                 {0, 0, 2},
                                                 {0, 6, 1},
                                                 {1, 0},
                                                 {1, 0, 1, 0, 0, 0},
                                                 {1, 0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4, 5, 6},
                                                 {1, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff},
                                                 {1, 1, 1, 2, 3, 4, 5},
                                                 {1, 2, 1},
                                                 {2, 0, 0x00, 0x10},
                                                 {2, 0, 1},
                                                 {2, 2, 1, 0},
                                                 {3, 1},
                                                 {4, 0, 0, 0},
                                                 {4, 0, 3, 0},
                                                 {4, 0, 0xff, 0xff},
                                                 {4, 1, 1, 0},
                                                 {5, 0, 1},
                                                 {5, 0, 0, 0, 0, 0, 0, 0, 0, 0x80},
                                                 {5, 1, 0, 0, 0, 0, 0, 0, 0, 0},
                                                 {6, 0, 0},
                                                 {0xff, 0xff, 0xff}}) {
        if (bytes.empty()) continue;
        EXPECT_EQ(this->command(bytes), 1) << int{bytes[0]} << ' ' << bytes.size();
    }
}

TYPED_TEST(VirtioNetTest, TablesLongerThanItsOwnKeepAllOfTheirKind) {
    this->start();
    ASSERT_TRUE(this->add(kRx, {{kAt + 0x8000, 0x800, true}}));
    Bytes tables = {1, 0, 200, 0, 0, 0};
    tables.resize(tables.size() + 200 * 6, 2);
    tables.insert(tables.end(), {0, 0, 0, 0});
    EXPECT_EQ(this->command({0, 0, 0}), 0);
    EXPECT_EQ(this->command(tables), 0);
    Bytes frame = kFrame;
    frame[5] = 0x99;
    this->arrive(frame);
    EXPECT_TRUE(this->queue(kRx).take());
}

TYPED_TEST(VirtioNetTest, PairsAreUsedWhenTheDriverSaysSo) {
    this->start();
    EXPECT_EQ(this->cable().used, 1U);
    EXPECT_EQ(this->command({4, 0, 2, 0}), 0);
    EXPECT_EQ(this->cable().used, 2U);
    std::memset(this->bench.ram.at(kAt), 0, 200);
    ASSERT_TRUE(this->add(3, {{kAt, 100, false}}));
    this->kick(3);
    EXPECT_EQ(this->cable().last_queue, 1U);
    ASSERT_TRUE(this->add(2, {{kAt, 2000, true}}));
    this->cable().arrive(kFrame, 1);
    ASSERT_TRUE(this->bench.run());
    EXPECT_TRUE(this->queue(2).take());
    this->bench.port.set_status(0);
    EXPECT_EQ(this->cable().used, 1U);
}

// [VIRTIO-1.2 5.1.2]
TYPED_TEST(VirtioNetTest, WithoutPairsTheControlQueueIsTheThird) {
    this->start(bit(22));
    EXPECT_EQ(this->control_queue, 2);
    EXPECT_EQ(this->command({0, 0, 0}), 0);
    EXPECT_EQ(this->command({4, 0, 1, 0}), 1);
}

TYPED_TEST(VirtioNetTest, OffloadsOfTheGuestCanBeTurnedOff) {
    this->start();
    EXPECT_TRUE(this->cable().guest.tso4 && this->cable().guest.checksum && this->cable().guest.uso);
    EXPECT_EQ(this->command({5, 0, 2, 0, 0, 0, 0, 0, 0, 0}), 0);  // the checksum alone
    EXPECT_EQ(this->cable().guest, (NetOffloads{.checksum = true}));
}

TYPED_TEST(VirtioNetTest, FeaturesThatNeedOthersAreRefusedWithoutThem) {
    EXPECT_FALSE(this->bench.negotiate(bit(1)));
    EXPECT_FALSE(this->bench.negotiate(bit(0)));
    EXPECT_FALSE(this->bench.negotiate(bit(17)));
    EXPECT_TRUE(this->bench.negotiate());
}

TYPED_TEST(VirtioNetTest, TheLinkIsTold) {
    this->start();
    this->cable().card->link_changed(false);
    ASSERT_TRUE(this->bench.run());
    EXPECT_TRUE(this->bench.port.interrupted());
    EXPECT_EQ(this->config(6, 2), 0U);
    this->cable().card->link_changed(true);
    ASSERT_TRUE(this->bench.run());
    EXPECT_EQ(this->config(6, 2), 1U);
}

TYPED_TEST(VirtioNetTest, AMovedGuestIsAskedToAnnounceItself) {
    this->start();
    this->bench.kit.device.announce();
    EXPECT_EQ(this->config(6, 2), 3U);
    EXPECT_TRUE(this->bench.port.interrupted());
    EXPECT_EQ(this->command({3, 0}), 0);
    EXPECT_EQ(this->config(6, 2), 1U);
}

}  // namespace
}  // namespace tessera::virtio_net

TESSERA_JOIN_HOSTILE_DRIVER_SUITE(VirtioNet, tessera::virtio_net::NetKit);
TESSERA_JOIN_HOSTILE_DRIVER_SUITE(VirtioNetReceive, tessera::virtio_net::NetReceiveKit);
