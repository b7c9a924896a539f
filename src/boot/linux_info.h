// What a kernel is told at its start: the boot_params page of the Linux protocol and hvm_start_info of PVH.
#pragma once

#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/types.h"
#include "boot/e820.h"
#include "boot/kernel.h"

namespace tessera::boot {

struct KernelParameters {
    u64 initrd_address = 0;
    u64 initrd_size = 0;
    u64 cmdline_address = 0;
    u64 cmdline_size = 0;        // without the terminating zero
    u64 setup_data_address = 0;  // first link of the chain, 0: none
    u64 rsdp_address = 0;        // 0: none
};

// The 4 KiB page [LINUX-ZEROPAGE]. There is no screen: screen_info stays zero.
[[nodiscard]] std::vector<std::byte> make_boot_params(const LoadedKernel& kernel,
                                                      const KernelParameters& parameters,
                                                      const std::vector<E820Entry>& map);

// hvm_start_info version 1 with its module list and memory map, to lie at `address`. [PVH]
[[nodiscard]] std::vector<std::byte> make_pvh_info(const KernelParameters& parameters,
                                                   const std::vector<E820Entry>& map, u64 address);

}  // namespace tessera::boot
