// Registers and packets of the virtio socket device [VIRTIO-1.2 5.10]. Nothing but the specification lives
// here.
#pragma once

#include "base/types.h"

namespace tessera::virtio_vsock {

// [VIRTIO-1.2 5.10.3] Bit number.
inline constexpr unsigned kFeatureStream = 0;

// [VIRTIO-1.2 5.10.2]
inline constexpr unsigned kReceiveQueue = 0;
inline constexpr unsigned kTransmitQueue = 1;
inline constexpr unsigned kEventQueue = 2;

// [VIRTIO-1.2 5.10.4] The guest's CID is all there is.
inline constexpr u32 kConfigSize = 8;
inline constexpr u64 kHostCid = 2;
inline constexpr u64 kLeastGuestCid = 3;
inline constexpr u64 kMostGuestCid = 0xffff'fffe;

// [VIRTIO-1.2 5.10.6] In front of every packet.
struct Header {
    u64 source_cid = 0;
    u64 destination_cid = 0;
    u32 source_port = 0;
    u32 destination_port = 0;
    u32 length = 0;  // of what follows
    u16 type = 0;
    u16 operation = 0;
    u32 flags = 0;
    u32 buffer_size = 0;  // buf_alloc: the sender's, for this connection
    u32 forwarded = 0;    // fwd_cnt: bytes that have left it, free-running
};
inline constexpr std::size_t kHeaderSize = 44;

inline constexpr u16 kTypeStream = 1;

enum class Operation : u16 {
    Invalid = 0,
    Request = 1,
    Response = 2,
    Reset = 3,
    Shutdown = 4,
    Data = 5,  // VIRTIO_VSOCK_OP_RW
    CreditUpdate = 6,
    CreditRequest = 7,
};

// [VIRTIO-1.2 5.10.6.5] The sender of a Shutdown ...
enum class ShutdownFlag : u32 {
    NoReceive = 1,  // receives no more
    NoSend = 2,     // sends no more
};

// [VIRTIO-1.2 5.10.6.7] An event is its number.
inline constexpr u32 kEventTransportReset = 0;
inline constexpr std::size_t kEventSize = 4;

}  // namespace tessera::virtio_vsock
