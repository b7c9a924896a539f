// An 8259A pair on the bench.
#pragma once

#include "devices/pic8259/pic8259.h"
#include "devices/testing/device_rig.h"

namespace tessera::pic8259 {

struct PicRig {
    testing_rig::RecordingSink wires;
    Pic8259Pair device{IrqLine(wires, 0)};

    static constexpr std::array<unsigned, 1> kKeptByReset = {1};  // the pins' levels come from outside

    u64 poke(testing_rig::Choices& choices) {
        const u64 seen = act(choices);
        return seen << 1 | u64{device.requests()};
    }

private:
    u64 act(testing_rig::Choices& choices) {
        switch (choices.below(10)) {
            case 0:
            case 1:
            case 2: device.set_level(static_cast<unsigned>(choices.below(18)), choices.coin()); return 0;
            case 3:
            case 4: return device.acknowledge();
            case 5: return initialise(device.master_ports(), 0x08, 0x04, choices);
            case 6: return initialise(device.slave_ports(), 0x70, 0x02, choices);
            case 7: return testing_rig::poke_io(device.master_ports(), 2, choices);
            case 8: return testing_rig::poke_io(device.slave_ports(), 2, choices);
            default: return testing_rig::poke_io(device.elcr_ports(), 2, choices);
        }
    }
    // Random bytes rarely make a sequence that ends in operation.
    u64 initialise(IoDevice& ports, u8 base, u8 cascade, testing_rig::Choices& choices) {
        const auto put = [&](u64 offset, u8 value) {
            const std::array<std::byte, 1> data{std::byte{value}};
            (void)ports.write(offset, data);
        };
        put(0, choices.below(4) == 0 ? 0x19 : 0x11);
        put(1, base);
        put(1, cascade);
        put(1, static_cast<u8>(1 | (choices.bits() & 0x12)));
        put(1, choices.coin() ? 0 : static_cast<u8>(choices.bits()));
        return 0;
    }
};

}  // namespace tessera::pic8259
