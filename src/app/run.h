// `tessera run`.
#pragma once

#include "app/exit_code.h"
#include "app/options.h"

namespace tessera::app {

// Boots, waits for the end, and says on standard error why it ended if that was not a power-off.
[[nodiscard]] ExitCode run(const RunOptions& options);

}  // namespace tessera::app
