// The PCI side of the board: host bridge with its configuration mechanisms, ISA bridge, interrupt lines, and
// the functions that others attach. Wiring only.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "boot/board.h"
#include "bus/io_bus.h"
#include "bus/lock.h"
#include "bus/message_sink.h"
#include "devices/pci/board_bridges.h"
#include "devices/pci/config_access.h"
#include "devices/pci/pci_bus.h"
#include "devices/pci/pirq_router.h"
#include "devices/pci/root_port.h"
#include "machines/board/interrupt_wiring.h"
#include "vm/host_timers.h"

namespace tessera {

class PciPart {
public:
    struct Around {
        IoBus& ports;
        IoBus& mmio;
        MessageSink& messages;
        IrqSink& io_apic;
        IrqSink& pic;  // the 8259s' inputs, as far as PCI drives them
        Lock& board;   // the interrupt controllers' lock
        IoDevice& reset_register;
    };
    PciPart(const boot::PciDescription& description, const Around& around);

    // Everything below before the first power_on().

    // The bridges, and the ways to configuration space.
    Status add();
    // Puts a function on the root bus, in the slot given or the next free one. `name` is for people. Function
    // and lock stay the caller's; the lock is the function's own, never the board's.
    Status attach(std::string name, pci::PciFunction& function, Lock& lock,
                  std::optional<u8> device = std::nullopt);
    // Puts a PCI Express endpoint behind a root port of its own.
    Status attach_behind_port(const std::string& name, pci::PciFunction& function, Lock& lock);

    // Tells where a memory BAR of a function's is: see IoBus::watch(). The function was attached.
    void watch_bar(const pci::PciFunction& function, unsigned bar, PlaceWatcher& watcher);

    // Resets every function and leaves the bus as firmware does. No CPU runs, no lock is held.
    Status power_on();

    // For firmware, tests and traces.
    [[nodiscard]] pci::PciBus& root() { return root_; }

private:
    const boot::PciDescription description_;
    Around around_;
    // Taken before any function's lock, by whoever accesses configuration space.
    MutexLock config_lock_;
    NullLock no_lock_;  // of functions that only configuration accesses reach
    pci::PirqRouter router_;
    LockedPins lines_;  // functions drive their interrupt lines with their own locks held
    pci::PciSurroundings surroundings_;
    pci::PciBus root_;
    pci::HostBridge host_bridge_;
    pci::IsaBridge isa_bridge_;
    pci::ConfigPorts config_ports_;
    pci::Ecam ecam_;
    std::vector<std::unique_ptr<pci::RootPort>> ports_;
};

}  // namespace tessera
