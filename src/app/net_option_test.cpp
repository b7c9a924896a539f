#include "app/net_option.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tessera::app {
namespace {

using net::Choice;
using net::NetKind;
using ::testing::HasSubstr;
using ::testing::StartsWith;

TEST(NetOptionTest, UserModeIsReadWithAllItsSettings) {
    const auto plain = parse_net("user");
    ASSERT_TRUE(plain.has_value());
    EXPECT_EQ(plain->backend.kind, NetKind::User);
    EXPECT_FALSE(plain->backend.host_loopback);
    EXPECT_FALSE(plain->mac.has_value());
    const auto full = parse_net(
        "user,mac=52:54:00:ab:CD:01,net=192.168.64.0/20,mtu=9000,ipv6=off,restrict=on,host-loopback=on,"
        "dns=192.0.2.1,dns=2001:db8::1,hostname=web-1");
    ASSERT_TRUE(full.has_value()) << full.error();
    EXPECT_EQ(full->mac, (std::array<u8, 6>{0x52, 0x54, 0, 0xab, 0xcd, 1}));
    EXPECT_EQ(full->backend.network->text(), "192.168.64.0");
    EXPECT_EQ(full->backend.prefix_bits, 20U);
    EXPECT_EQ(full->backend.mtu, 9000);
    EXPECT_EQ(full->backend.ipv6, Choice::Off);
    EXPECT_TRUE(full->backend.restricted);
    EXPECT_TRUE(full->backend.host_loopback);
    EXPECT_EQ(full->backend.resolvers.size(), 2U);
    EXPECT_EQ(full->backend.guest_name, "web-1");
}

TEST(NetOptionTest, TapAndSwitchHaveNames) {
    const auto tap = parse_net("tap=vm0,queues=4");
    ASSERT_TRUE(tap.has_value());
    EXPECT_EQ(tap->backend.kind, NetKind::Tap);
    EXPECT_EQ(tap->backend.name, "vm0");
    EXPECT_EQ(tap->backend.queues, 4U);
    const auto lab = parse_net("switch=lab");
    ASSERT_TRUE(lab.has_value());
    EXPECT_EQ(lab->backend.kind, NetKind::Switch);
    EXPECT_EQ(lab->backend.name, "lab");
}

TEST(NetOptionTest, CardsHaveModelsAndIsaCardsAPlace) {
    EXPECT_EQ(parse_net("user")->model, NetModel::Virtio);
    EXPECT_EQ(parse_net("switch=lab,model=ne2000-pci")->model, NetModel::Ne2000Pci);
    const auto isa = parse_net("user,model=ne2000-isa");
    ASSERT_TRUE(isa.has_value());
    EXPECT_EQ(isa->isa.port, 0x300);
    EXPECT_EQ(isa->isa.interrupt, 5U);
    const auto moved = parse_net("user,model=ne2000-isa,io=0x280,irq=3");
    ASSERT_TRUE(moved.has_value());
    EXPECT_EQ(moved->isa.port, 0x280);
    EXPECT_EQ(moved->isa.interrupt, 3U);
    for (const auto& [text, possible] : std::initializer_list<std::array<const char*, 2>>{
             {"user,model=e1000", "virtio, ne2000-pci, ne2000-isa"},
             {"user,model=ne2000-isa,io=0x301", "0x300"},
             {"user,model=ne2000-isa,irq=10", "3, 5, 7, 15"},
             {"user,io=0x300", "model=ne2000-isa"},
             {"user,model=ne2000-pci,mtu=9000", "1500"},
             {"tap=vm0,model=ne2000-pci,queues=2", "one pair"}}) {
        const auto refused = parse_net(text);
        ASSERT_FALSE(refused.has_value()) << text;
        EXPECT_THAT(refused.error(), HasSubstr(possible));
    }
}

TEST(NetOptionTest, ErrorsNameThePartAndWhatIsPossible) {
    for (const auto& [text, part, possible] : std::initializer_list<std::array<const char*, 3>>{
             {"", "", "give user, tap=NAME or switch=NAME"},
             {"bridge", "bridge", "give user, tap=NAME or switch=NAME"},
             {"user=x", "user=x", "no name"},
             {"tap", "tap", "tap=tap0"},
             {"tap=", "tap=", "tap=tap0"},
             {"tap=much-too-long-a-name", "tap=much-too-long-a-name", "at most 15"},
             {"switch=../x", "switch=../x", "letters and digits"},
             {"switch=a/b", "switch=a/b", "letters and digits"},
             {"user,speed=1", "speed=1", "user has mac="},
             {"user,restrict", "restrict", "restrict=on or restrict=off"},
             {"user,restrict=yes", "restrict=yes", "restrict=on or restrict=off"},
             {"user,", "an empty setting", "user has mac="},
             {"user,queues=2", "queues=2", "user has mac="},
             {"tap=t,queues=0", "queues=0", "1 to 8"},
             {"tap=t,mtu=1500", "mtu=1500", "tap has mac="},
             {"switch=s,queues=2", "queues=2", "switch has mac="},
             {"user,mtu=100", "mtu=100", "576 to 65520"},
             {"user,mtu=1500,mtu=1400", "mtu=1400", "twice"},
             {"user,net=10.0.2.1/24", "net=10.0.2.1/24", "10.0.2.0/24"},
             {"user,net=10.0.2.0", "net=10.0.2.0", "10.0.2.0/24"},
             {"user,net=10.0.2.0/30", "net=10.0.2.0/30", "8 to 27"},
             {"user,mac=52:54:00:12:34", "mac=52:54:00:12:34", "six bytes"},
             {"user,mac=52-54-00-12-34-56", "mac=52-54-00-12-34-56", "six bytes"},
             {"user,mac=53:54:00:12:34:56", "mac=53:54:00:12:34:56", "first byte must be even"},
             {"user,mac=00:00:00:00:00:00", "mac=00:00:00:00:00:00", "not the address of one card"},
             {"user,dns=example.com", "dns=example.com", "192.0.2.53"},
             {"user,hostname=a b", "hostname=a b", "letters, digits"},
         }) {
        const auto parsed = parse_net(text);
        ASSERT_FALSE(parsed.has_value()) << text;
        EXPECT_THAT(parsed.error(), StartsWith(std::string("--net ") + text + ": " +
                                               (std::string_view(text) == part ? "" : part)));
        EXPECT_THAT(parsed.error(), HasSubstr(possible));
    }
}

TEST(ForwardOptionTest, AllForms) {
    const auto plain = parse_forward("2222:22");
    ASSERT_TRUE(plain.has_value());
    EXPECT_EQ(plain->transport, usernet::Transport::Tcp);
    EXPECT_EQ(plain->host.address.text(), "127.0.0.1");
    EXPECT_EQ(plain->host.port, 2222);
    EXPECT_EQ(plain->guest_port, 22);
    const auto udp = parse_forward("udp:0.0.0.0:5353:53");
    ASSERT_TRUE(udp.has_value());
    EXPECT_EQ(udp->transport, usernet::Transport::Udp);
    EXPECT_EQ(udp->host.address.text(), "0.0.0.0");
    const auto six = parse_forward("tcp:[::1]:8080:80");
    ASSERT_TRUE(six.has_value());
    EXPECT_TRUE(six->host.address.is_loopback());
    EXPECT_EQ(six->host.port, 8080);
}

TEST(ForwardOptionTest, ErrorsSayWhatIsWrong) {
    for (const char* text :
         {"", "22", ":", "0:22", "22:0", "65536:22", "a:b", "tcp:22", "1.2.3:80:80", "::1:80:80",
          "[127.0.0.1]:80:80", "[::1:80:80", "sctp:1:2", "1:2:3", "-1:2", " 1:2"}) {
        const auto parsed = parse_forward(text);
        ASSERT_FALSE(parsed.has_value()) << text;
        EXPECT_THAT(parsed.error(), StartsWith(std::string("-p ") + text + ": "));
        EXPECT_THAT(parsed.error(), HasSubstr("such as 2222:22"));
    }
}

}  // namespace
}  // namespace tessera::app
