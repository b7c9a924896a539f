// Port 0x92 on the bench, for the shared suites and the fuzz target.
#pragma once

#include <vector>

#include "devices/port92/port92.h"
#include "devices/testing/device_rig.h"

namespace tessera::port92 {

struct RecordingMachine final : MachineEvents {
    std::vector<ResetSource> resets;
    void request_reset(ResetSource source) override {
        if (resets.size() < 1000) resets.push_back(source);
    }
    void request_power_off() override {}
};

struct Port92Rig {
    RecordingMachine machine;
    A20Latch a20;
    Port92 device{machine, a20};

    u64 poke(testing_rig::Choices& choices) { return testing_rig::poke_io(device, kRegisterCount, choices); }
};

}  // namespace tessera::port92
