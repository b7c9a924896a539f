#include "app/net_option.h"

#include <algorithm>
#include <charconv>
#include <fmt/format.h>
#include <vector>

namespace tessera::app {

namespace {

using net::Choice;
using net::NetKind;
using usernet::IpAddress;

constexpr const char* kKinds = "give user, tap=NAME or switch=NAME, and settings behind commas";
constexpr const char* kUserSettings =
    "user has mac=, net=ADDRESS/BITS, mtu=, ipv6=auto|on|off, restrict=on|off, host-loopback=on|off, dns=, "
    "hostname=";
constexpr const char* kTapSettings = "tap has mac=, queues=";
constexpr const char* kSwitchSettings = "switch has mac=";
constexpr unsigned kMostQueues = 8;
constexpr unsigned kLeastMtu = 576;
constexpr unsigned kMostMtu = 65520;
constexpr std::size_t kMostName = 63;           // [RFC 1035 2.3.4]
constexpr std::size_t kMostInterfaceName = 15;  // Linux

template <typename T>
std::optional<T> number(std::string_view text, T least, T most, int base = 10) {
    T value{};
    const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
    if (text.empty() || error != std::errc{} || stop != text.data() + text.size() || value < least ||
        value > most)
        return std::nullopt;
    return value;
}

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
std::string take_switch(std::string_view value, bool& on) {
    if (value != "on" && value != "off") return "choose on or off";
    on = value == "on";
    return {};
}

std::string take_choice(std::string_view value, Choice& choice) {
    if (value != "auto" && value != "on" && value != "off") return "choose auto, on or off";
    choice = value == "auto" ? Choice::Auto : value == "on" ? Choice::On : Choice::Off;
    return {};
}

std::string take_mac(std::string_view value, std::optional<std::array<u8, 6>>& mac) {
    std::array<u8, 6> bytes{};
    constexpr std::size_t kLength = 17;
    bool right = value.size() == kLength;
    for (std::size_t i = 0; right && i < bytes.size(); ++i) {
        const auto byte = number<u8>(value.substr(i * 3, 2), 0, 255, 16);
        right = byte && (i == 5 || value[i * 3 + 2] == ':');
        bytes[i] = byte.value_or(0);
    }
    if (!right) return "give six bytes such as 52:54:00:12:34:56";
    if ((bytes[0] & 1) != 0 || bytes == std::array<u8, 6>{})
        return "this is not the address of one card; the first byte must be even, as in 52:54:00:12:34:56";
    mac = bytes;
    return {};
}

std::string take_network(std::string_view value, net::NetOptions& options) {
    const auto slash = value.find('/');
    const auto bits =
        slash == std::string_view::npos ? std::nullopt : number(value.substr(slash + 1), 8U, 27U);
    const auto address = IpAddress::parse(value.substr(0, slash));
    const u32 hosts = bits ? ~u32{0} >> *bits : 0;
    if (!bits || !address || !address->is_v4() || (address->as_v4() & hosts) != 0)
        return "give an IPv4 network of 8 to 27 bits, such as 10.0.2.0/24";
    options.network = address;
    options.prefix_bits = *bits;
    return {};
}

std::string take_user(std::string_view name, std::string_view value, net::NetOptions& options) {
    if (name == "net") return take_network(value, options);
    if (name == "ipv6") return take_choice(value, options.ipv6);
    if (name == "restrict") return take_switch(value, options.restricted);
    if (name == "host-loopback") return take_switch(value, options.host_loopback);
    if (name == "mtu") {
        const auto mtu = number(value, kLeastMtu, kMostMtu);
        if (!mtu) return fmt::format("give a number from {} to {}", kLeastMtu, kMostMtu);
        options.mtu = static_cast<u16>(*mtu);
        return {};
    }
    if (name == "dns") {
        const auto address = IpAddress::parse(value);
        if (!address) return "give an address such as 192.0.2.53";
        options.resolvers.push_back(*address);
        return {};
    }
    if (name == "hostname") {
        if (!is_name(value, kMostName)) return "give a name of letters, digits and hyphens";
        options.guest_name = value;
        return {};
    }
    return kUserSettings;
}

std::string take(std::string_view name, std::optional<std::string_view> value, NetOption& option) {
    const NetKind kind = option.backend.kind;
    const char* const settings = kind == NetKind::User  ? kUserSettings
                                 : kind == NetKind::Tap ? kTapSettings
                                                        : kSwitchSettings;
    if (!value) return settings;
    if (name == "mac") return take_mac(*value, option.mac);
    if (kind == NetKind::User) return take_user(name, *value, option.backend);
    if (kind == NetKind::Tap && name == "queues") {
        const auto queues = number(*value, 1U, kMostQueues);
        if (!queues) return fmt::format("give a number from 1 to {}", kMostQueues);
        option.backend.queues = *queues;
        return {};
    }
    return settings;
}

std::string take_kind(std::string_view name, std::optional<std::string_view> value,
                      net::NetOptions& options) {
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

}  // namespace

std::expected<NetOption, std::string> parse_net(std::string_view text) {
    NetOption option;
    option.backend.helper_program = net::kThisProgram;
    std::string_view rest = text;
    std::vector<std::string_view> seen;
    for (bool first = true; first || !rest.empty(); first = false) {
        const auto comma = rest.find(',');
        const std::string_view part = rest.substr(0, comma);
        rest.remove_prefix(comma == std::string_view::npos ? rest.size() : comma + 1);
        const auto equals = part.find('=');
        const std::string_view name = part.substr(0, equals);
        std::optional<std::string_view> value;
        if (equals != std::string_view::npos) value = part.substr(equals + 1);
        std::string wrong = first ? take_kind(name, value, option.backend) : take(name, value, option);
        if (wrong.empty() && name != "dns" && std::ranges::find(seen, name) != seen.end())
            wrong = "given twice";
        if (!wrong.empty()) return std::unexpected(fmt::format("--net {}: {}: {}", text, part, wrong));
        seen.push_back(name);
    }
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
    const auto guest = number<u16>(rest.substr(last + 1), 1, kMostPort);
    if (!guest) return wrong("the guest's port is a number from 1 to 65535");
    rest = rest.substr(0, last);
    const auto split = rest.rfind(':');
    const std::string_view port = split == std::string_view::npos ? rest : rest.substr(split + 1);
    const auto host = number<u16>(port, 1, kMostPort);
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
