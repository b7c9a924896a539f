// A hostile guest, a stalling wire and corrupt snapshots against the UART.
#include "devices/testing/device_fuzz.h"
#include "devices/uart16550/uart16550_rig.h"

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer fixes this name.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    return tessera::testing_rig::fuzz_device<tessera::uart16550::UartRig>(data, size);
}
