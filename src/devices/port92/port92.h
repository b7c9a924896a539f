// Port 0x92, the PS/2's system control port A [PS2-TRM]: fast A20 and fast reset. Leaves out the password
// lock and the lights.
#pragma once

#include <span>

#include "base/flags.h"
#include "base/result.h"
#include "bus/io_device.h"
#include "devices/reset_control/a20_gate.h"
#include "devices/reset_control/machine_events.h"
#include "snapshot/state_visitor.h"

namespace tessera::port92 {

inline constexpr u64 kRegisterCount = 1;

// [PS2-TRM] "System control port A".
enum class ControlA : u8 {
    FastReset = 1 << 0,
    A20 = 1 << 1,
    SecurityLock = 1 << 3,
    WatchdogStatus = 1 << 4,
    LightA = 1 << 6,
    LightB = 1 << 7,
};

class Port92 final : public IoDevice {
public:
    Port92(MachineEvents& machine, A20Gate& a20) : machine_(machine), a20_(a20) {}

    // One byte wide; anything else is refused with BadWidth.
    IoStatus read(u64 offset, std::span<std::byte> out) override;
    IoStatus write(u64 offset, std::span<const std::byte> in) override;
    // A20 on, as firmware leaves it.
    void reset();

    void visit_state(StateVisitor& v) { visit(v, state_); }
    Status load(StateVisitor& v);

private:
    struct State {
        Flags<ControlA> control = ControlA::A20;
    };
    static void visit(StateVisitor& v, State& s);
    void drive_a20() { a20_.set_a20(A20Driver::Port92, state_.control.has(ControlA::A20)); }

    State state_;
    MachineEvents& machine_;
    A20Gate& a20_;
};

static_assert(Snapshotable<Port92>);

}  // namespace tessera::port92
