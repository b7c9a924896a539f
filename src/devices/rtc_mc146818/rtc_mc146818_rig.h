// The real-time clock on the bench, for the shared suites and the fuzz target.
#pragma once

#include <array>

#include "devices/rtc_mc146818/rtc_mc146818.h"
#include "devices/testing/device_rig.h"

namespace tessera::rtc_mc146818 {

struct RtcRig {
    // 2024-02-28 23:59:58 UTC, a Wednesday.
    static constexpr u64 kWallBaseNs = 1'709'164'798'000'000'000;

    FakeClock clock;
    testing_rig::RecordingSink wires;
    Rtc device{{}, IrqLine(wires, 8), at_wall_base(clock), clock};

    static FakeClock& at_wall_base(FakeClock& clock) {
        clock.wall_base_ns = kWallBaseNs;
        return clock;
    }

    u64 poke(testing_rig::Choices& choices) {
        u64 seen = 0;
        switch (choices.below(8)) {
            case 0: seen = testing_rig::advance(clock, choices, 3'000'000'000); break;
            case 1: seen = testing_rig::advance(clock, choices, 100'000'000'000'000); break;
            case 2:
                seen =
                    device.preset(static_cast<u8>(choices.bits()), static_cast<u8>(choices.bits())) ? 1 : 0;
                break;
            case 3: write(0, static_cast<u8>(choices.below(14))); break;  // the registers, not the memory
            default: seen = testing_rig::poke_io(device, kPortCount, choices); break;
        }
        // Looking brings the flags up to date, so that a reset finds nothing left to account for.
        write(0, kRegisterB);
        std::array<std::byte, 1> buffer{};
        (void)device.read(1, buffer);
        write(0, static_cast<u8>(choices.below(64)));
        return seen * 257 + std::to_integer<u64>(buffer[0]);
    }

    void write(u64 offset, u8 value) {
        const std::array<std::byte, 1> buffer{std::byte{value}};
        (void)device.write(offset, buffer);
    }

    // The battery: memory, divider, format and time.
    static constexpr std::array<unsigned, 8> kKeptByReset = {1, 4, 5, 8, 9, 10, 11, 12};
};

}  // namespace tessera::rtc_mc146818
