// Pokes the 8259A pair the way a hostile guest, restless devices and a hostile snapshot would.
#include "devices/pic8259/pic8259_rig.h"
#include "devices/testing/device_fuzz.h"

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer fixes this name.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    return tessera::testing_rig::fuzz_device<tessera::pic8259::PicRig>(data, size);
}
