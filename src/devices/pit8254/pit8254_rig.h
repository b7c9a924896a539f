// An 8254 on the bench.
#pragma once

#include "devices/pit8254/pit8254.h"
#include "devices/testing/device_rig.h"

namespace tessera::pit8254 {

struct PitRig {
    FakeClock clock;
    testing_rig::RecordingSink wires;
    Pit8254 device{clock, clock, IrqLine(wires, 0)};

    u64 poke(testing_rig::Choices& choices) {
        switch (choices.below(8)) {
            case 0: return testing_rig::advance(clock, choices, 2'000);
            case 1: return testing_rig::advance(clock, choices, 2'000'000);
            case 2: return testing_rig::poke_io(device.speaker_port(), 1, choices);
            case 3: {  // a small count, so that something happens
                const u8 counter = static_cast<u8>(choices.below(3));
                put(3, static_cast<u8>(counter << 6 | 0x10 | choices.below(8) << 1 | choices.below(2)));
                put(counter, static_cast<u8>(choices.below(40)));
                return 0;
            }
            default: return testing_rig::poke_io(device.counter_ports(), 4, choices);
        }
    }

private:
    void put(u64 offset, u8 value) {
        const std::array<std::byte, 1> data{std::byte{value}};
        (void)device.counter_ports().write(offset, data);
    }
};

}  // namespace tessera::pit8254
