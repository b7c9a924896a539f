#include "devices/virtio/chain.h"

#include <algorithm>
#include <cstring>

#include "base/assert.h"

namespace tessera::virtio {

namespace {

// [VIRTIO-1.2 2.7.4.2] A chain is not longer than 2^32 bytes in total.
constexpr u64 kLongestChain = u64{1} << 32;

}  // namespace

ChainRoom::ChainRoom(unsigned chains, unsigned most)
    : chains_(chains),
      each_(most + 1),
      pieces_(std::make_unique_for_overwrite<iovec[]>(std::size_t{chains} * each_)),
      addresses_(std::make_unique_for_overwrite<u64[]>(std::size_t{chains} * each_)),
      sizes_(std::make_unique_for_overwrite<u64[]>(std::size_t{chains} * each_)) {}

ChainRoom::Place ChainRoom::take() {
    TESSERA_ASSERT(taken_ < chains_, "a device takes its chains while it is built");
    const std::size_t all = std::size_t{chains_} * each_;
    const std::size_t first = std::size_t{taken_++} * each_;
    return {.pieces = std::span(pieces_.get(), all).subspan(first, each_),
            .addresses = std::span(addresses_.get(), all).subspan(first, each_),
            .sizes = std::span(sizes_.get(), all).subspan(first, each_)};
}

Chain::Chain(unsigned most) : own_(std::make_unique<ChainRoom>(1, most)), place_(own_->take()) {}

Chain::Chain(ChainRoom& room) : place_(room.take()) {}

std::span<const iovec> Chain::readable() const {
    return pieces().subspan(first_readable_, end_readable_ - first_readable_);
}

std::span<const iovec> Chain::writable() const {
    return pieces().subspan(first_writable_, end_writable_ - first_writable_);
}

void Chain::clear() {
    count_ = first_writable_at_ = 1;
    first_readable_ = end_readable_ = first_writable_ = end_writable_ = 1;
    readable_bytes_ = writable_bytes_ = 0;
    id = slots = 0;
}

bool Chain::add(const MemoryMap& memory, u64 address, u32 length, Access access) {
    // [VIRTIO-1.2 2.7.4.2] Everything the device reads comes before everything it writes.
    const bool writes = access == Access::DeviceWrites;
    if (!writes && end_writable_ != end_readable_) return false;
    if (readable_bytes_ + writable_bytes_ + length > kLongestChain) return false;
    // A piece without bytes is no piece.
    for (u64 rest = length; rest != 0;) {
        const std::span<std::byte> piece = memory.ram_at(address, rest);
        if (piece.empty() || count_ >= place_.pieces.size()) return false;
        place_.pieces[count_] = {.iov_base = piece.data(), .iov_len = piece.size()};
        place_.addresses[count_] = address;
        place_.sizes[count_] = piece.size();
        ++count_;
        address += piece.size();
        rest -= piece.size();
    }
    end_writable_ = count_;
    if (!writes) end_readable_ = first_writable_ = first_writable_at_ = count_;
    (writes ? writable_bytes_ : readable_bytes_) += length;
    return true;
}

void Chain::tell_written(MemoryMap& memory) const {
    for (std::size_t i = first_writable_at_; i < count_; ++i)
        memory.changed_in_host(place_.addresses[i], place_.sizes[i]);
}

// Moves the front of what is between `first` and `end` on; returns how far it came.
std::size_t Chain::advance(std::span<iovec> pieces, std::size_t& first, std::size_t end, std::size_t bytes) {
    std::size_t done = 0;
    while (done < bytes && first < end) {
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
    while (done < out.size() && first_readable_ < end_readable_) {
        const iovec& piece = place_.pieces[first_readable_];
        const std::size_t step = std::min(out.size() - done, piece.iov_len);
        std::memcpy(out.subspan(done).data(), piece.iov_base, step);
        done += advance(pieces(), first_readable_, end_readable_, step);
    }
    readable_bytes_ -= done;
    return done;
}

std::size_t Chain::skip(std::size_t bytes) {
    const std::size_t done = advance(pieces(), first_readable_, end_readable_, bytes);
    readable_bytes_ -= done;
    return done;
}

std::size_t Chain::write(std::span<const std::byte> in) {
    std::size_t done = 0;
    while (done < in.size() && first_writable_ < end_writable_) {
        const iovec& piece = place_.pieces[first_writable_];
        const std::size_t step = std::min(in.size() - done, piece.iov_len);
        std::memcpy(piece.iov_base, in.subspan(done).data(), step);
        done += advance(pieces(), first_writable_, end_writable_, step);
    }
    writable_bytes_ -= done;
    return done;
}

void Chain::put_before_readable(std::span<const std::byte> bytes) {
    TESSERA_ASSERT(first_readable_ != 0, "a device does this once for each chain");
    // Only read from: iovec has no const.
    place_.pieces[--first_readable_] = {.iov_base = const_cast<std::byte*>(bytes.data()),
                                        .iov_len = bytes.size()};
    readable_bytes_ += bytes.size();
}

std::byte* Chain::take_last_writable() {
    if (writable_bytes_ == 0) return nullptr;
    iovec& last = place_.pieces[end_writable_ - 1];
    --last.iov_len;
    --writable_bytes_;
    std::byte* const taken = static_cast<std::byte*>(last.iov_base) + last.iov_len;
    if (last.iov_len == 0) --end_writable_;
    return taken;
}

void Chain::cut(std::size_t first, std::size_t& end, u64& total, u64 bytes) {
    while (total > bytes && end > first) {
        iovec& last = place_.pieces[end - 1];
        const u64 step = std::min<u64>(total - bytes, last.iov_len);
        last.iov_len -= step;
        total -= step;
        if (last.iov_len == 0) --end;
    }
}

void Chain::limit_readable(u64 bytes) {
    cut(first_readable_, end_readable_, readable_bytes_, bytes);
}

void Chain::limit_writable(u64 bytes) {
    cut(first_writable_, end_writable_, writable_bytes_, bytes);
}

}  // namespace tessera::virtio
