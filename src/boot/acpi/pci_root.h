// The DSDT's account of PCI: host bridge, its windows, and how interrupt pins reach the interrupt
// controllers.
#pragma once

#include <vector>

#include "boot/aml/aml.h"
#include "boot/board.h"

namespace tessera::boot {

// \_PIC, by which the operating system says which interrupt controllers it uses [ACPI 6.5 5.8.1]. At the root
// of the namespace, before the rest.
[[nodiscard]] aml::Aml interrupt_model_method();

// The host bridge PCI0, and the link devices LNKA to LNKH, which route interrupt lines to the 8259s.
void add_pci_root(std::vector<aml::Aml>& system, const PciDescription& pci);

}  // namespace tessera::boot
