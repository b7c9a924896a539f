#include "devices/virtio/chain.h"

#include <algorithm>
#include <cstring>

namespace tessera::virtio {

namespace {

// [VIRTIO-1.2 2.7.4.2] A chain is not longer than 2^32 bytes in total.
constexpr u64 kLongestChain = u64{1} << 32;

}  // namespace

Chain::Chain(unsigned most) : most_(most) {
    readable_.reserve(most);
    writable_.reserve(most);
    written_.reserve(most);
}

std::span<const iovec> Chain::readable() const {
    return std::span(readable_).subspan(first_readable_);
}

std::span<const iovec> Chain::writable() const {
    return std::span(writable_).subspan(first_writable_);
}

void Chain::clear() {
    readable_.clear();
    writable_.clear();
    written_.clear();
    first_readable_ = first_writable_ = 0;
    readable_bytes_ = writable_bytes_ = 0;
    id = slots = 0;
}

bool Chain::add(const MemoryMap& memory, u64 address, u32 length, Access access) {
    // [VIRTIO-1.2 2.7.4.2] Everything the device reads comes before everything it writes.
    const bool writes = access == Access::DeviceWrites;
    if (!writes && !written_.empty()) return false;
    if (readable_bytes_ + writable_bytes_ + length > kLongestChain) return false;
    std::vector<iovec>& pieces = writes ? writable_ : readable_;
    // A piece without bytes is no piece.
    for (u64 rest = length; rest != 0;) {
        const std::span<std::byte> piece = memory.ram_at(address, rest);
        if (piece.empty() || readable_.size() + writable_.size() == most_) return false;
        pieces.push_back({.iov_base = piece.data(), .iov_len = piece.size()});
        if (writes) written_.push_back({.address = address, .size = piece.size()});
        address += piece.size();
        rest -= piece.size();
    }
    (writes ? writable_bytes_ : readable_bytes_) += length;
    return true;
}

void Chain::tell_written(MemoryMap& memory) const {
    for (const Piece& piece : written_) memory.changed_in_host(piece.address, piece.size);
}

// Moves the front of `pieces` on; returns how far it came.
std::size_t Chain::advance(std::span<iovec> pieces, std::size_t& first, std::size_t bytes) {
    std::size_t done = 0;
    while (done < bytes && first < pieces.size()) {
        iovec& piece = pieces[first];
        const std::size_t step = std::min(bytes - done, piece.iov_len);
        piece.iov_base = static_cast<std::byte*>(piece.iov_base) + step;
        piece.iov_len -= step;
        done += step;
        if (piece.iov_len == 0) ++first;
    }
    return done;
}

std::size_t Chain::read(std::span<std::byte> out) {
    std::size_t done = 0;
    while (done < out.size() && first_readable_ < readable_.size()) {
        const iovec& piece = readable_[first_readable_];
        const std::size_t step = std::min(out.size() - done, piece.iov_len);
        std::memcpy(out.subspan(done).data(), piece.iov_base, step);
        done += advance(readable_, first_readable_, step);
    }
    readable_bytes_ -= done;
    return done;
}

std::size_t Chain::skip(std::size_t bytes) {
    const std::size_t done = advance(readable_, first_readable_, bytes);
    readable_bytes_ -= done;
    return done;
}

std::size_t Chain::write(std::span<const std::byte> in) {
    std::size_t done = 0;
    while (done < in.size() && first_writable_ < writable_.size()) {
        const iovec& piece = writable_[first_writable_];
        const std::size_t step = std::min(in.size() - done, piece.iov_len);
        std::memcpy(piece.iov_base, in.subspan(done).data(), step);
        done += advance(writable_, first_writable_, step);
    }
    writable_bytes_ -= done;
    return done;
}

std::byte* Chain::take_last_writable() {
    if (writable_bytes_ == 0) return nullptr;
    iovec& last = writable_.back();
    --last.iov_len;
    --writable_bytes_;
    std::byte* const taken = static_cast<std::byte*>(last.iov_base) + last.iov_len;
    if (last.iov_len == 0) writable_.pop_back();
    return taken;
}

void Chain::cut(std::vector<iovec>& pieces, std::size_t first, u64& total, u64 bytes) {
    while (total > bytes && pieces.size() > first) {
        iovec& last = pieces.back();
        const u64 step = std::min<u64>(total - bytes, last.iov_len);
        last.iov_len -= step;
        total -= step;
        if (last.iov_len == 0) pieces.pop_back();
    }
}

void Chain::limit_readable(u64 bytes) {
    cut(readable_, first_readable_, readable_bytes_, bytes);
}

void Chain::limit_writable(u64 bytes) {
    cut(writable_, first_writable_, writable_bytes_, bytes);
}

}  // namespace tessera::virtio
