// The reset control register (port 0xCF9), which is also the machine's ACPI reset register: write 0x06.
// Leaves out the difference between a soft, a hard and a power-cycle reset: each resets the whole machine.
#pragma once

#include <span>

#include "base/flags.h"
#include "base/result.h"
#include "bus/io_device.h"
#include "devices/reset_control/machine_events.h"
#include "devices/reset_control/reset_control_regs.h"
#include "snapshot/state_visitor.h"

namespace tessera::reset_control {

inline constexpr u64 kRegisterCount = 1;

class ResetControl final : public IoDevice {
public:
    explicit ResetControl(MachineEvents& machine) : machine_(machine) {}

    // One byte wide; anything else is refused with BadWidth.
    IoStatus read(u64 offset, std::span<std::byte> out) override;
    IoStatus write(u64 offset, std::span<const std::byte> in) override;
    void reset() { state_ = {}; }

    void visit_state(StateVisitor& v) { visit(v, state_); }
    Status load(StateVisitor& v);

private:
    struct State {
        Flags<RstCnt> control;
    };
    static void visit(StateVisitor& v, State& s);

    State state_;
    MachineEvents& machine_;
};

static_assert(Snapshotable<ResetControl>);

}  // namespace tessera::reset_control
