// A hostile guest and corrupt snapshots against the PCI UART.
#include "devices/pci_uart/pci_uart_rig.h"
#include "devices/testing/device_fuzz.h"

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer fixes this name.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    return tessera::testing_rig::fuzz_device<tessera::pci_uart::PciUartRig>(data, size);
}
