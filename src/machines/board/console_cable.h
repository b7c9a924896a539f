// The cable between a port of a virtio console and its backend: bytes for the guest wait in it until the
// device's thread takes them.
#pragma once

#include <mutex>
#include <span>
#include <string>

#include "backends/char/char_backend.h"
#include "devices/virtio_console/virtio_console.h"

namespace tessera {

class ConsoleCable final : public CharPeer, public virtio_console::PortWire {
public:
    explicit ConsoleCable(CharBackend& backend) : backend_(backend) {}

    // With a transport around the device and nobody using it yet; and before they part.
    void plug_in(virtio_console::VirtioConsole& console, unsigned port);
    void unplug() { backend_.connect(nullptr); }

    // The backend's side: on its thread, without the device's lock.
    std::size_t receive(std::span<const u8> bytes) override;
    void receive_break() override {}  // there is no such thing here
    void transmit_ready() override { console_->room(port_); }
    void attended(bool somebody) override { console_->set_held(port_, somebody); }
    void resized(u16 columns, u16 rows) override { console_->resize(port_, columns, rows); }

    // The device's side.
    std::size_t put(std::span<const u8> bytes) override { return backend_.put_some(bytes); }
    std::size_t take(std::span<u8> bytes) override;

private:
    static constexpr std::size_t kRoom = 4096;

    CharBackend& backend_;
    virtio_console::VirtioConsole* console_ = nullptr;
    unsigned port_ = 0;

    std::mutex mutex_;
    std::string for_guest_;
    bool more_waits_ = false;  // at the backend, for which there was no room
};

}  // namespace tessera
