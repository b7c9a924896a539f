// The kernel in a bzImage, unpacked here and entered directly: does what the decompressor in the file would.
#pragma once

#include <array>
#include <optional>
#include <vector>

#include "boot/kernel.h"
#include "boot/parallel.h"

namespace tessera::boot {

struct DirectStart {
    // Address space randomisation: two random numbers that choose the kernel's virtual and physical place.
    // Nothing: it goes where it was linked to run.
    std::optional<std::array<u64, 2>> random;
    bool fixed_physical = false;        // only the virtual place is chosen
    ParallelFor parallel = one_by_one;  // for what can be unpacked in pieces
};

// Loads into the usable memory of `map`, which is zero, and leaves room for the initrd above. Errors as
// load_kernel's; Unsupported: this kernel has to unpack itself. After an error memory may have been written.
[[nodiscard]] Result<LoadedKernel> load_direct(const BootFile& file, const DirectStart& start,
                                               KernelEntry entry, u64 initrd_size,
                                               const std::vector<E820Entry>& map, MemoryMap& memory);

}  // namespace tessera::boot
