// A fuzz target from a rig (see device_rig.h), in `fuzz/<chip>/fuzz_<chip>.cpp`:
//
//     // NOLINTNEXTLINE(readability-identifier-naming): libFuzzer fixes this name.
//     extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
//         return tessera::testing_rig::fuzz_device<PitRig>(data, size);
//     }
#pragma once

#include <cstdlib>

#include "devices/testing/device_rig.h"

namespace tessera::testing_rig {

// Pokes, resets, saves, reloads (own state and corrupted state); aborts when a snapshot does not hold
// everything.
template <DeviceRig R>
int fuzz_device(const u8* data, std::size_t size) {
    FuzzedChoices choices(std::span(data, size));
    R rig;
    while (!choices.done()) {
        switch (choices.below(64)) {
            case 0: rig.device.reset(); break;
            case 1: {
                const Saved before = saved(rig);
                if (!load(rig, before) || saved(rig) != before) std::abort();
                break;
            }
            case 2: {
                Saved bad = saved(rig);
                corrupt(bad, choices);
                (void)load(rig, bad);
                break;
            }
            default: (void)rig.poke(choices); break;
        }
    }
    return 0;
}

}  // namespace tessera::testing_rig
