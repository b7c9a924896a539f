// A hostile guest and corrupt snapshots against reset_control.
#include "devices/reset_control/reset_control_rig.h"
#include "devices/testing/device_fuzz.h"

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer fixes this name.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    return tessera::testing_rig::fuzz_device<tessera::reset_control::ResetControlRig>(data, size);
}
