#include "backends/net/helper/host_sockets.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <netinet/tcp.h>
#include <sys/epoll.h>

#include "backends/net/helper/socket_address.h"

namespace tessera::net {

namespace {

using usernet::ConnectResult;
using usernet::DatagramKind;
using usernet::Endpoint;
using usernet::Transport;

constexpr int kEvents = 128;
constexpr int kAcceptsAtOnce = 64;

// Which socket an event is of: kind, generation, number.
constexpr u64 key_of(u8 kind, u32 generation, u32 id) {
    return u64{kind} << 56 | u64{generation & 0xffffff} << 32 | id;
}

ConnectResult result_of(int error) {
    switch (error) {
        case 0: return ConnectResult::Connected;
        case EINPROGRESS: return ConnectResult::InProgress;
        case ECONNREFUSED:
        case ECONNRESET: return ConnectResult::Refused;
        case ETIMEDOUT: return ConnectResult::TimedOut;
        default: return ConnectResult::Unreachable;
    }
}

int pending_error(const File& file) {
    int error = 0;
    socklen_t size = sizeof error;
    if (getsockopt(file.get(), SOL_SOCKET, SO_ERROR, &error, &size) < 0) return errno;
    return error;
}

void set_flag(const File& file, int level, int option, int value = 1) {
    (void)setsockopt(file.get(), level, option, &value, sizeof value);
}

}  // namespace

HostSockets::HostSockets(std::vector<File> forwards, const usernet::Config& config)
    : tcp_(usernet::Tcp::kMostConnections),
      datagrams_(usernet::Datagrams::kMostFlows),
      forwards_(std::move(forwards)) {
    for (const usernet::Forward& forward : config.forwards) forward_kinds_.push_back(forward.transport);
    failed_.reserve(usernet::Datagrams::kMostFlows);
}

bool HostSockets::watch(const File& file, Kind kind, u32 id, u32 generation, u32 events) const {
    epoll_event event{.events = events, .data = {.u64 = key_of(static_cast<u8>(kind), generation, id)}};
    return epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, file.get(), &event) == 0;
}

bool HostSockets::open(int also) {
    epoll_ = File(epoll_create1(EPOLL_CLOEXEC));
    if (!epoll_.is_open()) return false;
    epoll_event event{.events = EPOLLIN, .data = {.u64 = key_of(static_cast<u8>(Kind::Also), 0, 0)}};
    if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, also, &event) < 0) return false;
    for (u32 i = 0; i < forwards_.size() && i < forward_kinds_.size(); ++i) {
        const bool udp = forward_kinds_[i] == Transport::Udp;
        const u32 events = udp ? EPOLLIN | EPOLLET : EPOLLIN;
        if (!watch(forwards_[i], udp ? Kind::UdpForward : Kind::TcpForward, i, 0, events)) return false;
    }
    return true;
}

// --- Events ---

bool HostSockets::wait(int timeout_ms, usernet::Stack& stack, u64 (*now_ms)()) {
    std::array<epoll_event, kEvents> events;  // NOLINT(cppcoreguidelines-pro-type-member-init): the kernel's
    const int count = epoll_wait(epoll_.get(), events.data(), kEvents, timeout_ms);
    const u64 now = now_ms();
    bool also = false;
    for (int i = 0; i < count; ++i) {
        const epoll_event& event = events[static_cast<std::size_t>(i)];
        const u64 key = event.data.u64;
        const auto id = static_cast<u32>(key);
        const u32 generation = static_cast<u32>(key >> 32) & 0xffffff;
        switch (static_cast<Kind>(key >> 56)) {
            case Kind::Also: also = true; break;
            case Kind::Tcp:
                if ((tcp_[id].generation & 0xffffff) == generation && tcp_[id].file.is_open())
                    tcp_event(id, event.events, stack, now);
                break;
            case Kind::Datagram:
                if ((datagrams_[id].generation & 0xffffff) != generation || !datagrams_[id].file.is_open())
                    break;
                if ((event.events & EPOLLERR) != 0 && pending_error(datagrams_[id].file) != 0)
                    stack.datagram_failed(id);
                stack.datagram_readable(id);
                break;
            case Kind::TcpForward: accept_all(id, stack, now); break;
            case Kind::UdpForward: stack.forward_readable(id); break;
        }
    }
    std::vector<u32> failed;
    failed.swap(failed_);
    for (const u32 id : failed)
        if (datagrams_[id].file.is_open()) stack.datagram_failed(id);
    return also;
}

void HostSockets::tcp_event(u32 id, u32 events, usernet::Stack& stack, u64 now_ms) {
    Socket& socket = tcp_[id];
    const u32 generation = socket.generation;
    const int error = (events & EPOLLERR) != 0 ? pending_error(socket.file) : 0;
    if (socket.connecting) {
        if ((events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) == 0) return;
        socket.connecting = false;
        stack.tcp_connected(
            id, error == 0 && (events & EPOLLERR) != 0 ? ConnectResult::Refused : result_of(error), now_ms);
        if (socket.generation != generation || !socket.file.is_open()) return;
    }
    stack.tcp_ready(id,
                    {.readable = (events & EPOLLIN) != 0,
                     .writable = (events & EPOLLOUT) != 0,
                     .finished = (events & (EPOLLRDHUP | EPOLLHUP)) != 0,
                     .failed = error != 0},
                    now_ms);
}

void HostSockets::accept_all(u32 forward, usernet::Stack& stack, u64 now_ms) {
    for (int i = 0; i < kAcceptsAtOnce; ++i) {
        SocketAddress peer;
        File file(accept4(forwards_[forward].get(), peer.raw(), &peer.size, SOCK_NONBLOCK | SOCK_CLOEXEC));
        if (!file.is_open()) return;
        const auto id = stack.tcp_incoming(forward, peer.endpoint(), now_ms);
        if (!id) {
            const linger hard{.l_onoff = 1, .l_linger = 0};
            (void)setsockopt(file.get(), SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
            continue;
        }
        Socket& socket = tcp_[*id];
        socket.file = std::move(file);
        socket.connecting = false;
        prepare(socket);
        if (!watch(socket.file, Kind::Tcp, *id, socket.generation, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET))
            stack.tcp_ready(*id, {.failed = true}, now_ms);
    }
}

// --- TCP ---

void HostSockets::prepare(Socket& socket) const {
    set_flag(socket.file, IPPROTO_TCP, TCP_NODELAY);  // the guest's TCP has decided already
    set_flag(socket.file, SOL_SOCKET, SO_KEEPALIVE);
    const int beginning = 0;
    socket.peeks_at_offset =
        setsockopt(socket.file.get(), SOL_SOCKET, SO_PEEK_OFF, &beginning, sizeof beginning) == 0;
    socket.peek_offset = 0;
}

ConnectResult HostSockets::tcp_connect(u32 id, const Endpoint& to) {
    const SocketAddress address(to);
    Socket& socket = tcp_[id];
    socket.file = File(::socket(address.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!socket.file.is_open()) return ConnectResult::Unreachable;
    prepare(socket);
    const int error = ::connect(socket.file.get(), address.raw(), address.size) == 0 ? 0 : errno;
    const ConnectResult result = result_of(error);
    socket.connecting = result == ConnectResult::InProgress;
    if (result != ConnectResult::InProgress && result != ConnectResult::Connected) return result;
    if (!watch(socket.file, Kind::Tcp, id, socket.generation, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET))
        return ConnectResult::Unreachable;
    return result;
}

usernet::Host::Transfer HostSockets::tcp_send(u32 id, usernet::Bytes bytes) {
    const ssize_t sent = ::send(tcp_[id].file.get(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent >= 0) return {.bytes = static_cast<std::size_t>(sent)};
    return {.failed = errno != EAGAIN && errno != EINTR && errno != ENOBUFS && errno != ENOMEM};
}

usernet::Host::Transfer HostSockets::tcp_peek(u32 id, u32 offset, std::span<const iovec> room) {
    constexpr std::size_t kMostPieces = 64;
    Socket& socket = tcp_[id];
    std::array<iovec, kMostPieces + 1> pieces;  // NOLINT(cppcoreguidelines-pro-type-member-init): filled next
    std::size_t count = 0;
    std::size_t skipped = 0;
    if (socket.peeks_at_offset) {
        const int wanted = static_cast<int>(offset);
        if (socket.peek_offset != offset &&
            setsockopt(socket.file.get(), SOL_SOCKET, SO_PEEK_OFF, &wanted, sizeof wanted) < 0)
            return {.failed = true};
        socket.peek_offset = offset;
    } else if (offset != 0) {
        // GAP: before Linux 6.9 what is in flight is copied again by each look.
        if (skipped_.empty()) skipped_.resize(usernet::Tcp::kMostInFlight);
        skipped = std::min(std::size_t{offset}, skipped_.size());
        pieces[count++] = {.iov_base = skipped_.data(), .iov_len = skipped};
    }
    for (const iovec& piece : room.first(std::min(room.size(), kMostPieces))) pieces[count++] = piece;
    msghdr header{};
    header.msg_iov = pieces.data();
    header.msg_iovlen = count;
    const ssize_t got = ::recvmsg(socket.file.get(), &header, MSG_PEEK | MSG_DONTWAIT);
    if (got < 0) return {.failed = errno != EAGAIN && errno != EINTR && errno != ENOMEM};
    const std::size_t bytes =
        static_cast<std::size_t>(got) > skipped ? static_cast<std::size_t>(got) - skipped : 0;
    if (socket.peeks_at_offset) socket.peek_offset += static_cast<u32>(bytes);
    return {.bytes = bytes};
}

void HostSockets::tcp_discard(u32 id, u32 bytes) {
    Socket& socket = tcp_[id];
    while (bytes != 0) {
        const ssize_t got = ::recv(socket.file.get(), nullptr, bytes, MSG_TRUNC | MSG_DONTWAIT);
        if (got <= 0) return;
        bytes -= static_cast<u32>(got);
        socket.peek_offset -= std::min(socket.peek_offset, static_cast<u32>(got));
    }
}

void HostSockets::tcp_finish(u32 id) {
    (void)::shutdown(tcp_[id].file.get(), SHUT_WR);
}

void HostSockets::tcp_close(u32 id, Ending ending) {
    Socket& socket = tcp_[id];
    if (ending == Ending::Reset && socket.file.is_open()) {
        const linger hard{.l_onoff = 1, .l_linger = 0};
        (void)setsockopt(socket.file.get(), SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    }
    socket.file = File();
    socket.connecting = false;
    ++socket.generation;
}

// --- Datagrams ---

bool HostSockets::datagram_open(u32 id, DatagramKind kind, const Endpoint& to) {
    const SocketAddress address(to);
    const bool v4 = address.family() == AF_INET;
    const int protocol = kind == DatagramKind::Udp ? 0 : v4 ? IPPROTO_ICMP : static_cast<int>(IPPROTO_ICMPV6);
    File file(::socket(address.family(), SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol));
    if (!file.is_open() || ::connect(file.get(), address.raw(), address.size) < 0) return false;
    Socket& socket = datagrams_[id];
    if (!watch(file, Kind::Datagram, id, socket.generation, EPOLLIN | EPOLLET)) return false;
    socket.file = std::move(file);
    return true;
}

void HostSockets::datagram_send(u32 id, usernet::Bytes message) {
    const ssize_t sent =
        ::send(datagrams_[id].file.get(), message.data(), message.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    // What the host has no room for is lost, as on any network.
    if (sent < 0 && (errno == ECONNREFUSED || errno == EHOSTUNREACH || errno == ENETUNREACH))
        failed_.push_back(id);
}

std::optional<std::size_t> HostSockets::datagram_receive(u32 id, usernet::Room room) {
    for (int tries = 0; tries < 2; ++tries) {
        const ssize_t got = ::recv(datagrams_[id].file.get(), room.data(), room.size(), MSG_DONTWAIT);
        if (got >= 0) return static_cast<std::size_t>(got);
        if (errno != ECONNREFUSED) break;
        failed_.push_back(id);  // datagrams may wait behind the error
    }
    return std::nullopt;
}

void HostSockets::datagram_close(u32 id) {
    datagrams_[id].file = File();
    ++datagrams_[id].generation;
}

std::optional<usernet::Host::Arrival> HostSockets::forward_receive(u32 forward, usernet::Room room) {
    if (forward >= forwards_.size()) return std::nullopt;
    SocketAddress from;
    const ssize_t got =
        ::recvfrom(forwards_[forward].get(), room.data(), room.size(), MSG_DONTWAIT, from.raw(), &from.size);
    if (got < 0) return std::nullopt;
    return Arrival{.from = from.endpoint(), .bytes = static_cast<std::size_t>(got)};
}

void HostSockets::forward_send(u32 forward, const Endpoint& to, usernet::Bytes message) {
    if (forward >= forwards_.size()) return;
    const SocketAddress address(to);
    (void)::sendto(forwards_[forward].get(), message.data(), message.size(), MSG_DONTWAIT | MSG_NOSIGNAL,
                   address.raw(), address.size);
}

}  // namespace tessera::net
