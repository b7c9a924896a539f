#include "devices/pci_uart/pci_uart.h"

#include <utility>

namespace tessera::pci_uart {

PciUart::PciUart(Ids ids, Socket& socket)
    : socket_(socket),
      config_({.vendor = ids.vendor,
               .device = ids.device,
               .class_code = kClassCode,
               .subsystem_vendor = ids.vendor,
               .subsystem = ids.device,
               .pin = 1}) {
    config_.add_bar(0, pci::BarKind::Io, kPortCount, socket_);
    config_.add_power_management();
}

// The chip first, so that its line has its reset level before the card's register forgets it.
void PciUart::reset() {
    socket_.reset();
    config_.reset();
}

void PciUart::visit_state(StateVisitor& v) {
    auto config = config_.state();
    pci::ConfigSpace::visit(v, 1, config);
}

Status PciUart::load(StateVisitor& v) {
    auto config = config_.initial_state();
    pci::ConfigSpace::visit(v, 1, config);
    if (!config_.valid(config))
        return fail(Errc::CorruptState, "PCI UART: registers no guest could have made");
    config_.restore(std::move(config));
    return {};
}

}  // namespace tessera::pci_uart
