// An I/O APIC on the bench, with a fabric that remembers the last message.
#pragma once

#include "devices/ioapic/ioapic.h"
#include "devices/testing/device_rig.h"

namespace tessera::ioapic {

struct IoApicRig {
    struct LastMessage final : ApicFabric {
        ApicMessage last;
        u64 count = 0;
        void deliver(const ApicMessage& message) override {
            last = message;
            ++count;
        }
    };

    LastMessage fabric;
    IoApic device{{.id = 2, .active_low_pins = 0x00f0'0000}, fabric};

    static constexpr std::array<unsigned, 1> kKeptByReset = {3};  // the pins' levels come from outside

    u64 poke(testing_rig::Choices& choices) {
        const u64 before = fabric.count;
        const u64 seen = act(choices);
        return seen ^
               (fabric.count == before ? 0
                                       : u64{fabric.last.vector} << 40 ^ u64{fabric.last.destination} << 32);
    }

private:
    u64 act(testing_rig::Choices& choices) {
        switch (choices.below(6)) {
            case 0:
            case 1: device.set_level(static_cast<unsigned>(choices.below(26)), choices.coin()); return 0;
            case 2: device.end_of_interrupt(static_cast<u8>(choices.bits())); return 0;
            case 3: return testing_rig::poke_io(device, IoApic::kSize, choices);
            default: {
                std::array<std::byte, 4> data{static_cast<std::byte>(choices.below(0x44))};
                (void)device.write(0x00, data);
                if (choices.coin()) {
                    const auto value = static_cast<u32>(choices.bits());
                    for (unsigned i = 0; i < 4; ++i) data[i] = static_cast<std::byte>(value >> (8 * i));
                    return static_cast<u64>(device.write(0x10, data));
                }
                (void)device.read(0x10, data);
                return std::to_integer<u64>(data[0]) | std::to_integer<u64>(data[1]) << 8 |
                       std::to_integer<u64>(data[2]) << 16 | std::to_integer<u64>(data[3]) << 24;
            }
        }
    }
};

}  // namespace tessera::ioapic
