// SMBIOS 3.6: both entry points and the structures that name the system, its CPUs and its memory.
// Required structures that would describe slots, connectors and caches are left out: there are none.
// [SMBIOS 3.6]
#pragma once

#include <vector>

#include "base/result.h"
#include "base/types.h"
#include "boot/board.h"

namespace tessera::boot {

// Bytes to lie at `address` (16-byte aligned, in F0000h - FFFFFh): the 2.1 entry point, the 3.0 entry point,
// the structures. `ram` is what the guest has. Fails when a text of `board.identity` is longer than 64
// characters or has control characters in it.
[[nodiscard]] Result<std::vector<std::byte>> make_smbios(const BoardDescription& board, RamSplit ram,
                                                         u64 address);

}  // namespace tessera::boot
