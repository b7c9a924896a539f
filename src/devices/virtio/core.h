// What MMIO and PCI have in common: status and reset, features, the queues' registers, interrupt causes, the
// way from a device to its queues. The transports decode addresses, no more.
// GAP: VIRTIO_F_IN_ORDER, VIRTIO_F_RING_RESET, VIRTIO_F_NOTIFICATION_DATA, VIRTIO_F_ACCESS_PLATFORM.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "base/flags.h"
#include "base/result.h"
#include "base/types.h"
#include "bus/queued_device.h"
#include "devices/virtio/device.h"
#include "devices/virtio/queue.h"
#include "devices/virtio/virtio_regs.h"
#include "memory/memory_map.h"
#include "snapshot/state_visitor.h"

namespace tessera::virtio {

// What a transport does for the core: interrupts. Called with the device's lock held.
class TransportPort {
public:
    TransportPort() = default;
    TransportPort(const TransportPort&) = delete;
    TransportPort& operator=(const TransportPort&) = delete;
    virtual ~TransportPort() = default;
    virtual void queue_interrupt(unsigned queue) = 0;
    virtual void config_interrupt() = 0;
    // Whether the device may use the guest's memory now. When that becomes true the transport calls
    // Core::resume().
    [[nodiscard]] virtual bool may_access_memory() const { return true; }
};

class Core final : public QueuedDevice {
public:
    Core(Device& device, MemoryMap& memory, QueueKicker& kicker);
    Core(const Core&) = delete;
    Core& operator=(const Core&) = delete;
    ~Core() override = default;
    // Once, before anything else.
    void connect(TransportPort& port) { port_ = &port; }

    // --- The driver's side, for transports.
    [[nodiscard]] DeviceType type() const { return device_.type(); }
    [[nodiscard]] u8 status() const;
    void write_status(u8 value);
    [[nodiscard]] u32 device_feature_select() const { return state_.device_feature_select; }
    void select_device_features(u32 word) { state_.device_feature_select = word; }
    [[nodiscard]] u32 device_features() const;
    [[nodiscard]] u32 driver_feature_select() const { return state_.driver_feature_select; }
    void select_driver_features(u32 word) { state_.driver_feature_select = word; }
    [[nodiscard]] u32 driver_features() const;
    void write_driver_features(u32 value);
    [[nodiscard]] u16 queue_select() const { return state_.queue_select; }
    void select_queue(u16 queue) { state_.queue_select = queue; }
    // Null if the driver selected one there is not.
    [[nodiscard]] Queue* selected_queue();
    void enable_selected_queue();
    // Only before the driver is ready; later it has no effect.
    void disable_selected_queue();
    void notify(u32 queue);
    [[nodiscard]] u8 config_generation() const { return state_.config_generation; }
    [[nodiscard]] u32 config_size() const { return device_.config_size(); }
    // False: beyond the end.
    [[nodiscard]] bool read_config(u64 offset, std::span<std::byte> out);
    [[nodiscard]] bool write_config(u64 offset, std::span<const std::byte> in);
    [[nodiscard]] Flags<InterruptCause> causes() const { return state_.causes; }
    void add_cause(InterruptCause cause) { state_.causes.set(cause); }
    void clear_causes(u8 which);

    // --- The device's side.
    [[nodiscard]] unsigned queue_count() const { return static_cast<unsigned>(queues_.size()); }
    [[nodiscard]] Queue& queue(unsigned index) { return *queues_[index]; }
    [[nodiscard]] bool negotiated(unsigned feature) const {
        return (state_.driver_features & feature_bit(feature)) != 0;
    }
    // Whether the driver is ready, and nothing is wrong.
    [[nodiscard]] bool running() const;
    // The next buffer; false if there is none, or the queue is broken and the device needs a reset.
    [[nodiscard]] bool pop(unsigned queue, Chain& chain);
    void push(unsigned queue, const Chain& chain, u32 written) { queues_[queue]->push(chain, written); }
    // Interrupts if the driver wants it for what was pushed since.
    void signal(unsigned queue);
    // The device's own registers changed by themselves.
    void config_changed();
    // [VIRTIO-1.2 2.1.2] Something is wrong that only a reset mends.
    void needs_reset();
    // What was in flight when Device::stop() said so is gone.
    void stopped();
    [[nodiscard]] QueueKicker& kicker() const { return kicker_; }

    // --- The host's side, with the device's lock held.
    [[nodiscard]] bool service(unsigned queue) override;
    void run_backend() override { device_.run_backend(); }
    [[nodiscard]] bool draining() const override { return draining_; }
    // Kicks may have been lost: after load(), when the machine goes on, or while memory was out of reach.
    void resume();

    void reset();
    void visit_state(StateVisitor& v);
    Status load(StateVisitor& v);

private:
    struct State {
        Flags<DeviceStatus> status;
        u32 device_feature_select = 0;
        u32 driver_feature_select = 0;
        u64 driver_features = 0;
        u16 queue_select = 0;
        u8 config_generation = 0;
        Flags<InterruptCause> causes;
    };
    static constexpr unsigned kFirstQueueField = 64;

    static void visit(StateVisitor& v, State& s);
    [[nodiscard]] u64 offered() const;
    [[nodiscard]] bool features_fit(u64 features) const;
    [[nodiscard]] static Queue::Features ring_features(u64 features);
    void begin();

    Device& device_;
    MemoryMap& memory_;
    QueueKicker& kicker_;
    TransportPort* port_ = nullptr;
    std::vector<std::unique_ptr<Queue>> queues_;
    State state_;
    // A reset waits for what is in flight: the status does not read 0 before.
    bool draining_ = false;
    Flags<DeviceStatus> status_before_;
};

}  // namespace tessera::virtio
