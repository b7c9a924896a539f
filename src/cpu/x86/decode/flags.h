// The status flags an instruction reads, writes and leaves undefined, from its row and its operands.
#pragma once

#include "cpu/x86/decode/form.h"

namespace tessera::x86::tables {

// Sets Insn's flags_read, flags_written, flags_undefined, and `condition` of Jcc, SETcc, CMOVcc; all else is
// set already.
void set_flags(const Form& form, Insn& insn);

}  // namespace tessera::x86::tables
