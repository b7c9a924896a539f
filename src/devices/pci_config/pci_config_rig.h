// The PCI configuration ports on the bench, for the shared suites and the fuzz target.
#pragma once

#include "devices/pci_config/pci_config.h"
#include "devices/testing/device_rig.h"

namespace tessera::pci_config {

// Stands in for the reset register.
class OneByte final : public IoDevice {
public:
    IoStatus read(u64 /*offset*/, std::span<std::byte> out) override {
        out[0] = std::byte{0x5a};
        return IoStatus::Ok;
    }
    IoStatus write(u64 /*offset*/, std::span<const std::byte> in) override {
        last = in[0];
        return IoStatus::Ok;
    }
    std::byte last{};
};

struct PciConfigRig {
    OneByte reset_register;
    PciConfig device{reset_register};

    u64 poke(testing_rig::Choices& choices) { return testing_rig::poke_io(device, kPortCount, choices); }
};

}  // namespace tessera::pci_config
