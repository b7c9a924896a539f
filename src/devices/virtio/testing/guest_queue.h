// The driver's side of a virtqueue, for tests: makes buffers available and takes them back, well-behaved; and
// writes single fields, for tests that are not. A second reader of the specification: shares no code with
// the device's side.
#pragma once

#include <atomic>
#include <cstring>
#include <optional>
#include <span>
#include <vector>

#include "base/types.h"
#include "devices/virtio/testing/guest_ram.h"

namespace tessera::virtio {

enum class RingKind : u8 { Split, Packed };

struct Segment {
    u64 address;
    u32 length;
    bool writable;
};

struct Used {
    u16 id;
    u32 length;
};

class GuestQueue {
public:
    static constexpr u64 kDriverArea = 0x2000;
    static constexpr u64 kDeviceArea = 0x3000;
    static constexpr u64 kTables = 0x4000;  // 32 indirect descriptors for each id, 16 of which have a table
    static constexpr unsigned kTableEntries = 32;
    static constexpr unsigned kTableCount = 16;
    static constexpr u64 kBytes = 0x8000;

    GuestQueue(BenchRam& ram, u64 base, u16 size, RingKind kind, bool event_index)
        : ram_(ram), base_(base), size_(size), packed_(kind == RingKind::Packed), event_index_(event_index) {
        for (u16 i = 0; i < size; ++i) free_.push_back(static_cast<u16>(size - 1 - i));
        slots_.resize(size);
    }

    // The same queue as the driver of another machine has it; its memory is copied apart from it.
    GuestQueue(BenchRam& ram, const GuestQueue& from)
        : ram_(ram),
          base_(from.base_),
          size_(from.size_),
          packed_(from.packed_),
          event_index_(from.event_index_),
          free_(from.free_),
          slots_(from.slots_),
          next_available_(from.next_available_),
          wrap_(from.wrap_),
          next_used_(from.next_used_),
          used_wrap_(from.used_wrap_),
          taken_(from.taken_),
          told_(from.told_) {}

    [[nodiscard]] u64 descriptors() const { return base_; }
    [[nodiscard]] u64 driver() const { return base_ + kDriverArea; }
    [[nodiscard]] u64 device() const { return base_ + kDeviceArea; }
    [[nodiscard]] u16 size() const { return size_; }
    [[nodiscard]] bool packed() const { return packed_; }
    [[nodiscard]] std::size_t room() const { return packed_ ? packed_room() : free_.size(); }

    // --- Well-behaved. The buffer's id, or nothing if there is no room.
    std::optional<u16> add(std::span<const Segment> segments) {
        return packed_ ? add_packed(segments) : add_split(segments);
    }
    // Through an indirect table.
    std::optional<u16> add_indirect(std::span<const Segment> segments) {
        if (free_.empty() || segments.size() > kTableEntries || (packed_ && packed_room() == 0)) return {};
        const u16 id = free_.back();
        const u64 table = table_of(id);
        for (u64 i = 0; i < segments.size(); ++i) {
            const Segment& s = segments[i];
            const bool last = i + 1 == segments.size();
            const u16 flags = static_cast<u16>((s.writable ? 2 : 0) | (last || packed_ ? 0 : 1));
            if (packed_)
                write_descriptor(table + i * 16, s.address, s.length, 0, flags);
            else
                write_descriptor(table + i * 16, s.address, s.length, flags,
                                 static_cast<u16>(last ? 0 : i + 1));
        }
        return make_one_available(id, table, static_cast<u32>(segments.size() * 16), 4);
    }
    // Whether the device asked to be told of what was made available since the last call.
    bool kick_wanted() {
        std::atomic_thread_fence(std::memory_order_seq_cst);
        return packed_ ? kick_wanted_packed() : kick_wanted_split();
    }
    std::optional<Used> take() { return packed_ ? take_packed() : take_split(); }
    // True: something was used meanwhile, for which no interrupt may come.
    bool want_interrupts() {
        if (packed_) {
            if (event_index_) {
                store<u16>(driver(), static_cast<u16>(next_used_ | used_wrap_ << 15));
                store<u16>(driver() + 2, 2, std::memory_order_release);
            } else {
                store<u16>(driver() + 2, 0);
            }
        } else if (event_index_) {
            store<u16>(driver() + 4 + 2 * u64{size_}, next_used_);
        } else {
            store<u16>(driver(), 0);
        }
        std::atomic_thread_fence(std::memory_order_seq_cst);
        return packed_ ? used_packed() : load<u16>(device() + 2) != next_used_;
    }
    void stop_interrupts() {
        if (packed_)
            store<u16>(driver() + 2, 1);
        else if (!event_index_)
            store<u16>(driver(), 1);
    }

    // --- Anything at all.
    template <typename T>
    [[nodiscard]] T load(u64 address, std::memory_order order = std::memory_order_relaxed) const {
        return std::atomic_ref<T>(*reinterpret_cast<T*>(ram_.at(address))).load(order);
    }
    template <typename T>
    void store(u64 address, T value, std::memory_order order = std::memory_order_relaxed) {
        std::atomic_ref<T>(*reinterpret_cast<T*>(ram_.at(address))).store(value, order);
    }
    // The last two fields are flags and next (split), id and flags (packed).
    void write_descriptor(u64 where, u64 address, u32 length, u16 third, u16 fourth) {
        store<u64>(where, address);
        store<u32>(where + 8, length);
        store<u16>(where + 12, third);
        store<u16>(where + 14, fourth, std::memory_order_release);
    }
    // A descriptor of the ring with these flags (1 next, 2 write, 4 indirect); in a packed ring it is made
    // available by being written.
    void raw(u16 index, u64 address, u32 length, u16 flags, u16 next = 0) {
        const u64 where = base_ + 16 * u64{index};
        if (packed_)
            write_descriptor(where, address, length, index, static_cast<u16>(flags | available_bits(wrap_)));
        else
            write_descriptor(where, address, length, flags, next);
    }
    // Split: puts `head` into the available ring. Packed: nothing is left to do.
    void raw_available(u16 head) {
        if (packed_) return;
        store<u16>(driver() + 4 + 2 * u64{static_cast<u16>(next_available_ % size_)}, head);
        ++next_available_;
        store<u16>(driver() + 2, next_available_, std::memory_order_release);
    }
    [[nodiscard]] u64 table_of(u16 id) const {
        return base_ + kTables + (id % kTableCount) * (16 * kTableEntries);
    }

private:
    static u16 available_bits(unsigned wrap) { return static_cast<u16>(wrap != 0 ? 0x0080 : 0x8000); }

    std::optional<u16> add_split(std::span<const Segment> segments) {
        if (segments.empty() || free_.size() < segments.size()) return {};
        const u16 head = free_.back();
        for (std::size_t i = 0; i < segments.size(); ++i) {
            const u16 index = free_.back();
            free_.pop_back();
            const bool last = i + 1 == segments.size();
            const u16 flags = static_cast<u16>((segments[i].writable ? 2 : 0) | (last ? 0 : 1));
            write_descriptor(base_ + 16 * u64{index}, segments[i].address, segments[i].length, flags,
                             last ? u16{0} : free_.back());
            slots_[head].push_back(index);
        }
        raw_available(head);
        return head;
    }
    std::optional<u16> make_one_available(u16 id, u64 address, u32 length, u16 flags) {
        free_.pop_back();
        slots_[id] = {id};
        if (packed_) {
            write_descriptor(base_ + 16 * u64{next_available_}, address, length, id,
                             static_cast<u16>(flags | available_bits(wrap_)));
            advance_packed();
        } else {
            write_descriptor(base_ + 16 * u64{id}, address, length, flags, 0);
            raw_available(id);
        }
        return id;
    }
    [[nodiscard]] std::size_t packed_room() const { return size_ - taken_; }
    void advance_packed() {
        ++taken_;
        if (++next_available_ == size_) {
            next_available_ = 0;
            wrap_ ^= 1U;
        }
    }
    std::optional<u16> add_packed(std::span<const Segment> segments) {
        if (segments.empty() || free_.empty() || packed_room() < segments.size()) return {};
        const u16 id = free_.back();
        free_.pop_back();
        slots_[id].clear();
        const u16 first = next_available_;
        const unsigned first_wrap = wrap_;
        for (std::size_t i = 0; i < segments.size(); ++i) {
            const bool last = i + 1 == segments.size();
            u16 flags = static_cast<u16>((segments[i].writable ? 2 : 0) | (last ? 0 : 1));
            // The first one is made available last.
            flags |= i == 0 ? available_bits(first_wrap ^ 1U) : available_bits(wrap_);
            write_descriptor(base_ + 16 * u64{next_available_}, segments[i].address, segments[i].length, id,
                             flags);
            slots_[id].push_back(next_available_);
            advance_packed();
        }
        u16 flags = load<u16>(base_ + 16 * u64{first} + 14);
        flags = static_cast<u16>((flags & ~0x8080U) | available_bits(first_wrap));
        store<u16>(base_ + 16 * u64{first} + 14, flags, std::memory_order_release);
        return id;
    }
    bool kick_wanted_split() {
        const u16 from = told_;
        told_ = next_available_;
        if (!event_index_) return (load<u16>(device()) & 1) == 0;
        const u16 event = load<u16>(device() + 4 + 8 * u64{size_});
        return static_cast<u16>(next_available_ - event - 1) < static_cast<u16>(next_available_ - from);
    }
    bool kick_wanted_packed() {
        const unsigned rounds = 2U * size_;
        const unsigned to = next_available_ + (wrap_ != 0 ? 0U : size_);
        const unsigned from = told_;
        told_ = static_cast<u16>(to);
        const u16 flags = load<u16>(device() + 2, std::memory_order_acquire);
        if (flags != 2) return flags == 0;
        const u16 event = load<u16>(device());
        const unsigned place = (event & 0x7fffU) + (event >> 15 != 0 ? 0U : size_);
        return (place + rounds - from) % rounds < (to + rounds - from) % rounds;
    }
    std::optional<Used> take_split() {
        if (load<u16>(device() + 2, std::memory_order_acquire) == next_used_) return {};
        const u64 entry = device() + 4 + 8 * u64{static_cast<u16>(next_used_ % size_)};
        const Used used{.id = static_cast<u16>(load<u32>(entry)), .length = load<u32>(entry + 4)};
        ++next_used_;
        if (used.id < size_) {
            for (const u16 index : slots_[used.id]) free_.push_back(index);
            slots_[used.id].clear();
        }
        return used;
    }
    [[nodiscard]] bool used_packed() const {
        const u16 flags = load<u16>(base_ + 16 * u64{next_used_} + 14, std::memory_order_acquire);
        return (flags >> 7 & 1) == used_wrap_ && (flags >> 15 & 1) == used_wrap_;
    }
    std::optional<Used> take_packed() {
        if (!used_packed()) return {};
        const u64 entry = base_ + 16 * u64{next_used_};
        const Used used{.id = load<u16>(entry + 12), .length = load<u32>(entry + 8)};
        const std::size_t slots = used.id < size_ ? slots_[used.id].size() : 1;
        for (std::size_t i = 0; i < slots; ++i) {
            --taken_;
            if (++next_used_ == size_) {
                next_used_ = 0;
                used_wrap_ ^= 1U;
            }
        }
        if (used.id < size_) free_.push_back(used.id);
        return used;
    }

    BenchRam& ram_;
    u64 base_;
    u16 size_;
    bool packed_;
    bool event_index_;
    std::vector<u16> free_;                // descriptors, or ids
    std::vector<std::vector<u16>> slots_;  // what a buffer's id takes
    u16 next_available_ = 0;
    unsigned wrap_ = 1;
    u16 next_used_ = 0;
    unsigned used_wrap_ = 1;
    std::size_t taken_ = 0;  // packed
    u16 told_ = 0;
};

}  // namespace tessera::virtio
