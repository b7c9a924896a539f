#include "machines/board/console_cable.h"

#include <algorithm>
#include <utility>

namespace tessera {

void ConsoleCable::plug_in(virtio_console::VirtioConsole& console, unsigned port) {
    console_ = &console;
    port_ = port;
    backend_.connect(this);
}

std::size_t ConsoleCable::receive(std::span<const u8> bytes) {
    std::size_t took = 0;
    {
        const std::lock_guard guard(mutex_);
        took = std::min(bytes.size(), kRoom - for_guest_.size());
        for_guest_.append(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(took));
        more_waits_ = took < bytes.size();
    }
    if (took != 0) console_->input(port_);
    return took;
}

std::size_t ConsoleCable::take(std::span<u8> bytes) {
    std::size_t took = 0;
    bool room = false;
    {
        const std::lock_guard guard(mutex_);
        took = std::min(bytes.size(), for_guest_.size());
        std::copy_n(for_guest_.begin(), took, bytes.begin());
        for_guest_.erase(0, took);
        room = took != 0 && std::exchange(more_waits_, false);
    }
    if (room) backend_.receive_ready();
    return took;
}

}  // namespace tessera
