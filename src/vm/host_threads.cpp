#include "vm/host_threads.h"

#include <algorithm>
#include <atomic>
#include <system_error>
#include <thread>
#include <vector>

namespace tessera {

void run_parallel(std::size_t count, const std::function<void(std::size_t)>& task) {
    constexpr std::size_t kMostThreads = 8;
    std::atomic<std::size_t> next = 0;
    const auto work = [&] {
        for (std::size_t n = next.fetch_add(1); n < count; n = next.fetch_add(1)) task(n);
    };
    const std::size_t threads =
        std::min({count, kMostThreads, std::size_t{std::thread::hardware_concurrency()}});
    std::vector<std::jthread> helpers;
    try {
        for (std::size_t n = 1; n < threads; ++n) helpers.emplace_back(work);
    } catch (const std::system_error&) {
        work();  // no more threads to be had: those there are do it
        return;
    }
    work();
}

}  // namespace tessera
