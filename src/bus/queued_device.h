// A device whose work is done on another thread than a CPU's, and who gets it done there.
#pragma once

#include "base/types.h"

namespace tessera {

// All methods are called with the device's lock held.
class QueuedDevice {
public:
    QueuedDevice() = default;
    QueuedDevice(const QueuedDevice&) = delete;
    QueuedDevice& operator=(const QueuedDevice&) = delete;
    virtual ~QueuedDevice() = default;

    static constexpr unsigned kMostQueues = 62;

    // Works on a queue, a bounded part of it: true if it wants to be called again.
    [[nodiscard]] virtual bool service(unsigned queue) = 0;
    // Something came from the backend.
    virtual void run_backend() = 0;
    // Whether a driver's or the machine's reset waits for requests in flight.
    [[nodiscard]] virtual bool draining() const = 0;
};

// The implementation takes the device's lock on its thread and calls the QueuedDevice.
class QueueKicker {
public:
    QueueKicker() = default;
    QueueKicker(const QueueKicker&) = delete;
    QueueKicker& operator=(const QueueKicker&) = delete;
    virtual ~QueueKicker() = default;

    // service(queue) is wanted. With the device's lock held; does not wait.
    virtual void kick(unsigned queue) = 0;
    // run_backend() is wanted. Thread-safe, with or without the lock; does not wait.
    virtual void wake() = 0;
};

}  // namespace tessera
