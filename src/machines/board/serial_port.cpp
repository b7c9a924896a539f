#include "machines/board/serial_port.h"

namespace tessera {

IoStatus SerialPort::read(u64 offset, std::span<std::byte> out) {
    const IoStatus status = uart_.read(offset, out);
    notice_room();
    return status;
}

IoStatus SerialPort::write(u64 offset, std::span<const std::byte> in) {
    const IoStatus status = uart_.write(offset, in);
    notice_room();
    return status;
}

void SerialPort::reset() {
    uart_.reset();
    notice_room();
}

void SerialPort::notice_room() {
    if (!input_waits_ || uart_.receive_room() == 0) return;
    input_waits_ = false;
    backend_.receive_ready();
}

std::size_t SerialPort::receive(std::span<const u8> bytes) {
    const LockGuard guard(board_);
    const std::size_t took = uart_.receive(bytes);
    if (took < bytes.size()) input_waits_ = true;
    return took;
}

void SerialPort::receive_break() {
    const LockGuard guard(board_);
    uart_.receive_break();
}

void SerialPort::transmit_ready() {
    const LockGuard guard(board_);
    uart_.transmit_ready();
}

}  // namespace tessera
