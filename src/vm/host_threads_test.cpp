#include "vm/host_threads.h"

#include <atomic>
#include <gtest/gtest.h>
#include <vector>

namespace tessera {
namespace {

TEST(HostThreadsTest, EveryTaskRunsOnce) {
    for (const std::size_t count : {0U, 1U, 2U, 7U, 1000U}) {
        std::vector<std::atomic<int>> runs(count);
        run_parallel(count, [&](std::size_t n) { runs[n].fetch_add(1); });
        for (const auto& run : runs) EXPECT_EQ(run.load(), 1);
    }
}

}  // namespace
}  // namespace tessera
