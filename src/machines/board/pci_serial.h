// A serial port on a PCI card: card, chip, cable, and the lock that is theirs.
#pragma once

#include "backends/char/char_backend.h"
#include "devices/pci/board_bridges.h"
#include "devices/pci_uart/pci_uart.h"
#include "machines/board/serial_port.h"
#include "vm/host_timers.h"
#include "vm/vm.h"

namespace tessera {

class PciSerial {
public:
    PciSerial(CharBackend& backend, Vm& vm)
        : port_(IrqLine(function_, 0), backend, lock_, vm.clock(), vm.add_timers(lock_)) {
        backend.connect(&port_);
    }

    [[nodiscard]] pci::PciFunction& function() { return function_; }
    [[nodiscard]] Lock& lock() { return lock_; }

private:
    class Socket final : public pci_uart::Socket {
    public:
        explicit Socket(SerialPort& port) : port_(port) {}
        IoStatus read(u64 offset, std::span<std::byte> out) override { return port_.read(offset, out); }
        IoStatus write(u64 offset, std::span<const std::byte> in) override { return port_.write(offset, in); }
        void reset() override { port_.reset(); }

    private:
        SerialPort& port_;
    };

    MutexLock lock_;
    Socket socket_{port_};
    pci_uart::PciUart function_{{.vendor = pci::kTesseraVendor, .device = pci::kSerialPortId}, socket_};
    SerialPort port_;
};

}  // namespace tessera
