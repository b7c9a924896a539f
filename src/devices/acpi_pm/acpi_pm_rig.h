// The ACPI block on the bench, for the shared suites and the fuzz target.
#pragma once

#include <array>
#include <vector>

#include "devices/acpi_pm/acpi_pm.h"
#include "devices/testing/device_rig.h"

namespace tessera::acpi_pm {

struct RecordingMachine final : MachineEvents {
    unsigned resets = 0;
    unsigned power_offs = 0;
    void request_reset(ResetSource /*source*/) override { ++resets; }
    void request_power_off() override { ++power_offs; }
};

template <TimerWidth Width>
struct AcpiPmRig {
    FakeClock clock;
    testing_rig::RecordingSink wires;
    RecordingMachine machine;
    AcpiPm device{{.s5_sleep_type = 5, .timer_width = Width}, IrqLine(wires, 9), machine, clock, clock};

    u64 poke(testing_rig::Choices& choices) {
        switch (choices.below(16)) {
            case 0: return testing_rig::advance(clock, choices, 3'000'000'000);
            case 1: return testing_rig::poke_io(device.gpe0(), kGpe0BlockSize, choices);
            case 2: device.set_gpe(static_cast<unsigned>(choices.below(20)), choices.coin()); return 0;
            case 3: return device.press_power_button() ? 1 : 0;
            case 4: device.rtc_alarm(); return 0;
            default: return testing_rig::poke_io(device, kPmBlockSize, choices);
        }
    }

    static constexpr std::array<unsigned, 1> kKeptByReset = {6};  // what the events' sources drive
};

using AcpiPmRig24 = AcpiPmRig<TimerWidth::Bits24>;
using AcpiPmRig32 = AcpiPmRig<TimerWidth::Bits32>;

}  // namespace tessera::acpi_pm
