// Short names for the architecture's vocabulary, for the files of the privileged side, which speak of little
// else.
#pragma once

#include "cpu/x86/insn.h"
#include "cpu/x86/state.h"

namespace tessera::soft {

using enum x86::Gpr;
using enum x86::Seg;
using enum x86::Vector;

namespace cr0 = x86::cr0;
namespace cr4 = x86::cr4;
namespace efer = x86::efer;
namespace eflags = x86::eflags;
namespace rights = x86::rights;

using x86::Activity;
using x86::CodeSize;
using x86::DescriptorTable;
using x86::Msrs;
using x86::Seg;
using x86::Segment;
using x86::State;

}  // namespace tessera::soft
