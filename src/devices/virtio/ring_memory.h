// Fields of a ring in guest RAM, which the guest's CPUs change at any time.
#pragma once

#include <atomic>
#include <concepts>
#include <span>

#include "base/assert.h"
#include "base/types.h"
#include "memory/memory_map.h"

namespace tessera::virtio {

// One area of a ring: found once, when its queue is enabled. Fields are naturally aligned, because areas are.
class RingArea {
public:
    // False: not aligned, not RAM, or not in one piece.
    [[nodiscard]] bool map(const MemoryMap& memory, u64 address, u64 size, u64 alignment) {
        bytes_ = {};
        if (address % alignment != 0) return false;
        const std::span<std::byte> found = memory.ram_at(address, size);
        if (found.size() != size) return false;
        bytes_ = found;
        return true;
    }
    void unmap() { bytes_ = {}; }

    template <std::unsigned_integral T>
    [[nodiscard]] T load(u64 offset, std::memory_order order = std::memory_order_relaxed) const {
        return field<T>(offset).load(order);
    }
    template <std::unsigned_integral T>
    void store(u64 offset, T value, std::memory_order order = std::memory_order_relaxed) const {
        field<T>(offset).store(value, order);
    }

private:
    template <std::unsigned_integral T>
    [[nodiscard]] std::atomic_ref<T> field(u64 offset) const {
        TESSERA_ASSERT(offset + sizeof(T) <= bytes_.size(), "indices are checked against the queue's size");
        return std::atomic_ref<T>(*reinterpret_cast<T*>(bytes_.subspan(offset).data()));
    }

    std::span<std::byte> bytes_;
};

}  // namespace tessera::virtio
