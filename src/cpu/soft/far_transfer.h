// Far jumps, calls and returns, as operations (the instructions that use them are in lower_system.cpp).
#pragma once

#include "cpu/soft/vcpu.h"

namespace tessera::soft {

// `size` is the operand size in bytes. c.rip must be the address of the next instruction.
void far_jump(Vcpu& c, u16 selector, u64 offset, unsigned size);
void far_call(Vcpu& c, u16 selector, u64 offset, unsigned size);
void far_return(Vcpu& c, unsigned size, u64 release);
void interrupt_return(Vcpu& c, unsigned size);

}  // namespace tessera::soft
