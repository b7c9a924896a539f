// Moves an unpacked x86 Linux kernel to another virtual address, as address space randomisation does: reads
// the table its build appends to vmlinux and adds the distance wherever the table says.
//
// The table, of 32-bit words, as boot images carry it since Linux 3.14 (nothing specifies it):
//   64-bit kernels:  0, places of 64-bit addresses,
//                    0, places of negated 32-bit offsets (gone with the per-CPU segment in 6.15),
//                    0, places of 32-bit addresses
//   32-bit kernels:  0, places of 32-bit addresses
// A place is the low 32 bits of a virtual address.
#pragma once

#include <span>
#include <string_view>

#include "base/result.h"
#include "base/types.h"
#include "boot/elf/elf_image.h"

namespace tessera::boot {

struct RelocationTable {
    // Places of addresses to which the distance is added, or from which it is taken.
    std::span<const std::byte> add64, subtract32, add32;
};

// The table behind the ELF file `file`, which `image` describes. NotFound: there is none, the kernel was
// built without. InvalidArgument: what is there is no such table.
[[nodiscard]] Result<RelocationTable> find_relocations(std::string_view name, std::span<const std::byte> file,
                                                       const ElfImage& image);

// Adds `distance` everywhere. `file` is what `image` and `table` point into and is changed in place. A place
// outside of the image's contents is an error; the file is then half changed and of no use.
[[nodiscard]] Status relocate(std::string_view name, std::span<std::byte> file, const ElfImage& image,
                              const RelocationTable& table, u64 distance);

}  // namespace tessera::boot
