// A hostile guest and corrupt snapshots against port 0x92.
#include "devices/port92/port92_rig.h"
#include "devices/testing/device_fuzz.h"

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer fixes this name.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    return tessera::testing_rig::fuzz_device<tessera::port92::Port92Rig>(data, size);
}
