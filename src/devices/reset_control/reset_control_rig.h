// The reset register on the bench, for the shared suites and the fuzz target.
#pragma once

#include <vector>

#include "devices/reset_control/reset_control.h"
#include "devices/testing/device_rig.h"

namespace tessera::reset_control {

struct RecordingMachine final : MachineEvents {
    std::vector<ResetSource> resets;
    unsigned power_offs = 0;
    void request_reset(ResetSource source) override {
        if (resets.size() < 1000) resets.push_back(source);
    }
    void request_power_off() override { ++power_offs; }
};

struct ResetControlRig {
    RecordingMachine machine;
    ResetControl device{machine};

    u64 poke(testing_rig::Choices& choices) { return testing_rig::poke_io(device, kRegisterCount, choices); }
};

}  // namespace tessera::reset_control
