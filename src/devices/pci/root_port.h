// A PCI Express root port: a PCI-to-PCI bridge [PCI-BRIDGE] in the root complex with a bus of one device
// behind it. Leaves out hot plug, error forwarding, VGA and ISA modes.
#pragma once

#include <atomic>

#include "base/result.h"
#include "devices/pci/express.h"
#include "devices/pci/msi.h"
#include "devices/pci/pci_bus.h"
#include "snapshot/state_visitor.h"

namespace tessera::pci {

// Has to be attached with a lock that costs nothing (NullLock): only configuration accesses, which have one
// of their own, come here.
class RootPort final : public PciFunction, public PciBridgeSide {
public:
    struct Ids {
        u16 vendor;
        u16 device;
    };
    // `port` is its number, unique among the root ports.
    RootPort(const PciSurroundings& around, Ids ids, u8 port);

    ConfigSpace& config() override { return config_; }
    void write_config(u16 offset, std::span<const std::byte> in) override;
    void reset() override;

    [[nodiscard]] PciBus& secondary() override { return secondary_; }
    [[nodiscard]] bool forwards_down(BarKind kind, u64 address, u64 size) const override;
    [[nodiscard]] bool forwards_up() const override { return masters_.load(std::memory_order_relaxed); }

    void firmware_configured() override { follow_registers(); }

    void visit_state(StateVisitor& v);
    Status load(StateVisitor& v);

private:
    struct Window {
        u64 first;
        u64 last;  // below first: closed
        [[nodiscard]] bool holds(u64 address, u64 size) const {
            return address >= first && address <= last && size - 1 <= last - address;
        }
    };
    [[nodiscard]] Window io_window() const;
    [[nodiscard]] Window memory_window() const;
    [[nodiscard]] Window prefetch_window() const;
    void follow_registers();

    ConfigSpace config_;
    PciBus secondary_;
    Msi msi_{config_, 1};
    std::atomic<bool> masters_ = false;  // as the command register says, for functions on their own threads
    bool in_reset_ = false;              // as the bridge control register says
};

}  // namespace tessera::pci
