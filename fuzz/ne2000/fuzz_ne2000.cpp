// A hostile guest, a hostile cable and corrupt snapshots against the NE2000 boards.
#include "devices/ne2000/ne2000_rig.h"
#include "devices/testing/device_fuzz.h"

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer fixes this name.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    if ((data[0] & 1) != 0)
        return tessera::testing_rig::fuzz_device<tessera::ne2000::IsaRig>(data + 1, size - 1);
    return tessera::testing_rig::fuzz_device<tessera::ne2000::PciRig>(data + 1, size - 1);
}
