// A 16550A and its cable: the chip on the board's bus, a backend at the far end, the lock in between.
#pragma once

#include <span>
#include <utility>

#include "backends/char/char_backend.h"
#include "base/clock.h"
#include "bus/io_device.h"
#include "bus/lock.h"
#include "devices/uart16550/uart16550.h"

namespace tessera {

// As an IoDevice it passes accesses on to the chip, and notices when the guest has made room for more input.
class SerialPort final : public IoDevice, public CharPeer, private uart16550::Wire {
public:
    // `board` is the lock the bus takes for this device.
    SerialPort(IrqLine irq, CharBackend& backend, Lock& board, Clock& clock, TimerQueue& timers)
        : backend_(backend), board_(board), uart_(std::move(irq), wire(), clock, timers) {}

    IoStatus read(u64 offset, std::span<std::byte> out) override;
    IoStatus write(u64 offset, std::span<const std::byte> in) override;
    // With the board's lock held.
    void reset();

    std::size_t receive(std::span<const u8> bytes) override;
    void receive_break() override;
    void transmit_ready() override;

private:
    [[nodiscard]] uart16550::Wire& wire() { return *this; }
    bool put(u8 byte) override { return backend_.put(byte); }
    void notice_room();

    CharBackend& backend_;
    Lock& board_;
    uart16550::Uart16550 uart_;
    bool input_waits_ = false;  // the backend holds bytes for which there was no room
};

}  // namespace tessera
