// Pokes the 8254 and port 0x61 the way a hostile guest and a hostile snapshot would.
#include "devices/pit8254/pit8254_rig.h"
#include "devices/testing/device_fuzz.h"

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer fixes this name.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    return tessera::testing_rig::fuzz_device<tessera::pit8254::PitRig>(data, size);
}
