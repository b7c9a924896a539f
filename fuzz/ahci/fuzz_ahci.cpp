// A hostile guest and corrupt snapshots against the AHCI controller with disks and a CD drive.
#include "devices/ahci/ahci_rig.h"
#include "devices/testing/device_fuzz.h"

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer fixes this name.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    return tessera::testing_rig::fuzz_device<tessera::ahci::AhciRig>(data, size);
}
