// Reads an ELF executable for x86 as a kernel: its loadable segments by physical address and, when it has
// one, its PVH entry. No sections, no relocation, no dynamic linking. [ELF], [PVH]
#pragma once

#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/types.h"

namespace tessera::boot {

struct ElfSegment {
    u64 address;          // guest physical
    u64 virtual_address;  // what it is linked at
    std::span<const std::byte> bytes;
    u64 memory_size;  // >= bytes.size(); the rest is zero

    [[nodiscard]] u64 end() const { return address + memory_size; }
};

enum class ElfClass : u8 { Elf32 = 1, Elf64 = 2 };

struct ElfImage {
    ElfClass elf_class;
    u64 entry;                         // guest physical
    std::vector<ElfSegment> segments;  // by address, not empty, disjoint
    std::optional<u32> pvh_entry;      // XEN_ELFNOTE_PHYS32_ENTRY
    u64 contents_end;  // offset of the first byte behind headers, segments and section headers

    [[nodiscard]] u64 begin() const { return segments.front().address; }
    [[nodiscard]] u64 end() const { return segments.back().end(); }
};

[[nodiscard]] bool looks_like_elf(std::span<const std::byte> file);

// The result points into `file`. `name` is the file's, for messages.
[[nodiscard]] Result<ElfImage> parse_elf(std::string_view name, std::span<const std::byte> file);

}  // namespace tessera::boot
