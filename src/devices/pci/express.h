// The PCI Express capability [PCIE 7.8]. Links are one lane of 2.5 GT/s that is always up; there are no slots
// to plug into, and no errors to report.
#pragma once

#include "base/types.h"
#include "devices/pci/config_space.h"

namespace tessera::pci {

// [PCIE 7.8.2] Device/Port Type
enum class ExpressKind : u8 { Endpoint = 0, RootPort = 4, IntegratedEndpoint = 9 };

// Endpoints get function level reset, which PciFunction carries out. `port` is a root port's number. Returns
// where the capability lies. The function should have ConfigSize::Extended.
u8 add_express(ConfigSpace& config, ExpressKind kind, u8 port = 0);

}  // namespace tessera::pci
