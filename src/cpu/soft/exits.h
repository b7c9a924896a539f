// Why a virtual CPU left the straight course of the guest's instructions, how often, and what that took: what
// would be exits of a processor with hardware help, and what only a software CPU has to do. For --stats.
#pragma once

#include <array>
#include <vector>

#include "cpu/cpu.h"
#include "cpu/soft/soft_system.h"
#include "cpu/soft/vcpu.h"

namespace tessera::soft {

// Counts one; its time as well, if time is taken (SoftCpuConfig::count). No destructor does this: faults
// leave by longjmp, and what faults counts as an exception.
//
//     const u64 begun = exit_begin(c);
//     ... the work ...
//     exit_end(c, ExitCause::PortRead, begun);
[[nodiscard]] inline u64 exit_begin(const Vcpu& c) {
    return c.exits.timed ? c.system->world().tsc.ticks() : 0;
}
inline void exit_end(Vcpu& c, ExitCause cause, u64 begun) {
    ExitTally::One& one = c.exits.of[static_cast<std::size_t>(cause)];
    ++one.count;
    if (c.exits.timed) one.ticks += c.system->world().tsc.ticks() - begun;
}

// Appends all of them.
void exit_statistics(const Vcpu& c, std::vector<Statistic>& out);

}  // namespace tessera::soft
