// A few threads of the host for work that is over soon.
#pragma once

#include <cstddef>
#include <functional>

namespace tessera {

// Calls task(0) to task(count - 1), on this thread and, where the host has more CPUs, on some more. Returns
// when all are done. Tasks must not throw.
void run_parallel(std::size_t count, const std::function<void(std::size_t)>& task);

}  // namespace tessera
