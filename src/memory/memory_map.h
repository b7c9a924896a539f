// Guest physical memory: which addresses are RAM or ROM, where their bytes are in the host, and which
// 64-byte pieces of RAM hold code somebody has decoded. Everything else belongs to the MMIO bus.
#pragma once

#include <atomic>
#include <cstdlib>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/types.h"

namespace tessera {

inline constexpr u64 kPageSize = 4096;
inline constexpr u64 kPageMask = kPageSize - 1;

enum class RegionKind : u8 { Ram, Rom };

// One word for each page, from calloc: what is not used takes no memory of the host.
struct FreeCodeWords {
    void operator()(std::atomic<u64>* words) const { std::free(words); }
};
using CodeWords = std::unique_ptr<std::atomic<u64>[], FreeCodeWords>;

struct MemoryRegion {
    std::string name;
    RegionKind kind;
    u64 base;  // guest physical, page aligned
    u64 size;  // bytes, page multiple, > 0
    std::byte* host;
    // One word per page of RAM: bit n says that some CPU has decoded bytes n*64 .. n*64+63.
    CodeWords code;

    [[nodiscard]] bool contains(u64 address) const { return address - base < size; }
    [[nodiscard]] std::byte* at(u64 address) const { return host + (address - base); }
    [[nodiscard]] std::atomic<u64>& code_word(u64 address) const {
        return code[(address - base) / kPageSize];
    }
};

// Told when someone other than a CPU writes RAM that may hold decoded code (device DMA, loaders, debugger).
class CodeWriteObserver {
public:
    CodeWriteObserver() = default;
    CodeWriteObserver(const CodeWriteObserver&) = delete;
    CodeWriteObserver& operator=(const CodeWriteObserver&) = delete;
    virtual ~CodeWriteObserver() = default;
    virtual void on_code_write(u64 address, u64 size) = 0;
};

class MemoryMap {
public:
    // `host` stays owned by the caller and must outlive the map. Refuses unaligned, empty, wrapping and
    // overlapping regions, naming both.
    Status add(std::string name, RegionKind kind, u64 base, std::span<std::byte> host);

    // The RAM or ROM region that holds `address`, or null (MMIO or nothing).
    [[nodiscard]] const MemoryRegion* find(u64 address) const {
        for (const auto& region : regions_)
            if (region->contains(address)) return region.get();
        return nullptr;
    }
    [[nodiscard]] std::span<const std::unique_ptr<MemoryRegion>> regions() const { return regions_; }

    // Checked copies for devices, loaders and debuggers: all or nothing, false if any byte is not RAM (or,
    // for reads, ROM). Ranges may span adjacent regions. Never use these on a CPU's own path.
    [[nodiscard]] bool read(u64 address, std::span<std::byte> out) const;
    [[nodiscard]] bool write(u64 address, std::span<const std::byte> in);
    // Like write, into ROM too: for loaders.
    [[nodiscard]] bool load(u64 address, std::span<const std::byte> in);

    // For bulk payload and rings: the host bytes of RAM from `address` on, at most `most` and as many as are
    // one piece in the host; none if `address` is not RAM. They stay where they are for the map's life. A
    // guest's CPUs change them at any time: copy once what is interpreted. Who writes them calls
    // changed_in_host() afterwards.
    [[nodiscard]] std::span<std::byte> ram_at(u64 address, u64 most) const;

    // Somebody changed RAM through its host bytes (a machine's reset clears it): what was decoded there is
    // stale.
    void changed_in_host(u64 address, u64 size) {
        if (observer_ != nullptr) observer_->on_code_write(address, size);
    }
    void set_code_observer(CodeWriteObserver* observer) { observer_ = observer; }

private:
    template <typename Copy>
    bool for_each_piece(u64 address, u64 size, bool rom_too, const Copy& copy) const;
    [[nodiscard]] bool store(u64 address, std::span<const std::byte> in, bool rom_too);

    std::vector<std::unique_ptr<MemoryRegion>> regions_;  // largest first: find() is a short scan
    CodeWriteObserver* observer_ = nullptr;
};

}  // namespace tessera
