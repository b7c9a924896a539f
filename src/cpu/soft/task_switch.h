// Hardware task switching [SDM 3A 7.3].
#pragma once

#include "cpu/soft/segment.h"

namespace tessera::soft {

enum class TaskSwitch : u8 { Jump, Call, Return, Gate };

// Switches to the task whose (checked for privilege) TSS descriptor is `d`. `error`: pushed on the new task's
// stack when an exception with an error code came through a task gate.
void task_switch(Vcpu& c, u16 selector, const Descriptor& d, TaskSwitch reason, const Fault* error);

// Through the TSS selector of a task gate: checks it (#GP, #NP) and switches.
void task_gate(Vcpu& c, const Descriptor& gate, TaskSwitch reason, const Fault* error);

}  // namespace tessera::soft
