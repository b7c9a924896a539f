// A hostile guest and corrupt snapshots against rtc_mc146818.
#include "devices/rtc_mc146818/rtc_mc146818_rig.h"
#include "devices/testing/device_fuzz.h"

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer fixes this name.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    return tessera::testing_rig::fuzz_device<tessera::rtc_mc146818::RtcRig>(data, size);
}
