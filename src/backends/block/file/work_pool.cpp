#include "backends/block/file/work_pool.h"

#include <csignal>
#include <pthread.h>
#include <system_error>

namespace tessera::block {

WorkPool::~WorkPool() {
    {
        const std::scoped_lock lock(mutex_);
        stopping_ = true;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
}

void WorkPool::post(Handler& handler, std::span<BlockRequest* const> requests) {
    if (requests.empty()) return;
    bool run_here = false;
    {
        const std::scoped_lock lock(mutex_);
        for (BlockRequest* request : requests) jobs_.push_back({&handler, request});
        while (threads_.size() < most_threads_ && idle_ < jobs_.size()) {
            // The program's signals are for its other threads.
            sigset_t all{};
            sigset_t before{};
            (void)sigfillset(&all);
            (void)pthread_sigmask(SIG_SETMASK, &all, &before);
            bool started = true;
            try {
                threads_.emplace_back([this] { work(); });
                ++idle_;  // it will look for a job as an idle one does
            } catch (const std::system_error&) {
                started = false;
            }
            (void)pthread_sigmask(SIG_SETMASK, &before, nullptr);
            if (!started) break;
        }
        run_here = threads_.empty();
    }
    if (run_here) {  // the host gives us no thread at all
        for (;;) {
            Job job{};
            {
                const std::scoped_lock lock(mutex_);
                if (jobs_.empty()) return;
                job = jobs_.front();
                jobs_.pop_front();
            }
            job.handler->handle(*job.request);
        }
    }
    if (requests.size() == 1)
        wake_.notify_one();
    else
        wake_.notify_all();
}

void WorkPool::work() {
    (void)pthread_setname_np(pthread_self(), "disk");
    std::unique_lock lock(mutex_);
    for (;;) {  // idle_ counts this thread
        wake_.wait(lock, [this] { return stopping_ || !jobs_.empty(); });
        if (jobs_.empty()) return;
        const Job job = jobs_.front();
        jobs_.pop_front();
        --idle_;
        lock.unlock();
        job.handler->handle(*job.request);
        lock.lock();
        ++idle_;
    }
}

}  // namespace tessera::block
