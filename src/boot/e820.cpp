#include "boot/e820.h"

#include <algorithm>
#include <limits>

#include "boot/board.h"

namespace tessera::boot {

namespace {

struct Window {
    u64 base, end;
};
// Where RAM counts as system memory.
constexpr Window kWindows[] = {{.base = 0, .end = kEbdaBase},
                               {.base = kHighMemoryBase, .end = kPciHoleBase},
                               {.base = kPciHoleEnd, .end = std::numeric_limits<u64>::max() & ~kPageMask}};

void add_ram(std::vector<E820Entry>& map, u64 base, u64 end) {
    if (!map.empty() && map.back().type == E820Type::Usable && map.back().end() == base) {
        map.back().size += end - base;
        return;
    }
    map.push_back({.base = base, .size = end - base, .type = E820Type::Usable});
}

}  // namespace

std::vector<E820Entry> e820_of(const MemoryMap& memory, const BoardDescription& board) {
    std::vector<Window> ram;
    for (const auto& region : memory.regions())
        if (region->kind == RegionKind::Ram)
            ram.push_back({.base = region->base, .end = region->base + region->size});
    std::ranges::sort(ram, {}, &Window::base);

    std::vector<E820Entry> map;
    for (const Window& window : kWindows) {
        for (const Window& piece : ram) {
            const u64 base = std::max(piece.base, window.base);
            const u64 end = std::min(piece.end, window.end);
            if (base < end) add_ram(map, base, end);
        }
        // Linux uses ECAM only if the memory map, too, says that it is taken [PCI-FW 4.1.2].
        if (window.end == kPciHoleBase && board.pci)
            map.push_back({.base = board.pci->ecam, .size = kEcamSize, .type = E820Type::Reserved});
        if (window.base != 0) continue;
        map.push_back({.base = kEbdaBase, .size = kBaseMemoryEnd - kEbdaBase, .type = E820Type::Reserved});
        map.push_back({.base = kTablesBase, .size = kTablesEnd - kTablesBase, .type = E820Type::Reserved});
    }
    return map;
}

bool is_usable(const std::vector<E820Entry>& map, u64 base, u64 size) {
    return std::ranges::any_of(map, [&](const E820Entry& entry) {
        return entry.type == E820Type::Usable && base >= entry.base && base - entry.base <= entry.size &&
               entry.size - (base - entry.base) >= size;
    });
}

u64 low_ram_end(const std::vector<E820Entry>& map) {
    for (const E820Entry& entry : map)
        if (entry.type == E820Type::Usable && entry.base == kHighMemoryBase) return entry.end();
    return 0;
}

u64 high_ram_size(const std::vector<E820Entry>& map) {
    u64 size = 0;
    for (const E820Entry& entry : map)
        if (entry.type == E820Type::Usable && entry.base >= kPciHoleEnd) size += entry.size;
    return size;
}

}  // namespace tessera::boot
