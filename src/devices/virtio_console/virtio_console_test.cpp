#include "devices/virtio_console/virtio_console.h"

#include <gtest/gtest.h>
#include <optional>

#include "devices/virtio/testing/hostile_driver_suite.h"
#include "devices/virtio_console/virtio_console_rig.h"

namespace tessera::virtio_console {
namespace {

using virtio::Segment;

constexpr u64 kAt = 0x10'0000;
constexpr u64 kControlAt = 0x18'0000;
constexpr u64 kMultiport = u64{1} << 1;

// [VIRTIO-1.2 5.3.2] queues, [VIRTIO-1.2 5.3.6.2] events
constexpr u16 kControlIn = 2;
constexpr u16 kControlOut = 3;
constexpr u16 kAdd = 1;
constexpr u16 kRemove = 2;
constexpr u16 kReady = 3;
constexpr u16 kConsole = 4;
constexpr u16 kResize = 5;
constexpr u16 kOpen = 6;
constexpr u16 kName = 7;

struct Message {
    u32 port;
    u16 event;
    u16 value;
    std::string more;
    friend bool operator==(const Message&, const Message&) = default;
};

void PrintTo(const Message& message, std::ostream* out) {
    *out << "port " << message.port << " event " << message.event << " value " << message.value << " '"
         << message.more << "'";
}

using Messages = std::vector<Message>;

template <typename Kit>
struct Console {
    virtio::Bench<Kit, virtio::OverMmio, virtio::RingKind::Split> bench;

    FakeWire& wire(unsigned port) { return bench.kit.wires[port]; }
    VirtioConsole& device() { return bench.kit.device; }

    // The driver's side.
    bool say(u32 port, u16 event, u16 value, u32 size = 8) {
        std::memcpy(bench.ram.at(kControlAt), &port, 4);
        std::memcpy(bench.ram.at(kControlAt + 4), &event, 2);
        std::memcpy(bench.ram.at(kControlAt + 6), &value, 2);
        return put(kControlOut, {{kControlAt, size, false}});
    }
    bool put(u16 queue, const std::vector<Segment>& pieces) {
        if (!bench.queues[queue]->add(pieces)) return false;
        bench.port.notify(queue);
        return bench.run();
    }
    void offer_control(unsigned buffers, u32 size = 128) {
        for (unsigned i = 0; i < buffers; ++i)
            (void)bench.queues[kControlIn]->add(
                std::vector<Segment>{{kControlAt + 0x1000 + next++ % 32 * 128, size, true}});
        bench.port.notify(kControlIn);
        EXPECT_TRUE(bench.run());
    }
    Messages told() {
        Messages messages;
        while (const auto used = bench.queues[kControlIn]->take()) {
            const u64 at = bench.queues[kControlIn]->template load<u64>(
                bench.queues[kControlIn]->descriptors() + 16 * u64{used->id});
            Message message{.port = 0, .event = 0, .value = 0, .more = {}};
            if (used->length < 8) {
                message.event = 0xffff;
            } else {
                std::memcpy(&message.port, bench.ram.at(at), 4);
                std::memcpy(&message.event, bench.ram.at(at + 4), 2);
                std::memcpy(&message.value, bench.ram.at(at + 6), 2);
                const auto rest = std::span(bench.ram.at(at + 8), used->length - 8);
                for (const auto byte : rest) message.more += static_cast<char>(byte);
            }
            messages.push_back(message);
        }
        return messages;
    }
    bool send(u16 queue, std::string_view text) {
        std::memcpy(bench.ram.at(kAt), text.data(), text.size());
        return put(queue, {{kAt, static_cast<u32>(text.size()), false}});
    }
    std::optional<std::string> received(u16 queue) {
        const auto used = bench.queues[queue]->take();
        if (!used) return std::nullopt;
        const u64 at =
            bench.queues[queue]->template load<u64>(bench.queues[queue]->descriptors() + 16 * u64{used->id});
        std::string text;
        for (const auto byte : std::span(bench.ram.at(at), used->length)) text += static_cast<char>(byte);
        return text;
    }
    u32 config(u64 offset) {
        std::array<std::byte, 4> data{};
        EXPECT_EQ(bench.port.read_config(offset, data), IoStatus::Ok);
        return std::bit_cast<u32>(data);
    }
    unsigned next = 0;
};

struct VirtioConsoleTest : testing::Test, Console<ConsoleKit> {
    void begin() {
        ASSERT_TRUE(bench.start());
        offer_control(12);
        ASSERT_TRUE(say(0, 0, 1));
        (void)told();
        offer_control(3);
    }
    void open(u32 port) {
        ASSERT_TRUE(say(port, kReady, 1));
        ASSERT_TRUE(say(port, kOpen, 1));
        (void)told();
    }
};

TEST_F(VirtioConsoleTest, ADriverThatIsReadyIsToldOfEveryPort) {
    ASSERT_TRUE(bench.start());
    offer_control(8);
    ASSERT_TRUE(say(0, 0, 1));
    EXPECT_EQ(told(), (Messages{{0, kAdd, 1, ""}, {1, kAdd, 1, ""}, {2, kAdd, 1, ""}}));
    device().resize(0, 132, 50);
    ASSERT_TRUE(bench.run());
    (void)told();
    ASSERT_TRUE(say(0, kReady, 1));
    EXPECT_EQ(
        told(),
        (Messages{{0, kConsole, 1, ""}, {0, kResize, 1, std::string("\x84\0\x32\0", 4)}, {0, kOpen, 1, ""}}));
    offer_control(8);
    ASSERT_TRUE(say(1, kReady, 1));
    EXPECT_EQ(told(), (Messages{{1, kName, 1, "agent"}, {1, kOpen, 1, ""}}));
}

TEST_F(VirtioConsoleTest, MessagesWaitForBuffersThatAreLargeEnough) {
    ASSERT_TRUE(bench.start());
    ASSERT_TRUE(say(0, 0, 1));
    EXPECT_TRUE(told().empty());
    offer_control(1, 7);
    EXPECT_EQ(told(), (Messages{{0, 0xffff, 0, ""}}));
    offer_control(3);
    EXPECT_EQ(told().size(), 3U);
    ASSERT_TRUE(say(1, kReady, 1));
    offer_control(1, 12);
    EXPECT_EQ(told(), (Messages{{0, 0xffff, 0, ""}})) << "'agent' does not fit";
    offer_control(2);
    EXPECT_EQ(told(), (Messages{{1, kName, 1, "agent"}, {1, kOpen, 1, ""}}));
}

TEST_F(VirtioConsoleTest, MessagesAreNotRepeatedWithoutEnd) {
    begin();
    for (unsigned i = 0; i < 1000; ++i) {
        ASSERT_TRUE(say(1, kReady, 1));
        (void)bench.queues[kControlOut]->take();
    }
    (void)told();
    offer_control(12);
    EXPECT_LE(told().size(), 2U);
}

TEST_F(VirtioConsoleTest, BytesOfEachPortGoToItsHost) {
    begin();
    open(0);
    open(1);
    ASSERT_TRUE(send(1, "terminal"));
    ASSERT_TRUE(send(5, "to the agent"));
    EXPECT_EQ(wire(0).given, "terminal");
    EXPECT_EQ(wire(1).given, "to the agent");
    EXPECT_EQ(wire(2).given, "");
    ASSERT_TRUE(put(4, {{kAt, 4, true}, {kAt + 0x100, 60, true}}));
    wire(1).waiting = "from it";
    device().input(1);
    ASSERT_TRUE(bench.run());
    const auto used = bench.queues[4]->take();
    ASSERT_TRUE(used);
    EXPECT_EQ(used->length, 7U);
    EXPECT_EQ(std::memcmp(bench.ram.at(kAt), "from", 4), 0);
    EXPECT_EQ(std::memcmp(bench.ram.at(kAt + 0x100), " it", 3), 0);
}

TEST_F(VirtioConsoleTest, InputWaitsForBuffersAndForTheGuestToOpenThePort) {
    begin();
    wire(1).waiting = "early";
    device().input(1);
    ASSERT_TRUE(put(4, {{kAt, 64, true}}));
    EXPECT_EQ(wire(1).waiting, "early");
    open(1);
    EXPECT_EQ(received(4), "early");
    wire(1).waiting = "late";
    device().input(1);
    ASSERT_TRUE(bench.run());
    EXPECT_EQ(wire(1).waiting, "late") << "there is no buffer";
    ASSERT_TRUE(put(4, {{kAt, 3, true}}));
    EXPECT_EQ(received(4), "lat");
    ASSERT_TRUE(put(4, {{kAt, 3, true}}));
    EXPECT_EQ(received(4), "e");
    ASSERT_TRUE(say(1, kOpen, 0));
    wire(1).waiting = "closed";
    device().input(1);
    ASSERT_TRUE(put(4, {{kAt, 64, true}}));
    EXPECT_EQ(wire(1).waiting, "closed");
}

// What the host has no room for stays in the guest's buffer.
TEST_F(VirtioConsoleTest, AHostWithoutRoomHoldsTheGuestUp) {
    begin();
    open(1);
    wire(1).room = 5;
    ASSERT_TRUE(send(5, "0123456789"));
    EXPECT_EQ(wire(1).given, "01234");
    EXPECT_FALSE(bench.queues[5]->take());
    ASSERT_TRUE(bench.run());
    wire(1).room = 2;
    device().room(1);
    ASSERT_TRUE(bench.run());
    EXPECT_EQ(wire(1).given, "0123456");
    EXPECT_FALSE(bench.queues[5]->take());
    wire(1).room = FakeWire::kEndless;
    device().room(1);
    ASSERT_TRUE(bench.run());
    EXPECT_EQ(wire(1).given, "0123456789");
    EXPECT_TRUE(bench.queues[5]->take());
}

// A program that ends right after its last words closes the port before they are read.
TEST_F(VirtioConsoleTest, WhatWasSentBeforeThePortWasClosedArrives) {
    begin();
    open(1);
    wire(1).room = 5;
    ASSERT_TRUE(send(5, "0123456789"));
    ASSERT_TRUE(say(1, kOpen, 0));
    wire(1).room = FakeWire::kEndless;
    device().room(1);
    ASSERT_TRUE(bench.run());
    EXPECT_EQ(wire(1).given, "0123456789");
}

TEST_F(VirtioConsoleTest, ASnapshotKnowsHowMuchOfABufferWasSent) {
    begin();
    open(1);
    wire(1).room = 5;
    ASSERT_TRUE(send(5, "0123456789"));
    const auto saved = testing_rig::saved(bench);
    Console<ConsoleKit> copy;
    std::memcpy(copy.bench.ram.at(0), bench.ram.at(0), 0x20'0000);
    ASSERT_TRUE(testing_rig::load(copy.bench, saved));
    copy.bench.core().resume();
    ASSERT_TRUE(copy.bench.run());
    EXPECT_EQ(copy.wire(1).given, "56789");
}

// Brought back on a host where nobody holds one port, another is not there, and the window has another size.
TEST_F(VirtioConsoleTest, ARestoredDriverIsToldWhatIsNotAsItWas) {
    begin();
    open(0);
    open(1);
    offer_control(8);
    (void)told();
    const auto saved = testing_rig::saved(bench);
    Console<ConsoleKit> copy;
    copy.device().set_held(1, false);
    copy.device().set_plugged(2, false);
    copy.device().resize(0, 132, 50);
    ASSERT_TRUE(copy.bench.run()) << "long before";
    copy.bench.copy_memory(bench);
    ASSERT_TRUE(testing_rig::load(copy.bench, saved));
    copy.bench.core().resume();
    ASSERT_TRUE(copy.bench.run());
    EXPECT_EQ(
        copy.told(),
        (Messages{{0, kResize, 1, std::string("\x84\0\x32\0", 4)}, {1, kOpen, 0, ""}, {2, kRemove, 1, ""}}));
    ASSERT_TRUE(copy.send(5, "lost"));
    EXPECT_EQ(copy.wire(1).given, "");
}

TEST_F(VirtioConsoleTest, ADriverThatIsNotReadyAfterAllIsToldNothingMore) {
    ASSERT_TRUE(bench.start());
    ASSERT_TRUE(say(0, 0, 1));
    ASSERT_TRUE(say(0, 0, 0));
    offer_control(8);
    EXPECT_TRUE(told().empty());
}

TEST_F(VirtioConsoleTest, WhatNobodyHoldsTheOtherEndOfIsLost) {
    begin();
    open(1);
    device().set_held(1, false);
    ASSERT_TRUE(bench.run());
    EXPECT_EQ(told(), (Messages{{1, kOpen, 0, ""}}));
    ASSERT_TRUE(send(5, "lost"));
    EXPECT_TRUE(bench.queues[5]->take());
    device().set_held(1, true);
    ASSERT_TRUE(bench.run());
    EXPECT_EQ(told(), (Messages{{1, kOpen, 1, ""}}));
    ASSERT_TRUE(send(5, "found"));
    EXPECT_EQ(wire(1).given, "found");
}

// A buffer the host was in the middle of goes with the one who left.
TEST_F(VirtioConsoleTest, AHostThatLeavesLetsTheGuestGoOn) {
    begin();
    open(1);
    wire(1).room = 1;
    ASSERT_TRUE(send(5, "0123456789"));
    EXPECT_FALSE(bench.queues[5]->take());
    device().set_held(1, false);
    ASSERT_TRUE(bench.run());
    EXPECT_TRUE(bench.queues[5]->take());
}

TEST_F(VirtioConsoleTest, PortsComeAndGo) {
    begin();
    open(1);
    device().set_plugged(1, false);
    ASSERT_TRUE(bench.run());
    EXPECT_EQ(told(), (Messages{{1, kRemove, 1, ""}}));
    ASSERT_TRUE(send(5, "lost"));
    EXPECT_EQ(wire(1).given, "");
    ASSERT_TRUE(say(1, kReady, 1));
    EXPECT_TRUE(told().empty()) << "there is no such port";
    device().set_plugged(1, true);
    ASSERT_TRUE(bench.run());
    EXPECT_EQ(told(), (Messages{{1, kAdd, 1, ""}}));
    open(1);
    ASSERT_TRUE(send(5, "found"));
    EXPECT_EQ(wire(1).given, "found");
}

// C3
TEST_F(VirtioConsoleTest, NumbersOfPortsThereAreNotAreIgnored) {
    begin();
    for (const u32 port : {3U, 4U, 15U, 16U, 0x7fff'ffffU, 0xffff'ffffU})
        for (u16 event = 0; event < 12; ++event)
            if (event != 0) {
                ASSERT_TRUE(say(port, event, 1));
                (void)bench.queues[kControlOut]->take();
            }
    ASSERT_TRUE(say(1, kReady, 1, 7));
    EXPECT_TRUE(told().empty());
    EXPECT_FALSE(bench.needs_reset());
}

// [VIRTIO-1.2 5.3.5] Before a driver is there, and whatever the width.
TEST_F(VirtioConsoleTest, EmergencyWritesReachTheTerminal) {
    EXPECT_EQ(bench.port.write_config(8, std::bit_cast<std::array<std::byte, 4>>(u32{0x1234'5641})),
              IoStatus::Ok);
    EXPECT_EQ(bench.port.write_config(8, std::array{std::byte{'B'}}), IoStatus::Ok);
    EXPECT_EQ(wire(0).given, "AB");
    wire(0).room = 0;
    EXPECT_EQ(bench.port.write_config(8, std::array{std::byte{'C'}}), IoStatus::Ok);
    EXPECT_EQ(config(8), 0U);
    EXPECT_EQ(config(4), 3U) << "ports";
}

// C6: a buffer of megabytes is handed over in turns.
TEST_F(VirtioConsoleTest, ALongBufferTakesSeveralTurns) {
    begin();
    open(1);
    std::vector<Segment> pieces;
    for (unsigned i = 0; i < 8; ++i)
        pieces.push_back({.address = kAt, .length = 0x2'0000, .writable = false});
    ASSERT_TRUE(bench.queues[5]->add(pieces));
    bench.port.notify(5);
    bench.kicker.kicks &= ~(u64{1} << 5);
    EXPECT_TRUE(bench.core().service(5));
    EXPECT_LE(wire(1).given.size(), 0x1'0000U);
    bench.kicker.kick(5);
    EXPECT_TRUE(bench.run());
    EXPECT_TRUE(bench.queues[5]->take());
}

TEST_F(VirtioConsoleTest, ADriverOfOnePortNeedsNoControlQueue) {
    ASSERT_TRUE(bench.start(kMultiport));
    ASSERT_TRUE(send(1, "hello"));
    EXPECT_EQ(wire(0).given, "hello");
    wire(0).waiting = "you";
    ASSERT_TRUE(put(0, {{kAt, 64, true}}));
    EXPECT_EQ(received(0), "you");
    ASSERT_TRUE(send(5, "nobody"));
    EXPECT_EQ(wire(1).given, "");
    ASSERT_TRUE(say(0, 0, 1));
    offer_control(4);
    EXPECT_TRUE(told().empty());
}

struct TerminalKit {
    std::array<FakeWire, 1> wires;
    VirtioConsole device{{{.kind = VirtioConsole::Kind::Terminal, .name = {}, .wire = wires.data()}}};
};

TEST(VirtioTerminalTest, ATerminalAloneTellsItsSizeByRegisters) {
    Console<TerminalKit> console;
    EXPECT_EQ(console.bench.port.device_features() & 0xff, 0b101U) << "size and emergency write";
    EXPECT_EQ(console.bench.core().queue_count(), 2U);
    ASSERT_TRUE(console.bench.start());
    console.device().resize(0, 132, 50);
    ASSERT_TRUE(console.bench.run());
    EXPECT_TRUE(console.bench.port.interrupted());
    EXPECT_EQ(console.config(0), 132U | 50U << 16);
    EXPECT_EQ(console.config(4), 1U);
    // A driver that comes later is told as well.
    ASSERT_TRUE(console.bench.start());
    EXPECT_TRUE(console.bench.port.interrupted());
}

}  // namespace
}  // namespace tessera::virtio_console

TESSERA_JOIN_HOSTILE_DRIVER_SUITE(VirtioConsole, tessera::virtio_console::ConsoleKit);
TESSERA_JOIN_HOSTILE_DRIVER_SUITE(VirtioConsoleControl, tessera::virtio_console::ConsoleControlKit);
