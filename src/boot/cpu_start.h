// The processor states kernels are entered in, and what their registers point to in low memory.
#pragma once

#include "base/types.h"
#include "boot/board.h"
#include "cpu/x86/state.h"
#include "memory/memory_map.h"

namespace tessera::boot {

// [LINUX-BOOT "64-bit Boot Protocol"]: long mode, the first 4 GiB mapped one to one, CS 10h, data segments
// 18h, RSI = boot_params. Writes page tables and GDT to low memory.
[[nodiscard]] x86::State enter_linux64(MemoryMap& memory, u64 entry, u64 boot_params);
// [LINUX-BOOT "32-bit Boot Protocol"]: protected mode without paging, flat segments, ESI = boot_params,
// EBP = EDI = EBX = 0. Writes the GDT.
[[nodiscard]] x86::State enter_linux32(MemoryMap& memory, u32 entry, u32 boot_params);
// [PVH "x86/HVM direct boot ABI"]: protected mode without paging, flat segments, EBX = hvm_start_info.
[[nodiscard]] x86::State enter_pvh(MemoryMap& memory, u32 entry, u32 start_info);

// What firmware leaves in every CPU's MSRs: the memory type ranges, alike on all CPUs [SDM 3A 12.11.7].
void set_memory_types(x86::State& state, const BoardDescription& board);
// A CPU that waits for its SIPI.
[[nodiscard]] x86::State application_processor(const BoardDescription& board);

}  // namespace tessera::boot
