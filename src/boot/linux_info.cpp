#include "boot/linux_info.h"

#include <algorithm>

#include "boot/board.h"
#include "boot/bytes.h"
#include "boot/bzimage/setup_header.h"
#include "boot/low_memory.h"

namespace tessera::boot {

namespace {

namespace h = linux_header;
namespace bp = boot_params;

constexpr u32 low(u64 value) {
    return static_cast<u32>(value);
}
constexpr u32 high(u64 value) {
    return static_cast<u32>(value >> 32);
}

// KiB of memory above 1 MiB, for kernels that do not read e820.
void put_memory_sizes(ByteWriter& page, const std::vector<E820Entry>& map) {
    const u64 end = low_ram_end(map);
    const u64 kib = end > kHighMemoryBase ? (end - kHighMemoryBase) / kKiB : 0;
    page.patch<u32>(bp::kAltMemK, low(kib));
    page.patch<u16>(bp::kExtMemK, static_cast<u16>(std::min<u64>(kib, 0xfc00)));
}

void put_e820(ByteWriter& page, const std::vector<E820Entry>& map) {
    const std::size_t count = std::min(map.size(), bp::kE820Max);
    page.patch<u8>(bp::kE820Entries, static_cast<u8>(count));
    for (std::size_t n = 0; n < count; ++n) {
        const std::size_t at = bp::kE820Table + n * 20;
        page.patch<u64>(at, map[n].base);
        page.patch<u64>(at + 8, map[n].size);
        page.patch<u32>(at + 16, static_cast<u32>(map[n].type));
    }
}

// A vmlinux has no setup header: what its bzImage would have said.
void put_vmlinux_header(ByteWriter& page, const LoadedKernel& kernel) {
    page.patch<u16>(h::kBootFlag, h::kBootFlagValue);
    page.patch<u32>(h::kHeader, h::kHeaderMagic);
    page.patch<u16>(h::kVersion, kernel.boot_protocol);
    page.patch<u8>(h::kLoadFlags, h::kLoadedHigh);
    page.patch<u32>(h::kKernelAlignment, low(2 * kMiB));
    page.patch<u32>(h::kCmdlineSize, low(kernel.cmdline_max));
    page.patch<u32>(h::kInitrdAddrMax, low(kernel.initrd_address_max));
}

}  // namespace

std::vector<std::byte> make_boot_params(const LoadedKernel& kernel, const KernelParameters& parameters,
                                        const std::vector<E820Entry>& map) {
    ByteWriter page;
    // Everything but the header must be zero, so that the kernel believes what it finds [LINUX-BOOT
    // "sentinel"].
    page.zeros(h::kSetupSects).append(kernel.setup_header);
    page.zeros(bp::kSize - page.size());
    if (kernel.setup_header.empty()) put_vmlinux_header(page, kernel);

    const u16 version = kernel.boot_protocol;
    const u8 load_flags = std::to_integer<u8>(page.bytes()[h::kLoadFlags]);
    page.patch<u8>(h::kTypeOfLoader, h::kLoaderUndefined);
    const unsigned kept = load_flags & ~(h::kKeepSegments | h::kCanUseHeap | h::kKaslr);
    page.patch<u8>(h::kLoadFlags, static_cast<u8>(kept | (kernel.randomised ? h::kKaslr : 0)));
    page.patch<u16>(h::kVidMode, h::kVideoNormal);
    page.patch<u32>(h::kCode32Start, low(kernel.begin));
    page.patch<u32>(h::kRamdiskImage, low(parameters.initrd_address));
    page.patch<u32>(h::kRamdiskSize, low(parameters.initrd_size));
    if (version >= 0x020c) {
        page.patch<u32>(bp::kExtRamdiskImage, high(parameters.initrd_address));
        page.patch<u32>(bp::kExtRamdiskSize, high(parameters.initrd_size));
        page.patch<u32>(bp::kExtCmdLinePtr, high(parameters.cmdline_address));
    }
    if (version >= 0x0202) {
        page.patch<u32>(h::kCmdLinePtr, low(parameters.cmdline_address));
    } else {
        page.patch<u16>(bp::kOldCmdLineMagic, bp::kOldCmdLineMagicValue);
        page.patch<u16>(bp::kOldCmdLineOffset,
                        static_cast<u16>(parameters.cmdline_address - low_memory::kBootParams));
    }
    if (version >= 0x0209) page.patch<u64>(h::kSetupData, parameters.setup_data_address);
    // Kernels before 2.14 find the RSDP by searching where it is, below 1 MiB.
    if (version >= 0x020e) page.patch<u64>(bp::kAcpiRsdpAddr, parameters.rsdp_address);
    put_memory_sizes(page, map);
    put_e820(page, map);
    return page.take();
}

std::vector<std::byte> make_pvh_info(const KernelParameters& parameters, const std::vector<E820Entry>& map,
                                     u64 address) {
    constexpr u32 kMagic = 0x336e'c578;
    constexpr u32 kVersion = 1;
    constexpr u64 kInfoSize = 56;
    constexpr u64 kModuleSize = 32;
    const u64 modules = parameters.initrd_size != 0 ? 1 : 0;
    const u64 module_list = address + kInfoSize;
    const u64 memory_map = module_list + modules * kModuleSize;

    ByteWriter info;
    info.put(kMagic).put(kVersion).put<u32>(0).put(low(modules));
    info.put(modules != 0 ? module_list : 0).put(parameters.cmdline_address).put(parameters.rsdp_address);
    info.put(memory_map).put(low(map.size())).put<u32>(0);
    if (modules != 0) info.put(parameters.initrd_address).put(parameters.initrd_size).put<u64>(0).put<u64>(0);
    for (const E820Entry& entry : map) info.put(entry.base).put(entry.size).put(entry.type).put<u32>(0);
    return info.take();
}

}  // namespace tessera::boot
