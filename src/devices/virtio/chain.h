// One buffer a driver has made available: its pieces of guest RAM, those the device reads before those it
// writes. Everything in it was checked and copied when it was taken from the queue.
#pragma once

#include <memory>
#include <span>
#include <sys/uio.h>

#include "base/types.h"
#include "memory/memory_map.h"

namespace tessera::virtio {

// Room for many chains' descriptors in one piece: the host gives memory only for what is used of it, where
// many small pieces would share its pages.
class ChainRoom {
public:
    // For `chains` of up to `most` descriptors each.
    ChainRoom(unsigned chains, unsigned most);

    struct Place {
        std::span<iovec> pieces;  // one more than `most`, as are the others
        std::span<u64> addresses;
        std::span<u64> sizes;
    };
    // The next chain's; it is valid as long as the room is. Not more often than there are chains.
    [[nodiscard]] Place take();

private:
    unsigned chains_;
    unsigned each_;
    unsigned taken_ = 0;
    // Not filled before use.
    std::unique_ptr<iovec[]> pieces_;
    std::unique_ptr<u64[]> addresses_;
    std::unique_ptr<u64[]> sizes_;
};

class Chain {
public:
    // Room for `most` descriptors is set aside here; nothing is allocated later.
    explicit Chain(unsigned most);
    // With the next place of `room`, which outlives it.
    explicit Chain(ChainRoom& room);

    // What has not been read or written yet.
    [[nodiscard]] std::span<const iovec> readable() const;
    [[nodiscard]] std::span<const iovec> writable() const;
    [[nodiscard]] u64 readable_bytes() const { return readable_bytes_; }
    [[nodiscard]] u64 writable_bytes() const { return writable_bytes_; }

    // Copies from the front of what is readable, and moves past it; returns how many bytes there were.
    std::size_t read(std::span<std::byte> out);
    std::size_t skip(std::size_t bytes);
    // Copies to the front of what is writable, and moves past it.
    std::size_t write(std::span<const std::byte> in);
    // Takes the last byte of what is writable out of it; null if there is none.
    [[nodiscard]] std::byte* take_last_writable();
    // Puts bytes of ours before what is readable. Once for each chain.
    void put_before_readable(std::span<const std::byte> bytes);
    // Cuts what is readable or writable to at most `bytes`.
    void limit_readable(u64 bytes);
    void limit_writable(u64 bytes);

    // --- For the queue.
    void clear();
    enum class Access : u8 { DeviceReads, DeviceWrites };
    // False: not RAM, wraps, reads after writes, or too much.
    [[nodiscard]] bool add(const MemoryMap& memory, u64 address, u32 length, Access access);
    // The device wrote to guest RAM behind the CPUs' backs.
    void tell_written(MemoryMap& memory) const;

    u16 id = 0;     // what the driver knows the buffer by
    u16 slots = 0;  // entries of the ring it takes

private:
    static std::size_t advance(std::span<iovec> pieces, std::size_t& first, std::size_t end,
                               std::size_t bytes);
    void cut(std::size_t first, std::size_t& end, u64& total, u64 bytes);
    [[nodiscard]] std::span<iovec> pieces() const { return place_.pieces; }

    std::unique_ptr<ChainRoom> own_;
    // Pieces: a free place, those to be read, those to be written; addresses and sizes of the latter in the
    // guest.
    ChainRoom::Place place_;
    std::size_t count_ = 1;  // as they were added
    std::size_t first_writable_at_ = 1;
    std::size_t first_readable_ = 1;
    std::size_t end_readable_ = 1;
    std::size_t first_writable_ = 1;
    std::size_t end_writable_ = 1;
    u64 readable_bytes_ = 0;
    u64 writable_bytes_ = 0;
};

}  // namespace tessera::virtio
