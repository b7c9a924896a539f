// Direct boot of a Linux (or PVH) kernel: fills guest memory with kernel, initrd, command line, memory map
// and firmware tables, and gives the state the bootstrap CPU starts in. Reads no files, owns no memory.
// [LINUX-BOOT], [PVH]
#pragma once

#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/types.h"
#include "boot/board.h"
#include "boot/direct_kernel.h"
#include "boot/kernel.h"
#include "cpu/x86/state.h"
#include "memory/memory_map.h"

namespace tessera::boot {

struct BootRequest {
    BootFile kernel;
    std::optional<BootFile> initrd;
    std::string_view cmdline;
    BoardDescription board;
    KernelEntry entry = KernelEntry::Auto;
    // Entropy for the kernel's random number generator, at most 256 bytes; empty: none is handed over.
    std::span<const std::byte> random_seed;
    // A bzImage's kernel is unpacked and entered directly. Nothing: through the decompressor in the file. A
    // word nokaslr in the command line is obeyed. Other files have one way only.
    std::optional<DirectStart> direct{};  // NOLINT(readability-redundant-member-init)
};

// What firmware leaves in the RTC's memory: index and value.
struct CmosByte {
    u8 index;
    u8 value;
};

struct StartState {
    x86::State bootstrap;    // CPU 0
    x86::State application;  // every other CPU: waits for its SIPI
    std::vector<CmosByte> cmos;
    LoadedKernel kernel;     // where it lies, how it is entered; setup_header points into the request's file
    u64 initrd_address = 0;  // 0: none
    u64 initrd_size = 0;
    u64 rsdp_address = 0;  // 0: no ACPI tables
};

// `memory` holds RAM from 0 to at least 2 MiB without holes but for A0000h - DFFFFh; RAM must be zero, as
// at power-on, also when it is called again for a machine's reset. Errors name the file and say what to do;
// Unsupported with a direct start: without, the kernel may start all the same, in memory that is zero again.
[[nodiscard]] Result<StartState> boot_linux(const BootRequest& request, MemoryMap& memory);

// The memory sizes and equipment in CMOS, as PC firmware stores them.
[[nodiscard]] std::vector<CmosByte> cmos_values(const MemoryMap& memory, const BoardDescription& board);

}  // namespace tessera::boot
