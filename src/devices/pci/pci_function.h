// What a PCI device is to the bus it sits on. How to write one:
//
//     class Card final : public pci::PciFunction {
//     public:
//         Card() {
//             config_.add_bar(0, pci::BarKind::Memory32, 0x1000, registers_);   // an IoDevice; offsets from
//             0 config_.add_bar(1, pci::BarKind::Memory32, msix_.size(), msix_);
//         }
//         pci::ConfigSpace& config() override { return config_; }
//         void reset() override { ...; msix_.reset(); config_.reset(); }
//     private:
//         pci::ConfigSpace config_{{.vendor = ..., .device = ..., .class_code = 0x02'00'00, .pin = 1}};
//         pci::Msix msix_{config_, {.vectors = 4, .bar = 1}};
//     };
//
// An interrupt: `if (msix_.enabled()) msix_.signal(vector); else config_.set_interrupt(level);`. DMA only
// while config_.bus_master(). Nothing is connected until a bus attaches the function; until then it is mute.
//
// Threads: the bus, whichever thread it is on, calls everything here and every BAR's IoDevice with the
// function's own lock held.
#pragma once

#include <span>

#include "base/types.h"
#include "devices/pci/config_space.h"

namespace tessera::pci {

class PciFunction {
public:
    PciFunction() = default;
    PciFunction(const PciFunction&) = delete;
    PciFunction& operator=(const PciFunction&) = delete;
    virtual ~PciFunction() = default;

    // Always the same one.
    [[nodiscard]] virtual ConfigSpace& config() = 0;

    // One, two or four bytes that do not leave their double word; any offset below 4096. Override when
    // registers of configuration space do something (VIRTIO's window into BARs); pass on to these.
    virtual void read_config(u16 offset, std::span<std::byte> out) { config().read(offset, out); }
    virtual void write_config(u16 offset, std::span<const std::byte> in) {
        config().write(offset, in);
        if (config().take_reset_request()) reset();
    }

    // RST#, and function level reset: as at power-on, configuration space and MSI-X too.
    virtual void reset() = 0;
};

}  // namespace tessera::pci
