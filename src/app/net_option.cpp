#include "app/net_option.h"

#include <algorithm>
#include <fmt/format.h>
#include <span>
#include <utility>
#include <vector>

#include "app/settings.h"

namespace tessera::app {

namespace {

using net::Choice;
using net::NetKind;
using usernet::IpAddress;

constexpr const char* kKinds =
    "give user, tap=NAME or switch=NAME, and settings behind commas; or none, alone, for no card";
constexpr const char* kUserSettings =
    "user has mac=, model=, io=, irq=, net=ADDRESS/BITS, mtu=, ipv6=auto|on|off, restrict=on|off, "
    "host-loopback=on|off, dns=, "
    "hostname=";
constexpr const char* kTapSettings = "tap has mac=, model=, io=, irq=, queues=";
constexpr const char* kSwitchSettings = "switch has mac=, model=, io=, irq=";
constexpr unsigned kMostQueues = 8;
constexpr u16 kLeastMtu = 576;
constexpr u16 kMostMtu = 65520;
constexpr u16 kNe2000Mtu = 1500;
constexpr std::size_t kMostName = 63;           // [RFC 1035 2.3.4]
constexpr std::size_t kMostInterfaceName = 15;  // Linux

constexpr Words<Choice, 3> kChoices = {{{"auto", Choice::Auto}, {"on", Choice::On}, {"off", Choice::Off}}};

bool is_name(std::string_view text, std::size_t most) {
    return !text.empty() && text.size() <= most &&
           std::ranges::all_of(text,
                               [](char c) {
                                   return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
                                          (c >= 'A' && c <= 'Z') || c == '-' || c == '_' || c == '.';
                               }) &&
           text.front() != '.' && text.front() != '-';
}

// Each gives what is possible instead, empty if the setting was taken.
std::string take_mac(const Setting& setting, NetOption& option) {
    const std::string_view value = setting.value ? std::string_view(*setting.value) : std::string_view();
    std::array<u8, 6> bytes{};
    constexpr std::size_t kLength = 17;
    bool right = value.size() == kLength;
    for (std::size_t i = 0; right && i < bytes.size(); ++i) {
        const auto byte = number_of<u8>(value.substr(i * 3, 2), 0, 255, 16);
        right = byte && (i == 5 || value[i * 3 + 2] == ':');
        bytes[i] = byte.value_or(0);
    }
    if (!right) return "give six bytes such as 52:54:00:12:34:56";
    if ((bytes[0] & 1) != 0 || bytes == std::array<u8, 6>{})
        return "this is not the address of one card; the first byte must be even, as in 52:54:00:12:34:56";
    option.mac = bytes;
    return {};
}

constexpr Words<NetModel, 3> kModels{
    {{"virtio", NetModel::Virtio}, {"ne2000-pci", NetModel::Ne2000Pci}, {"ne2000-isa", NetModel::Ne2000Isa}}};
// Where the jumpers of such cards could put them.
constexpr Words<u16, 7> kIsaPorts{{{"0x240", 0x240},
                                   {"0x280", 0x280},
                                   {"0x2c0", 0x2c0},
                                   {"0x300", 0x300},
                                   {"0x320", 0x320},
                                   {"0x340", 0x340},
                                   {"0x360", 0x360}}};
constexpr Words<unsigned, kIsaCardInterrupts.size()> kIsaInterrupts{
    {{"3", 3}, {"5", 5}, {"7", 7}, {"15", 15}}};

std::string take_model(const Setting& setting, NetOption& option) {
    return take_word(setting.value.value_or(""), kModels, option.model);
}

std::string take_port(const Setting& setting, NetOption& option) {
    return take_word(setting.value.value_or(""), kIsaPorts, option.isa.port);
}

std::string take_interrupt(const Setting& setting, NetOption& option) {
    return take_word(setting.value.value_or(""), kIsaInterrupts, option.isa.interrupt);
}

std::string take_network(const Setting& setting, NetOption& option) {
    const std::string_view value = setting.value ? std::string_view(*setting.value) : std::string_view();
    const auto slash = value.find('/');
    const auto bits =
        slash == std::string_view::npos ? std::nullopt : number_of(value.substr(slash + 1), 8U, 27U);
    const auto address = IpAddress::parse(value.substr(0, slash));
    const u32 hosts = bits ? ~u32{0} >> *bits : 0;
    if (!bits || !address || !address->is_v4() || (address->as_v4() & hosts) != 0)
        return "give an IPv4 network of 8 to 27 bits, such as 10.0.2.0/24";
    option.backend.network = address;
    option.backend.prefix_bits = *bits;
    return {};
}

std::string take_resolver(const Setting& setting, NetOption& option) {
    const auto address = IpAddress::parse(setting.value.value_or(""));
    if (!address) return "give an address such as 192.0.2.53";
    option.backend.resolvers.push_back(*address);
    return {};
}

std::string take_hostname(const Setting& setting, NetOption& option) {
    const std::string name(setting.value.value_or(""));
    if (!is_name(name, kMostName)) return "give a name of letters, digits and hyphens";
    option.backend.guest_name = name;
    return {};
}

std::string take_mtu(const Setting& setting, NetOption& option) {
    return take_number<u16>(setting.value.value_or(""), kLeastMtu, kMostMtu, option.backend.mtu);
}

std::string take_queues(const Setting& setting, NetOption& option) {
    return take_number(setting.value.value_or(""), 1, kMostQueues, option.backend.queues);
}

std::string take_ipv6(const Setting& setting, NetOption& option) {
    return take_word(setting.value.value_or(""), kChoices, option.backend.ipv6);
}

using Known = KnownSetting<NetOption>;

constexpr std::array<Known, 11> kUser{
    {{.name = "mac", .take = take_mac},
     {.name = "model", .take = take_model},
     {.name = "io", .take = take_port},
     {.name = "irq", .take = take_interrupt},
     {.name = "net", .take = take_network},
     {.name = "mtu", .take = take_mtu},
     {.name = "ipv6", .take = take_ipv6},
     {.name = "restrict",
      .take = [](const Setting& s, NetOption& o) { return take_on_off(s, o.backend.restricted); }},
     {.name = "host-loopback",
      .take = [](const Setting& s, NetOption& o) { return take_on_off(s, o.backend.host_loopback); }},
     {.name = "dns", .take = take_resolver, .times = Times::Any},
     {.name = "hostname", .take = take_hostname}}};
constexpr std::array<Known, 5> kTap{{{.name = "mac", .take = take_mac},
                                     {.name = "model", .take = take_model},
                                     {.name = "io", .take = take_port},
                                     {.name = "irq", .take = take_interrupt},
                                     {.name = "queues", .take = take_queues}}};
constexpr std::array<Known, 4> kSwitch{{{.name = "mac", .take = take_mac},
                                        {.name = "model", .take = take_model},
                                        {.name = "io", .take = take_port},
                                        {.name = "irq", .take = take_interrupt}}};

struct Kind {
    std::span<const Known> known;
    const char* possible;
};

Kind kind_of(NetKind kind) {
    switch (kind) {
        case NetKind::User: return {.known = kUser, .possible = kUserSettings};
        case NetKind::Tap: return {.known = kTap, .possible = kTapSettings};
        case NetKind::Switch: break;
    }
    return {.known = kSwitch, .possible = kSwitchSettings};
}

std::string take_kind(const Setting& setting, net::NetOptions& options) {
    const auto& [whole, name, value] = setting;
    if (name == "user") return value ? "user takes no name" : std::string();
    if (name != "tap" && name != "switch") return kKinds;
    options.kind = name == "tap" ? NetKind::Tap : NetKind::Switch;
    const bool tap = options.kind == NetKind::Tap;
    if (!value || !is_name(*value, tap ? kMostInterfaceName : kMostName))
        return tap ? "give the interface's name, at most 15 letters, as in tap=tap0"
                   : "give the switch a name of letters and digits, as in switch=lab";
    options.name = *value;
    return {};
}

// What the card cannot do, or empty.
std::string check_model(const NetOption& option, std::span<const Setting> settings) {
    const auto given = [&](std::string_view name) {
        return std::ranges::find(settings, name, &Setting::name) != settings.end();
    };
    if (option.model != NetModel::Ne2000Isa && (given("io") || given("irq")))
        return "io= and irq= are for model=ne2000-isa";
    if (option.model == NetModel::Virtio) return {};
    if (option.backend.mtu > kNe2000Mtu)
        return fmt::format("an NE2000 takes frames of {} bytes at most; leave mtu= out", kNe2000Mtu);
    if (option.backend.queues != 1) return "an NE2000 has one pair of queues";
    return {};
}

}  // namespace

NetOption default_net() {
    NetOption option;
    option.backend.helper_program = net::kThisProgram;
    option.backend.start = net::Start::WhenUsed;
    return option;
}

std::expected<NetOption, std::string> parse_net(std::string_view text) {
    NetOption option;
    option.backend.helper_program = net::kThisProgram;
    const std::vector<Setting> settings = split_settings(text, Commas::Separate);
    if (const std::string wrong = take_kind(settings.front(), option.backend); !wrong.empty())
        return std::unexpected(refuse_setting("--net", text, settings.front().whole, wrong));
    const auto& [known, possible] = kind_of(option.backend.kind);
    if (std::string refused =
            take_settings("--net", text, std::span(settings).subspan(1), known, possible, option);
        !refused.empty())
        return std::unexpected(std::move(refused));
    if (const std::string wrong = check_model(option, settings); !wrong.empty())
        return std::unexpected(fmt::format("--net {}: {}", text, wrong));
    return option;
}

std::expected<net::PortForward, std::string> parse_forward(std::string_view text) {
    net::PortForward forward;
    forward.typed = text;
    std::string_view rest = text;
    const auto wrong = [&](std::string_view what) {
        return std::unexpected(fmt::format(
            "-p {}: {}; give [tcp:|udp:][HOSTADDR:]HOSTPORT:GUESTPORT, such as 2222:22", text, what));
    };
    for (const auto& [word, transport] : {std::pair{std::string_view("tcp:"), usernet::Transport::Tcp},
                                          std::pair{std::string_view("udp:"), usernet::Transport::Udp}}) {
        if (!rest.starts_with(word)) continue;
        forward.transport = transport;
        rest.remove_prefix(word.size());
        break;
    }
    const auto last = rest.rfind(':');
    if (last == std::string_view::npos) return wrong("there is one port only");
    constexpr u16 kMostPort = 65535;
    const auto guest = number_of<u16>(rest.substr(last + 1), 1, kMostPort);
    if (!guest) return wrong("the guest's port is a number from 1 to 65535");
    rest = rest.substr(0, last);
    const auto split = rest.rfind(':');
    const std::string_view port = split == std::string_view::npos ? rest : rest.substr(split + 1);
    const auto host = number_of<u16>(port, 1, kMostPort);
    if (!host) return wrong("the host's port is a number from 1 to 65535");
    if (split != std::string_view::npos) {
        std::string_view address = rest.substr(0, split);
        const bool brackets = address.starts_with('[') && address.ends_with(']');
        if (brackets) address = address.substr(1, address.size() - 2);
        const auto parsed = IpAddress::parse(address);
        if (!parsed || parsed->is_v4() == brackets)
            return wrong("the host's address is not an address of IP");
        forward.host.address = *parsed;
    }
    forward.host.port = *host;
    forward.guest_port = *guest;
    return forward;
}

}  // namespace tessera::app
