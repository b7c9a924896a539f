// A hostile driver and corrupt snapshots against the core of virtio devices; the first byte chooses transport
// and ring.
#include "devices/virtio/testing/fuzz_virtio.h"

#include "devices/virtio/testing/echo_device.h"

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer fixes this name.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    return tessera::virtio::fuzz_virtio<tessera::virtio::EchoKit>(data, size);
}
