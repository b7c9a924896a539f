// A PCI UART on the bench, in slot 0 of a bus of its own.
#pragma once

#include "base/assert.h"
#include "devices/pci/pci_rig.h"
#include "devices/pci_uart/pci_uart.h"
#include "devices/testing/device_rig.h"
#include "devices/uart16550/uart16550.h"
#include "devices/uart16550/uart16550_rig.h"

namespace tessera::pci_uart {

struct PciUartRig {
    class ChipSocket final : public Socket {
    public:
        IoStatus read(u64 offset, std::span<std::byte> out) override { return chip->read(offset, out); }
        IoStatus write(u64 offset, std::span<const std::byte> in) override { return chip->write(offset, in); }
        void reset() override { chip->reset(); }
        uart16550::Uart16550* chip = nullptr;
    };

    FakeClock clock;
    testing_rig::RecordingSink wires;
    pci::RecordingMessages messages;
    NullLock lock;
    IoBus ports;
    IoBus memory;
    pci::PciBus bus{{.ports = ports, .memory = memory, .messages = messages, .interrupts = wires}};
    uart16550::RecordingWire wire;
    ChipSocket socket;
    PciUart device{{.vendor = 0x7e55, .device = 4}, socket};
    uart16550::Uart16550 chip{IrqLine(device, 0), wire, clock, clock};
    bool attached = false;

    PciUartRig() {
        socket.chip = &chip;
        attached = bus.attach("serial card", {.device = 0}, device, lock).has_value();
    }

    u64 poke(testing_rig::Choices& choices) {
        switch (choices.below(8)) {
            case 0: return testing_rig::advance(clock, choices, 2'000'000);
            case 1: return chip.receive(static_cast<u8>(choices.bits())) ? 1 : 0;
            case 2:
            case 3: return testing_rig::poke_io(socket, kPortCount, choices);
            default: return pci::poke_config(device, choices);
        }
    }
    // The chip is saved on its own.
    void copy_surroundings(PciUartRig& from) {
        Saver saver;
        from.chip.visit_state(saver);
        Loader loader(saver);
        TESSERA_ASSERT(chip.load(loader).has_value(), "what a chip saves it takes");
    }
};

}  // namespace tessera::pci_uart
