#include "backends/net/ring/frame_ring.h"

#include <algorithm>
#include <cstring>

#include "backends/net/net_backend.h"

namespace tessera::net {

namespace {

constexpr u32 kMask = kRingBytes - 1;
static_assert((kRingBytes & kMask) == 0);
constexpr std::size_t kMostFrame = sizeof(NetHeader) + kMaxFrame;
constexpr std::size_t kLeastFrame = sizeof(NetHeader) + 14;

constexpr u32 stride_of(std::size_t size) {
    return static_cast<u32>((sizeof(RingRecord) + size + RingRecord::kAlign - 1) &
                            ~std::size_t{RingRecord::kAlign - 1});
}

}  // namespace

// --- Writing ---

RingWriter::Place RingWriter::find(u32 stride, std::size_t wanted) {
    const u32 used = tail_ - control_.head.load(std::memory_order_acquire);
    if (used > kRingBytes) broken_ = true;
    if (broken_) return {.start = tail_, .count = 0};
    const u32 free = kRingBytes - used;
    const u32 to_end = kRingBytes - (tail_ & kMask);
    const bool wrap = to_end < stride;
    const u32 room = wrap ? (free < to_end ? 0 : free - to_end) : std::min(free, to_end);
    return {.start = wrap ? tail_ + to_end : tail_,
            .count = static_cast<u32>(std::min<std::size_t>(room / stride, wanted))};
}

std::size_t RingWriter::reserve(std::size_t size, std::span<std::span<u8>> frames) {
    stride_ = stride_of(size);
    const Place place = find(stride_, frames.size());
    start_ = place.start;
    count_ = place.count;
    for (u32 i = 0; i < count_; ++i) {
        const u32 at = (start_ & kMask) + i * stride_ + static_cast<u32>(sizeof(RingRecord));
        frames[i] = data_.subspan(at, size);
    }
    return count_;
}

bool RingWriter::commit(std::span<const std::size_t> sizes) {
    const auto write = [&](u32 at, const RingRecord& record) {
        std::memcpy(data_.subspan(at & kMask, sizeof record).data(), &record, sizeof record);
    };
    if (sizes.empty() || sizes.size() > count_) return false;
    if (start_ != tail_) write(tail_, {.length = RingRecord::kSkip, .stride = start_ - tail_});
    u32 at = start_;
    for (std::size_t i = 0; i < sizes.size(); ++i) {
        // The last one gives back what it did not need.
        const u32 stride = i + 1 == sizes.size() ? std::min(stride_of(sizes[i]), stride_) : stride_;
        write(at, {.length = static_cast<u32>(sizes[i]), .stride = stride});
        at += stride;
    }
    tail_ = at;
    count_ = 0;
    control_.tail.store(tail_, std::memory_order_release);
    // Either the reader sees the frames before it sleeps, or we see that it sleeps [Dekker].
    std::atomic_thread_fence(std::memory_order_seq_cst);
    return control_.reader_sleeps.load(std::memory_order_relaxed) != 0 &&
           control_.reader_sleeps.exchange(0, std::memory_order_relaxed) != 0;
}

bool RingWriter::want_room(std::size_t size) {
    control_.writer_waits.store(1, std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_seq_cst);
    if (find(stride_of(size), 1).count == 0) return true;
    control_.writer_waits.store(0, std::memory_order_relaxed);
    return false;
}

// --- Reading ---

u32 RingReader::used() {
    const u32 used = control_.tail.load(std::memory_order_acquire) - head_;
    if (used > kRingBytes || used % RingRecord::kAlign != 0) broken_ = true;
    return broken_ ? 0 : used;
}

std::span<const u8> RingReader::next() {
    if (!frame_.empty()) return frame_;
    u32 available = used();
    for (int skips = 0; available != 0 && !broken_; ++skips) {
        RingRecord record;  // NOLINT(cppcoreguidelines-pro-type-member-init): copied once, then checked
        const u32 at = head_ & kMask;
        const u32 to_end = kRingBytes - at;
        std::memcpy(&record, data_.subspan(at, sizeof record).data(), sizeof record);
        if (record.length == RingRecord::kSkip && skips == 0 && to_end <= available) {
            head_ += to_end;
            available -= to_end;
            continue;
        }
        const bool right = record.length >= kLeastFrame && record.length <= kMostFrame &&
                           record.stride >= stride_of(record.length) &&
                           record.stride % RingRecord::kAlign == 0 &&
                           record.stride <= std::min(available, to_end);
        if (!right) {
            broken_ = true;
            break;
        }
        stride_ = record.stride;
        frame_ = data_.subspan(at + sizeof record, record.length);
        return frame_;
    }
    return {};
}

bool RingReader::pop() {
    if (frame_.empty()) return false;
    frame_ = {};
    head_ += stride_;
    control_.head.store(head_, std::memory_order_release);
    std::atomic_thread_fence(std::memory_order_seq_cst);
    if (control_.writer_waits.load(std::memory_order_relaxed) == 0) return false;
    // Woken when it is worth it; we go on reading, so that comes.
    return used() <= kRingBytes / 2 && control_.writer_waits.exchange(0, std::memory_order_relaxed) != 0;
}

bool RingReader::sleep() {
    control_.reader_sleeps.store(1, std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_seq_cst);
    if (used() == 0 && !broken_) return true;
    control_.reader_sleeps.store(0, std::memory_order_relaxed);
    return false;
}

}  // namespace tessera::net
