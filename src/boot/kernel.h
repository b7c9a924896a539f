// Recognises a kernel file, loads it into guest memory, and says how it wants to be entered.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/types.h"
#include "boot/e820.h"
#include "memory/memory_map.h"

namespace tessera::boot {

// A file's contents, and its name for messages.
struct BootFile {
    std::string_view name;
    std::span<const std::byte> bytes;
};

enum class KernelEntry : u8 {
    Auto,     // the best the file offers: PVH before Linux64 before Linux32 for ELF files; Linux64 before
              // Linux32
    Linux64,  // startup_64 with boot_params in RSI
    Linux32,  // startup_32 with boot_params in ESI
    Pvh,      // hvm_start_info in EBX
};

struct LoadedKernel {
    KernelEntry entry;                        // never Auto
    u64 entry_address;                        // guest physical
    u64 begin, end;                           // memory the kernel needs for itself from the start
    std::span<const std::byte> setup_header;  // the bzImage's, empty for ELF files; points into the file
    u16 boot_protocol;                        // major << 8 | minor; 0 for PVH
    u64 initrd_address_max;                   // highest address of the initrd's last byte
    bool initrd_above_4g;
    u64 cmdline_max;     // characters, without the terminating zero
    bool randomised;     // it lies at a random place, and is told so
    u64 virtual_offset;  // how far its virtual address is from the one it was linked at
};

// Loads `file` into the usable memory of `map`, which is zero. Errors name the file: unknown format (with a
// hint when it is a known other one), truncated or damaged, memory too small, or an entry the file does not
// have.
[[nodiscard]] Result<LoadedKernel> load_kernel(const BootFile& file, KernelEntry entry,
                                               const std::vector<E820Entry>& map, MemoryMap& memory);

}  // namespace tessera::boot
