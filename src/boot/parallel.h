// Work that may be done in pieces at the same time; who has threads lends them.
#pragma once

#include <cstddef>
#include <functional>

namespace tessera::boot {

// Calls `task(0)` to `task(count - 1)`, in any order and perhaps at the same time, and returns when all are
// done.
using ParallelFor = std::function<void(std::size_t count, const std::function<void(std::size_t)>& task)>;

// One after the other.
inline void one_by_one(std::size_t count, const std::function<void(std::size_t)>& task) {
    for (std::size_t n = 0; n < count; ++n) task(n);
}

}  // namespace tessera::boot
