// Both sides of a guest's sockets: the device that speaks virtio, and the host's side that has real sockets.
#pragma once

#include <span>
#include <sys/uio.h>

#include "base/types.h"

namespace tessera {

// A connection's name between the two; never used again. The device's are even, the host side's are odd.
using VsockId = u64;

// The device. Called by the backend on any thread with no lock of the backend held; takes none itself.
class VsockPeer {
public:
    VsockPeer() = default;
    VsockPeer(const VsockPeer&) = delete;
    VsockPeer& operator=(const VsockPeer&) = delete;
    virtual ~VsockPeer() = default;
    // next_event() has something. Not told of what comes of a call of the device's own, before it returns.
    virtual void events_waiting() = 0;
};

// What the host's side has to tell of a connection.
struct VsockEvent {
    enum class Kind : u8 {
        Request,    // the host wants to connect to the guest's port `value`: answer accepted() or close()
        Opened,     // open() has led somewhere
        Readable,   // receive() may have something; also right after the connection is made
        Forwarded,  // `value` more bytes of the guest have left
        Gone,       // it is over, or open() led nowhere; the name means nothing any more
    };
    Kind kind = Kind::Gone;
    VsockId id = 0;
    u32 value = 0;
};

// The host's side. Called with the device locked: neither waits nor calls the peer from inside. Names that
// mean nothing (any more) are passed over.
class VsockBackend {
public:
    VsockBackend() = default;
    VsockBackend(const VsockBackend&) = delete;
    VsockBackend& operator=(const VsockBackend&) = delete;
    virtual ~VsockBackend() = default;

    // How many bytes of a guest's that have not left yet there is room for, for each connection.
    static constexpr u32 kRoom = 256 * 1024;

    // False: there is no event now.
    virtual bool next_event(VsockEvent& event) = 0;

    // The guest wants to connect to a port of the host: Opened or Gone follows.
    virtual void open(VsockId id, u32 port) = 0;
    // The guest takes a connection the host has asked for.
    virtual void accepted(VsockId id, u32 host_port) = 0;
    // It is over: what has not left yet is lost, and no event follows.
    virtual void close(VsockId id) = 0;
    // All of them are over.
    virtual void close_all() = 0;

    // Bytes of the guest, no more than there is room for. Returns how many left at once; Forwarded tells of
    // the rest.
    virtual std::size_t send(VsockId id, std::span<const iovec> pieces) = 0;
    // The guest sends no more: the host is told when everything has left. It receives no more.
    virtual void end_of_sending(VsockId id) = 0;
    virtual void end_of_receiving(VsockId id) = 0;

    struct Received {
        enum class Then : u8 {
            More,    // there may be more
            Later,   // Readable follows when there is
            End,     // the host sends no more
            Closed,  // and receives no more either
        };
        std::size_t bytes = 0;
        Then then = Then::Later;
    };
    virtual Received receive(VsockId id, std::span<u8> out) = 0;

    // Called once before the guest starts, and with null when it is gone; after that the peer is not called
    // any more. With no lock of the device held: it waits for a call that is under way.
    virtual void connect(VsockPeer* peer) = 0;
};

}  // namespace tessera
