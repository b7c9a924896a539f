// The UART on the bench, for the shared suites and the fuzz target.
#pragma once

#include <array>

#include "devices/testing/device_rig.h"
#include "devices/uart16550/uart16550.h"

namespace tessera::uart16550 {

struct RecordingWire final : Wire {
    std::vector<u8> bytes;
    std::size_t room = ~std::size_t{0};  // how many more it takes
    std::vector<bool> breaks;
    bool dtr = false;
    bool rts = false;

    bool put(u8 byte) override {
        if (room == 0) return false;
        --room;
        if (bytes.size() < 100'000) bytes.push_back(byte);
        return true;
    }
    void set_break(bool on) override {
        if (breaks.size() < 1000) breaks.push_back(on);
    }
    void set_modem_control(bool d, bool r) override {
        dtr = d;
        rts = r;
    }
};

struct UartRig {
    FakeClock clock;
    testing_rig::RecordingSink wires;
    RecordingWire wire;
    Uart16550 device{IrqLine(wires, 4), wire, clock, clock};

    u64 poke(testing_rig::Choices& choices) {
        // Chosen anew each time, because the wire's room is not part of a snapshot.
        wire.room = choices.below(3) == 0 ? 0 : choices.below(20);
        switch (choices.below(16)) {
            case 0: return testing_rig::advance(clock, choices, 2'000'000);
            case 1: {
                std::array<u8, 20> bytes{};
                for (u8& b : bytes) b = static_cast<u8>(choices.bits());
                return device.receive(std::span(bytes).first(choices.below(bytes.size() + 1)));
            }
            case 2: device.receive_break(); return 0;
            case 3:
                device.set_modem_inputs({.cts = choices.coin(),
                                         .dsr = choices.coin(),
                                         .ri = choices.coin(),
                                         .dcd = choices.coin()});
                return 0;
            case 4: device.transmit_ready(); return 0;
            case 5: return device.receive_room();
            default: return testing_rig::poke_io(device, kRegisterCount, choices);
        }
    }

    static constexpr std::array<unsigned, 1> kKeptByReset = {7};  // the far end's wires
};

}  // namespace tessera::uart16550
