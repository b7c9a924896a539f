// Routes accesses by address to devices: the port space (64 KiB) and the MMIO space (2^64) are one class
// each. Who is on the bus is settled before the first access; where movable ranges are (PCI BARs), guests
// decide while other CPUs access the bus.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/types.h"
#include "bus/io_device.h"
#include "bus/lock.h"

namespace tessera {

// Sees every access, after the device answered. For traces.
class BusObserver {
public:
    BusObserver() = default;
    BusObserver(const BusObserver&) = delete;
    BusObserver& operator=(const BusObserver&) = delete;
    virtual ~BusObserver() = default;
    virtual void on_read(u64 address, std::span<const std::byte> data, IoStatus status,
                         const char* device) = 0;
    virtual void on_write(u64 address, std::span<const std::byte> data, IoStatus status,
                          const char* device) = 0;
};

// Hears where a range is: for who answers for some of it instead of the bus.
class PlaceWatcher {
public:
    PlaceWatcher() = default;
    PlaceWatcher(const PlaceWatcher&) = delete;
    PlaceWatcher& operator=(const PlaceWatcher&) = delete;
    virtual ~PlaceWatcher() = default;
    // All of the range answers, from `base` on; nothing: it is nowhere, or others have some of its addresses.
    // Called while the bus places ranges, and with what locks the caller of place() holds: calls nothing of
    // either.
    virtual void on_place(std::optional<u64> base) = 0;
};

class IoBus {
public:
    // --- Building, before the first access.

    // A range that stays where it is. Clash: two owners of one address, or a range that wraps. The error
    // names both.
    Status add(std::string name, u64 base, u64 size, IoDevice& device, Lock& lock);
    // Addresses that are somebody's, and not on this bus: RAM.
    Status reserve(std::string name, u64 base, u64 size);
    // A range that is nowhere until it is placed. `size` is not 0.
    using RangeId = std::size_t;
    [[nodiscard]] RangeId add_movable(std::string name, u64 size, IoDevice& device, Lock& lock);
    // Tells where the range is, from now on and before place() returns. Who lost a place hears it before
    // anybody hears of having got it.
    void watch(RangeId id, PlaceWatcher& watcher);
    void set_observer(BusObserver* observer) { observer_ = observer; }

    // --- Running. All thread-safe.

    // Moves a range, or takes it off the bus. A guest may put it on top of others: the ranges that stay win
    // over it, and of two movable ones the one that was added first; it answers where nobody else does. A
    // place at which it would wrap is nowhere. An access that is on its way may still arrive at the old
    // place. May be called from inside an access.
    void place(RangeId id, std::optional<u64> base);

    // Any width from 1 to 8 bytes (and more for vector accesses, which are split into pieces of at most 8).
    // An access that no device claims, or that runs over the end of a range, reads as all ones and writes
    // nowhere.
    void read(u64 address, std::span<std::byte> out);
    void write(u64 address, std::span<const std::byte> in);

    // Accesses that no device took, or that a device refused.
    [[nodiscard]] u64 refused() const { return refused_.load(std::memory_order_relaxed); }
    // How often a guest placed a range so that others took some of its addresses.
    [[nodiscard]] u64 overlaps() const { return overlaps_.load(std::memory_order_relaxed); }

private:
    enum class Kind : u8 { Fixed, Movable };
    struct Owner {
        std::string name;
        Kind kind;
        u64 size;
        bool placed;  // this and the next under mutex_
        u64 base;
        IoDevice* device;  // null: reserved
        Lock* lock;
        bool whole = false;  // placed, and nobody else has any of it; this and the next under mutex_
        PlaceWatcher* watcher = nullptr;
        std::optional<u64> told = std::nullopt;
    };
    // A stretch of addresses with one owner: all of a range, or what others leave of it.
    struct Piece {
        u64 first;
        u64 last;  // inclusive, so that a piece may end at 2^64 - 1
        u64 base;  // of the owner's range
        std::size_t owner;
    };
    // Pieces as CPUs read them while another CPU may be writing the table.
    struct SharedPiece {
        std::atomic<u64> first;
        std::atomic<u64> last;
        std::atomic<u64> base;
        std::atomic<std::size_t> owner;
    };
    struct Table {
        std::unique_ptr<SharedPiece[]> pieces;  // sorted, no overlap
        std::atomic<std::size_t> count = 0;
    };
    struct Target {
        const Owner* owner = nullptr;
        u64 offset = 0;
    };

    Status add_fixed(Owner owner);
    void grow();
    void rebuild(RangeId moved);
    void tell_watchers();
    // Adds what nobody has yet of the owner's range; false if that is not all of it.
    bool add_pieces(std::size_t owner);
    [[nodiscard]] Target find(u64 address, u64 size) const;

    std::mutex mutex_;           // of placing
    std::vector<Owner> owners_;  // their devices, locks and names do not change once built
    std::vector<Piece> pieces_;  // sorted: the table in the making
    std::size_t capacity_ = 0;   // of all three tables
    // The table of generation g is tables_[g % 2]; the other one is free to be written. A reader whose
    // generation is over starts again.
    std::array<Table, 2> tables_;
    std::atomic<u64> generation_ = 0;
    BusObserver* observer_ = nullptr;
    std::atomic<u64> refused_ = 0;
    std::atomic<u64> overlaps_ = 0;
};

}  // namespace tessera
