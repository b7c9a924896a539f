// The memory map as firmware reports it: what an operating system may use, and what it must leave alone.
#pragma once

#include <vector>

#include "base/types.h"
#include "boot/board.h"
#include "memory/memory_map.h"

namespace tessera::boot {

// [ACPI 6.5 15.1] address range types
enum class E820Type : u32 { Usable = 1, Reserved = 2, AcpiReclaimable = 3, AcpiNvs = 4 };

struct E820Entry {
    u64 base;  // guest physical
    u64 size;  // bytes, > 0
    E820Type type;

    [[nodiscard]] u64 end() const { return base + size; }
    friend bool operator==(const E820Entry&, const E820Entry&) = default;
};

// Sorted and free of overlaps: RAM below the EBDA, the EBDA and the firmware tables (reserved), RAM from 1
// MiB to the PCI hole, ECAM (reserved), RAM from 4 GiB. RAM regions elsewhere (display memory, say) are not
// an operating system's to use.
[[nodiscard]] std::vector<E820Entry> e820_of(const MemoryMap& memory, const BoardDescription& board);

// Whether all of [base, base + size) is usable in one entry.
[[nodiscard]] bool is_usable(const std::vector<E820Entry>& map, u64 base, u64 size);

// One past the last usable byte of the entry that starts at 1 MiB; 0 when there is no RAM there.
[[nodiscard]] u64 low_ram_end(const std::vector<E820Entry>& map);
// Usable bytes from 4 GiB up.
[[nodiscard]] u64 high_ram_size(const std::vector<E820Entry>& map);

}  // namespace tessera::boot
