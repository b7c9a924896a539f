// What firmware does to a PCI bus before an operating system sees it: numbers the buses, gives every BAR an
// address, opens the bridges' windows, enables decoding, and notes interrupt numbers. For boards that start
// kernels without firmware.
#pragma once

#include <array>

#include "base/result.h"
#include "base/types.h"
#include "devices/pci/pci_bus.h"

namespace tessera::pci {

// [first, last]; last below first: there is none.
struct AddressWindow {
    u64 first = 1;
    u64 last = 0;
};

struct Placement {
    AddressWindow io;
    AddressWindow memory;
    // Above 4 GiB: for prefetchable 64-bit BARs of at least kLargeBar. Smaller ones go below, where systems
    // without 64-bit addresses reach them too.
    AddressWindow memory64;
    // For the interrupt line registers: the ISA interrupt each PCI interrupt line is routed to.
    std::array<u8, kInterruptLines> isa_interrupts{};
};
inline constexpr u64 kLargeBar = kMiB;

// The same bus gets the same addresses every time. Fails when a window is too small, naming whose BAR did not
// fit. No CPU runs; takes the functions' locks.
[[nodiscard]] Status place_all(PciBus& root, const Placement& placement);

}  // namespace tessera::pci
