#include "machines/board/device_worker.h"

#include <bit>

namespace tessera {

namespace {

// Other devices live on the same thread.
constexpr unsigned kTurns = 32;

}  // namespace

void DeviceWorker::ask(u64 what) {
    const u64 before = pending_.fetch_or(what | kPosted, std::memory_order_acq_rel);
    if ((before & kPosted) == 0) loop_.post([this] { work(); });
}

void DeviceWorker::ring(unsigned queue) {
    const u64 before = pending_.fetch_or(u64{1} << queue | kPosted, std::memory_order_acq_rel);
    if ((before & kPosted) == 0) work();
}

void DeviceWorker::work() {
    for (unsigned turn = 0; turn < kTurns; ++turn) {
        u64 what = pending_.fetch_and(kPosted, std::memory_order_acq_rel) & ~kPosted;
        if (what != 0) {
            what = do_once(what);
            if (what != 0) pending_.fetch_or(what, std::memory_order_relaxed);
            continue;
        }
        u64 nothing = kPosted;
        if (pending_.compare_exchange_strong(nothing, 0, std::memory_order_acq_rel)) return;
    }
    loop_.post([this] { work(); });
}

u64 DeviceWorker::do_once(u64 what) {
    u64 again = 0;
    if ((what & kBackend) != 0) {
        {
            const LockGuard guard(device_);
            queued_->run_backend();
        }
        // Whoever waits looks at draining() with mutex_ held, and cannot miss this.
        const std::lock_guard guard(mutex_);
        drained_.notify_all();
    }
    // The lock is let go between queues, for CPUs that want a register.
    for (u64 queues = what & ~kBackend; queues != 0; queues &= queues - 1) {
        const auto queue = static_cast<unsigned>(std::countr_zero(queues));
        if (bells_ != nullptr) bells_->hang_up(queue);
        const LockGuard guard(device_);
        if (queued_->service(queue)) again |= u64{1} << queue;
    }
    return again;
}

void DeviceWorker::wait_until_idle() {
    // Tasks run in the order they were posted in. The loop may have ended: then nothing runs.
    while (loop_.run([] {}) && pending_.load(std::memory_order_acquire) != 0) {
    }
}

void DeviceWorker::wait_until_drained() {
    std::unique_lock lock(mutex_);
    drained_.wait(lock, [this] {
        const LockGuard guard(device_);
        return !queued_->draining();
    });
}

}  // namespace tessera
