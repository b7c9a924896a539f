// Accesses to the page of a local APIC, of any width: its registers are 32 bits wide at 16-byte steps, other
// accesses are undefined [SDM 3A 11.4.1]. Here reads give the bytes of the register, and writes other than
// aligned 32-bit ones go nowhere.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <span>

#include "base/types.h"
#include "bus/cpu_interrupts.h"

namespace tessera {

inline constexpr u64 kApicPageOffset = 0xfff;

// Each register is read once.
inline void read_apic_page(CpuInterrupts& apic, u64 address, std::span<std::byte> out) {
    while (!out.empty()) {
        const auto offset = static_cast<u32>(address & kApicPageOffset);
        const u32 within = offset % sizeof(u32);
        const u32 value = apic.read_register(offset - within) >> (within * 8);
        const std::size_t piece = std::min<std::size_t>(out.size(), sizeof(u32) - within);
        std::memcpy(out.data(), &value, piece);
        out = out.subspan(piece);
        address += piece;
    }
}

// False: it went nowhere.
inline bool write_apic_page(CpuInterrupts& apic, u64 address, std::span<const std::byte> in) {
    u32 value = 0;
    if (in.size() != sizeof value || address % sizeof value != 0) return false;
    std::memcpy(&value, in.data(), sizeof value);
    apic.write_register(static_cast<u32>(address & kApicPageOffset), value);
    return true;
}

}  // namespace tessera
