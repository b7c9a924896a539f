// A hostile driver and corrupt snapshots against the socket device; the first byte chooses transport and
// ring.
#include "devices/virtio/testing/fuzz_virtio.h"
#include "devices/virtio_vsock/virtio_vsock_rig.h"

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer fixes this name.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    return tessera::virtio::fuzz_virtio<tessera::virtio_vsock::VsockKit>(data, size);
}
