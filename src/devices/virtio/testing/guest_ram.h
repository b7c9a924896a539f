// A small guest memory for tests and fuzz targets: RAM, a second piece of RAM behind it that is elsewhere in
// the host, a hole where devices would be, a ROM.
#pragma once

#include <bit>
#include <cstdlib>
#include <memory>
#include <span>

#include "base/assert.h"
#include "base/types.h"
#include "memory/memory_map.h"

namespace tessera::virtio {

class BenchRam {
public:
    static constexpr u64 kSize = 2 * kMiB;  // at 0
    static constexpr u64 kSecondBase = kSize;
    static constexpr u64 kSecondSize = 64 * kKiB;
    static constexpr u64 kHole = 4 * kMiB;
    static constexpr u64 kRom = 8 * kMiB;
    static constexpr u64 kRomSize = 4 * kKiB;

    BenchRam() {
        add("ram", RegionKind::Ram, 0, bytes().first(kSize));
        // Not the host's next bytes: what spans both is two pieces.
        add("second", RegionKind::Ram, kSecondBase, bytes().subspan(kSize + kPageSize, kSecondSize));
        add("rom", RegionKind::Rom, kRom, bytes().subspan(kSize + kPageSize + kSecondSize, kRomSize));
    }

    // At the beginning of a page of the host.
    [[nodiscard]] std::span<std::byte> bytes() const {
        const auto begin = std::bit_cast<u64>(host_.get());
        return std::span(host_.get(), kAll + kPageSize)
            .subspan((kPageSize - begin % kPageSize) % kPageSize, kAll);
    }
    // RAM at 0 only.
    [[nodiscard]] std::byte* at(u64 address) const { return bytes().subspan(address).data(); }

    MemoryMap map;

private:
    static constexpr u64 kAll = kSize + kPageSize + kSecondSize + kRomSize;
    struct Free {
        void operator()(std::byte* host) const { std::free(host); }
    };
    void add(const char* name, RegionKind kind, u64 base, std::span<std::byte> host) {
        TESSERA_ASSERT(map.add(name, kind, base, host).has_value(), "the regions are apart");
    }
    // From calloc, so that what is not used costs nothing.
    std::unique_ptr<std::byte, Free> host_{static_cast<std::byte*>(std::calloc(kAll + kPageSize, 1))};
};

}  // namespace tessera::virtio
