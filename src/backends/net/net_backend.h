// Both ends of the cable of a guest's network card: the card, and the host's side (user-mode network, TAP, a
// switch).
#pragma once

#include <span>
#include <sys/uio.h>

#include "base/types.h"

namespace tessera {

// What stands before every frame in both directions [VIRTIO-1.2 5.1.6], little-endian: the card's offers
// decide which fields may be other than zero.
struct NetHeader {
    static constexpr u8 kNeedsChecksum =
        1;  // flags: the 16 bits at checksum_start + checksum_offset want filling in
    static constexpr u8 kDataValid = 2;  // flags: the checksums were checked
    static constexpr u8 kGsoNone = 0;
    static constexpr u8 kGsoTcp4 = 1;
    static constexpr u8 kGsoUdp = 3;  // fragmentation, deprecated
    static constexpr u8 kGsoTcp6 = 4;
    static constexpr u8 kGsoUdpL4 = 5;
    static constexpr u8 kGsoEcn = 0x80;

    u8 flags = 0;
    u8 gso_type = kGsoNone;
    u16 header_length = 0;
    u16 gso_size = 0;
    u16 checksum_start = 0;
    u16 checksum_offset = 0;
    u16 buffers = 0;  // merged receive buffers; the card fills it in
};
static_assert(sizeof(NetHeader) == 12);

// What the receiver of a frame can deal with. A frame without them is complete: checksums filled in, at most
// one MTU.
struct NetOffloads {
    bool checksum = false;
    bool tso4 = false;
    bool tso6 = false;
    bool ecn = false;
    bool ufo = false;
    bool uso = false;
    friend bool operator==(const NetOffloads&, const NetOffloads&) = default;
};

inline constexpr std::size_t kMaxFrame =
    65536 + 14 + 4;  // bytes, without the NetHeader: a TSO frame with a VLAN tag

// The card's side. Called by the backend on any thread with no lock of the backend held; takes the locks it
// needs.
class NetPeer {
public:
    NetPeer() = default;
    NetPeer(const NetPeer&) = delete;
    NetPeer& operator=(const NetPeer&) = delete;
    virtual ~NetPeer() = default;

    // receive() had nothing before, and there is something now.
    virtual void frames_waiting() = 0;
    // transmit() took less than all before, and there is room now.
    virtual void transmit_ready() = 0;
    virtual void link_changed(bool up) = 0;
};

// The host's side. May be called with the card locked: neither waits nor calls the peer from inside.
// `queue` is the number of a pair of queues; each is used by one thread at a time.
class NetBackend {
public:
    NetBackend() = default;
    NetBackend(const NetBackend&) = delete;
    NetBackend& operator=(const NetBackend&) = delete;
    virtual ~NetBackend() = default;

    // One frame each, scattered, beginning with the NetHeader. Guest memory: copied or sent before this
    // returns.
    struct Frame {
        std::span<const iovec> pieces;
    };
    // Returns how many it took, from the first on; if not all, transmit_ready() follows when there is room.
    virtual std::size_t transmit(unsigned queue, std::span<const Frame> frames) = 0;

    // The size in bytes of the next frame with its NetHeader; 0: none, and frames_waiting() follows when
    // there is one.
    virtual std::size_t next_size(unsigned queue) = 0;
    // Takes the next frame, cut to the pieces' room; returns the bytes written, 0 if there is none.
    virtual std::size_t receive(unsigned queue, std::span<const iovec> pieces) = 0;
    // Throws the next frame away.
    virtual void drop(unsigned queue) = 0;

    [[nodiscard]] virtual unsigned max_queues() const { return 1; }
    virtual void use_queues(unsigned /*count*/) {}
    // What the host can take from the guest, and what the guest has agreed to take.
    [[nodiscard]] virtual NetOffloads can_take() const { return {}; }
    virtual void guest_takes(const NetOffloads& /*offloads*/) {}
    [[nodiscard]] virtual bool link_up() const { return true; }

    // Called once before the guest starts, and with null when it is gone; after that the peer is not called
    // any more. With no lock of the card held: it waits for a call that is under way.
    virtual void connect(NetPeer* peer) = 0;
};

}  // namespace tessera
