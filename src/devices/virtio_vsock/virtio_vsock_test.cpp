#include "devices/virtio_vsock/virtio_vsock.h"

#include <gtest/gtest.h>
#include <optional>
#include <utility>
#include <vector>

#include "devices/virtio/testing/hostile_driver_suite.h"
#include "devices/virtio_vsock/virtio_vsock_rig.h"

namespace tessera::virtio_vsock {
namespace {

using virtio::Segment;

constexpr u64 kTxAt = 0x10'0000;
constexpr u64 kRxAt = 0x18'0000;
constexpr u32 kRxSize = 4096;
constexpr u32 kRoom = 256 * 1024;

// [VIRTIO-1.2 5.10.6]
enum Op : u16 { kRequest = 1, kResponse, kRst, kShutdown, kRw, kUpdate, kAsk };

struct Packet {
    u32 from;  // port
    u32 to;
    u16 op;
    u32 flags = 0;
    u32 buffer = kRoom;
    u32 forwarded = 0;
    std::string data{};  // NOLINT(readability-redundant-member-init)
    u64 cid = 2;         // the other side's
    u16 type = 1;
    std::optional<u32> length{};  // NOLINT(readability-redundant-member-init)
    u64 source_cid = kRigCid;
};

struct VirtioVsockTest : testing::Test {
    void SetUp() override { ASSERT_TRUE(bench.start()); }
    void give_buffers(unsigned count, u32 size = kRxSize) {
        for (unsigned i = 0; i < count; ++i)
            (void)bench.queues[0]->add(std::vector<Segment>{{kRxAt + next++ % 16 * kRxSize, size, true}});
        bench.port.notify(0);
        ASSERT_TRUE(bench.run());
    }
    void send(const Packet& packet) {
        Header header{.source_cid = packet.source_cid,
                      .destination_cid = packet.cid,
                      .source_port = packet.from,
                      .destination_port = packet.to,
                      .length = packet.length.value_or(static_cast<u32>(packet.data.size())),
                      .type = packet.type,
                      .operation = packet.op,
                      .flags = packet.flags,
                      .buffer_size = packet.buffer,
                      .forwarded = packet.forwarded};
        std::memcpy(bench.ram.at(kTxAt), &header, 44);
        std::memcpy(bench.ram.at(kTxAt + 44), packet.data.data(), packet.data.size());
        ASSERT_TRUE(bench.queues[1]->add(
            std::vector<Segment>{{kTxAt, static_cast<u32>(44 + packet.data.size()), false}}));
        bench.port.notify(1);
        ASSERT_TRUE(bench.run());
        ASSERT_TRUE(bench.queues[1]->take());
    }
    std::vector<Packet> heard() {
        std::vector<Packet> packets;
        while (const auto used = bench.queues[0]->take()) {
            const u64 at = bench.queues[0]->load<u64>(bench.queues[0]->descriptors() + 16 * u64{used->id});
            Header header;
            std::memcpy(static_cast<void*>(&header), bench.ram.at(at), 44);
            EXPECT_EQ(header.destination_cid, kRigCid);
            EXPECT_EQ(used->length, 44 + header.length);
            Packet packet{.from = header.source_port,
                          .to = header.destination_port,
                          .op = header.operation,
                          .flags = header.flags,
                          .buffer = header.buffer_size,
                          .forwarded = header.forwarded,
                          .cid = header.source_cid,
                          .type = header.type};
            for (const auto byte : std::span(bench.ram.at(at + 44), header.length))
                packet.data += static_cast<char>(byte);
            packets.push_back(packet);
        }
        return packets;
    }
    // The only one there is.
    Packet hear() {
        const auto packets = heard();
        EXPECT_EQ(packets.size(), 1U);
        return packets.empty() ? Packet{.from = 0, .to = 0, .op = 0} : packets.front();
    }
    // The guest connects from port 50 to the host's port 1000.
    VsockId open(u32 buffer = kRoom) {
        give_buffers(8);
        send({.from = 50, .to = 1000, .op = kRequest, .buffer = buffer});
        EXPECT_EQ(hear().op, kResponse);
        return host().opened.back();
    }
    FakeHost& host() { return bench.kit.host; }
    VirtioVsock& device() { return bench.kit.device; }

    virtio::Bench<VsockKit, virtio::OverMmio, virtio::RingKind::Split> bench;
    unsigned next = 0;
};

TEST_F(VirtioVsockTest, TheGuestsCidIsInItsRegisters) {
    std::array<std::byte, 8> cid{};
    ASSERT_EQ(bench.port.read_config(0, cid), IoStatus::Ok);
    EXPECT_EQ(std::bit_cast<u64>(cid), kRigCid);
    EXPECT_EQ(bench.port.device_features() & 0xff, 1U) << "streams";
}

TEST_F(VirtioVsockTest, AGuestConnectsAndTalks) {
    give_buffers(4);
    send({.from = 50, .to = 1000, .op = kRequest});
    const Packet answer = hear();
    EXPECT_EQ(answer.op, kResponse);
    EXPECT_EQ(answer.from, 1000U);
    EXPECT_EQ(answer.to, 50U);
    EXPECT_EQ(answer.cid, 2U);
    EXPECT_EQ(answer.buffer, kRoom);
    const VsockId id = host().opened.back();
    EXPECT_EQ(host().sockets[id].port, 1000U);
    send({.from = 50, .to = 1000, .op = kRw, .data = "hello host"});
    EXPECT_EQ(host().sockets[id].given, "hello host");
    host().say(id, "hello guest");
    ASSERT_TRUE(bench.run());
    const Packet said = hear();
    EXPECT_EQ(said.op, kRw);
    EXPECT_EQ(said.data, "hello guest");
    EXPECT_EQ(said.forwarded, 10U);
}

TEST_F(VirtioVsockTest, APortNobodyListensAtIsRefused) {
    give_buffers(4);
    send({.from = 50, .to = FakeHost::kDeafPort, .op = kRequest});
    EXPECT_EQ(hear().op, kRst);
    EXPECT_EQ(device().connections(), 0U);
}

TEST_F(VirtioVsockTest, TheHostConnectsToAGuest) {
    give_buffers(4);
    const VsockId id = host().ask(80);
    ASSERT_TRUE(bench.run());
    const Packet asked = hear();
    EXPECT_EQ(asked.op, kRequest);
    EXPECT_EQ(asked.to, 80U);
    EXPECT_GE(asked.from, 1U << 30);
    EXPECT_FALSE(host().sockets[id].open);
    send({.from = 80, .to = asked.from, .op = kResponse});
    EXPECT_TRUE(host().sockets[id].open);
    EXPECT_EQ(host().sockets[id].host_port, asked.from);
    send({.from = 80, .to = asked.from, .op = kRw, .data = "served"});
    EXPECT_EQ(host().sockets[id].given, "served");
}

TEST_F(VirtioVsockTest, AGuestThatDoesNotListenRefuses) {
    give_buffers(4);
    const VsockId id = host().ask(80);
    ASSERT_TRUE(bench.run());
    const Packet asked = hear();
    send({.from = 80, .to = asked.from, .op = kRst});
    EXPECT_FALSE(host().sockets.contains(id));
    EXPECT_EQ(device().connections(), 0U);
    EXPECT_TRUE(heard().empty()) << "a reset is not answered";
}

TEST_F(VirtioVsockTest, WithoutADriverTheHostIsRefused) {
    bench.port.set_status(0);
    const VsockId id = host().ask(80);
    ASSERT_TRUE(bench.run());
    EXPECT_EQ(host().closed.back(), id);
}

// [VIRTIO-1.2 5.10.6.3] tx_cnt, peer_buf_alloc, peer_fwd_cnt
TEST_F(VirtioVsockTest, TheGuestGetsNoMoreThanItHasRoomFor) {
    const VsockId id = open(10);
    host().say(id, "0123456789abcdef");
    ASSERT_TRUE(bench.run());
    auto packets = heard();
    ASSERT_EQ(packets.size(), 2U);
    EXPECT_EQ(packets[0].data, "0123456789");
    EXPECT_EQ(packets[1].op, kAsk) << "it may have forgotten to say";
    send({.from = 50, .to = 1000, .op = kUpdate, .buffer = 10, .forwarded = 4});
    packets = heard();
    ASSERT_EQ(packets.size(), 2U);
    EXPECT_EQ(packets[0].data, "abcd");
    // Nonsense is no room.
    for (const u32 forwarded : {15U, 0xffff'ffffU, 0x8000'0000U}) {
        send({.from = 50, .to = 1000, .op = kUpdate, .buffer = 10, .forwarded = forwarded});
        for (const Packet& packet : heard()) EXPECT_NE(packet.op, kRw) << forwarded;
    }
    send({.from = 50, .to = 1000, .op = kUpdate, .buffer = 10, .forwarded = 14});
    EXPECT_EQ(heard().front().data, "ef");
}

TEST_F(VirtioVsockTest, TheGuestHearsOfRoomInTime) {
    const VsockId id = open();
    host().forwards = 0;
    const std::string piece(0x8000, 'x');
    for (unsigned i = 0; i < 6; ++i) send({.from = 50, .to = 1000, .op = kRw, .data = piece});
    EXPECT_TRUE(heard().empty());
    host().happens({.kind = VsockEvent::Kind::Forwarded, .id = id, .value = 0x1000});
    ASSERT_TRUE(bench.run());
    EXPECT_TRUE(heard().empty()) << "not of every byte";
    host().happens({.kind = VsockEvent::Kind::Forwarded, .id = id, .value = 0x1'8000});
    ASSERT_TRUE(bench.run());
    const Packet update = hear();
    EXPECT_EQ(update.op, kUpdate);
    EXPECT_EQ(update.forwarded, 0x1'9000U);
    send({.from = 50, .to = 1000, .op = kAsk});
    EXPECT_EQ(hear().op, kUpdate);
}

TEST_F(VirtioVsockTest, AGuestThatSendsMoreThanThereIsRoomForIsCutOff) {
    const VsockId id = open();
    host().forwards = 0;
    const std::string piece(0x8000, 'x');
    for (unsigned i = 0; i < 8; ++i) send({.from = 50, .to = 1000, .op = kRw, .data = piece});
    EXPECT_TRUE(host().sockets.contains(id));
    send({.from = 50, .to = 1000, .op = kRw, .data = "x"});
    EXPECT_FALSE(host().sockets.contains(id));
    EXPECT_EQ(hear().op, kRst);
    EXPECT_EQ(device().connections(), 0U);
}

// [VIRTIO-1.2 5.10.6.5]
TEST_F(VirtioVsockTest, AGuestThatEndsBothWaysIsAnsweredWhenEverythingHasLeft) {
    const VsockId id = open();
    host().forwards = 0;
    send({.from = 50, .to = 1000, .op = kRw, .data = "last words"});
    send({.from = 50, .to = 1000, .op = kShutdown, .flags = 2});
    EXPECT_FALSE(host().sockets[id].guest_sends);
    EXPECT_TRUE(host().sockets[id].guest_receives);
    send({.from = 50, .to = 1000, .op = kShutdown, .flags = 1});
    EXPECT_FALSE(host().sockets[id].guest_receives);
    EXPECT_TRUE(heard().empty());
    host().happens({.kind = VsockEvent::Kind::Forwarded, .id = id, .value = 10});
    ASSERT_TRUE(bench.run());
    EXPECT_EQ(hear().op, kRst);
    EXPECT_EQ(device().connections(), 0U);
}

TEST_F(VirtioVsockTest, DataAfterTheEndOfSendingEndsTheConnection) {
    (void)open();
    send({.from = 50, .to = 1000, .op = kShutdown, .flags = 2});
    send({.from = 50, .to = 1000, .op = kRw, .data = "more"});
    EXPECT_EQ(hear().op, kRst);
}

TEST_F(VirtioVsockTest, AGuestThatReceivesNoMoreGetsNoMore) {
    const VsockId id = open();
    send({.from = 50, .to = 1000, .op = kShutdown, .flags = 1});
    host().say(id, "too late");
    ASSERT_TRUE(bench.run());
    EXPECT_TRUE(heard().empty());
    send({.from = 50, .to = 1000, .op = kRw, .data = "still sending"});
    EXPECT_EQ(host().sockets[id].given, "still sending");
}

TEST_F(VirtioVsockTest, TheGuestHearsOfTheHostsEndAfterItsData) {
    const VsockId id = open();
    host().sockets[id].ended = true;
    host().say(id, "last words");
    ASSERT_TRUE(bench.run());
    auto packets = heard();
    ASSERT_EQ(packets.size(), 2U);
    EXPECT_EQ(packets[0].data, "last words");
    EXPECT_EQ(packets[1].op, kShutdown);
    EXPECT_EQ(packets[1].flags, 2U) << "sends no more";
    send({.from = 50, .to = 1000, .op = kRw, .data = "answer"});
    EXPECT_EQ(host().sockets[id].given, "answer");
    host().sockets[id].closed = true;
    host().say(id, "");
    ASSERT_TRUE(bench.run());
    EXPECT_EQ(hear().flags, 3U);
    send({.from = 50, .to = 1000, .op = kRst});
    EXPECT_EQ(device().connections(), 0U);
}

TEST_F(VirtioVsockTest, AHostThatIsGoneResets) {
    const VsockId id = open();
    host().happens({.kind = VsockEvent::Kind::Gone, .id = id, .value = 0});
    ASSERT_TRUE(bench.run());
    EXPECT_EQ(hear().op, kRst);
    EXPECT_EQ(device().connections(), 0U);
}

// [VIRTIO-1.2 5.10.6.4] What belongs to no connection, or makes no sense.
TEST_F(VirtioVsockTest, StrayPacketsAreReset) {
    give_buffers(8);
    for (const u16 op : std::initializer_list<u16>{kResponse, kShutdown, kRw, kUpdate, kAsk, 0, 8, 0xffff}) {
        send({.from = 50, .to = 1000, .op = op});
        const Packet answer = hear();
        EXPECT_EQ(answer.op, kRst) << op;
        EXPECT_EQ(answer.from, 1000U);
        EXPECT_EQ(answer.to, 50U);
        give_buffers(1);
    }
    send({.from = 50, .to = 1000, .op = kRst});
    EXPECT_TRUE(heard().empty());
    send({.from = 50, .to = 1000, .op = kRequest, .cid = 3});
    EXPECT_EQ(hear().cid, 3U) << "another guest";
    give_buffers(1);
    send({.from = 50, .to = 1000, .op = kRequest, .type = 2});
    EXPECT_EQ(hear().type, 2U) << "sequenced packets";
    send({.from = 50, .to = 1000, .op = kRequest, .source_cid = 3});
    EXPECT_TRUE(heard().empty()) << "nobody speaks for another";
    EXPECT_TRUE(host().opened.empty());
}

TEST_F(VirtioVsockTest, WhatMakesNoSenseEndsAConnection) {
    for (const u16 op : std::initializer_list<u16>{kRequest, kResponse, 0, 8}) {
        const VsockId id = open();
        send({.from = 50, .to = 1000, .op = op});
        EXPECT_EQ(hear().op, kRst) << op;
        EXPECT_FALSE(host().sockets.contains(id));
    }
    host().answers = false;
    send({.from = 50, .to = 1000, .op = kRequest});
    send({.from = 50, .to = 1000, .op = kRw, .data = "too early"});
    EXPECT_EQ(hear().op, kRst);
}

// C2, C7: a length beyond the buffer.
TEST_F(VirtioVsockTest, LengthsThatLieEndAConnection) {
    for (const u32 length : {11U, 0x1'0000U, 0x7fff'ffffU, 0xffff'ffffU}) {
        const VsockId id = open();
        send({.from = 50, .to = 1000, .op = kRw, .data = "0123456789", .length = length});
        EXPECT_EQ(hear().op, kRst) << length;
        EXPECT_FALSE(host().sockets.contains(id));
    }
    const VsockId id = open();
    send({.from = 50, .to = 1000, .op = kRw, .data = "0123456789", .length = 4});
    EXPECT_EQ(host().sockets[id].given, "0123");
}

TEST_F(VirtioVsockTest, HalfAHeaderIsNoPacket) {
    ASSERT_TRUE(bench.queues[1]->add(std::vector<Segment>{{kTxAt, 43, false}}));
    bench.port.notify(1);
    ASSERT_TRUE(bench.run());
    EXPECT_TRUE(bench.queues[1]->take());
    EXPECT_FALSE(bench.needs_reset());
}

// C8, C17
TEST_F(VirtioVsockTest, PacketsWaitForBuffersThatAreLargeEnough) {
    send({.from = 50, .to = 1000, .op = kRequest});
    EXPECT_TRUE(heard().empty());
    ASSERT_TRUE(bench.queues[0]->add(std::vector<Segment>{{kRxAt, 43, true}}));
    bench.port.notify(0);
    ASSERT_TRUE(bench.run());
    const auto used = bench.queues[0]->take();
    ASSERT_TRUE(used);
    EXPECT_EQ(used->length, 0U);
    give_buffers(1, 44);
    EXPECT_EQ(hear().op, kResponse);
    host().say(host().opened.back(), "no room for a byte");
    give_buffers(1, 44);
    EXPECT_EQ(hear().op, kUpdate);
    give_buffers(1);
    EXPECT_EQ(hear().data, "no room for a byte");
}

// C6: what cannot be answered is not taken, and nothing piles up.
TEST_F(VirtioVsockTest, ADriverWithoutBuffersHasToWait) {
    Header header{.source_cid = kRigCid,
                  .destination_cid = 2,
                  .source_port = 1,
                  .destination_port = 2,
                  .length = 0,
                  .type = 1,
                  .operation = kRw};
    std::memcpy(bench.ram.at(kTxAt), &header, 44);
    unsigned taken = 0;
    for (unsigned i = 0; i < 200; ++i) {
        (void)bench.queues[1]->add(std::vector<Segment>{{kTxAt, 44, false}});
        bench.port.notify(1);
        ASSERT_TRUE(bench.run());
        if (bench.queues[1]->take()) ++taken;
    }
    EXPECT_EQ(taken, 64U);
    unsigned answers = 0;
    for (unsigned i = 0; i < 20; ++i) {
        give_buffers(8);
        answers += static_cast<unsigned>(heard().size());
    }
    EXPECT_EQ(answers, 64U + bench.queues[1]->size());
}

TEST_F(VirtioVsockTest, ConnectionsHaveALimit) {
    for (u32 port = 0; port < kMostConnections; ++port) {
        send({.from = port, .to = 1000, .op = kRequest});
        give_buffers(1);
        EXPECT_EQ(hear().op, kResponse);
    }
    send({.from = 5000, .to = 1000, .op = kRequest});
    give_buffers(1);
    EXPECT_EQ(hear().op, kRst);
    const VsockId id = host().ask(80);
    ASSERT_TRUE(bench.run());
    EXPECT_FALSE(host().sockets.contains(id));
    send({.from = 3, .to = 1000, .op = kRst});
    send({.from = 5000, .to = 1000, .op = kRequest});
    give_buffers(1);
    EXPECT_EQ(hear().op, kResponse);
}

TEST_F(VirtioVsockTest, ConnectionsTakeTurns) {
    const VsockId first = open();
    give_buffers(4);
    send({.from = 51, .to = 1000, .op = kRequest});
    (void)heard();
    const VsockId second = host().opened.back();
    host().say(first, std::string(40'000, 'a'));
    host().say(second, "b");
    ASSERT_TRUE(bench.run());
    std::string order;
    for (const Packet& packet : heard()) order += packet.data.substr(0, 1);
    EXPECT_NE(order.find('b'), std::string::npos);
    EXPECT_LE(order.find('b'), 1U);
}

// C9
TEST_F(VirtioVsockTest, AResetEndsEveryConnection) {
    const VsockId id = open();
    bench.port.set_status(0);
    EXPECT_TRUE(host().sockets.empty());
    EXPECT_EQ(device().connections(), 0U);
    host().happens({.kind = VsockEvent::Kind::Readable, .id = id, .value = 0});
    host().happens({.kind = VsockEvent::Kind::Forwarded, .id = id, .value = 5});
    ASSERT_TRUE(bench.run());
    ASSERT_TRUE(bench.start());
    EXPECT_TRUE(heard().empty());
}

// [VIRTIO-1.2 5.10.6.7]
TEST_F(VirtioVsockTest, AGuestThatIsBroughtBackIsToldToForgetItsConnections) {
    (void)open();
    const auto saved = testing_rig::saved(bench);
    virtio::Bench<VsockKit, virtio::OverMmio, virtio::RingKind::Split> copy;
    std::memcpy(copy.ram.at(0), bench.ram.at(0), 0x20'0000);
    ASSERT_TRUE(testing_rig::load(copy, saved));
    copy.core().resume();
    ASSERT_TRUE(copy.run());
    bench.queues[2]->store<u32>(kRxAt, 0);
    virtio::GuestQueue events(copy.ram, decltype(copy)::kQueues + 2 * virtio::GuestQueue::kBytes,
                              decltype(copy)::kSize, virtio::RingKind::Split, true);
    std::memset(copy.ram.at(kRxAt), 0xff, 8);
    ASSERT_TRUE(events.add(std::vector<Segment>{{kRxAt, 8, true}}));
    copy.port.notify(2);
    ASSERT_TRUE(copy.run());
    const auto used = events.take();
    ASSERT_TRUE(used);
    EXPECT_EQ(used->length, 4U);
    EXPECT_EQ(events.load<u32>(kRxAt), 0U) << "VIRTIO_VSOCK_EVENT_TRANSPORT_RESET";
    EXPECT_EQ(copy.kit.device.connections(), 0U);
}

// The transport reset event is about established connections [VIRTIO-1.2 5.10.6.7]; whoever waits for an
// answer gets one.
TEST_F(VirtioVsockTest, ASnapshotForgetsNoResetItOwes) {
    bench.kit.host.answers = false;
    send({.from = 3000, .to = 80, .op = kRequest});  // nobody has answered yet
    send({.from = 3001, .to = 81, .op = kRw});       // belongs to nothing
    send({.from = 3002, .to = 82, .op = kRequest});  // has just been refused
    bench.kit.host.happens({.kind = VsockEvent::Kind::Gone, .id = bench.kit.host.opened.back(), .value = 0});
    ASSERT_TRUE(bench.run());
    const auto saved = testing_rig::saved(bench);
    virtio::Bench<VsockKit, virtio::OverMmio, virtio::RingKind::Split> copy;
    copy.copy_memory(bench);
    ASSERT_TRUE(testing_rig::load(copy, saved));
    for (u64 i = 0; i < 4; ++i)
        ASSERT_TRUE(copy.queues[0]->add(std::vector<Segment>{{kRxAt + i * kRxSize, kRxSize, true}}));
    copy.core().resume();
    ASSERT_TRUE(copy.run());
    std::vector<std::pair<u32, u32>> reset;
    for (u64 i = 0; i < 3; ++i) {
        ASSERT_TRUE(copy.queues[0]->take());
        Header header;
        std::memcpy(&header, copy.ram.at(kRxAt + i * kRxSize), 44);
        EXPECT_EQ(header.operation, kRst);
        EXPECT_EQ(header.source_cid, 2U);
        reset.emplace_back(header.destination_port, header.source_port);
    }
    std::ranges::sort(reset);
    EXPECT_EQ(reset, (std::vector<std::pair<u32, u32>>{{3000, 80}, {3001, 81}, {3002, 82}}));
    EXPECT_FALSE(copy.queues[0]->take());
}

}  // namespace
}  // namespace tessera::virtio_vsock

TESSERA_JOIN_HOSTILE_DRIVER_SUITE(VirtioVsock, tessera::virtio_vsock::VsockKit);
TESSERA_JOIN_HOSTILE_DRIVER_SUITE(VirtioVsockReceive, tessera::virtio_vsock::VsockReceiveKit);
