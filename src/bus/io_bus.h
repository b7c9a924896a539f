// Routes accesses by address to devices: the port space (64 KiB) and the MMIO space (2^64) are one class
// each. The map is built before the first access and fixed from then on. GAP: moving a range while CPUs run
// (PCI BARs) comes with PCI.
#pragma once

#include <atomic>
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

class IoBus {
public:
    // Clash: two owners of one address. The error names both.
    Status add(std::string name, u64 base, u64 size, IoDevice& device, Lock& lock);
    void set_observer(BusObserver* observer) { observer_ = observer; }

    // Any width from 1 to 8 bytes (and more for vector accesses, which are split into pieces of at most 8).
    // An access that no device claims, or that runs over the end of a range, reads as all ones and writes
    // nowhere. Thread-safe once the map is built.
    void read(u64 address, std::span<std::byte> out);
    void write(u64 address, std::span<const std::byte> in);

    // Accesses that no device took, or that a device refused.
    [[nodiscard]] u64 refused() const { return refused_.load(std::memory_order_relaxed); }

    struct Range {
        std::string name;
        u64 base;
        u64 last;  // inclusive, so that a range may end at 2^64 - 1
        IoDevice* device;
        Lock* lock;
    };
    [[nodiscard]] std::span<const Range> ranges() const { return ranges_; }

private:
    [[nodiscard]] const Range* find(u64 address, u64 size) const;

    std::vector<Range> ranges_;  // sorted by base, no overlap
    BusObserver* observer_ = nullptr;
    std::atomic<u64> refused_ = 0;
};

}  // namespace tessera
