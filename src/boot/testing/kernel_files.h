// Synthetic kernels: the smallest files that obey the formats. Offsets are restated from the specifications.
#pragma once

#include <cstring>
#include <string_view>
#include <vector>

#include "base/types.h"

namespace tessera::boot {

using Bytes = std::vector<std::byte>;

template <typename T>
void poke(Bytes& bytes, std::size_t offset, T value) {
    if (bytes.size() < offset + sizeof value) bytes.resize(offset + sizeof value);
    std::memcpy(bytes.data() + offset, &value, sizeof value);
}
inline void poke_text(Bytes& bytes, std::size_t offset, std::string_view text) {
    if (bytes.size() < offset + text.size()) bytes.resize(offset + text.size());
    std::memcpy(bytes.data() + offset, text.data(), text.size());
}

// A bzImage like Debian's: protocol 2.15, 64-bit entry, one setup sector, 4 KiB of kernel filled with 0xCC.
inline Bytes make_bzimage() {
    Bytes file(2 * 512 + 4096);
    std::memset(file.data() + 1024, 0xcc, 4096);
    poke<u8>(file, 0x1f1, 1);           // setup_sects
    poke<u32>(file, 0x1f4, 4096 / 16);  // syssize
    poke<u16>(file, 0x1fe, 0xaa55);     // boot_flag
    poke<u16>(file, 0x200, 0x6aeb);     // jump over the header, which ends at 0x26c
    poke_text(file, 0x202, "HdrS");
    poke<u16>(file, 0x206, 0x020f);      // version
    poke<u8>(file, 0x211, 0x01);         // loadflags: LOADED_HIGH
    poke<u32>(file, 0x214, 0x100000);    // code32_start
    poke<u32>(file, 0x22c, 0x7fffffff);  // initrd_addr_max
    poke<u32>(file, 0x230, 0x200000);    // kernel_alignment
    poke<u8>(file, 0x234, 1);            // relocatable_kernel
    poke<u8>(file, 0x235, 21);           // min_alignment
    poke<u16>(file, 0x236, 0x0003);      // xloadflags: KERNEL_64, CAN_BE_LOADED_ABOVE_4G
    poke<u32>(file, 0x238, 2047);        // cmdline_size
    poke<u64>(file, 0x258, 0x1000000);   // pref_address
    poke<u32>(file, 0x260, 0x300000);    // init_size
    return file;
}

struct ElfOptions {
    bool is64 = true;
    bool pvh = false;
    u64 address = 0x100000;
    u64 memory_size = 0x3000;
};
// One PT_LOAD of 4096 bytes (0x90) at file offset 0x1000, entry 16 bytes into it; with `pvh` a PT_NOTE at
// 0x400 whose entry is 32 bytes into the segment.
inline Bytes make_elf(const ElfOptions& options = {}) {
    Bytes file(0x2000);
    std::memset(file.data() + 0x1000, 0x90, 0x1000);
    poke_text(file, 0,
              "\x7f"
              "ELF");
    poke<u8>(file, 4, options.is64 ? 2 : 1);
    poke<u8>(file, 5, 1);
    poke<u16>(file, 16, 2);                                // ET_EXEC
    poke<u16>(file, 18, options.is64 ? u16{62} : u16{3});  // EM_X86_64, EM_386
    const u16 count = options.pvh ? 2 : 1;
    if (options.is64) {
        poke<u64>(file, 24, options.address + 16);
        poke<u64>(file, 32, 64);
        poke<u16>(file, 54, 56);
        poke<u16>(file, 56, count);
        poke<u32>(file, 64, 1);
        poke<u64>(file, 64 + 8, 0x1000);
        poke<u64>(file, 64 + 16, 0xffffffff81000000);  // p_vaddr: of no interest
        poke<u64>(file, 64 + 24, options.address);
        poke<u64>(file, 64 + 32, 0x1000);
        poke<u64>(file, 64 + 40, options.memory_size);
        if (options.pvh) {
            poke<u32>(file, 120, 4);
            poke<u64>(file, 120 + 8, 0x400);
            poke<u64>(file, 120 + 32, 36);
            poke<u64>(file, 120 + 40, 36);
            poke<u64>(file, 120 + 48, 4);
        }
    } else {
        poke<u32>(file, 24, static_cast<u32>(options.address + 16));
        poke<u32>(file, 28, 52);
        poke<u16>(file, 42, 32);
        poke<u16>(file, 44, count);
        poke<u32>(file, 52, 1);
        poke<u32>(file, 52 + 4, 0x1000);
        poke<u32>(file, 52 + 8, 0xc1000000);
        poke<u32>(file, 52 + 12, static_cast<u32>(options.address));
        poke<u32>(file, 52 + 16, 0x1000);
        poke<u32>(file, 52 + 20, static_cast<u32>(options.memory_size));
        if (options.pvh) {
            poke<u32>(file, 84, 4);
            poke<u32>(file, 84 + 4, 0x400);
            poke<u32>(file, 84 + 16, 36);
            poke<u32>(file, 84 + 20, 36);
            poke<u32>(file, 84 + 28, 4);
        }
    }
    if (options.pvh) {
        // Another note first, then Xen's PHYS32_ENTRY.
        poke<u32>(file, 0x400, 4);
        poke<u32>(file, 0x404, 0);
        poke<u32>(file, 0x408, 3);
        poke_text(file, 0x40c, std::string_view("GNU\0", 4));
        poke<u32>(file, 0x410, 4);
        poke<u32>(file, 0x414, 4);
        poke<u32>(file, 0x418, 18);
        poke_text(file, 0x41c, std::string_view("Xen\0", 4));
        poke<u32>(file, 0x420, static_cast<u32>(options.address + 32));
    }
    return file;
}

}  // namespace tessera::boot
