// `tessera run`.
#pragma once

#include <chrono>

#include "app/exit_code.h"
#include "app/options.h"

namespace tessera::app {

// Boots, waits for the end, and says on standard error why it ended if that was not a power-off.
// `begin` is when the command was executed.
[[nodiscard]] ExitCode run(const RunOptions& options, std::chrono::steady_clock::time_point begin);

}  // namespace tessera::app
