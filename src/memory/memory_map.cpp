#include "memory/memory_map.h"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>

namespace tessera {

Status MemoryMap::add(std::string name, RegionKind kind, u64 base, std::span<std::byte> host) {
    const u64 size = host.size();
    if (size == 0 || ((base | size) & kPageMask) != 0 || base + (size - 1) < base)
        return fail(Errc::InvalidArgument, fmt::format("memory {}: bad range {:#x}+{:#x}", name, base, size));
    for (const auto& r : regions_)
        if (base <= r->base + (r->size - 1) && r->base <= base + (size - 1))
            return fail(Errc::InvalidArgument,
                        fmt::format("memory {} at {:#x}+{:#x} overlaps {} at {:#x}+{:#x}", name, base, size,
                                    r->name, r->base, r->size));
    CodeWords code;
    if (kind == RegionKind::Ram) {
        static_assert(std::atomic<u64>::is_always_lock_free && sizeof(std::atomic<u64>) == sizeof(u64));
        code.reset(static_cast<std::atomic<u64>*>(std::calloc(size / kPageSize, sizeof(std::atomic<u64>))));
        if (code == nullptr)
            return fail(Errc::HostFailure,
                        fmt::format("memory {}: the host has no room to describe it", name));
    }
    regions_.push_back(std::make_unique<MemoryRegion>(
        MemoryRegion{std::move(name), kind, base, size, host.data(), std::move(code)}));
    std::ranges::sort(regions_, std::ranges::greater{}, [](const auto& r) { return r->size; });
    return {};
}

template <typename Copy>
bool MemoryMap::for_each_piece(u64 address, u64 size, bool rom_too, const Copy& copy) const {
    if (size != 0 && address + (size - 1) < address) return false;
    for (u64 done = 0; done < size;) {
        const MemoryRegion* region = find(address + done);
        if (region == nullptr || (region->kind == RegionKind::Rom && !rom_too)) return false;
        const u64 piece = std::min(size - done, region->size - (address + done - region->base));
        copy(region->at(address + done), done, piece);
        done += piece;
    }
    return true;
}

std::span<std::byte> MemoryMap::ram_at(u64 address, u64 most) const {
    const MemoryRegion* region = find(address);
    if (region == nullptr || region->kind != RegionKind::Ram) return {};
    std::byte* const host = region->at(address);
    u64 size = std::min(most, region->size - (address - region->base));
    // Neighbours in the guest are often neighbours in the host.
    while (size < most && address + size > address) {
        region = find(address + size);
        if (region == nullptr || region->kind != RegionKind::Ram || region->host != host + size) break;
        size += std::min(most - size, region->size);
    }
    return {host, size};
}

bool MemoryMap::read(u64 address, std::span<std::byte> out) const {
    const auto nothing = [](std::byte*, u64, u64) {};
    if (!for_each_piece(address, out.size(), true, nothing)) return false;
    return for_each_piece(address, out.size(), true, [&](const std::byte* host, u64 offset, u64 piece) {
        std::memcpy(out.data() + offset, host, piece);
    });
}

bool MemoryMap::store(u64 address, std::span<const std::byte> in, bool rom_too) {
    const auto nothing = [](std::byte*, u64, u64) {};
    if (!for_each_piece(address, in.size(), rom_too, nothing)) return false;
    for_each_piece(address, in.size(), rom_too, [&](std::byte* host, u64 offset, u64 piece) {
        std::memcpy(host, in.data() + offset, piece);
    });
    if (observer_ != nullptr && !in.empty()) observer_->on_code_write(address, in.size());
    return true;
}

bool MemoryMap::write(u64 address, std::span<const std::byte> in) {
    return store(address, in, false);
}

bool MemoryMap::load(u64 address, std::span<const std::byte> in) {
    return store(address, in, true);
}

}  // namespace tessera
