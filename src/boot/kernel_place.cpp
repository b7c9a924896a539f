#include "boot/kernel_place.h"

#include <algorithm>

namespace tessera::boot {

namespace {

// A 64-bit kernel's tables map its first GiB by pages of 2 MiB [LINUX-MM x86_64/mm: kernel text mapping].
constexpr u64 kLeastAlignment64 = 2 * kMiB;
constexpr u64 kVirtualEnd64 = kGiB;
constexpr u64 kEnd32 = 512 * kMiB;

// One of the places begin, begin + alignment, ... from which `size` bytes end at `limit` or before.
u64 pick(u64 begin, u64 size, u64 alignment, u64 limit, u64 random) {
    if (limit < begin || limit - begin < size) return begin;
    const u64 places = (limit - begin - size) / alignment + 1;
    return begin + random % places * alignment;
}

}  // namespace

KernelPlace place_kernel(const KernelShape& shape, const std::optional<std::array<u64, 2>>& random,
                         u64 limit) {
    if (!random || shape.alignment == 0 || !shape.relocations)
        return {.begin = shape.begin, .virtual_offset = 0, .random = false};
    const auto [for_virtual, for_physical] = *random;
    if (shape.elf_class == ElfClass::Elf32) {
        const u64 begin =
            pick(shape.begin, shape.size, shape.alignment, std::min(limit, kEnd32), for_physical);
        return {.begin = begin, .virtual_offset = begin - shape.begin, .random = true};
    }
    const u64 alignment = std::max(shape.alignment, kLeastAlignment64);
    const u64 as_if = pick(shape.begin, shape.size, alignment, kVirtualEnd64, for_virtual);
    return {.begin = pick(shape.begin, shape.size, alignment, limit, for_physical),
            .virtual_offset = as_if - shape.begin,
            .random = true};
}

PlaceWishes place_wishes(std::string_view cmdline) {
    PlaceWishes wishes{.fixed = false, .fixed_physical = false};
    while (!cmdline.empty()) {
        const auto end = std::min(cmdline.find_first_of(" \t\n"), cmdline.size());
        const std::string_view word = cmdline.substr(0, end);
        wishes.fixed = wishes.fixed || word == "nokaslr";
        wishes.fixed_physical =
            wishes.fixed_physical || word.starts_with("mem=") || word.starts_with("memmap=");
        cmdline.remove_prefix(std::min(end + 1, cmdline.size()));
    }
    return wishes;
}

}  // namespace tessera::boot
