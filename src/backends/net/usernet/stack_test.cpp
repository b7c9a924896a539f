// Everything but TCP: Ethernet, ARP, IP, fragments, ICMP, neighbour discovery, DHCP, UDP, DNS.
#include "backends/net/usernet/stack.h"

#include "backends/net/usernet/checksum.h"
#include "backends/net/usernet/testing/stack_rig.h"

namespace tessera::usernet::testing {
namespace {

class UsernetTest : public StackRig {
protected:
    void send_udp(u32 source, const Buffer& to, u32 port, std::string_view payload) {
        input(ip_frame(ip(kGuest, to, 17, udp(kGuest, to, source, port, text(payload)))));
    }
    FakeHost::DatagramSocket& socket() { return host.datagrams.at(host.last_datagram); }
    void answer(std::string_view payload) {
        socket().incoming.emplace_back(payload);
        stack->datagram_readable(host.last_datagram);
        flush();
    }
};

// --- Addresses and sums ---

TEST(UsernetAddressTest, ReadsWhatPeopleWrite) {
    EXPECT_EQ(IpAddress::parse("10.0.2.15"), IpAddress::v4(0x0a00020f));
    const IpAddress six = IpAddress::parse("2001:db8::80").value_or(IpAddress{});
    EXPECT_EQ(Buffer(six.bytes.begin(), six.bytes.end()), kServer6);
    EXPECT_TRUE(IpAddress::parse("::").has_value());
    EXPECT_TRUE(IpAddress::parse("::1")->is_loopback());
    EXPECT_TRUE(IpAddress::parse("1:2:3:4:5:6:7:8").has_value());
    for (const char* wrong :
         {"", "10.0.2", "10.0.2.256", "10.0.2.1.", "10.0.2.1.1", "1.2.3.x", ":", ":::", "1::2::3",
          "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "12345::", "g::", "1:2:3:4:5:6:7:8:"})
        EXPECT_FALSE(IpAddress::parse(wrong).has_value()) << wrong;
}

TEST(UsernetAddressTest, ComparesNetworksBitByBit) {
    const auto at = [](const char* words) { return *IpAddress::parse(words); };
    EXPECT_TRUE(same_network(at("10.0.2.1"), at("10.0.2.254"), 24));
    EXPECT_FALSE(same_network(at("10.0.2.1"), at("10.0.3.1"), 24));
    EXPECT_TRUE(same_network(at("10.0.2.1"), at("10.0.3.1"), 23));
    EXPECT_FALSE(same_network(at("10.0.2.127"), at("10.0.2.128"), 25));
    EXPECT_TRUE(same_network(at("1.2.3.4"), at("200.2.3.4"), 0));
}

TEST(UsernetChecksumTest, AgreesWithWordByWordSumsAtEverySize) {
    Buffer bytes;
    for (std::size_t size = 0; size < 300; ++size) {
        const u16 folded = static_cast<u16>(~fold_sum(add_to_sum(0, bytes)));
        const u16 swapped = static_cast<u16>(folded << 8 | folded >> 8);
        EXPECT_EQ(swapped, checksum_of(bytes)) << size;
        bytes.push_back(static_cast<u8>(size * 37 + 201));
    }
    const Buffer ones(65535, 0xff);
    EXPECT_EQ(fold_sum(add_to_sum(0, ones)), 0x00ff);
}

// --- Ethernet, ARP ---

TEST_F(UsernetTest, AnswersArpForTheGatewayAndTheResolverOnly) {
    for (const Buffer& ours : {kGateway, kResolver}) {
        input(arp(1, kGuest, ours));
        const Received reply = next();
        EXPECT_EQ(reply.type, 0x0806U);
        EXPECT_EQ(reply.to_mac, kGuestMac);
        EXPECT_EQ(read16(reply.packet, 6), 2U);
        EXPECT_EQ(cut(reply.packet, 8, 6), kGatewayMac);
        EXPECT_EQ(cut(reply.packet, 14, 4), ours);
        EXPECT_EQ(cut(reply.packet, 18, 6), kGuestMac);
        EXPECT_EQ(cut(reply.packet, 24, 4), kGuest);
    }
    input(arp(1, kGuest, {10, 0, 2, 77}));
    input(arp(1, kGuest, kGuest));        // an announcement
    input(arp(1, {0, 0, 0, 0}, kGuest));  // a probe
    EXPECT_TRUE(silent());
}

TEST_F(UsernetTest, IgnoresFramesForOthersAndTornOnes) {
    Buffer foreign = ip_frame(ipv4(kGuest, kGateway, 1, icmp_echo(8, 1, 1, text("x"))));
    foreign[12] ^= 4;
    input(foreign);
    const Buffer whole = ip_frame(ipv4(kGuest, kGateway, 1, icmp_echo(8, 1, 1, text("x"))));
    for (std::size_t size = 0; size < whole.size(); ++size) input(cut(whole, 0, size));
    EXPECT_TRUE(silent());
    input(whole);
    EXPECT_FALSE(silent());
}

TEST_F(UsernetTest, DropsSendersOutsideItsNetworkAndItsOwnAddresses) {
    for (const Buffer& from :
         {Buffer{192, 168, 1, 1}, kGateway, kResolver, Buffer{0, 0, 0, 0}, Buffer{10, 0, 2, 255}})
        input(ip_frame(ipv4(from, kServer, 17, udp(from, kServer, 5, 6, text("x")))));
    EXPECT_TRUE(host.datagrams.empty());
    EXPECT_TRUE(silent());
}

TEST_F(UsernetTest, DropsDamagedHeadersAndMessages) {
    const Buffer good = ip_frame(ipv4(kGuest, kServer, 17, udp(kGuest, kServer, 5, 6, text("xyz"))));
    const std::size_t ip_at = 26;
    for (const std::size_t at :
         {ip_at, ip_at + 2, ip_at + 3, ip_at + 10, ip_at + 12, ip_at + 26, ip_at + 30}) {
        Buffer bad = good;
        bad[at] ^= 0x5a;
        input(bad);
        EXPECT_TRUE(host.datagrams.empty()) << at - ip_at;
    }
    input(good);
    EXPECT_EQ(host.datagrams.size(), 1U);
}

TEST_F(UsernetTest, TrustsTheCardToFillChecksumsIn) {
    Buffer frame = ip_frame(ipv4(kGuest, kServer, 17, udp(kGuest, kServer, 5, 6, text("xyz"))));
    frame[26 + 26] ^= 0x5a;
    frame[0] = NetHeader::kNeedsChecksum;
    input(frame);
    EXPECT_EQ(socket().sent, std::vector<std::string>{"xyz"});
}

TEST_F(UsernetTest, SkipsIpOptions) {
    const Buffer message = udp(kGuest, kServer, 5, 6, text("xyz"));
    Buffer header = Buffer{0x47, 0} + be16(static_cast<u32>(28 + message.size())) + be32(0x00074000) +
                    Buffer{64, 17, 0, 0} + kGuest + kServer + Buffer{1, 1, 1, 1, 1, 1, 1, 0};
    patch16(header, 10, checksum_of(header));
    input(ip_frame(header + message));
    EXPECT_EQ(socket().sent, std::vector<std::string>{"xyz"});
}

// --- ICMP ---

TEST_F(UsernetTest, TheGatewayAnswersEcho) {
    for (const Buffer& ours : {kGateway, kResolver}) {
        input(ip_frame(ipv4(kGuest, ours, 1, icmp_echo(8, 0x1234, 3, text("hello")))));
        const Received reply = next();
        EXPECT_EQ(reply.from, ours);
        EXPECT_EQ(reply.to, kGuest);
        EXPECT_TRUE(sum_is_right(reply));
        EXPECT_EQ(reply.message[0], 0);
        EXPECT_EQ(read16(reply.message, 4), 0x1234U);
        EXPECT_EQ(read16(reply.message, 6), 3U);
        EXPECT_EQ(cut(reply.message, 8), text("hello"));
    }
}

TEST_F(UsernetTest, EchoToTheWorldGoesThroughASocketAndKeepsItsIdentifier) {
    input(ip_frame(ipv4(kGuest, kServer, 1, icmp_echo(8, 0x1234, 3, text("hello")))));
    EXPECT_EQ(socket().kind, DatagramKind::Echo);
    ASSERT_EQ(socket().sent.size(), 1U);
    const Buffer reply = icmp_echo(0, 0x9999, 3, text("hello"));  // the host's own identifier
    answer(std::string(reply.begin(), reply.end()));
    const Received got = next();
    EXPECT_EQ(got.from, kServer);
    EXPECT_TRUE(sum_is_right(got));
    EXPECT_EQ(read16(got.message, 4), 0x1234U);
    EXPECT_EQ(cut(got.message, 8), text("hello"));
}

TEST_F(UsernetTest, EchoTheHostDoesNotPermitIsProhibited) {
    host.datagrams_allowed = false;
    input(ip_frame(ipv4(kGuest, kServer, 1, icmp_echo(8, 0x1234, 3, text("hello")))));
    const Received error = next();
    EXPECT_EQ(error.from, kGateway);
    EXPECT_EQ(error.message[0], 3);
    EXPECT_EQ(error.message[1], 13);
    EXPECT_TRUE(sum_is_right(error));
    EXPECT_EQ(cut(error.message, 8 + 12, 4), kGuest) << "the header of what was refused";
    EXPECT_EQ(cut(error.message, 8 + 16, 4), kServer);
}

// --- Fragments ---

TEST_F(UsernetTest, PutsFragmentsTogetherInAnyOrder) {
    const Buffer message = udp(kGuest, kServer, 5, 6, Buffer(4000, 'f'));
    const auto piece = [&](std::size_t at, std::size_t size, bool more) {
        return ip_frame(ipv4(kGuest, kServer, 17, cut(message, at, size),
                             static_cast<u32>(at / 8) | (more ? 0x2000U : 0U)));
    };
    input(piece(2960, 5000, false));
    input(piece(0, 1480, true));
    EXPECT_TRUE(host.datagrams.empty());
    input(piece(1480, 1480, true));
    ASSERT_EQ(host.datagrams.size(), 1U);
    EXPECT_EQ(socket().sent, std::vector<std::string>{std::string(4000, 'f')});
}

TEST_F(UsernetTest, OverlappingOversizedAndOldFragmentsAreGivenUp) {
    const Buffer message = udp(kGuest, kServer, 5, 6, Buffer(4000, 'f'));
    const auto piece = [&](std::size_t at, std::size_t size, bool more, u32 id) {
        return ip_frame(ipv4(kGuest, kServer, 17, cut(message, at, size),
                             static_cast<u32>(at / 8) | (more ? 0x2000U : 0U), id));
    };
    input(piece(0, 1480, true, 1));
    input(piece(8, 1480, true, 1));  // overlaps
    input(piece(1480, 5000, false, 1));
    input(ip_frame(ipv4(kGuest, kServer, 17, Buffer(1480, 1), 0x1fff, 2)));  // ends behind 65535
    input(ip_frame(ipv4(kGuest, kServer, 17, Buffer(7, 1), 0x2000, 3)));     // not a multiple of eight
    input(piece(0, 1480, true, 4));
    now_ms += Fragments::kPatienceMs + 1;
    input(piece(1480, 5000, false, 4));  // its beginning has been forgotten
    EXPECT_TRUE(host.datagrams.empty());
    for (u32 id = 0; id < 1000; ++id) input(piece(0, 1480, true, id + 10));  // never completed: bounded
    EXPECT_TRUE(silent());
}

TEST_F(UsernetTest, FragmentsWhatIsLongerThanTheMtu) {
    send_udp(5, kServer, 6, "x");
    std::string large;
    for (int i = 0; i < 5000; ++i) large += static_cast<char>('a' + i % 23);
    answer(large);
    Buffer whole;
    u32 offset = 0;
    Received last;
    while (!silent()) {
        last = next();
        EXPECT_LE(last.packet.size(), 1500U);
        EXPECT_EQ((last.fragment & 0x1fff) * 8, offset);
        offset += static_cast<u32>(last.message.size());
        whole = whole + last.message;
    }
    EXPECT_EQ(last.fragment & 0x2000, 0U) << "nothing more after the last";
    EXPECT_EQ(checksum_of(pseudo(kServer, kGuest, 17, whole.size()) + whole), 0);
    EXPECT_EQ(cut(whole, 8), text(large));
}

// --- UDP and DNS ---

TEST_F(UsernetTest, EachUdpFlowHasASocketAndAnswersComeBack) {
    send_udp(1000, kServer, 53, "one");
    const u32 first = host.last_datagram;
    send_udp(1001, kServer, 53, "two");
    EXPECT_NE(host.last_datagram, first);
    send_udp(1000, kServer, 53, "three");
    EXPECT_EQ(host.datagrams.at(first).sent, (std::vector<std::string>{"one", "three"}));
    EXPECT_EQ(host.datagrams.at(first).to.address.text(), "192.0.2.80");
    EXPECT_EQ(host.datagrams.at(first).to.port, 53);
    answer("to two");
    const Received got = next();
    EXPECT_EQ(got.from, kServer);
    EXPECT_EQ(read16(got.message, 0), 53U);
    EXPECT_EQ(read16(got.message, 2), 1001U);
    EXPECT_TRUE(sum_is_right(got));
    EXPECT_EQ(cut(got.message, 8), text("to two"));
}

TEST_F(UsernetTest, UdpWithoutChecksumAndWithPaddingIsTaken) {
    Buffer message = udp(kGuest, kServer, 5, 6, text("abc"));
    patch16(message, 6, 0);
    input(ip_frame(ipv4(kGuest, kServer, 17, message + text("padding"))));
    EXPECT_EQ(socket().sent, std::vector<std::string>{"abc"});
}

TEST_F(UsernetTest, UdpLengthsThatLieAreDropped) {
    for (const u32 length : {0U, 7U, 12U, 65535U}) {
        Buffer message = udp(kGuest, kServer, 5, 6, text("abc"));
        patch16(message, 4, length);
        patch16(message, 6, 0);
        input(ip_frame(ipv4(kGuest, kServer, 17, message)));
    }
    EXPECT_TRUE(host.datagrams.empty());
}

TEST_F(UsernetTest, LargeSendsAreCutWhereTheCardSays) {
    Buffer frame = ip_frame(ipv4(kGuest, kServer, 17, udp(kGuest, kServer, 5, 6, text("aaabbbcc"))));
    frame[1] = NetHeader::kGsoUdpL4;
    frame[4] = 3;  // gso_size, little-endian
    input(frame);
    EXPECT_EQ(socket().sent, (std::vector<std::string>{"aaa", "bbb", "cc"}));
    // A size of one byte would make thousands of packets of one frame.
    frame = ip_frame(ipv4(kGuest, kServer, 17, udp(kGuest, kServer, 7, 6, Buffer(60000, 'x'))));
    frame[1] = NetHeader::kGsoUdpL4;
    frame[4] = 1;
    input(frame);
    EXPECT_LE(socket().sent.size(), 128U);
}

TEST_F(UsernetTest, IdleFlowsAreClosedAndTheOldestMakesRoom) {
    send_udp(5, kServer, 6, "x");
    const u32 first = host.last_datagram;
    pass(Datagrams::kIdleMs - 1000);
    EXPECT_FALSE(host.datagrams.at(first).closed);
    pass(2000);
    EXPECT_TRUE(host.datagrams.at(first).closed);
    EXPECT_EQ(stack->flows(), 0U);
    for (u32 port = 1; port <= Datagrams::kMostFlows + 10; ++port) {
        ++now_ms;
        send_udp(port, kServer, 6, "x");
    }
    EXPECT_EQ(stack->flows(), Datagrams::kMostFlows);
}

TEST_F(UsernetTest, ARefusedUdpPortIsReported) {
    send_udp(5, kServer, 6, "x");
    stack->datagram_failed(host.last_datagram);
    const Received error = next();
    EXPECT_EQ(error.message[0], 3);
    EXPECT_EQ(error.message[1], 3);
    EXPECT_EQ(read16(error.message, 8 + 20), 5U);
    EXPECT_EQ(read16(error.message, 8 + 22), 6U);
}

TEST_F(UsernetTest, QuestionsGoToTheHostsResolverAndThenToTheNext) {
    send_udp(5, kResolver, 53, "question");
    EXPECT_EQ(socket().to.address.text(), "198.51.100.53");
    send_udp(5, kResolver, 53, "question");  // again: the first has not answered
    EXPECT_EQ(socket().to.address.text(), "198.51.100.54");
    answer("answer");
    EXPECT_EQ(next().from, kResolver);
    send_udp(6, kResolver, 53, "another");
    EXPECT_EQ(socket().to.address.text(), "198.51.100.54") << "the one that answers is kept";
    send_udp(7, kResolver, 54, "not a resolver's port");
    EXPECT_EQ(next().message[1], 13);
}

TEST_F(UsernetTest, NothingIsReadThatTheWireHasNoRoomFor) {
    send_udp(5, kServer, 6, "x");
    wire.room = 0;
    answer("later");
    EXPECT_EQ(socket().incoming.size(), 1U) << "it waits in the socket";
    wire.room = 10;
    flush();
    EXPECT_EQ(cut(next().message, 8), text("later"));
}

// --- What may be reached ---

TEST_F(UsernetTest, TheHostItselfAndSpecialAddressesAreOutOfReach) {
    for (const Buffer& to :
         {Buffer{127, 0, 0, 1}, Buffer{127, 9, 9, 9}, Buffer{0, 0, 0, 0}, Buffer{0, 1, 2, 3},
          Buffer{169, 254, 169, 254}, Buffer{240, 0, 0, 1}, kGateway, Buffer{10, 0, 2, 99},
          Buffer{255, 255, 255, 255}, Buffer{10, 0, 2, 255}, Buffer{224, 0, 0, 251}}) {
        send_udp(5, to, 6, "x");
        input(ip_frame(ip(kGuest, to, 6, tcp(kGuest, to, {.source = 9, .target = 22, .flags = kSyn}))));
    }
    const Buffer guest6 = kGuest6;
    Buffer mapped(16);
    mapped[10] = mapped[11] = 0xff;
    mapped[12] = 127;
    mapped[15] = 1;
    Buffer loopback(16);
    loopback[15] = 1;
    Buffer compatible = loopback;
    compatible[12] = 127;
    Buffer link_local = kServer6;
    link_local[0] = 0xfe;
    link_local[1] = 0x80;
    for (const Buffer& to : {mapped, loopback, Buffer(16), compatible, link_local})
        input(ip_frame(ip(guest6, to, 17, udp(guest6, to, 5, 6, text("x")))));
    EXPECT_TRUE(host.datagrams.empty());
    EXPECT_TRUE(host.tcp.empty());
}

TEST_F(UsernetTest, TheGatewayIsTheHostsLoopbackIfAllowed) {
    config.host_loopback = true;
    build();
    send_udp(5, kGateway, 6, "x");
    EXPECT_EQ(socket().to.address.text(), "127.0.0.1");
    EXPECT_EQ(socket().to.port, 6);
}

TEST_F(UsernetTest, RestrictedGuestsReachNobodyNotEvenTheResolver) {
    config.restricted = true;
    config.host_loopback = true;
    build();
    for (const Buffer& to : {kServer, kGateway, kResolver}) {
        send_udp(5, to, 53, "x");
        input(ip_frame(ip(kGuest, to, 6, tcp(kGuest, to, {.source = 9, .target = 53, .flags = kSyn}))));
        input(ip_frame(ipv4(kGuest, kServer, 1, icmp_echo(8, 1, 1, {}))));
    }
    EXPECT_TRUE(host.datagrams.empty());
    EXPECT_TRUE(host.tcp.empty());
}

TEST_F(UsernetTest, UdpForwardsCarryAnswersBack) {
    config.forwards = {
        {.transport = Transport::Udp, .guest = {.address = IpAddress::v4(0x0a00020f), .port = 69}}};
    build();
    input(arp(2, kGuest, kGateway));  // so that the guest is known
    const Endpoint near{.address = *IpAddress::parse("127.0.0.1"), .port = 4000};
    const Endpoint far{.address = *IpAddress::parse("203.0.113.9"), .port = 5000};
    host.forwards[0].incoming = {{near, "from the host"}, {far, "from afar"}};
    stack->forward_readable(0);
    flush();
    const Received first = next();
    EXPECT_EQ(first.from, kGateway) << "the host has no address the guest could answer to";
    EXPECT_EQ(read16(first.message, 0), 4000U);
    EXPECT_EQ(read16(first.message, 2), 69U);
    const Received second = next();
    EXPECT_EQ(second.from, (Buffer{203, 0, 113, 9}));
    send_udp(69, kGateway, 4000, "re: host");
    input(ip_frame(ip(kGuest, second.from, 17, udp(kGuest, second.from, 69, 5000, text("re: afar")))));
    ASSERT_EQ(host.forwards[0].sent.size(), 2U);
    EXPECT_EQ(host.forwards[0].sent[0], (std::pair<Endpoint, std::string>{near, "re: host"}));
    EXPECT_EQ(host.forwards[0].sent[1], (std::pair<Endpoint, std::string>{far, "re: afar"}));
    EXPECT_TRUE(host.datagrams.empty());
}

// --- DHCP ---

class UsernetDhcpTest : public StackRig {
protected:
    static Buffer request(u8 type, const Buffer& options, u32 flags = 0, const Buffer& mac = kGuestMac,
                          const Buffer& client = {0, 0, 0, 0}) {
        return Buffer{1, 1, 6, 0} + be32(0xdeadbeef) + be16(0) + be16(flags) + client + Buffer(12) + mac +
               Buffer(10 + 64 + 128) + Buffer{0x63, 0x82, 0x53, 0x63} + Buffer{53, 1, type} + options +
               Buffer{255};
    }
    void ask(const Buffer& message, const Buffer& from = {0, 0, 0, 0}) {
        const Buffer everybody{255, 255, 255, 255};
        input(
            frame(0x0800, ipv4(from, everybody, 17, udp(from, everybody, 68, 67, message)), Buffer(6, 0xff)));
    }
    // Option `code` of a reply.
    static Buffer option(const Received& reply, u8 code) {
        std::size_t at = 8 + 240;
        while (at + 1 < reply.message.size() && reply.message[at] != 255) {
            if (reply.message[at] == code) return cut(reply.message, at + 2, reply.message[at + 1]);
            at += std::size_t{2} + reply.message[at + 1];
        }
        return {};
    }
};

TEST_F(UsernetDhcpTest, OffersAndAcknowledgesTheFixedLease) {
    config.guest_name = "tessera";
    config.mtu = 9000;
    build();
    ask(request(1, {}));
    const Received offer = next();
    EXPECT_TRUE(sum_is_right(offer));
    EXPECT_EQ(offer.from, kGateway);
    EXPECT_EQ(offer.to, kGuest);
    EXPECT_EQ(offer.to_mac, kGuestMac);
    EXPECT_EQ(read16(offer.message, 2), 68U);
    EXPECT_EQ(offer.message[8], 2);
    EXPECT_EQ(read32(offer.message, 8 + 4), 0xdeadbeefU);
    EXPECT_EQ(cut(offer.message, 8 + 16, 4), kGuest);
    EXPECT_EQ(cut(offer.message, 8 + 28, 6), kGuestMac);
    EXPECT_EQ(option(offer, 53), Buffer{2});
    EXPECT_EQ(option(offer, 54), kGateway);
    EXPECT_EQ(option(offer, 1), (Buffer{255, 255, 255, 0}));
    EXPECT_EQ(option(offer, 3), kGateway);
    EXPECT_EQ(option(offer, 6), kResolver);
    EXPECT_EQ(option(offer, 26), be16(9000));
    EXPECT_EQ(option(offer, 12), text("tessera"));
    EXPECT_EQ(option(offer, 28), (Buffer{10, 0, 2, 255}));
    EXPECT_EQ(option(offer, 51), be32(86400));
    ask(request(3, Buffer{50, 4} + kGuest + Buffer{54, 4} + kGateway));
    EXPECT_EQ(option(next(), 53), Buffer{5});
}

TEST_F(UsernetDhcpTest, BroadcastsWhenAskedToAndWhenItRefuses) {
    ask(request(1, {}, 0x8000));
    const Received offer = next();
    EXPECT_EQ(offer.to_mac, Buffer(6, 0xff));
    EXPECT_EQ(offer.to, (Buffer{255, 255, 255, 255}));
    ask(request(3, Buffer{50, 4, 10, 0, 2, 200}));
    const Received nak = next();
    EXPECT_EQ(option(nak, 53), Buffer{6});
    EXPECT_EQ(nak.to_mac, Buffer(6, 0xff));
}

TEST_F(UsernetDhcpTest, RenewalInformAndOtherServersRequests) {
    ask(request(3, {}, 0, kGuestMac, kGuest), kGuest);
    EXPECT_EQ(option(next(), 53), Buffer{5});
    ask(request(8, {}, 0, kGuestMac, kGuest), kGuest);
    const Received inform = next();
    EXPECT_EQ(option(inform, 53), Buffer{5});
    EXPECT_EQ(option(inform, 51), Buffer{}) << "no lease for one who only asks";
    ask(request(3, Buffer{54, 4, 10, 0, 2, 9, 50, 4} + kGuest));
    ask(request(7, {}));
    EXPECT_TRUE(silent());
}

TEST_F(UsernetDhcpTest, MoreCardsGetMoreAddressesUpToALimit) {
    for (u8 card = 0; card < 40; ++card) ask(request(1, {}, 0, {2, 0, 0, 0, 0, card}));
    EXPECT_EQ(wire.sent.size(), Dhcp::kMostLeases);
    EXPECT_EQ(cut(next().message, 8 + 16, 4), kGuest);
    EXPECT_EQ(cut(next().message, 8 + 16, 4), (Buffer{10, 0, 2, 16}));
}

TEST_F(UsernetDhcpTest, MalformedRequestsAreIgnored) {
    Buffer good = request(1, {});
    for (std::size_t size = 0; size < 240; size += 7) ask(cut(good, 0, size));
    for (const std::size_t at : {0U, 1U, 2U, 236U}) {
        Buffer bad = good;
        bad[at] ^= 0x70;
        ask(bad);
    }
    ask(cut(good, 0, 240) + Buffer{53, 200, 1});  // an option that ends behind the packet
    EXPECT_TRUE(silent());
}

TEST_F(UsernetDhcpTest, RestrictedNetworksNameNoWayOut) {
    config.restricted = true;
    build();
    ask(request(1, {}));
    const Received offer = next();
    EXPECT_EQ(option(offer, 3), Buffer{});
    EXPECT_EQ(option(offer, 6), Buffer{});
    EXPECT_EQ(option(offer, 1), (Buffer{255, 255, 255, 0}));
}

// --- IPv6 ---

class UsernetIpv6Test : public StackRig {
protected:
    static Buffer icmp6(const Buffer& from, const Buffer& to, Buffer message, u8 hops = 255) {
        const u16 sum = checksum_of(pseudo(from, to, 58, message.size()) + message);
        patch16(message, 2, sum);
        return ip_frame(ipv6(from, to, 58, message, hops));
    }
    Buffer gateway6 = Buffer{0xfd, 0x54, 0x65, 0x73, 0x73, 0x65, 0x72, 0x61} + Buffer(7) + Buffer{2};
    Buffer router = Buffer{0xfe, 0x80} + Buffer(13) + Buffer{2};
    Buffer all_routers = Buffer{0xff, 2} + Buffer(13) + Buffer{2};
};

TEST_F(UsernetIpv6Test, AdvertisesThePrefixAndTheResolver) {
    const Buffer guest = Buffer{0xfe, 0x80} + Buffer(13) + Buffer{0x15};
    input(icmp6(guest, all_routers, Buffer{133, 0, 0, 0} + be32(0)));
    const Received advert = next();
    EXPECT_EQ(advert.from, router);
    EXPECT_EQ(advert.to, guest);
    EXPECT_EQ(advert.packet[7], 255);
    EXPECT_TRUE(sum_is_right(advert));
    EXPECT_EQ(advert.message[0], 134);
    EXPECT_NE(read16(advert.message, 6), 0U) << "a router's lifetime";
    bool prefix = false;
    bool resolver = false;
    for (std::size_t at = 16; at + 2 <= advert.message.size();
         at += advert.message[at + 1] * std::size_t{8}) {
        ASSERT_NE(advert.message[at + 1], 0);
        if (advert.message[at] == 3) {
            prefix = true;
            EXPECT_EQ(advert.message[at + 2], 64);
            EXPECT_EQ(cut(advert.message, at + 16, 8), cut(gateway6, 0, 8));
        }
        resolver = resolver || advert.message[at] == 25;
    }
    EXPECT_TRUE(prefix);
    EXPECT_TRUE(resolver);
}

TEST_F(UsernetIpv6Test, AnswersSolicitationsFromNeighboursOnly) {
    const Buffer question = Buffer{135, 0, 0, 0} + be32(0) + gateway6;
    input(icmp6(kGuest6, gateway6, question, 64));  // has been through a router
    EXPECT_TRUE(silent());
    input(icmp6(kGuest6, gateway6, question));
    const Received advert = next();
    EXPECT_EQ(advert.message[0], 136);
    EXPECT_EQ(advert.message[4] & 0x60, 0x60);
    EXPECT_EQ(cut(advert.message, 8, 16), gateway6);
    EXPECT_EQ(cut(advert.message, 26, 6), kGatewayMac);
    EXPECT_TRUE(sum_is_right(advert));
    input(icmp6(Buffer(16), gateway6, question));  // somebody wants our address
    EXPECT_EQ(next().to_mac, (Buffer{0x33, 0x33, 0, 0, 0, 1}));
}

TEST_F(UsernetIpv6Test, EchoAndUdpWork) {
    input(icmp6(kGuest6, gateway6, Buffer{128, 0, 0, 0} + be32(0x00010002) + text("hi"), 64));
    const Received reply = next();
    EXPECT_EQ(reply.message[0], 129);
    EXPECT_TRUE(sum_is_right(reply));
    input(ip_frame(ipv6(kGuest6, kServer6, 17, udp(kGuest6, kServer6, 5, 6, text("six")))));
    ASSERT_EQ(host.datagrams.size(), 1U);
    host.datagrams[host.last_datagram].incoming.emplace_back("answer");
    stack->datagram_readable(host.last_datagram);
    flush();
    const Received got = next();
    EXPECT_EQ(got.from, kServer6);
    EXPECT_TRUE(sum_is_right(got));
}

TEST_F(UsernetIpv6Test, CanBeTurnedOff) {
    config.ipv6 = false;
    build();
    input(icmp6(kGuest6, gateway6, Buffer{128, 0, 0, 0} + be32(0), 64));
    EXPECT_TRUE(silent());
}

}  // namespace
}  // namespace tessera::usernet::testing
