// What the loader fuzz targets share: a machine to boot in, and what must hold after every accepted boot.
#pragma once

#include <cstdlib>

#include "boot/boot_linux.h"
#include "boot/testing/guest_memory.h"

namespace tessera::boot {

// Boots `request` and aborts when an accepted boot breaks a promise of its interface.
inline void boot_and_check(const BootRequest& request, GuestMemory& memory) {
    const auto start = boot_linux(request, memory.map);
    if (!start) {
        if (start.error().message.empty()) std::abort();
        return;
    }
    const LoadedKernel& kernel = start->kernel;
    const auto map = e820_of(memory.map, {});
    if (kernel.begin >= kernel.end || !is_usable(map, kernel.begin, 1)) std::abort();
    if (kernel.entry_address < kernel.begin || kernel.entry_address >= kernel.end) std::abort();
    if (start->bootstrap.rip != kernel.entry_address || kernel.entry == KernelEntry::Auto) std::abort();
    if (start->initrd_size != 0) {
        const u64 end = start->initrd_address + start->initrd_size;
        if (!is_usable(map, start->initrd_address, start->initrd_size)) std::abort();
        if (start->initrd_address < kernel.end && end > kernel.begin) std::abort();
        if (!kernel.initrd_above_4g && end - 1 > kernel.initrd_address_max) std::abort();
    }
}

}  // namespace tessera::boot
