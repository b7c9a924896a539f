// A hostile guest, keys, mouse and corrupt snapshots against the keyboard controller.
#include "devices/i8042/i8042_rig.h"
#include "devices/testing/device_fuzz.h"

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer fixes this name.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    return tessera::testing_rig::fuzz_device<tessera::i8042::I8042Rig>(data, size);
}
