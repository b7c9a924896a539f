// An HPET on the bench.
#pragma once

#include <vector>

#include "devices/hpet/hpet.h"
#include "devices/testing/device_rig.h"

namespace tessera::hpet {

struct RecordingMessages final : MessageSink {
    struct Message {
        u64 address;
        u32 data;
        friend bool operator==(const Message&, const Message&) = default;
    };
    std::vector<Message> sent;
    void send(u64 address, u32 data) override {
        if (sent.size() < 100'000) sent.push_back({address, data});
    }
};

struct HpetRig {
    static constexpr unsigned kLegacySelected = 63;
    FakeClock clock;
    testing_rig::RecordingSink wires;  // pins 20 to 23, and kLegacySelected
    testing_rig::RecordingSink legacy;
    RecordingMessages messages;
    Hpet device{0x7e55,
                {.io_apic = wires,
                 .legacy = legacy,
                 .legacy_selected = IrqLine(wires, kLegacySelected),
                 .messages = messages},
                clock,
                clock};

    u64 poke(testing_rig::Choices& choices) {
        switch (choices.below(8)) {
            case 0: return testing_rig::advance(clock, choices, 20'000);
            case 1: return testing_rig::advance(clock, choices, 200'000'000);
            case 2: {  // a timer that does something soon
                const u64 timer = 0x100 + 0x20 * choices.below(3);
                put(timer, (choices.bits() & 0xf4e) | 4 | (20 + choices.below(4)) << 9);
                put(timer + 8, choices.below(100'000));
                return put(0x10, 1 | choices.below(4));
            }
            default: return testing_rig::poke_io(device, 0x180, choices);
        }
    }

private:
    u64 put(u64 offset, u64 value) {
        std::array<std::byte, 8> data{};
        for (std::byte& b : data) {
            b = static_cast<std::byte>(value);
            value >>= 8;
        }
        return static_cast<u64>(device.write(offset, data));
    }
};

}  // namespace tessera::hpet
