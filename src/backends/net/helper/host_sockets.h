// The protocol engine's sockets on Linux: non-blocking, watched by an epoll instance of their own.
#pragma once

#include <vector>

#include "backends/net/usernet/stack.h"
#include "base/file.h"

namespace tessera::net {

class HostSockets final : public usernet::Host {
public:
    // The sockets of the forwards, in their order: listening for TCP, bound for UDP.
    HostSockets(std::vector<File> forwards, const usernet::Config& config);

    // To be watched along with `also`; false if the host has no descriptors left.
    [[nodiscard]] bool open(int also);
    // Waits, then tells the stack what has happened; true if something has happened to `also`.
    bool wait(int timeout_ms, usernet::Stack& stack, u64 (*now_ms)());

    usernet::ConnectResult tcp_connect(u32 id, const usernet::Endpoint& to) override;
    Transfer tcp_send(u32 id, usernet::Bytes bytes) override;
    Transfer tcp_peek(u32 id, u32 offset, std::span<const iovec> room) override;
    void tcp_discard(u32 id, u32 bytes) override;
    void tcp_finish(u32 id) override;
    void tcp_close(u32 id, Ending ending) override;

    bool datagram_open(u32 id, usernet::DatagramKind kind, const usernet::Endpoint& to) override;
    void datagram_send(u32 id, usernet::Bytes message) override;
    std::optional<std::size_t> datagram_receive(u32 id, usernet::Room room) override;
    void datagram_close(u32 id) override;
    std::optional<Arrival> forward_receive(u32 forward, usernet::Room room) override;
    void forward_send(u32 forward, const usernet::Endpoint& to, usernet::Bytes message) override;

private:
    enum class Kind : u8 { Also, Tcp, Datagram, TcpForward, UdpForward };
    struct Socket {
        File file;
        u32 generation = 0;  // an event that was fetched before a close is not the next socket's
        bool connecting = false;
        bool peeks_at_offset = false;  // SO_PEEK_OFF works
        u32 peek_offset = 0;           // where the kernel's next look begins
    };

    [[nodiscard]] bool watch(const File& file, Kind kind, u32 id, u32 generation, u32 events) const;
    void tcp_event(u32 id, u32 events, usernet::Stack& stack, u64 now_ms);
    void accept_all(u32 forward, usernet::Stack& stack, u64 now_ms);
    void prepare(Socket& socket) const;
    Socket& datagram(u32 id) { return datagrams_[id]; }

    File epoll_;
    std::vector<Socket> tcp_;
    std::vector<Socket> datagrams_;
    std::vector<File> forwards_;
    std::vector<usernet::Transport> forward_kinds_;
    std::vector<u32> failed_;  // datagram sockets; told after the call in which it was found out
    std::vector<u8> skipped_;  // where looks without SO_PEEK_OFF put what was seen before
};

}  // namespace tessera::net
