// What the software CPU needs of the host besides its instructions: memory it may write code to and run.
#pragma once

#include "base/result.h"

namespace tessera::soft {

// Tries what the translator does: one memfd mapped twice, writable and executable, a function written through
// the one mapping and called through the other. The error names the step that was refused, and how; then the
// interpreter runs the guest. Thread-safe; tried anew with every call.
[[nodiscard]] Status probe_code_memory();

}  // namespace tessera::soft
