// What a virtio device is apart from its transport.
#pragma once

#include <span>

#include "base/result.h"
#include "base/types.h"
#include "bus/queued_device.h"
#include "devices/virtio/virtio_regs.h"
#include "snapshot/state_visitor.h"

namespace tessera::virtio {

class Core;

// One type of device: block, network, ... All methods are called with the device's lock held. A guest can
// make any of them be called at any time, in any order the comments allow.
class Device {
public:
    Device() = default;
    Device(const Device&) = delete;
    Device& operator=(const Device&) = delete;
    virtual ~Device() = default;

    [[nodiscard]] virtual DeviceType type() const = 0;
    // Of the device type alone; the Core adds the rings'. Constant.
    [[nodiscard]] virtual u64 features() const = 0;
    // Whether this subset of what was offered makes sense together.
    [[nodiscard]] virtual bool accepts(u64 /*features*/) const { return true; }
    // The largest size of each queue: powers of two, at most 1024. Constant; at most kMostQueues of them.
    [[nodiscard]] virtual std::span<const u16> queue_sizes() const = 0;

    // The device's own registers [VIRTIO-1.2 2.5]; the access lies within config_size().
    [[nodiscard]] virtual u32 config_size() const = 0;
    virtual void read_config(u32 offset, std::span<std::byte> out) = 0;
    virtual void write_config(u32 /*offset*/, std::span<const std::byte> /*in*/) {}

    // The driver is ready [VIRTIO-1.2 3.1.1]: queues may be used from now on.
    virtual void start() {}
    // Back to power-on; no queue is used any more. False: requests are in flight, and Core::stopped() follows
    // when the last of them is gone. Until then there is no start().
    [[nodiscard]] virtual bool stop() = 0;
    // Takes what is available in `queue`, a bounded part of it: true if there may be more. Only while
    // started.
    [[nodiscard]] virtual bool service(unsigned queue) = 0;
    // Something came from the backend. Also while stopped.
    virtual void run_backend() {}

    // Snapshots: fields from kFirstField on. Nothing is in flight.
    static constexpr unsigned kFirstField = 2000;
    virtual void visit_state(StateVisitor& /*v*/) {}
    // All or nothing.
    virtual Status load(StateVisitor& /*v*/) { return {}; }

    // Once, before anything else.
    virtual void attach(Core& core) { core_ = &core; }

    static constexpr unsigned kMostQueues = QueuedDevice::kMostQueues;

protected:
    [[nodiscard]] Core& core() const { return *core_; }

private:
    Core* core_ = nullptr;
};

}  // namespace tessera::virtio
