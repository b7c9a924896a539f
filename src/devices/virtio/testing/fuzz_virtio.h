// The body of a virtio device's fuzz target: every transport, every ring.
#pragma once

#include "devices/testing/device_fuzz.h"
#include "devices/virtio/testing/bench.h"

namespace tessera::virtio {

template <typename Kit>
int fuzz_virtio(const u8* data, std::size_t size) {
    if (size == 0) return 0;
    const u8* const rest = std::span(data, size).subspan(1).data();
    using testing_rig::fuzz_device;
    switch (data[0] % 5) {
        case 0: return fuzz_device<Bench<Kit, OverMmio, RingKind::Split>>(rest, size - 1);
        case 1: return fuzz_device<Bench<Kit, OverMmio, RingKind::Packed>>(rest, size - 1);
        case 2: return fuzz_device<Bench<Kit, OverPci<PciInterrupts::Pin>, RingKind::Split>>(rest, size - 1);
        case 3:
            return fuzz_device<Bench<Kit, OverPci<PciInterrupts::Messages>, RingKind::Split>>(rest, size - 1);
        default:
            return fuzz_device<Bench<Kit, OverPci<PciInterrupts::Messages>, RingKind::Packed>>(rest,
                                                                                               size - 1);
    }
}

}  // namespace tessera::virtio
