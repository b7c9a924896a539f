// The table `tessera run --stats` prints at the end, and Ctrl-a s while the guest runs.
#pragma once

#include <string>

#include "vm/vm.h"

namespace tessera::app {

// One line a figure, one column a CPU and, with several CPUs, one for all of them.
[[nodiscard]] std::string statistics_table(const VmStatistics& statistics);

}  // namespace tessera::app
