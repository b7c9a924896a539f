// What a disk controller asks of the host's side of a disk: a file, a block device, an image format, a layer.
// The formats are in the folders beside this one.
#pragma once

#include <span>
#include <string>
#include <sys/uio.h>

#include "base/result.h"
#include "base/types.h"

namespace tessera {

inline constexpr u64 kSectorSize = 512;  // bytes; the unit in which disks are addressed

enum class BlockOperation : u8 {
    Read,
    Write,
    Flush,        // every write completed before this was submitted is durable when it completes
    Discard,      // the contents of the range become undefined
    WriteZeroes,  // the range reads as zeroes afterwards
};

enum class BlockStatus : u8 {
    Ok,
    IoError,      // the host could not; the message went to the backend's log
    NoSpace,      // the host's file system is full
    Unsupported,  // this backend does not do this operation
    OutOfRange,   // beyond the end, unaligned or read-only: the controller should have checked
};

// One request. The controller owns it, and it and what it points to stay until done() was called.
class BlockRequest {
public:
    BlockRequest() = default;
    BlockRequest(const BlockRequest&) = delete;
    BlockRequest& operator=(const BlockRequest&) = delete;

    BlockOperation operation = BlockOperation::Read;
    u64 offset = 0;  // bytes, a multiple of kSectorSize
    u64 length = 0;  // bytes, a multiple of kSectorSize; with Read and Write, the sum of the buffers
    // Host memory, usually the guest's own: its bytes may change at any time, so a format copies once what it
    // interprets or compares. Any alignment, any number of pieces.
    std::span<const iovec> buffers;
    bool force_unit_access = false;  // Write: durable when it completes
    bool may_unmap = false;          // WriteZeroes: the range may become a hole

    // Called exactly once, on any thread, also from inside submit(), with no lock of the backend held.
    virtual void done(BlockStatus status) = 0;

protected:
    ~BlockRequest() = default;
};

struct BlockInfo {
    u64 size = 0;                      // bytes, a multiple of kSectorSize
    u32 logical_block = kSectorSize;   // bytes
    u32 physical_block = kSectorSize;  // bytes
    u32 optimal_io = 0;                // bytes; 0: unknown
    u64 discard_granularity = 0;       // bytes; 0: Discard is refused
    bool can_write_zeroes = false;
    bool read_only = false;
    std::string name;  // what the user called it, for messages
};

class BlockBackend {
public:
    BlockBackend() = default;
    BlockBackend(const BlockBackend&) = delete;
    BlockBackend& operator=(const BlockBackend&) = delete;
    // Nothing may be in flight.
    virtual ~BlockBackend() = default;

    [[nodiscard]] virtual const BlockInfo& info() const = 0;
    // Starts all of them, in any order with respect to one another; returns soon. Thread-safe. Requests that
    // overlap and are in flight together may take effect in any order.
    virtual void submit(std::span<BlockRequest* const> requests) = 0;
};

}  // namespace tessera
