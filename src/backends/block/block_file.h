// Bytes with a beginning and an end: what disks and image formats are kept in. A host's file or block device
// (file/host_file.h), or memory with a log of its writes (testing/memory_file.h).
#pragma once

#include <span>
#include <string>

#include "backends/block/block_backend.h"

namespace tessera::block {

enum class Durability : u8 { Cached, Durable };
enum class Unmap : u8 { No, Allowed };

class BlockFile {
public:
    BlockFile() = default;
    BlockFile(const BlockFile&) = delete;
    BlockFile& operator=(const BlockFile&) = delete;
    virtual ~BlockFile() = default;

    [[nodiscard]] virtual const std::string& name() const = 0;
    [[nodiscard]] virtual bool read_only() const = 0;
    [[nodiscard]] virtual u64 size() const = 0;  // bytes, any number

    // These wait until it is done. Thread-safe. Any offset and length; a failure has been logged.
    // Bytes past the end read as zeroes; a write past the end makes the file longer.
    virtual BlockStatus read(u64 offset, std::span<const iovec> buffers) = 0;
    virtual BlockStatus write(u64 offset, std::span<const iovec> buffers, Durability durability) = 0;
    // What was written is durable. Once it failed it fails for ever: the host may have dropped what it could
    // not write, and would not say so twice.
    virtual BlockStatus sync() = 0;
    // Gives the room back to the host; the range then reads as zeroes, or Unsupported and unchanged.
    virtual BlockStatus discard(u64 offset, u64 length) = 0;
    virtual BlockStatus write_zeroes(u64 offset, u64 length, Unmap unmap) = 0;
    virtual BlockStatus resize(u64 size) = 0;

    // What follows `offset`: so many bytes that are a hole (read as zeroes), or so many that may be data.
    struct Stretch {
        u64 length = 0;  // 0 at the end of the file
        bool hole = false;
    };
    [[nodiscard]] virtual Stretch stretch(u64 offset) const = 0;
    // Bytes of the host's storage in use.
    [[nodiscard]] virtual u64 allocated() const = 0;

    // Reads, Writes and Flushes that do not wait: as BlockBackend::submit, offsets and lengths in whole
    // sectors.
    virtual void submit(std::span<BlockRequest* const> requests) = 0;

    BlockStatus read(u64 offset, std::span<u8> bytes) {
        const iovec piece{.iov_base = bytes.data(), .iov_len = bytes.size()};
        return read(offset, std::span(&piece, 1));
    }
    BlockStatus write(u64 offset, std::span<const u8> bytes, Durability durability = Durability::Cached) {
        // The bytes are only read; iovec has no const.
        const iovec piece{.iov_base = const_cast<u8*>(bytes.data()), .iov_len = bytes.size()};
        return write(offset, std::span(&piece, 1), durability);
    }
};

}  // namespace tessera::block
