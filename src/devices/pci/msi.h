// MSI: up to 32 messages that share an address, in configuration space, with 64-bit addresses and a mask for
// each [PCI 6.8.1].
#pragma once

#include "base/types.h"
#include "devices/pci/config_space.h"

namespace tessera::pci {

// Has no state beside the capability's registers, which configuration space saves and resets.
class Msi final : private ConfigWatcher {
public:
    // `messages` is a power of two, at most 32.
    Msi(ConfigSpace& config, unsigned messages);

    // The guest uses MSI instead of the pin.
    [[nodiscard]] bool enabled() const;
    // How many messages the guest granted.
    [[nodiscard]] unsigned granted() const;
    // Sends a message, or remembers it while masked. Messages beyond those granted wrap, as [PCI 6.8.1.3]
    // lets a function change only the granted bits of the data. Ignored when not enabled.
    void signal(unsigned message);

private:
    void config_written() override;
    void send_or_hold(unsigned message);

    ConfigSpace& config_;
    unsigned most_log2_;
    u16 base_ = 0;  // where the capability is
};

}  // namespace tessera::pci
