// The RTL8029AS: an NE2000 as one PCI function, 32 ports at BAR 0, the interrupt on INTA#.
#pragma once

#include "base/result.h"
#include "bus/irq_line.h"
#include "devices/ne2000/ne2000.h"
#include "devices/pci/pci_function.h"
#include "snapshot/state_visitor.h"

namespace tessera::ne2000 {

inline constexpr u16 kRealtekVendor = 0x10ec;
inline constexpr u16 kRtl8029Device = 0x8029;
inline constexpr u32 kClassCode = 0x02'00'00;  // Ethernet controller

// As an IrqSink its pin 0 is the chip's interrupt. The function's lock is the card's.
class Ne2000Pci final : public pci::PciFunction, private IrqSink {
public:
    Ne2000Pci(const Mac& mac, const Ne2000::Around& around);

    [[nodiscard]] Ne2000& card() { return card_; }
    pci::ConfigSpace& config() override { return config_; }
    void reset() override;
    void visit_state(StateVisitor& v);
    Status load(StateVisitor& v);

private:
    static constexpr unsigned kConfigField = 100;
    void set_level(unsigned /*pin*/, bool high) override { config_.set_interrupt(high); }

    pci::ConfigSpace config_{{.vendor = kRealtekVendor,
                              .device = kRtl8029Device,
                              .class_code = kClassCode,
                              .subsystem_vendor = kRealtekVendor,
                              .subsystem = kRtl8029Device,
                              .pin = 1}};
    Ne2000 card_;
};

static_assert(Snapshotable<Ne2000Pci>);

}  // namespace tessera::ne2000
