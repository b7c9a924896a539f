// TCP with the guest: handshake, data both ways, windows, loss, reordering, closing, resets, limits.
#include "backends/net/usernet/tcp.h"

#include <random>

#include "backends/net/usernet/testing/guest_tcp.h"
#include "backends/net/usernet/testing/stack_rig.h"

namespace tessera::usernet::testing {
namespace {

class UsernetTcpTest : public StackRig {
protected:
    static constexpr u32 kPort = 80;
    static constexpr u32 kOwnPort = 40000;

    void send(const TcpFields& fields) {
        TcpFields full = fields;
        if (full.source == 0) full.source = kOwnPort;
        if (full.target == 0) full.target = kPort;
        input(ip_frame(ipv4(kGuest, kServer, 6, tcp(kGuest, kServer, full))));
    }
    ReceivedTcp next_tcp() {
        const Received r = next();
        EXPECT_TRUE(r.net.flags != 0 || sum_is_right(r));
        return as_tcp(r);
    }
    // A connection that is open, the guest's next sequence number being 1001.
    void open(const Buffer& options = {2, 4, 5, 0xb4, 1, 3, 3, 4}, u32 window = 60'000) {
        send({.sequence = 1000, .flags = kSyn, .window = window, .options = options});
        stack->tcp_connected(host.last_tcp, ConnectResult::Connected, now_ms);
        flush();
        const ReceivedTcp syn = next_tcp();
        EXPECT_EQ(syn.flags, kSyn | kAck);
        expects = syn.sequence + 1;
        send({.sequence = 1001, .acknowledged = expects, .flags = kAck, .window = window});
        wire.sent.clear();
    }
    FakeHost::TcpSocket& socket() { return host.tcp.at(host.last_tcp); }
    void arrives(std::string_view data) {
        socket().incoming += data;
        stack->tcp_ready(host.last_tcp, {.readable = true}, now_ms);
        flush();
    }
    void remote_finishes() {
        stack->tcp_ready(host.last_tcp, {.readable = true, .finished = true}, now_ms);
        flush();
    }
    u32 expects = 0;
};

// --- Handshake ---

TEST_F(UsernetTcpTest, AnswersTheGuestOnlyWhenTheHostIsConnected) {
    send({.sequence = 1000, .flags = kSyn, .options = {2, 4, 5, 0xb4, 1, 3, 3, 7}});
    EXPECT_TRUE(silent());
    EXPECT_EQ(socket().to.address.text(), "192.0.2.80");
    EXPECT_EQ(socket().to.port, kPort);
    send({.sequence = 1000, .flags = kSyn});  // again
    EXPECT_EQ(host.connects, 1);
    stack->tcp_connected(host.last_tcp, ConnectResult::Connected, now_ms);
    flush();
    const ReceivedTcp answer = next_tcp();
    EXPECT_EQ(answer.flags, kSyn | kAck);
    EXPECT_EQ(answer.acknowledged, 1001U);
    EXPECT_EQ(answer.source, kPort);
    EXPECT_EQ(answer.target, kOwnPort);
    EXPECT_EQ(cut(answer.options, 0, 4), (Buffer{2, 4, 1460 >> 8, 1460 & 255}));
    EXPECT_EQ(answer.options.size(), 8U) << "scaling, as the guest has it too";
}

TEST_F(UsernetTcpTest, ScalesWindowsOnlyIfTheGuestDoes) {
    send({.sequence = 1000, .flags = kSyn, .options = {2, 4, 5, 0xb4}});
    stack->tcp_connected(host.last_tcp, ConnectResult::Connected, now_ms);
    const ReceivedTcp answer = next_tcp();
    EXPECT_EQ(answer.options.size(), 4U);
    EXPECT_EQ(answer.window, 65535U);
}

TEST_F(UsernetTcpTest, RefusalIsAResetAndUnreachableIsIcmp) {
    send({.sequence = 1000, .flags = kSyn});
    stack->tcp_connected(host.last_tcp, ConnectResult::Refused, now_ms);
    const ReceivedTcp reset = next_tcp();
    EXPECT_EQ(reset.flags, kRst | kAck);
    EXPECT_EQ(reset.acknowledged, 1001U);
    EXPECT_TRUE(socket().closed);

    host.connect_result = ConnectResult::Unreachable;
    send({.sequence = 1000, .flags = kSyn});
    const Received error = next();
    EXPECT_EQ(error.protocol, 1);
    EXPECT_EQ(error.message[0], 3);
    EXPECT_EQ(error.message[1], 1);
    EXPECT_EQ(read32(error.message, 8 + 20 + 4), 1000U) << "the SYN's sequence number";

    host.connect_result = ConnectResult::TimedOut;
    send({.sequence = 1000, .flags = kSyn});
    EXPECT_TRUE(silent());
    EXPECT_EQ(stack->connections(), 0U);
}

TEST_F(UsernetTcpTest, ProhibitedAddressesAreReset) {
    const Buffer packet = tcp(kGuest, kGateway, {.source = 9, .target = 22, .sequence = 5, .flags = kSyn});
    input(ip_frame(ipv4(kGuest, kGateway, 6, packet)));
    EXPECT_EQ(next_tcp().flags, kRst | kAck);
    EXPECT_TRUE(host.tcp.empty());
}

TEST_F(UsernetTcpTest, TheAnswerToTheSynIsRepeatedThenGivenUp) {
    send({.sequence = 1000, .flags = kSyn});
    stack->tcp_connected(host.last_tcp, ConnectResult::Connected, now_ms);
    const u32 sequence = next_tcp().sequence;
    pass(Tcp::kFirstRetryMs + 1);
    EXPECT_EQ(next_tcp().sequence, sequence);
    send({.sequence = 1000, .flags = kSyn});  // lost: the guest asks again
    EXPECT_EQ(next_tcp().sequence, sequence);
    pass(120'000);
    EXPECT_EQ(stack->connections(), 0U);
    EXPECT_TRUE(socket().closed);
}

TEST_F(UsernetTcpTest, AWrongAnswerToTheSynIsReset) {
    send({.sequence = 1000, .flags = kSyn});
    stack->tcp_connected(host.last_tcp, ConnectResult::Connected, now_ms);
    const u32 sequence = next_tcp().sequence;
    send({.sequence = 1001, .acknowledged = sequence + 77, .flags = kAck});
    const ReceivedTcp reset = next_tcp();
    EXPECT_EQ(reset.flags, kRst);
    EXPECT_EQ(reset.sequence, sequence + 77);
}

TEST_F(UsernetTcpTest, TheGuestMayChangeItsMindWhileConnecting) {
    send({.sequence = 1000, .flags = kSyn});
    send({.sequence = 1001, .flags = kRst});
    EXPECT_TRUE(socket().closed);
    stack->tcp_connected(host.last_tcp, ConnectResult::Connected, now_ms);  // too late
    EXPECT_TRUE(silent());
}

TEST_F(UsernetTcpTest, SegmentsOfNoConnectionAreReset) {
    send({.sequence = 500, .acknowledged = 900, .flags = kAck, .data = text("x")});
    const ReceivedTcp reset = next_tcp();
    EXPECT_EQ(reset.flags, kRst);
    EXPECT_EQ(reset.sequence, 900U);
    send({.sequence = 500, .flags = kRst});
    EXPECT_TRUE(silent()) << "a reset is not answered";
}

// --- Guest to host ---

TEST_F(UsernetTcpTest, DataReachesTheSocketAndIsAcknowledged) {
    open();
    send({.sequence = 1001, .acknowledged = expects, .flags = kAck | kPsh, .data = text("hello ")});
    send({.sequence = 1007, .acknowledged = expects, .flags = kAck | kPsh | kUrg, .data = text("world")});
    EXPECT_EQ(socket().sent, "hello world") << "urgent data is data";
    EXPECT_EQ(next_tcp().acknowledged, 1007U);
    EXPECT_EQ(next_tcp().acknowledged, 1012U);
}

TEST_F(UsernetTcpTest, RepeatedAndOverlappingDataIsTakenOnce) {
    open();
    send({.sequence = 1001, .acknowledged = expects, .flags = kAck, .data = text("abcd")});
    send({.sequence = 1001, .acknowledged = expects, .flags = kAck, .data = text("abcd")});
    send({.sequence = 1003, .acknowledged = expects, .flags = kAck, .data = text("cdef")});
    EXPECT_EQ(socket().sent, "abcdef");
}

TEST_F(UsernetTcpTest, AGapIsAskedForAtOnce) {
    open();
    for (int i = 0; i < 3; ++i) {
        send({.sequence = 1011, .acknowledged = expects, .flags = kAck, .data = text("later")});
        EXPECT_EQ(next_tcp().acknowledged, 1001U) << "three of these make the guest repeat the segment";
    }
    EXPECT_EQ(socket().sent, "");
}

TEST_F(UsernetTcpTest, WhatTheSocketDoesNotTakeClosesTheWindowAndNothingIsLost) {
    open();
    host.send_room = 1000;
    GuestTcp guest([&](const Buffer& frame) { input(frame); }, kServer, kPort, 50000);
    host.send_room = FakeHost::kUnlimited;
    u32 sequence = 1001;
    host.send_room = 1000;
    std::string sent;
    u32 window = Tcp::kReceiveWindow;
    for (int i = 0; i < 100 && window != 0; ++i) {
        const std::string data(std::min(window, 30'000U), static_cast<char>('a' + i % 26));
        send({.sequence = sequence, .acknowledged = expects, .flags = kAck, .data = text(data)});
        sent += data;
        sequence += static_cast<u32>(data.size());
        const ReceivedTcp ack = next_tcp();
        EXPECT_EQ(ack.acknowledged, sequence);
        window = ack.window << 7;
    }
    EXPECT_LE(window, 127U);
    EXPECT_GE(sent.size(), Tcp::kReceiveWindow - 128);
    EXPECT_EQ(socket().sent.size(), 1000U);
    host.send_room = FakeHost::kUnlimited;
    stack->tcp_ready(host.last_tcp, {.writable = true}, now_ms);
    flush();
    EXPECT_EQ(socket().sent, sent);
    EXPECT_GE(next_tcp().window << 7, Tcp::kReceiveWindow / 2) << "the guest is told";
}

TEST_F(UsernetTcpTest, QueuedBytesOfAllConnectionsAreBounded) {
    host.send_room = 0;
    u64 accepted = 0;
    for (u32 port = 1; port <= 80; ++port) {
        host.connect_result = ConnectResult::Connected;
        send({.source = port, .sequence = 1000, .flags = kSyn, .options = {3, 3, 7, 0}});
        const u32 iss = next_tcp().sequence;
        u32 sequence = 1001;
        for (int i = 0; i < 40; ++i) {
            send({.source = port,
                  .sequence = sequence,
                  .acknowledged = iss + 1,
                  .flags = kAck,
                  .data = Buffer(32'000, 'x')});
            if (!silent()) sequence = next_tcp().acknowledged;
            wire.sent.clear();
        }
        accepted += sequence - 1001;
    }
    EXPECT_LE(accepted, Tcp::kMostQueued);
    EXPECT_GE(accepted, Tcp::kMostQueued / 2);
}

TEST_F(UsernetTcpTest, AFlowingStreamIsAcknowledgedInLargePiecesAndItsEndSoon) {
    open();
    u32 sequence = 1001;
    const auto push = [&](std::size_t size) {
        send({.sequence = sequence, .acknowledged = expects, .flags = kAck, .data = Buffer(size, 'x')});
        sequence += static_cast<u32>(size);
    };
    for (u32 bytes = 0; bytes + 8192 < Tcp::kQuickBytes; bytes += 8192) {
        push(8192);
        EXPECT_EQ(next_tcp().acknowledged, sequence) << "at first each, for the guest's window to grow";
    }
    push(8192);
    wire.sent.clear();
    int acknowledgements = 0;
    for (int i = 0; i < 40; ++i) {
        push(8192);
        while (!silent()) {
            EXPECT_EQ(next_tcp().acknowledged, sequence);
            ++acknowledgements;
        }
    }
    EXPECT_EQ(acknowledgements, 10) << "each 32 KiB";
    push(100);
    EXPECT_TRUE(silent());
    pass(Tcp::kAcknowledgeDelayMs);
    EXPECT_EQ(next_tcp().acknowledged, sequence);
    pass(Tcp::kPauseMs + 1);
    push(100);
    EXPECT_EQ(next_tcp().acknowledged, sequence) << "after a pause at once again";
    EXPECT_TRUE(silent());
}

TEST_F(UsernetTcpTest, KeepAlivesOfTheGuestAreAnswered) {
    open();
    send({.sequence = 1000, .acknowledged = expects, .flags = kAck});
    EXPECT_EQ(next_tcp().acknowledged, 1001U);
}

// --- Host to guest ---

TEST_F(UsernetTcpTest, DataComesInSegmentsTheGuestCanTake) {
    open({2, 4, 0x04, 0x00, 1, 3, 3, 4}, 2000);  // MSS 1024; 2000 << 4 bytes of window
    arrives(std::string(5000, 'd'));
    std::string got;
    u32 sequence = expects;
    while (!silent()) {
        const ReceivedTcp t = next_tcp();
        EXPECT_LE(t.data.size(), 1024U);
        EXPECT_EQ(t.sequence, sequence);
        EXPECT_EQ(t.acknowledged, 1001U);
        sequence += static_cast<u32>(t.data.size());
        got.append(t.data.begin(), t.data.end());
    }
    EXPECT_EQ(got, std::string(5000, 'd'));
    EXPECT_EQ(socket().incoming.size(), 5000U) << "kept until it is acknowledged";
    send({.sequence = 1001, .acknowledged = sequence, .flags = kAck});
    EXPECT_EQ(socket().incoming.size(), 0U);
}

TEST_F(UsernetTcpTest, LargeFramesCarryWhatTheCardNeedsToCutThem) {
    stack->guest_takes({.checksum = true, .tso4 = true});
    open({2, 4, 5, 0xb4, 1, 3, 3, 7}, 10'000);
    arrives(std::string(100'000, 'd'));
    const Received first = next();
    EXPECT_EQ(first.net.flags, NetHeader::kNeedsChecksum);
    EXPECT_EQ(first.net.gso_type, NetHeader::kGsoTcp4);
    EXPECT_EQ(first.net.gso_size, 1460);
    EXPECT_EQ(first.net.header_length, 54);
    EXPECT_EQ(first.net.checksum_start, 34);
    EXPECT_EQ(first.net.checksum_offset, 16);
    EXPECT_GT(first.message.size(), 60'000U);
    EXPECT_LE(first.packet.size(), 65535U);
    // The field holds the sum over the pseudo header, for the card to go on with.
    EXPECT_EQ(read16(first.message, 16),
              static_cast<u16>(~checksum_of(pseudo(kServer, kGuest, 6, first.message.size()))));
    const Received second = next();
    EXPECT_EQ(first.message.size() + second.message.size() - 40, 100'000U);
}

TEST_F(UsernetTcpTest, RespectsTheGuestsWindowAndGoesOnWhenItOpens) {
    open({2, 4, 5, 0xb4}, 3000);
    arrives(std::string(10'000, 'd'));
    u32 got = 0;
    while (!silent()) got += static_cast<u32>(next_tcp().data.size());
    EXPECT_LE(got, 3000U);
    EXPECT_GE(got, 1460U);
    send({.sequence = 1001, .acknowledged = expects + got, .flags = kAck, .window = 0});
    EXPECT_TRUE(silent());
    send({.sequence = 1001, .acknowledged = expects + got, .flags = kAck, .window = 20'000});
    u32 rest = 0;
    while (!silent()) rest += static_cast<u32>(next_tcp().data.size());
    EXPECT_EQ(got + rest, 10'000U);
}

TEST_F(UsernetTcpTest, AClosedWindowIsProbedForAsLongAsTheGuestAnswers) {
    open({2, 4, 5, 0xb4}, 0);
    arrives("data");
    EXPECT_TRUE(silent());
    int probes = 0;
    for (int minute = 0; minute < 30; ++minute) {
        pass(60'000);
        while (!silent()) {
            ++probes;
            EXPECT_LE(next_tcp().data.size(), 1U);
        }
        send({.sequence = 1001, .acknowledged = expects, .flags = kAck, .window = 0});
    }
    EXPECT_GE(probes, 10);
    EXPECT_LE(probes, 100);
    EXPECT_EQ(stack->connections(), 1U);
    send({.sequence = 1001, .acknowledged = expects, .flags = kAck, .window = 1000});
    pass(70'000);
    std::string got;
    while (!silent()) {
        const ReceivedTcp t = next_tcp();
        got.append(t.data.begin(), t.data.end());
    }
    EXPECT_NE(got.find("data"), std::string::npos);
}

TEST_F(UsernetTcpTest, WhatIsNotAcknowledgedIsSentAgainAndGivenUpInTheEnd) {
    open();
    arrives("data");
    EXPECT_EQ(next_tcp().data, text("data"));
    pass(Tcp::kFirstRetryMs + 10);
    EXPECT_EQ(next_tcp().data, text("data"));
    for (int i = 0; i < 3; ++i)
        send({.sequence = 1001, .acknowledged = expects, .flags = kAck, .window = 60'000});
    EXPECT_EQ(next_tcp().data, text("data")) << "three duplicate acknowledgements";
    pass(1'000'000);
    EXPECT_EQ(stack->connections(), 0U);
    EXPECT_EQ(socket().ending, Host::Ending::Reset);
}

TEST_F(UsernetTcpTest, AGuestThatDoesNotFetchItsFramesHasLostNone) {
    open();
    arrives("data");
    (void)next_tcp();
    wire.is_drained = false;  // paused
    pass(10'000'000);
    EXPECT_TRUE(silent());
    EXPECT_EQ(stack->connections(), 1U);
}

TEST_F(UsernetTcpTest, AFullWireLosesNothing) {
    open();
    wire.room = 2;
    arrives(std::string(10'000, 'd'));
    EXPECT_EQ(wire.sent.size(), 2U);
    std::string got;
    for (int i = 0; i < 50 && got.size() < 10'000; ++i) {
        while (!silent()) {
            const ReceivedTcp t = next_tcp();
            got.append(t.data.begin(), t.data.end());
        }
        flush();
    }
    EXPECT_EQ(got.size(), 10'000U);
}

// --- Ends ---

TEST_F(UsernetTcpTest, TheGuestMayFinishAndGoOnReceiving) {
    open();
    send({.sequence = 1001, .acknowledged = expects, .flags = kAck | kFin, .data = text("bye")});
    EXPECT_EQ(socket().sent, "bye");
    EXPECT_TRUE(socket().finished);
    EXPECT_EQ(next_tcp().acknowledged, 1005U);
    arrives("still here");
    EXPECT_EQ(next_tcp().data, text("still here"));
    send({.sequence = 1005, .acknowledged = expects + 10, .flags = kAck});
    remote_finishes();
    const ReceivedTcp fin = next_tcp();
    EXPECT_EQ(fin.flags & kFin, kFin);
    EXPECT_FALSE(socket().closed);
    send({.sequence = 1005, .acknowledged = fin.sequence + 1, .flags = kAck});
    EXPECT_TRUE(socket().closed);
    EXPECT_EQ(socket().ending, Host::Ending::Orderly);
    EXPECT_EQ(stack->connections(), 0U);
}

TEST_F(UsernetTcpTest, TheFarEndMayFinishAndGoOnReceiving) {
    open();
    socket().incoming = "last words";
    remote_finishes();
    std::string got;
    u32 end = expects;
    bool finished = false;
    while (!silent()) {
        const ReceivedTcp t = next_tcp();
        got.append(t.data.begin(), t.data.end());
        end = t.sequence + static_cast<u32>(t.data.size());
        finished = finished || (t.flags & kFin) != 0;
    }
    EXPECT_EQ(got, "last words");
    EXPECT_TRUE(finished);
    send({.sequence = 1001, .acknowledged = end + 1, .flags = kAck, .data = text("answer")});
    EXPECT_EQ(socket().sent, "answer");
    EXPECT_FALSE(socket().closed);
    send({.sequence = 1007, .acknowledged = end + 1, .flags = kAck | kFin});
    EXPECT_TRUE(socket().closed);
    EXPECT_EQ(next_tcp().acknowledged, 1007U);
    EXPECT_EQ(next_tcp().acknowledged, 1008U) << "the FIN is acknowledged";
}

TEST_F(UsernetTcpTest, ALostFinIsRepeated) {
    open();
    remote_finishes();
    EXPECT_EQ(next_tcp().flags & kFin, kFin);
    pass(Tcp::kFirstRetryMs + 10);
    EXPECT_EQ(next_tcp().flags & kFin, kFin);
}

TEST_F(UsernetTcpTest, FinishingWaitsForWhatIsQueued) {
    open();
    host.send_room = 0;
    send({.sequence = 1001, .acknowledged = expects, .flags = kAck | kFin, .data = text("slow")});
    EXPECT_FALSE(socket().finished);
    host.send_room = FakeHost::kUnlimited;
    stack->tcp_ready(host.last_tcp, {.writable = true}, now_ms);
    EXPECT_EQ(socket().sent, "slow");
    EXPECT_TRUE(socket().finished);
}

TEST_F(UsernetTcpTest, ResetsPassBothWays) {
    open();
    send({.sequence = 1001, .flags = kRst});
    EXPECT_TRUE(socket().closed);
    EXPECT_EQ(socket().ending, Host::Ending::Reset);
    EXPECT_EQ(stack->connections(), 0U);
    open();
    stack->tcp_ready(host.last_tcp, {.failed = true}, now_ms);
    EXPECT_EQ(next_tcp().flags & kRst, kRst);
    EXPECT_EQ(stack->connections(), 0U);
}

TEST_F(UsernetTcpTest, ResetsMustBeExactlyInOrder) {
    open();
    send({.sequence = 1100, .flags = kRst});
    EXPECT_EQ(stack->connections(), 1U);
    EXPECT_EQ(next_tcp().acknowledged, 1001U) << "a challenge [RFC 5961]";
    send({.sequence = 999'999'999, .flags = kRst});
    EXPECT_EQ(stack->connections(), 1U);
    send({.sequence = 1001, .acknowledged = expects, .flags = kSyn | kAck});
    EXPECT_EQ(stack->connections(), 1U);
}

TEST_F(UsernetTcpTest, ASocketThatFailsOnSendingResetsTheGuest) {
    open();
    host.dead = true;
    send({.sequence = 1001, .acknowledged = expects, .flags = kAck, .data = text("x")});
    EXPECT_EQ(next_tcp().flags & kRst, kRst);
    EXPECT_EQ(stack->connections(), 0U);
}

TEST_F(UsernetTcpTest, IdleConnectionsAreAskedAndDeadOnesEnd) {
    open();
    pass(Tcp::kIdleMs + 1000);
    const ReceivedTcp probe = next_tcp();
    EXPECT_EQ(probe.sequence, expects - 1);
    EXPECT_TRUE(probe.data.empty());
    send({.sequence = 1001, .acknowledged = expects, .flags = kAck});
    pass(Tcp::kIdleMs / 2);
    EXPECT_EQ(stack->connections(), 1U);
    pass(Tcp::kIdleMs + 20 * Tcp::kProbeMs);
    EXPECT_EQ(stack->connections(), 0U);
}

TEST_F(UsernetTcpTest, TheNumberOfConnectionsIsBounded) {
    for (u32 port = 1; port <= Tcp::kMostConnections + 5; ++port)
        send({.source = port, .sequence = 1000, .flags = kSyn});
    EXPECT_EQ(stack->connections(), Tcp::kMostConnections);
    EXPECT_EQ(wire.sent.size(), 5U) << "the others are refused";
    EXPECT_EQ(next_tcp().flags, kRst | kAck);
}

TEST_F(UsernetTcpTest, AcknowledgementsOfWhatWasNotSentAreIgnored) {
    open();
    arrives("data");
    wire.sent.clear();
    send({.sequence = 1001, .acknowledged = expects + 400, .flags = kAck});
    EXPECT_EQ(socket().incoming, "data");
    EXPECT_EQ(next_tcp().acknowledged, 1001U);
}

TEST_F(UsernetTcpTest, MalformedSegmentsDoNoHarm) {
    open();
    const Buffer whole = tcp(kGuest, kServer,
                             {.source = kOwnPort,
                              .target = kPort,
                              .sequence = 1001,
                              .acknowledged = expects,
                              .flags = kAck,
                              .options = {1, 1, 1, 0}});
    for (std::size_t size = 0; size < whole.size(); ++size) {
        Buffer torn = cut(whole, 0, size);
        if (size > 17) torn = with_sum(kGuest, kServer, 6, torn, 16);
        input(ip_frame(ipv4(kGuest, kServer, 6, torn)));
    }
    for (const int offset : {0x00, 0x10, 0x40, 0xf0}) {
        Buffer bad = whole;
        bad[12] = static_cast<u8>(offset);
        patch16(bad, 16, 0);
        input(ip_frame(ipv4(kGuest, kServer, 6, with_sum(kGuest, kServer, 6, bad, 16))));
    }
    for (const Buffer& options : {Buffer{2, 0, 0, 0}, Buffer{2, 1, 0, 0}, Buffer{2, 40, 0, 0},
                                  Buffer{3, 3, 255, 0}, Buffer{2, 4, 0, 0}, Buffer{1, 1, 1, 2}})
        send({.source = 77, .sequence = 1, .flags = kSyn, .options = options});
    EXPECT_EQ(socket().sent, "");
}

// --- Forwards ---

TEST_F(UsernetTcpTest, ForwardsConnectToTheGuest) {
    config.forwards = {{.guest = {.address = IpAddress::v4(0x0a00020f), .port = 22}}};
    build();
    const Endpoint peer{.address = *IpAddress::parse("127.0.0.1"), .port = 5555};
    const auto id = stack->tcp_incoming(0, peer, now_ms);
    ASSERT_TRUE(id.has_value());
    host.tcp[*id] = {};
    host.last_tcp = *id;
    const Received question = next();
    EXPECT_EQ(question.type, 0x0806U) << "the guest's Ethernet address is not known yet";
    EXPECT_EQ(cut(question.packet, 24, 4), kGuest);
    input(arp(2, kGuest, kGateway));
    pass(Tcp::kFirstRetryMs + 10);
    const Received packet = next();
    EXPECT_EQ(packet.from, kGateway);
    const ReceivedTcp syn = as_tcp(packet);
    EXPECT_EQ(syn.flags, kSyn);
    EXPECT_EQ(syn.source, 5555U);
    EXPECT_EQ(syn.target, 22U);
    const auto reply = [&](const TcpFields& fields) {
        input(ip_frame(ipv4(kGuest, kGateway, 6, tcp(kGuest, kGateway, fields))));
    };
    reply({.source = 22,
           .target = 5555,
           .sequence = 300,
           .acknowledged = syn.sequence + 1,
           .flags = kSyn | kAck,
           .options = {2, 4, 5, 0xb4}});
    EXPECT_EQ(next_tcp().acknowledged, 301U);
    arrives("ssh");
    EXPECT_EQ(next_tcp().data, text("ssh"));
    reply({.source = 22,
           .target = 5555,
           .sequence = 301,
           .acknowledged = syn.sequence + 4,
           .flags = kAck,
           .data = text("hi")});
    EXPECT_EQ(socket().sent, "hi");
    EXPECT_FALSE(stack->tcp_incoming(0, peer, now_ms).has_value()) << "the same peer again";
    EXPECT_FALSE(stack->tcp_incoming(7, peer, now_ms).has_value());
}

TEST_F(UsernetTcpTest, AForwardTheGuestRefusesOrIgnoresIsReset) {
    config.forwards = {{.guest = {.address = IpAddress::v4(0x0a00020f), .port = 22}}};
    build();
    input(arp(2, kGuest, kGateway));
    const auto refused = stack->tcp_incoming(0, {.address = IpAddress::v4(0x7f000001), .port = 1}, now_ms);
    host.tcp[*refused] = {};
    const ReceivedTcp syn = next_tcp();
    input(ip_frame(
        ipv4(kGuest, kGateway, 6,
             tcp(kGuest, kGateway,
                 {.source = 22, .target = 1, .acknowledged = syn.sequence + 1, .flags = kRst | kAck}))));
    EXPECT_TRUE(host.tcp[*refused].closed);
    const auto ignored = stack->tcp_incoming(0, {.address = IpAddress::v4(0x7f000001), .port = 2}, now_ms);
    host.tcp[*ignored] = {};
    pass(300'000);
    EXPECT_TRUE(host.tcp[*ignored].closed);
    EXPECT_EQ(stack->connections(), 0U);
}

// --- Properties: whatever is lost, cut, swapped or short of room, what arrives is what was sent ---

class UsernetTcpPropertyTest : public UsernetTcpTest, public ::testing::WithParamInterface<unsigned> {};

TEST_P(UsernetTcpPropertyTest, BothStreamsArriveWhole) {
    std::mt19937 generator(GetParam());
    const auto random = [&] { return static_cast<u32>(generator()); };
    const auto chance = [&](unsigned percent) { return random() % 100 < percent; };
    const unsigned loss = GetParam() % 3 * 8;
    const bool six = GetParam() % 2 == 1;
    const bool large = GetParam() % 4 >= 2;
    if (large) stack->guest_takes({.checksum = true, .tso4 = true, .tso6 = true});
    const Buffer remote = six ? kServer6 : kServer;
    std::deque<Buffer> cable;  // from the guest
    GuestTcp guest([&](const Buffer& frame) { cable.push_back(frame); }, remote, kPort, kOwnPort);
    guest.scale = 3;
    guest.window = 1 + random() % 100'000;
    guest.connect(random());
    host.connect_result = ConnectResult::Connected;

    std::string upload(150'000 + random() % 50'000, 0);
    std::string download(150'000 + random() % 50'000, 0);
    for (char& c : upload) c = static_cast<char>(random());
    for (char& c : download) c = static_cast<char>(random());
    guest.send(upload);
    guest.close();
    std::size_t arrived = 0;
    bool finished = false;
    for (int step = 0; step < 200'000; ++step) {
        if (!cable.empty()) {
            if (cable.size() > 1 && chance(loss)) std::swap(cable[0], cable[1]);
            const Buffer frame = cable.front();
            cable.pop_front();
            if (!chance(loss)) input(frame);
            if (chance(loss)) input(frame);
        }
        if (!wire.sent.empty()) {
            if (wire.sent.size() > 1 && chance(loss)) std::swap(wire.sent[0], wire.sent[1]);
            const Buffer frame = wire.sent.front();
            wire.sent.pop_front();
            if (!chance(loss)) (void)guest.take(frame);
        }
        wire.room = 1 + random() % 20;
        host.send_room = chance(30) ? 0 : random() % 20'000;
        if (guest.connected) guest.push(1 + random() % 5000);
        if (!host.tcp.empty() && !socket().closed) {
            if (arrived < download.size() && chance(50)) {
                const std::size_t size = std::min<std::size_t>(download.size() - arrived, random() % 30'000);
                socket().incoming += download.substr(arrived, size);
                arrived += size;
            }
            finished = finished || (arrived == download.size() && chance(10));
            stack->tcp_ready(host.last_tcp, {.readable = true, .writable = true, .finished = finished},
                             now_ms);
            flush();
        }
        if (chance(20)) guest.window = 1 + random() % 200'000;
        if (cable.empty() && wire.sent.empty()) {
            pass(400);
            if (wire.sent.empty()) guest.again(1 + random() % 5000);
        }
        // There is no TIME-WAIT: a last acknowledgement that is lost becomes a reset.
        const bool over = guest.fin_acknowledged() || guest.was_reset;
        if (guest.remote_finished && over && stack->connections() == 0) break;
    }
    ASSERT_FALSE(host.tcp.empty());
    EXPECT_TRUE(socket().sent == upload) << socket().sent.size() << " of " << upload.size();
    EXPECT_TRUE(guest.received == download) << guest.received.size() << " of " << download.size();
    EXPECT_TRUE(socket().finished);
    EXPECT_TRUE(guest.remote_finished);
    EXPECT_FALSE(guest.was_reset && loss == 0);
}

INSTANTIATE_TEST_SUITE_P(Seeds, UsernetTcpPropertyTest, ::testing::Range(1U, 25U));

}  // namespace
}  // namespace tessera::usernet::testing
