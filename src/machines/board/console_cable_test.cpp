#include "machines/board/console_cable.h"

#include <gtest/gtest.h>

#include "devices/virtio/testing/bench.h"

namespace tessera {
namespace {

class FakeBackend final : public CharBackend {
public:
    bool put(u8 byte) override {
        if (text.size() == room) return false;
        text += static_cast<char>(byte);
        return true;
    }
    void receive_ready() override { ++asked; }
    void connect(CharPeer* other) override { peer = other; }
    std::string text;
    std::size_t room = 1000;
    unsigned asked = 0;
    CharPeer* peer = nullptr;
};

struct CableKit {
    FakeBackend backend;
    ConsoleCable cable{backend};
    virtio_console::VirtioConsole device{
        {{.kind = virtio_console::VirtioConsole::Kind::Terminal, .name = {}, .wire = &cable}}};
    void plug_in() { cable.plug_in(device, 0); }
};

struct ConsoleCableTest : testing::Test {
    void SetUp() override { ASSERT_TRUE(bench.start()); }
    bool put(u16 queue, const virtio::Segment& piece) {
        if (!bench.queues[queue]->add(std::vector<virtio::Segment>{piece})) return false;
        bench.port.notify(queue);
        return bench.run();
    }
    std::size_t type(const std::string& text) {
        const std::size_t took =
            backend().peer->receive({reinterpret_cast<const u8*>(text.data()), text.size()});
        EXPECT_TRUE(bench.run());
        return took;
    }
    FakeBackend& backend() { return bench.kit.backend; }
    virtio::Bench<CableKit, virtio::OverMmio, virtio::RingKind::Split> bench;
};

constexpr u64 kAt = 0x10'0000;

TEST_F(ConsoleCableTest, BytesGoBothWays) {
    std::memcpy(bench.ram.at(kAt), "hello", 5);
    ASSERT_TRUE(put(1, {.address = kAt, .length = 5, .writable = false}));
    EXPECT_EQ(backend().text, "hello");
    EXPECT_EQ(type("you"), 3U);
    ASSERT_TRUE(put(0, {.address = kAt, .length = 64, .writable = true}));
    const auto used = bench.queues[0]->take();
    ASSERT_TRUE(used);
    EXPECT_EQ(used->length, 3U);
    EXPECT_EQ(std::memcmp(bench.ram.at(kAt), "you", 3), 0);
}

// C17: a guest that does not read holds the host up, and is no sink.
TEST_F(ConsoleCableTest, WhatTheGuestDoesNotReadIsBounded) {
    EXPECT_EQ(type(std::string(10'000, 'x')), 4096U);
    EXPECT_EQ(type("more"), 0U);
    EXPECT_EQ(backend().asked, 0U);
    ASSERT_TRUE(put(0, {.address = kAt, .length = 1000, .writable = true}));
    EXPECT_EQ(backend().asked, 1U);
    ASSERT_TRUE(put(0, {.address = kAt, .length = 1000, .writable = true}));
    EXPECT_EQ(backend().asked, 1U) << "nothing waits that was refused";
    EXPECT_EQ(type(std::string(2000, 'x')), 2000U);
}

TEST_F(ConsoleCableTest, ABackendWithoutRoomHoldsTheGuestUp) {
    backend().room = 3;
    std::memcpy(bench.ram.at(kAt), "hello", 5);
    ASSERT_TRUE(put(1, {.address = kAt, .length = 5, .writable = false}));
    EXPECT_EQ(backend().text, "hel");
    EXPECT_FALSE(bench.queues[1]->take());
    backend().room = 1000;
    backend().peer->transmit_ready();
    ASSERT_TRUE(bench.run());
    EXPECT_EQ(backend().text, "hello");
    EXPECT_TRUE(bench.queues[1]->take());
}

TEST_F(ConsoleCableTest, TheTerminalsSizeReachesTheGuest) {
    backend().peer->resized(132, 50);
    ASSERT_TRUE(bench.run());
    std::array<std::byte, 4> size{};
    ASSERT_EQ(bench.port.read_config(0, size), IoStatus::Ok);
    EXPECT_EQ(std::bit_cast<u32>(size), 132U | 50U << 16);
    EXPECT_TRUE(bench.port.interrupted());
}

}  // namespace
}  // namespace tessera
