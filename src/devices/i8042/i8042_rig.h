// The keyboard controller on the bench, for the shared suites and the fuzz target.
#pragma once

#include <array>
#include <vector>

#include "devices/i8042/i8042.h"
#include "devices/testing/device_rig.h"

namespace tessera::i8042 {

struct RecordingMachine final : MachineEvents {
    std::vector<ResetSource> resets;
    void request_reset(ResetSource source) override {
        if (resets.size() < 1000) resets.push_back(source);
    }
    void request_power_off() override {}
};

struct I8042Rig {
    static constexpr unsigned kKeyboardPin = 1;
    static constexpr unsigned kMousePin = 12;

    FakeClock clock;
    testing_rig::RecordingSink wires;
    RecordingMachine machine;
    A20Latch a20;
    I8042 device{IrqLine(wires, kKeyboardPin), IrqLine(wires, kMousePin), machine, a20, clock, clock};

    u64 poke(testing_rig::Choices& choices) {
        switch (choices.below(16)) {
            case 0: return testing_rig::advance(clock, choices, 600'000'000);
            case 1:
            case 2:
                return device.key(static_cast<u8>(choices.below(256)),
                                  choices.coin() ? KeyAction::Press : KeyAction::Release)
                           ? 1
                           : 0;
            case 3:
                device.mouse_move(static_cast<s32>(choices.bits()), static_cast<s32>(choices.bits()) % 300,
                                  static_cast<s32>(choices.bits()) % 10);
                return 0;
            case 4: device.mouse_buttons(static_cast<u8>(choices.bits())); return 0;
            // The commands and arguments that mean something are mostly high and mostly low.
            case 5: return write(device.command_port(), static_cast<u8>(0xa0 | choices.bits()));
            case 6: return write(device.command_port(), choices.coin() ? 0xd4 : 0x60);
            case 7: return write(device.data_port(), static_cast<u8>(0xe0 | choices.bits()));
            case 8: return write(device.data_port(), static_cast<u8>(choices.below(256)));
            case 9: return testing_rig::poke_io(device.command_port(), 1, choices);
            default: return testing_rig::poke_io(device.data_port(), 1, choices);
        }
    }

    static u64 write(IoDevice& port, u8 value) {
        const std::array<std::byte, 1> buffer{std::byte{value}};
        return static_cast<u64>(port.write(0, buffer));
    }
};

}  // namespace tessera::i8042
