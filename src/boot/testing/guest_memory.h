// Guest memory for loader tests: RAM in lazily touched pages of our own.
#pragma once

#include <cstdlib>
#include <cstring>
#include <string>
#include <sys/mman.h>
#include <vector>

#include "base/types.h"
#include "memory/memory_map.h"

namespace tessera::boot {

class GuestMemory {
public:
    // RAM below and above the PCI hole.
    explicit GuestMemory(u64 below_4g, u64 above_4g = 0) {
        add("low", 0, below_4g);
        if (above_4g != 0) add("high", 0x1'0000'0000, above_4g);
    }
    GuestMemory(const GuestMemory&) = delete;
    GuestMemory& operator=(const GuestMemory&) = delete;
    ~GuestMemory() {
        for (const auto& piece : pieces_) munmap(piece.data(), piece.size());
    }

    void add(const std::string& name, u64 base, u64 size) {
        void* host =
            mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (host == MAP_FAILED) std::abort();
        pieces_.emplace_back(static_cast<std::byte*>(host), size);
        if (!map.add(name, RegionKind::Ram, base, pieces_.back())) std::abort();
    }

    template <typename T>
    [[nodiscard]] T get(u64 address) const {
        T value{};
        if (!map.read(address, std::as_writable_bytes(std::span(&value, 1)))) std::abort();
        return value;
    }
    [[nodiscard]] std::vector<std::byte> bytes(u64 address, u64 size) const {
        std::vector<std::byte> out(size);
        if (!map.read(address, out)) std::abort();
        return out;
    }
    [[nodiscard]] std::string text(u64 address) const {
        std::string out;
        for (char c = get<char>(address); c != 0; c = get<char>(++address)) out += c;
        return out;
    }

    MemoryMap map;

private:
    std::vector<std::span<std::byte>> pieces_;
};

}  // namespace tessera::boot
