// Inside fp/: the second half of lower_x87.
#pragma once

#include "cpu/soft/op.h"
#include "cpu/soft/vcpu.h"
#include "cpu/x86/insn.h"

namespace tessera::soft {

// x87_control.cpp: FNINIT, FNCLEX, FLDCW, FNSTSW, FLDENV, FNSAVE, FWAIT, ...; false for all others.
bool lower_x87_control(const x86::Insn& in, Op& op);

}  // namespace tessera::soft
