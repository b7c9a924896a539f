// What the CPU offers to guests that know they are virtual, in the form they know: KVM's clock, end of
// interrupt and hypercalls (CPUID 0x40000100). [LINUX-KVM]
#pragma once

#include "cpu/soft/vcpu.h"

namespace tessera::soft {

// The MSRs 0x4b564d00 to 0x4b564d06; false: #GP(0).
[[nodiscard]] bool read_paravirt_msr(Vcpu& c, u32 index, u64& value);
[[nodiscard]] bool write_paravirt_msr(Vcpu& c, u32 index, u64 value);

// Brings the guest's clock page up to date, after the TSC has been moved or the state was loaded; and what
// KVM's steal time says of preemption.
void refresh_paravirt_clock(Vcpu& c);

// After an interrupt was taken: lets the guest end it by clearing a bit in memory, if nothing depends on
// when.
void offer_paravirt_eoi(Vcpu& c, u8 vector);
// Whether the guest has done so; then the APIC learns of it. Takes the offer back if interrupts are waiting
// for the end of this one.
void poll_paravirt_eoi(Vcpu& c);
// The guest is about to use the APIC itself: the offer ends.
void end_paravirt_eoi(Vcpu& c);

}  // namespace tessera::soft
