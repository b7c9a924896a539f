// A few threads that do blocking disk work for requests. They are started when there is work that none of
// them is free to take, so an idle disk has none.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "backends/block/block_backend.h"

namespace tessera::block {

class WorkPool {
public:
    class Handler {
    public:
        Handler() = default;
        Handler(const Handler&) = delete;
        Handler& operator=(const Handler&) = delete;
        // On a thread of the pool; ends with request.done().
        virtual void handle(BlockRequest& request) = 0;

    protected:
        ~Handler() = default;
    };

    explicit WorkPool(unsigned most_threads) : most_threads_(most_threads) {}
    WorkPool(const WorkPool&) = delete;
    WorkPool& operator=(const WorkPool&) = delete;
    ~WorkPool();  // what was posted is done first

    void post(Handler& handler, std::span<BlockRequest* const> requests);

private:
    struct Job {
        Handler* handler;
        BlockRequest* request;
    };
    void work();

    const unsigned most_threads_;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::deque<Job> jobs_;  // under mutex_, as all that follows
    std::vector<std::thread> threads_;
    unsigned idle_ = 0;
    bool stopping_ = false;
};

}  // namespace tessera::block
