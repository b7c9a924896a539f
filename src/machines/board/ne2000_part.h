// The NE2000 cards of a board, on ISA and on PCI: cards, locks, workers. Wiring only.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "backends/event_loop/event_loop.h"
#include "base/result.h"
#include "bus/io_bus.h"
#include "bus/irq_line.h"
#include "devices/ne2000/ne2000.h"
#include "devices/ne2000/ne2000_pci.h"
#include "machines/board/device_worker.h"
#include "machines/board/interrupt_wiring.h"
#include "machines/board/pci_part.h"
#include "machines/machine.h"
#include "vm/host_timers.h"
#include "vm/vm.h"

namespace tessera {

class Ne2000Part {
public:
    struct Around {
        Vm& vm;
        IoBus& ports;
        PciPart& pci;
        IrqSink& isa_interrupts;  // with the board's lock held
        Lock& board;
        EventLoop& loop;  // of the workers
    };
    // The cards among the configuration's networks, plugged in. An error names the card.
    static Result<std::unique_ptr<Ne2000Part>> create(const Around& around, const MachineConfig& config);
    Ne2000Part(const Ne2000Part&) = delete;
    Ne2000Part& operator=(const Ne2000Part&) = delete;
    // Backends go quiet first, then the workers.
    ~Ne2000Part();

    // Power-on of the ISA cards; the PCI bus resets the others. No CPU runs, no lock is held.
    void reset();

private:
    struct Item {
        explicit Item(EventLoop& loop) : worker(loop, lock) {}
        MutexLock lock;
        DeviceWorker worker;
        std::unique_ptr<ne2000::Ne2000> isa;
        std::unique_ptr<ne2000::Ne2000Pci> pci;
        [[nodiscard]] ne2000::Ne2000& card() const { return isa != nullptr ? *isa : pci->card(); }
    };

    explicit Ne2000Part(const Around& around)
        : around_(around), isa_pins_(around.isa_interrupts, around.board) {}
    Status add(const std::string& name, const NetConfig& net);

    Around around_;
    LockedPins isa_pins_;
    u16 taken_interrupts_ = 0;  // of ISA, by our cards
    std::vector<std::unique_ptr<Item>> items_;
};

}  // namespace tessera
