#include "backends/net/open/open_user_net.h"

#include <array>
#include <cerrno>
#include <fcntl.h>
#include <fmt/format.h>
#include <system_error>

#include "backends/net/helper/helper_config.h"
#include "backends/net/helper/net_helper.h"
#include "backends/net/helper/socket_address.h"

namespace tessera::net {

namespace {

using usernet::Config;
using usernet::Endpoint;
using usernet::IpAddress;
using usernet::Transport;

constexpr u16 kResolverPort = 53;
constexpr int kBacklog = 128;

std::string read_small_file(const char* path) {
    const File file(::open(path, O_RDONLY | O_CLOEXEC));
    std::array<char, 16384> text{};
    const ssize_t size = file.is_open() ? ::read(file.get(), text.data(), text.size()) : 0;
    return {text.data(), size > 0 ? static_cast<std::size_t>(size) : 0};
}

// Whether the host has a way to the IPv6 Internet; nothing is sent.
bool host_has_ipv6() {
    constexpr IpAddress kSomewhere{{0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}};
    const SocketAddress somewhere(Endpoint{.address = kSomewhere, .port = kResolverPort});
    const File file(::socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    return file.is_open() && ::connect(file.get(), somewhere.raw(), somewhere.size) == 0;
}

std::string port_text(const Endpoint& at) {
    return at.address.is_v4() ? fmt::format("{}:{}", at.address.text(), at.port)
                              : fmt::format("[{}]:{}", at.address.text(), at.port);
}

Result<File> open_forward(const PortForward& forward) {
    const SocketAddress address(forward.host);
    const bool udp = forward.transport == Transport::Udp;
    const int type = udp ? SOCK_DGRAM : SOCK_STREAM;
    File file(::socket(address.family(), type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    const int on = 1;
    if (file.is_open() && !udp) (void)setsockopt(file.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (file.is_open() && address.family() == AF_INET6)
        (void)setsockopt(file.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    if (!file.is_open() || ::bind(file.get(), address.raw(), address.size) < 0 ||
        (!udp && ::listen(file.get(), kBacklog) < 0)) {
        const char* advice = errno == EADDRINUSE      ? "; choose another port, or end what uses it"
                             : errno == EACCES        ? "; ports below 1024 are for root: choose a higher one"
                             : errno == EADDRNOTAVAIL ? "; this host does not have that address"
                                                      : "";
        return fail(Errc::HostFailure,
                    fmt::format("-p {}: cannot listen on {}: {}{}", forward.typed, port_text(forward.host),
                                std::generic_category().message(errno), advice));
    }
    return file;
}

}  // namespace

std::vector<Endpoint> resolvers_of(std::string_view text) {
    std::vector<Endpoint> found;
    constexpr std::string_view kSpaces = " \t\r";
    constexpr std::string_view kKeyword = "nameserver";
    while (!text.empty() && found.size() < kMostResolvers) {
        const auto end = text.find('\n');
        std::string_view line = text.substr(0, end);
        text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
        if (!line.starts_with(kKeyword)) continue;
        line.remove_prefix(kKeyword.size());
        const auto begin = line.find_first_not_of(kSpaces);
        if (begin == 0 || begin == std::string_view::npos) continue;
        line.remove_prefix(begin);
        if (const auto address = IpAddress::parse(line.substr(0, line.find_first_of(kSpaces))))
            found.push_back({.address = *address, .port = kResolverPort});
    }
    return found;
}

Result<Config> user_net_config(const NetOptions& options) {
    Config config;
    config.mtu = options.mtu;
    config.restricted = options.restricted;
    config.host_loopback = options.host_loopback;
    config.guest_name = options.guest_name;
    config.ipv6 = options.ipv6 == Choice::On || (options.ipv6 == Choice::Auto && host_has_ipv6());
    config.prefix_bits = options.prefix_bits;
    if (options.network) {
        constexpr u32 kLargest = 15;  // the guest's place
        const u32 base = options.network->as_v4();
        const u32 hosts = ~u32{0} >> options.prefix_bits;
        if (!options.network->is_v4() || (base & hosts) != 0 || hosts <= kLargest || options.prefix_bits == 0)
            return fail(Errc::InvalidArgument,
                        fmt::format("--net user,net={}/{}: give a network of at least 32 addresses, such as "
                                    "10.0.2.0/24",
                                    options.network->text(), options.prefix_bits));
        config.gateway = IpAddress::v4(base + 2);
        config.resolver = IpAddress::v4(base + 3);
        config.first_guest = IpAddress::v4(base + kLargest);
    }
    config.resolvers = resolvers_of(read_small_file("/etc/resolv.conf"));
    if (!options.resolvers.empty()) config.resolvers.clear();
    for (const IpAddress& address : options.resolvers)
        config.resolvers.push_back({.address = address, .port = kResolverPort});
    for (const PortForward& forward : options.forwards)
        config.forwards.push_back({.transport = forward.transport,
                                   .guest = {.address = config.first_guest, .port = forward.guest_port}});
    return config;
}

Result<std::unique_ptr<LinkedNet>> open_user_net(const NetOptions& options, EventLoop& loop) {
    if (options.forwards.size() > kMostForwards)
        return fail(Errc::InvalidArgument,
                    fmt::format("-p: at most {} ports can be forwarded", kMostForwards));
    if (options.helper_program.empty())
        return fail(Errc::InvalidArgument,
                    "network: NetOptions::helper_program must name the tessera command");
    auto config = user_net_config(options);
    if (!config) return std::unexpected(std::move(config.error()));
    LinkedNet::Peer peer;
    peer.hello = to_bytes(*config);
    peer.first_pause_ms = options.restart_pause_ms;
    // Ports are to answer from the start.
    peer.start = options.forwards.empty() ? options.start : Start::AtOnce;
    peer.on_trouble = options.on_trouble;
    peer.can_take = {.checksum = true, .tso4 = true, .tso6 = config->ipv6, .uso = true};
    peer.reach = [program = options.helper_program] { return spawn_helper(program, kNetHelperCommand); };
    for (const PortForward& forward : options.forwards) {
        auto file = open_forward(forward);
        if (!file) return std::unexpected(std::move(file.error()));
        peer.files.push_back(std::move(*file));
    }
    return LinkedNet::create(loop, std::move(peer));
}

}  // namespace tessera::net
