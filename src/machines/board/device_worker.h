// Does a device's work on an event loop's thread, so that a guest's kick costs its CPU no more than a
// note.
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>

#include "backends/event_loop/event_loop.h"
#include "bus/lock.h"
#include "bus/queued_device.h"
#include "machines/board/queue_bells.h"

namespace tessera {

class DeviceWorker final : public QueueKicker {
public:
    // `device` is the device's own lock.
    DeviceWorker(EventLoop& loop, Lock& device) : loop_(loop), device_(device) {}
    void connect(QueuedDevice& queued) { queued_ = &queued; }

    void kick(unsigned queue) override { ask(u64{1} << queue); }
    void wake() override { ask(kBackend); }
    // As kick(), on the loop's thread and without the device's lock: the work begins at once.
    void ring(unsigned queue);
    // Are told which queues are worked for. Before the first kick; null: none.
    void connect_bells(QueueBells* bells) { bells_ = bells; }

    // Waits until a reset is complete: nothing of the device is in flight any more. Not with its lock held,
    // not on the loop's thread.
    void wait_until_drained();
    // Waits until no work is left, on its way or being done. Nobody asks for more, and the same as above
    // holds.
    void wait_until_idle();

private:
    // Bits of pending_: a queue each, and these two.
    static constexpr u64 kBackend = u64{1} << QueuedDevice::kMostQueues;
    static constexpr u64 kPosted = u64{1} << 63;  // work() is on its way, or at work

    void ask(u64 what);
    void work();
    // Does all of `what` once; returns what of it wants to go on.
    [[nodiscard]] u64 do_once(u64 what);

    EventLoop& loop_;
    Lock& device_;
    QueuedDevice* queued_ = nullptr;
    QueueBells* bells_ = nullptr;
    std::atomic<u64> pending_ = 0;
    std::mutex mutex_;
    std::condition_variable drained_;
};

}  // namespace tessera
