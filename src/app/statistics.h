// The table `tessera run --stats` prints at the end, and Ctrl-a s while the guest runs.
#pragma once

#include <chrono>
#include <string>

#include "vm/vm.h"

namespace tessera::app {

// When this process was executed: now, less the processor time it has used. Near the truth in main() only.
[[nodiscard]] std::chrono::steady_clock::time_point process_begin();

// One line a figure, one column a CPU and, with several CPUs, one for all of them; then the exits by reason,
// of all CPUs together. `begin` is when the command was.
[[nodiscard]] std::string statistics_table(const VmStatistics& statistics,
                                           std::chrono::steady_clock::time_point begin);

}  // namespace tessera::app
