#include "backends/block/file/host_file.h"

#include <array>
#include <cerrno>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>

namespace tessera::block {

namespace {

constexpr u64 kMostFromCache = 512 * kKiB;  // by one submit; more would hold it up
constexpr u64 kBounceLength = kMiB;
alignas(4096) constexpr std::array<u8, 64 * kKiB> kZeroes{};

u64 round_down(u64 value, u64 unit) {
    return value - value % unit;
}
u64 round_up(u64 value, u64 unit) {
    return round_down(value + unit - 1, unit);
}

BlockStatus status_of_errno(int error) {
    switch (error) {
        case 0: return BlockStatus::Ok;
        case ENOSPC:
        case EDQUOT: return BlockStatus::NoSpace;
        case EOPNOTSUPP:
        case ENOTTY: return BlockStatus::Unsupported;
        default: return BlockStatus::IoError;
    }
}

}  // namespace

HostFile::~HostFile() {
    uring_.reset();
    (void)close(fd_);
}

BlockStatus HostFile::status_of(const char* what, u64 offset, int error) {
    const BlockStatus status = status_of_errno(error);
    if (status != BlockStatus::Ok && status != BlockStatus::Unsupported)
        log_.say(fmt::format("disk '{}': {} at byte {}: {}", name_, what, offset,
                             std::generic_category().message(error)));
    return status;
}

void HostFile::grew(u64 end) {
    u64 seen = size_.load(std::memory_order_relaxed);
    while (seen < end && !size_.compare_exchange_weak(seen, end, std::memory_order_acq_rel)) {
    }
}

// --- waiting calls -----------------------------------------------------------------------------------------

int HostFile::transfer(bool write, u64 offset, std::span<const iovec> buffers, int flags) const {
    PieceWalk walk(buffers);
    std::vector<iovec> part;
    std::span<const iovec> now = buffers;
    u64 left = total_length(buffers);
    if (buffers.size() > kMostPieces) {
        (void)walk.take(left, part, kMostPieces);
        now = part;
    }
    u64 done = 0;
    while (left > 0) {
        const auto count = static_cast<int>(now.size());
        const auto position = static_cast<off_t>(offset + done);
        const ssize_t result = write ? pwritev2(fd_, now.data(), count, position, flags)
                                     : preadv2(fd_, now.data(), count, position, flags);
        if (result < 0 && errno == EINTR) continue;
        if (result < 0) return errno;
        if (result == 0) {
            if (write || !is_end(offset + done)) return EIO;
            PieceWalk rest(buffers);
            rest.skip(done);
            rest.fill_zero(left);
            return 0;
        }
        done += static_cast<u64>(result);
        left -= static_cast<u64>(result);
        if (left == 0) break;
        part.clear();
        PieceWalk rest(buffers);
        rest.skip(done);
        (void)rest.take(left, part, kMostPieces);
        now = part;
    }
    return 0;
}

bool HostFile::is_aligned(u64 offset, std::span<const iovec> buffers) const {
    if (!is_direct()) return true;
    if (offset % offset_alignment_ != 0) return false;
    u64 length = 0;
    for (const iovec& piece : buffers) {
        if (reinterpret_cast<std::uintptr_t>(piece.iov_base) % memory_alignment_ != 0 ||
            piece.iov_len % memory_alignment_ != 0)
            return false;
        length += piece.iov_len;
    }
    return length % offset_alignment_ == 0;
}

// O_DIRECT with memory or offsets that the host does not take: through aligned memory, in whole blocks.
int HostFile::bounce(bool write, u64 offset, std::span<const iovec> buffers, int flags) {
    const u64 end = offset + total_length(buffers);
    const AlignedBuffer memory(
        std::min(round_up(end, offset_alignment_) - round_down(offset, offset_alignment_),
                 round_up(kBounceLength, offset_alignment_)),
        std::max(memory_alignment_, offset_alignment_));
    PieceWalk walk(buffers);
    while (offset < end) {
        const u64 start = round_down(offset, offset_alignment_);
        const u64 stop = std::min(end, start + memory.bytes().size());
        const auto window = memory.bytes().first(round_up(stop, offset_alignment_) - start);
        if (const int error = bounce_part(write, offset, window, walk, stop - offset, flags); error != 0)
            return error;
        offset = stop;
    }
    return 0;
}

int HostFile::bounce_part(bool write, u64 offset, std::span<u8> window, PieceWalk& walk, u64 length,
                          int flags) {
    const u64 start = round_down(offset, offset_alignment_);
    const iovec piece{.iov_base = window.data(), .iov_len = window.size()};
    const auto wanted = window.subspan(offset - start, length);
    const auto read_window = [&](std::span<u8> part, u64 from) {
        const iovec where{.iov_base = part.data(), .iov_len = part.size()};
        return transfer(false, from, std::span(&where, 1), 0);
    };
    if (!write) {
        if (const int error = read_window(window, start); error != 0) return error;
        walk.copy_in(wanted);
        return 0;
    }
    const bool partial = wanted.size() != window.size();
    // Another write of part of the same block must not happen between our reading and our writing.
    std::unique_lock lock(unaligned_mutex_, std::defer_lock);
    if (partial) {
        lock.lock();
        const u64 last = window.size() - offset_alignment_;
        if (const int error = read_window(window.first(offset_alignment_), start); error != 0) return error;
        if (last != 0)
            if (const int error = read_window(window.subspan(last), start + last); error != 0) return error;
    }
    walk.copy_out(wanted);
    const u64 end = std::max(size(), offset + length);
    if (const int error = transfer(true, start, std::span(&piece, 1), flags); error != 0) return error;
    return start + window.size() > end ? keep_length(end) : 0;
}

// A whole block was written where the file ends inside it.
int HostFile::keep_length(u64 end) {
    return block_device_ || ftruncate(fd_, static_cast<off_t>(end)) == 0 ? 0 : errno;
}

BlockStatus HostFile::read(u64 offset, std::span<const iovec> buffers) {
    const int error =
        is_aligned(offset, buffers) ? transfer(false, offset, buffers, 0) : bounce(false, offset, buffers, 0);
    return status_of("read", offset, error);
}

BlockStatus HostFile::write(u64 offset, std::span<const iovec> buffers, Durability durability) {
    if (read_only()) return BlockStatus::OutOfRange;
    const int flags =
        durability == Durability::Durable && options_.cache != CacheMode::Unsafe ? RWF_DSYNC : 0;
    const int error = is_aligned(offset, buffers) ? transfer(true, offset, buffers, flags)
                                                  : bounce(true, offset, buffers, flags);
    if (error == 0) grew(offset + total_length(buffers));
    return status_of("write", offset, error);
}

BlockStatus HostFile::sync() {
    if (options_.cache == CacheMode::Unsafe || read_only()) return BlockStatus::Ok;
    if (sync_failed_) return BlockStatus::IoError;
    int error = 0;
    do error = fdatasync(fd_) == 0 ? 0 : errno;
    while (error == EINTR);
    if (error != 0) sync_failed_ = true;
    return status_of("flush", 0, error);
}

BlockStatus HostFile::discard(u64 offset, u64 length) {
    if (read_only()) return BlockStatus::OutOfRange;
    if (!can_discard_) return BlockStatus::Unsupported;
    int result = 0;
    if (block_device_) {
        std::array<u64, 2> range{offset, length};
        result = ioctl(fd_, BLKDISCARD, range.data());
    } else {
        result = fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                           static_cast<off_t>(length));
    }
    return status_of("discard", offset, result == 0 ? 0 : errno);
}

BlockStatus HostFile::write_zeroes(u64 offset, u64 length, Unmap unmap) {
    if (read_only()) return BlockStatus::OutOfRange;
    int error = EOPNOTSUPP;
    if (block_device_) {
        std::array<u64, 2> range{offset, length};
        error = ioctl(fd_, BLKZEROOUT, range.data()) == 0 ? 0 : errno;
    } else {
        const u64 end = offset + length;
        const auto call = [&](int mode) {
            return fallocate(fd_, mode, static_cast<off_t>(offset), static_cast<off_t>(length)) == 0 ? 0
                                                                                                     : errno;
        };
        // A hole does not make the file longer, so what reaches past the end is left to the other way.
        if (unmap == Unmap::Allowed && end <= size())
            error = call(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
        if (error == EOPNOTSUPP) error = call(FALLOC_FL_ZERO_RANGE);
        if (error == 0) grew(end);
    }
    if (error == EOPNOTSUPP || error == ENOTTY || error == EINVAL) error = fill_with_zeroes(offset, length);
    return status_of("write zeroes", offset, error);
}

int HostFile::fill_with_zeroes(u64 offset, u64 length) {
    while (length > 0) {
        const u64 now = std::min<u64>(length, kZeroes.size());
        // The bytes are only read; iovec has no const.
        const iovec piece{.iov_base = const_cast<u8*>(kZeroes.data()), .iov_len = now};
        const int error = is_aligned(offset, std::span(&piece, 1))
                              ? transfer(true, offset, std::span(&piece, 1), 0)
                              : bounce(true, offset, std::span(&piece, 1), 0);
        if (error != 0) return error;
        offset += now;
        length -= now;
    }
    grew(offset);
    return 0;
}

BlockStatus HostFile::resize(u64 size) {
    if (block_device_) return size <= this->size() ? BlockStatus::Ok : BlockStatus::NoSpace;
    const int error = ftruncate(fd_, static_cast<off_t>(size)) == 0 ? 0 : errno;
    if (error == 0) size_ = size;
    return status_of("resize", size, error);
}

BlockFile::Stretch HostFile::stretch(u64 offset) const {
    const u64 end = size();
    if (offset >= end) return {};
    const off_t data = lseek(fd_, static_cast<off_t>(offset), SEEK_DATA);
    if (data < 0) {
        if (errno == ENXIO) return {.length = end - offset, .hole = true};
        return {.length = end - offset, .hole = false};  // the file system does not know
    }
    if (static_cast<u64>(data) > offset)
        return {.length = std::min(static_cast<u64>(data), end) - offset, .hole = true};
    const off_t hole = lseek(fd_, static_cast<off_t>(offset), SEEK_HOLE);
    const u64 stop = hole < 0 ? end : std::min(static_cast<u64>(hole), end);
    return {.length = stop > offset ? stop - offset : end - offset, .hole = false};
}

u64 HostFile::allocated() const {
    struct stat about{};
    if (block_device_ || fstat(fd_, &about) < 0) return size();
    return static_cast<u64>(about.st_blocks) * 512;
}

// --- calls that do not wait
// ---------------------------------------------------------------------------------

// What the page cache has, or takes without waiting, is copied here and now: quicker than waking anybody.
bool HostFile::move_by_cache(BlockRequest& request) {
    const bool write = request.operation == BlockOperation::Write;
    if (is_direct() || request.buffers.size() > kMostPieces) return false;
    if (write &&
        (request.force_unit_access || read_only() || !cache_takes_writes_.load(std::memory_order_relaxed)))
        return false;
    const auto count = static_cast<int>(request.buffers.size());
    const auto offset = static_cast<off_t>(request.offset);
    const ssize_t result = write ? pwritev2(fd_, request.buffers.data(), count, offset, RWF_NOWAIT)
                                 : preadv2(fd_, request.buffers.data(), count, offset, RWF_NOWAIT);
    // Not every file system can tell whether a write would have to wait.
    if (write && result < 0 && errno == EOPNOTSUPP) cache_takes_writes_ = false;
    if (result < 0 || static_cast<u64>(result) != request.length) return false;
    if (write) grew(request.offset + request.length);
    request.done(BlockStatus::Ok);
    return true;
}

void HostFile::submit(std::span<BlockRequest* const> requests) {
    std::vector<BlockRequest*> to_ring;
    std::vector<BlockRequest*> to_pool;
    u64 at_once = 0;
    for (BlockRequest* request : requests) {
        const bool read = request->operation == BlockOperation::Read;
        const bool write = request->operation == BlockOperation::Write;
        const bool flush = request->operation == BlockOperation::Flush;
        if ((read || write) && at_once + request->length <= kMostFromCache && move_by_cache(*request)) {
            at_once += request->length;
            continue;
        }
        const bool for_ring =
            uring_ != nullptr &&
            ((flush && options_.cache != CacheMode::Unsafe && !sync_failed_ && !read_only()) ||
             ((read || (write && !read_only())) && is_aligned(request->offset, request->buffers)));
        (for_ring ? to_ring : to_pool).push_back(request);
    }
    if (!to_ring.empty()) uring_->submit(to_ring);
    pool_.post(*this, to_pool);
}

void HostFile::completed(BlockRequest& request, int error) {
    const char* what = "read";
    if (request.operation == BlockOperation::Write) {
        what = "write";
        if (error == 0) grew(request.offset + request.length);
    } else if (request.operation == BlockOperation::Flush) {
        what = "flush";
        if (error != 0) sync_failed_ = true;
    }
    request.done(status_of(what, request.offset, error));
}

void HostFile::handle(BlockRequest& request) {
    request.done(perform(request));
}

BlockStatus HostFile::perform(BlockRequest& request) {
    switch (request.operation) {
        case BlockOperation::Read: return read(request.offset, request.buffers);
        case BlockOperation::Write:
            return write(request.offset, request.buffers,
                         request.force_unit_access ? Durability::Durable : Durability::Cached);
        case BlockOperation::Flush: return sync();
        case BlockOperation::Discard: return discard(request.offset, request.length);
        case BlockOperation::WriteZeroes:
            return write_zeroes(request.offset, request.length,
                                request.may_unmap ? Unmap::Allowed : Unmap::No);
    }
    return BlockStatus::Unsupported;
}

}  // namespace tessera::block
