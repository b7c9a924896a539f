// What chips ask of the machine as a whole: to be reset, or to be switched off.
#pragma once

#include "base/types.h"

namespace tessera {

// Who asked, for logs and for the exit code under --no-reboot.
enum class ResetSource : u8 { ResetRegister, KeyboardController, Port92, TripleFault, Host };

// Called with the asking device's lock held, on whatever thread the access ran: an implementation must be
// thread-safe, only take a note of the request and return at once. The machine acts when its CPUs have
// stopped, so a guest may execute a few more instructions after the access that asked.
class MachineEvents {
public:
    MachineEvents() = default;
    MachineEvents(const MachineEvents&) = delete;
    MachineEvents& operator=(const MachineEvents&) = delete;
    virtual ~MachineEvents() = default;

    virtual void request_reset(ResetSource source) = 0;
    virtual void request_power_off() = 0;
};

}  // namespace tessera
