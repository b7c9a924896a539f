#include "machines/board/pci_part.h"

#include <fmt/format.h>

#include "devices/pci/placement.h"

namespace tessera {

namespace {
constexpr u8 kFirstFreeDevice = 1;
}

PciPart::PciPart(const boot::PciDescription& description, const Around& around)
    : description_(description),
      around_(around),
      router_(around.io_apic, around.pic),
      lines_(router_, around.board),
      surroundings_{
          .ports = around.ports, .memory = around.mmio, .messages = around.messages, .interrupts = lines_},
      root_(surroundings_),
      isa_bridge_(router_),
      config_ports_(root_, around.reset_register),
      ecam_(root_) {}

Status PciPart::add() {
    if (auto status = around_.ports.add("PCI configuration", pci::kConfigPortsBase, pci::kConfigPortCount,
                                        config_ports_, config_lock_);
        !status)
        return status;
    if (auto status = around_.mmio.add("PCI ECAM", description_.ecam, pci::Ecam::kSize, ecam_, config_lock_);
        !status)
        return status;
    if (auto status = root_.attach("host bridge", {.device = 0}, host_bridge_, no_lock_); !status)
        return status;
    return root_.attach("ISA bridge", {.device = description_.isa_bridge}, isa_bridge_, around_.board);
}

Status PciPart::attach(std::string name, pci::PciFunction& function, Lock& lock, std::optional<u8> device) {
    if (!device) device = root_.free_device(kFirstFreeDevice);
    if (!device)
        return fail(Errc::InvalidArgument,
                    fmt::format("{}: all PCI slots are taken; use fewer devices", name));
    return root_.attach(std::move(name), {.device = *device}, function, lock);
}

Status PciPart::attach_behind_port(const std::string& name, pci::PciFunction& function, Lock& lock) {
    const auto device = root_.free_device(kFirstFreeDevice);
    if (!device)
        return fail(Errc::InvalidArgument,
                    fmt::format("{}: all PCI slots are taken; use fewer devices", name));
    auto& port = *ports_.emplace_back(std::make_unique<pci::RootPort>(
        surroundings_, pci::RootPort::Ids{.vendor = pci::kTesseraVendor, .device = pci::kRootPortId},
        static_cast<u8>(ports_.size() + 1)));
    const pci::Slot slot{.device = *device};
    if (auto status = root_.attach(fmt::format("root port of {}", name), slot, port, no_lock_, &port);
        !status)
        return status;
    port.secondary().connect(root_, slot, port);
    return port.secondary().attach(name, {.device = 0}, function, lock);
}

void PciPart::watch_bar(const pci::PciFunction& function, unsigned bar, PlaceWatcher& watcher) {
    std::vector<const pci::PciBus*> buses = {&root_};
    buses.reserve(1 + ports_.size());
    for (const auto& port : ports_) buses.push_back(&port->secondary());
    for (const pci::PciBus* bus : buses)
        for (const auto& seat : bus->seats())
            if (const auto range = seat->ranges.at(bar); seat->function == &function && range)
                around_.mmio.watch(*range, watcher);
}

Status PciPart::power_on() {
    config_ports_.reset();
    root_.reset_functions();
    {
        const LockGuard guard(around_.board);
        for (unsigned line = 0; line < pci::kInterruptLines; ++line)
            isa_bridge_.route(line, description_.isa_interrupts[line]);
    }
    if (!description_.place_bars) return {};
    pci::Placement placement{.io = {.first = description_.io.first, .last = description_.io.last},
                             .memory = {.first = description_.memory.first, .last = description_.memory.last},
                             .memory64 = {},
                             .isa_interrupts = description_.isa_interrupts};
    if (description_.memory64)
        placement.memory64 = {.first = description_.memory64->first, .last = description_.memory64->last};
    return pci::place_all(root_, placement);
}

}  // namespace tessera
