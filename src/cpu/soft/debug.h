// Debug registers: breakpoints of all kinds, and what a #DB reports. [SDM 3B 17.2], [APM 2 13.1].
// GAP: branch trap (DEBUGCTL.BTF), last-branch records.
#pragma once

#include "cpu/soft/vcpu.h"

namespace tessera::soft {

namespace dr6 {
inline constexpr u64 kHits = 0xf, kBd = 1 << 13, kBs = 1 << 14, kBt = 1 << 15;
inline constexpr u64 kFixedOnes = 0xffff'0ff0;
}  // namespace dr6
namespace dr7 {
inline constexpr u64 kGd = 1 << 13;
inline constexpr u64 kFixedOnes = 0x400, kWritable = 0xffff'23ff;
}  // namespace dr7

// Updates DR6 and DR7.GD as the entry to a #DB handler does.
void report_debug(Vcpu& c, u64 causes);
// Collects hits of I/O breakpoints for the trap after this instruction.
void note_io_access(Vcpu& c, u16 port, unsigned size);

// MOV to and from DRn at CPL 0, with #UD, #GP and the general-detect #DB.
u64 read_debug_register(Vcpu& c, unsigned number);
void write_debug_register(Vcpu& c, unsigned number, u64 value);

}  // namespace tessera::soft
