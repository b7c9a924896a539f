// A 16550A on a PCI card: eight ports at BAR 0, the chip's interrupt on INTA#. Drivers know it by its class,
// as a serial controller with 16550 programming interface. The chip itself is src/devices/uart16550; the card
// is given whatever passes accesses on to it.
#pragma once

#include "base/result.h"
#include "base/types.h"
#include "bus/io_device.h"
#include "bus/irq_line.h"
#include "devices/pci/pci_function.h"
#include "snapshot/state_visitor.h"

namespace tessera::pci_uart {

inline constexpr u64 kPortCount = 8;
inline constexpr u32 kClassCode = 0x07'00'02;  // serial controller, 16550-compatible [PCI appendix D.8]

// The chip in its socket: its registers, and the card's reset.
class Socket : public IoDevice {
public:
    virtual void reset() = 0;
};

// As an IrqSink its pin 0 is the chip's interrupt. The function's lock is the chip's.
class PciUart final : public pci::PciFunction, public IrqSink {
public:
    struct Ids {
        u16 vendor;
        u16 device;
    };
    PciUart(Ids ids, Socket& socket);

    pci::ConfigSpace& config() override { return config_; }
    void reset() override;
    void set_level(unsigned /*pin*/, bool high) override { config_.set_interrupt(high); }

    // The chip is saved on its own.
    void visit_state(StateVisitor& v);
    Status load(StateVisitor& v);

private:
    Socket& socket_;
    pci::ConfigSpace config_;
};

static_assert(Snapshotable<PciUart>);

}  // namespace tessera::pci_uart
