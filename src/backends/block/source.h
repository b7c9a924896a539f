// What can be read as a disk by calls that wait: an image, its backing file, what a conversion reads from.
#pragma once

#include <span>

#include "backends/block/block_backend.h"

namespace tessera::block {

class Source {
public:
    Source() = default;
    Source(const Source&) = delete;
    Source& operator=(const Source&) = delete;
    virtual ~Source() = default;

    [[nodiscard]] virtual u64 size() const = 0;  // bytes
    // Inside the size. Thread-safe.
    virtual BlockStatus read(u64 offset, std::span<const iovec> buffers) = 0;

    enum class Kind : u8 { Data, Zero };
    struct Run {
        u64 length = 0;  // bytes; not 0 inside the size
        Kind kind = Kind::Data;
    };
    // What is known without reading the data, for some bytes from `offset` on.
    virtual BlockStatus run_at(u64 offset, Run& run) = 0;

    BlockStatus read(u64 offset, std::span<u8> bytes) {
        const iovec piece{.iov_base = bytes.data(), .iov_len = bytes.size()};
        return read(offset, std::span(&piece, 1));
    }
};

}  // namespace tessera::block
