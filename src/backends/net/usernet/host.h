// What the protocol engine asks of the world: sockets on one side, room for frames on the other. It has no
// system calls, threads or clock of its own, so tests and fuzzers stand in for both.
#pragma once

#include <optional>
#include <sys/uio.h>

#include "backends/net/usernet/addresses.h"

namespace tessera::usernet {

enum class ConnectResult : u8 { InProgress, Connected, Refused, Unreachable, TimedOut };
enum class DatagramKind : u8 { Udp, Echo };
// Echo: ICMP (or ICMPv6) messages of type echo; the host chooses the identifier.

// Sockets, by numbers that the engine gives out. A number is used again only after its close().
class Host {
public:
    Host() = default;
    Host(const Host&) = delete;
    Host& operator=(const Host&) = delete;
    virtual ~Host() = default;

    struct Transfer {
        std::size_t bytes = 0;
        bool failed = false;  // the connection is dead
    };

    // InProgress: Stack::tcp_connected follows. tcp_close follows even when it has failed.
    virtual ConnectResult tcp_connect(u32 id, const Endpoint& to) = 0;
    // Takes what fits; if not all, Stack::tcp_ready(writable) follows.
    virtual Transfer tcp_send(u32 id, Bytes bytes) = 0;
    // Copies bytes that stay in the socket, beginning `offset` behind its first; if fewer than there was room
    // for, Stack::tcp_ready(readable) follows when there are more.
    virtual Transfer tcp_peek(u32 id, u32 offset, std::span<const iovec> room) = 0;
    virtual void tcp_discard(u32 id, u32 bytes) = 0;
    virtual void tcp_finish(u32 id) = 0;  // no more to send
    enum class Ending : u8 { Orderly, Reset };
    virtual void tcp_close(u32 id, Ending ending) = 0;

    // False: the host does not let us, or has no more sockets.
    virtual bool datagram_open(u32 id, DatagramKind kind, const Endpoint& to) = 0;
    virtual void datagram_send(u32 id, Bytes message) = 0;
    // None: Stack::datagram_readable follows.
    virtual std::optional<std::size_t> datagram_receive(u32 id, Room room) = 0;
    virtual void datagram_close(u32 id) = 0;

    // The sockets of UDP forwards, by their index in Config::forwards.
    struct Arrival {
        Endpoint from;
        std::size_t bytes = 0;
    };
    virtual std::optional<Arrival> forward_receive(u32 forward, Room room) = 0;
    virtual void forward_send(u32 forward, const Endpoint& to, Bytes message) = 0;
};

// The way to the guest's card. Frames begin with a NetHeader. The memory is shared with its reader: it is
// written and not read again.
class Wire {
public:
    Wire() = default;
    Wire(const Wire&) = delete;
    Wire& operator=(const Wire&) = delete;
    virtual ~Wire() = default;

    // Room for up to frames.size() frames of `size` bytes each; returns for how many there was. If not for
    // one, Stack::wire_ready follows.
    virtual std::size_t reserve(std::size_t size, std::span<Room> frames) = 0;
    // Sends the first sizes.size() of the reserved frames, cut to these sizes; the others are given back.
    virtual void commit(std::span<const std::size_t> sizes) = 0;
    // The reader has taken all there was: what is not answered was lost behind it.
    [[nodiscard]] virtual bool drained() const = 0;
};

}  // namespace tessera::usernet
