// A walk over pieces of memory (iovecs): takes the next so many bytes, copies in and out, fills.
#pragma once

#include <algorithm>
#include <cstring>
#include <new>
#include <span>
#include <sys/uio.h>
#include <utility>
#include <vector>

#include "base/types.h"

namespace tessera::block {

inline constexpr std::size_t kMostPieces = 1024;  // the kernel's limit for one call (IOV_MAX)

[[nodiscard]] inline u64 total_length(std::span<const iovec> pieces) {
    u64 sum = 0;
    for (const iovec& piece : pieces) sum += piece.iov_len;
    return sum;
}

class PieceWalk {
public:
    explicit PieceWalk(std::span<const iovec> pieces) : pieces_(pieces) {}

    // Appends the next `length` bytes to `out`, fewer if there are no more or `out` gets `most` pieces;
    // returns how many bytes.
    u64 take(u64 length, std::vector<iovec>& out, std::size_t most = ~std::size_t{0}) {
        u64 taken = 0;
        while (taken < length && !pieces_.empty() && out.size() < most) {
            const iovec part = next(length - taken);
            if (part.iov_len == 0) continue;
            out.push_back(part);
            taken += part.iov_len;
        }
        return taken;
    }
    void skip(u64 length) {
        while (length > 0 && !pieces_.empty()) length -= next(length).iov_len;
    }
    void copy_out(std::span<u8> to) {
        while (!to.empty() && !pieces_.empty()) {
            const iovec part = next(to.size());
            std::memcpy(to.data(), part.iov_base, part.iov_len);
            to = to.subspan(part.iov_len);
        }
    }
    void copy_in(std::span<const u8> from) {
        while (!from.empty() && !pieces_.empty()) {
            const iovec part = next(from.size());
            std::memcpy(part.iov_base, from.data(), part.iov_len);
            from = from.subspan(part.iov_len);
        }
    }
    void fill_zero(u64 length) {
        while (length > 0 && !pieces_.empty()) {
            const iovec part = next(length);
            std::memset(part.iov_base, 0, part.iov_len);
            length -= part.iov_len;
        }
    }

private:
    iovec next(u64 most) {
        const iovec& piece = pieces_.front();
        const u64 length = std::min<u64>(piece.iov_len - used_, most);
        const std::span<u8> whole(static_cast<u8*>(piece.iov_base), piece.iov_len);
        const iovec part{.iov_base = whole.subspan(used_).data(), .iov_len = length};
        used_ += length;
        if (used_ == piece.iov_len) {
            used_ = 0;
            pieces_ = pieces_.subspan(1);
        }
        return part;
    }

    std::span<const iovec> pieces_;
    u64 used_ = 0;  // of the first piece
};

// Memory at an address that is a multiple of a power of two, for O_DIRECT and for whole clusters.
class AlignedBuffer {
public:
    AlignedBuffer() = default;
    AlignedBuffer(std::size_t length, std::size_t alignment)
        : memory_(length == 0 ? nullptr
                              : static_cast<u8*>(::operator new[](length, std::align_val_t(alignment)))),
          length_(length),
          alignment_(alignment) {}
    AlignedBuffer(const AlignedBuffer&) = delete;
    AlignedBuffer& operator=(const AlignedBuffer&) = delete;
    AlignedBuffer(AlignedBuffer&& other) noexcept
        : memory_(std::exchange(other.memory_, nullptr)),
          length_(std::exchange(other.length_, 0)),
          alignment_(other.alignment_) {}
    AlignedBuffer& operator=(AlignedBuffer&&) = delete;
    ~AlignedBuffer() {
        if (memory_ != nullptr) ::operator delete[](memory_, std::align_val_t(alignment_));
    }
    [[nodiscard]] std::span<u8> bytes() const { return {memory_, length_}; }

private:
    u8* memory_ = nullptr;
    std::size_t length_ = 0;
    std::size_t alignment_ = 1;
};

}  // namespace tessera::block
