// Where an unpacked kernel goes: where it was linked to run, or a random place, by the rules its own
// decompressor has. [LINUX-BOOT "kernel_alignment"]
#pragma once

#include <array>
#include <optional>
#include <string_view>

#include "base/types.h"
#include "boot/elf/elf_image.h"

namespace tessera::boot {

struct KernelShape {
    ElfClass elf_class;
    u64 begin;         // the physical address it was linked for
    u64 size;          // all it needs from there
    u64 alignment;     // of its place, a power of two; 0: it must not be moved
    bool relocations;  // it has a table of them; without, its virtual address is fixed
};

struct KernelPlace {
    u64 begin;           // physical
    u64 virtual_offset;  // from the address it was linked at
    bool random;
};

// 64-bit kernels get a random physical place below `limit` and, of that independently, a virtual one in the
// first GiB of the kernel's half. 32-bit kernels map physical memory linearly: one offset for both, below
// 512 MiB. What cannot be moved, or finds no room below `limit`, stays.
[[nodiscard]] KernelPlace place_kernel(const KernelShape& shape,
                                       const std::optional<std::array<u64, 2>>& random, u64 limit);

// What a command line says about the kernel's place.
struct PlaceWishes {
    bool fixed;           // nokaslr
    bool fixed_physical;  // mem= or memmap=: not all memory may be used
};
[[nodiscard]] PlaceWishes place_wishes(std::string_view cmdline);

}  // namespace tessera::boot
