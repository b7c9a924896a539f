// What the ways to load a kernel share: refusals, and copying segments.
#pragma once

#include <string_view>
#include <vector>

#include "boot/elf/elf_image.h"
#include "boot/kernel.h"

namespace tessera::boot {

[[nodiscard]] std::unexpected<Error> memory_too_small(const BootFile& file, u64 begin, u64 end,
                                                      const std::vector<E820Entry>& map);
[[nodiscard]] std::unexpected<Error> no_such_entry(const BootFile& file, std::string_view entry);
[[nodiscard]] std::unexpected<Error> entry_outside(const BootFile& file, u64 address);

// Whether `address` lies in one of the image's segments.
[[nodiscard]] bool is_inside(const ElfImage& image, u64 address);

// Writes what is not zero: memory is zero already, and what stays untouched is not taken from the host. The
// range is usable memory.
void load_segment(MemoryMap& memory, u64 address, std::span<const std::byte> bytes);

}  // namespace tessera::boot
