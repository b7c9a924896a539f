// The MultiProcessor table, for operating systems that do not read ACPI: floating pointer and configuration
// table with CPUs, ISA bus, I/O APIC and interrupt assignments. [MP 1.4 4]
#pragma once

#include <vector>

#include "base/types.h"
#include "boot/board.h"

namespace tessera::boot {

// Bytes to lie at `address` (16-byte aligned, below 1 MiB), the floating pointer first. CPUs whose APIC id
// does not fit the eight-bit field are not listed; without an I/O APIC there is no table (the result is
// empty).
[[nodiscard]] std::vector<std::byte> make_mp_table(const BoardDescription& board, u64 address);

}  // namespace tessera::boot
