// A queue of frames in memory shared by two processes that do not trust each other: one writes, one reads.
// Whatever the other side does to the memory, this side stays inside of it, and finds out when it is told
// nonsense: the ring is broken() then, for good. Sleeping and waking is the link's.
#pragma once

#include <atomic>
#include <optional>
#include <span>

#include "base/types.h"

namespace tessera::net {

inline constexpr u32 kRingBytes = 2 * 1024 * 1024;

// Numbers count bytes for ever and wrap.
struct RingControl {
    alignas(64) std::atomic<u32> tail = 0;  // the writer's
    std::atomic<u32> writer_waits = 0;
    alignas(64) std::atomic<u32> head = 0;  // the reader's
    std::atomic<u32> reader_sleeps = 0;
};
static_assert(std::atomic<u32>::is_always_lock_free && sizeof(RingControl) == 128);

// What stands before every frame.
struct RingRecord {
    u32 length;  // of the frame; kSkip: nothing, go on at the beginning
    u32 stride;  // to the next record
    static constexpr u32 kSkip = ~u32{0};
    static constexpr u32 kAlign = 16;
};

class RingWriter {
public:
    RingWriter(RingControl& control, std::span<u8> data) : control_(control), data_(data) {}

    // Room for up to frames.size() frames of `size` bytes each, written nowhere else than there; returns for
    // how many there was. If not for one, want_room() says when to look again. Undone by the next call.
    std::size_t reserve(std::size_t size, std::span<std::span<u8>> frames);
    // Passes on the first sizes.size() of the reserved frames, cut to these sizes. True if the reader sleeps
    // and has to be woken.
    [[nodiscard]] bool commit(std::span<const std::size_t> sizes);
    // Asks the reader to wake us when there is room. False: there is room for `size` bytes already.
    [[nodiscard]] bool want_room(std::size_t size);
    [[nodiscard]] bool drained() const { return control_.head.load(std::memory_order_acquire) == tail_; }
    [[nodiscard]] bool broken() const { return broken_; }

private:
    struct Place {
        u32 start;
        u32 count;
    };
    [[nodiscard]] Place find(u32 stride, std::size_t wanted);

    RingControl& control_;
    std::span<u8> data_;
    u32 tail_ = 0;
    u32 start_ = 0;  // of what is reserved: behind tail_ if the end of the memory is skipped
    u32 stride_ = 0;
    u32 count_ = 0;
    bool broken_ = false;
};

class RingReader {
public:
    RingReader(RingControl& control, std::span<const u8> data) : control_(control), data_(data) {}

    // The next frame, until pop(); its bytes may change while they are read. Empty: there is none.
    [[nodiscard]] std::span<const u8> next();
    // True if the writer waits for room and has to be woken.
    [[nodiscard]] bool pop();
    // Asks the writer to wake us. False: there is something already.
    [[nodiscard]] bool sleep();
    [[nodiscard]] bool broken() const { return broken_; }

private:
    [[nodiscard]] u32 used();
    [[nodiscard]] bool check(u32 used);

    RingControl& control_;
    std::span<const u8> data_;
    u32 head_ = 0;
    std::span<const u8> frame_;
    u32 stride_ = 0;
    bool broken_ = false;
};

}  // namespace tessera::net
