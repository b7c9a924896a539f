// The two functions every PC board has on its first bus: the host bridge, and the bridge to the ISA bus with
// the registers that route PCI interrupts. What they are besides (memory controller, decoders) is fixed here
// and has no registers.
#pragma once

#include <array>

#include "base/result.h"
#include "devices/pci/pci_function.h"
#include "devices/pci/pirq_router.h"
#include "snapshot/state_visitor.h"

namespace tessera::pci {

// Of the board's own functions. The PCI ID repository lists no vendor 7E55h (version 2023.04.10, as Debian 12
// has it), so that no driver or quirk written for known hardware takes these for its own; they are found by
// class. GAP: the number is not ours: PCI-SIG has not assigned it to us, and may assign it to somebody.
inline constexpr u16 kTesseraVendor = 0x7e55;
inline constexpr u16 kHostBridgeId = 0x0001;
inline constexpr u16 kIsaBridgeId = 0x0002;
inline constexpr u16 kRootPortId = 0x0003;
inline constexpr u16 kSerialPortId = 0x0004;
inline constexpr u16 kAhciId = 0x0010;

class HostBridge final : public PciFunction {
public:
    ConfigSpace& config() override { return config_; }
    void reset() override { config_.reset(); }
    void visit_state(StateVisitor& v);
    Status load(StateVisitor& v);

private:
    ConfigSpace config_{{.vendor = kTesseraVendor,
                         .device = kHostBridgeId,
                         .class_code = 0x06'00'00,
                         .subsystem_vendor = kTesseraVendor,
                         .subsystem = kHostBridgeId}};
};

// [ICH9 13.1.17], [ICH9 13.1.19]: PIRQ[n]_ROUT, PIRQA to PIRQD at 60h, PIRQE to PIRQH at 68h. Attached with
// the interrupt controllers' lock.
class IsaBridge final : public PciFunction, private ConfigWatcher {
public:
    static constexpr u16 kRoutes = 0x60;
    static constexpr u16 kUpperRoutes = 0x68;

    explicit IsaBridge(PirqRouter& router);
    ConfigSpace& config() override { return config_; }
    // Interrupts are not routed to the 8259s. The lines' levels come from outside and stay.
    void reset() override;
    // What firmware does: routes line n to an ISA interrupt.
    void route(unsigned line, u8 irq);
    void visit_state(StateVisitor& v);
    Status load(StateVisitor& v);

private:
    [[nodiscard]] static u16 route_register(unsigned line) {
        return static_cast<u16>(line < 4 ? kRoutes + line : kUpperRoutes + line - 4);
    }
    void config_written() override;

    PirqRouter& router_;
    ConfigSpace config_{{.vendor = kTesseraVendor,
                         .device = kIsaBridgeId,
                         .class_code = 0x06'01'00,
                         .subsystem_vendor = kTesseraVendor,
                         .subsystem = kIsaBridgeId}};
};

}  // namespace tessera::pci
