// What the rest of the interpreter calls in its x87, MMX and vector part.
//
// While a vCPU runs, the host's MXCSR holds the guest's rounding, FTZ and DAZ modes (all exceptions masked)
// and collects the guest's sticky flags, and after the first x87 instruction the host's x87 registers hold
// the guest's. So code between fp_enter and fp_leave must not use long double, and float or double only with
// care.
#pragma once

#include "cpu/soft/vcpu.h"

namespace tessera::soft {

// The dispatcher's run(): before the first and after the last guest instruction, on the thread that executes
// them.
void fp_enter(Vcpu& c);
void fp_leave(Vcpu& c);  // Vcpu::fpu and mxcsr are true afterwards; the host has its default modes

// Makes Vcpu::fpu and Vcpu::mxcsr true in the middle of a run (to show the state to a tracer).
void fp_sync(Vcpu& c);
// Makes Vcpu::fpu true and the host's x87 registers empty.
void x87_save(Vcpu& c);

// Recomputes Vcpu::fp_traps from CR0, CR4, XCR0, VM, MXCSR and the x87 state. Call it after a change to any
// of these, also after Vcpu::fpu or mxcsr were replaced (which may be done only while x87 is not live).
void update_fp_enables(Vcpu& c);

}  // namespace tessera::soft
