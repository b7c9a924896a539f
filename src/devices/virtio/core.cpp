#include "devices/virtio/core.h"

namespace tessera::virtio {

namespace {

constexpr u64 kRingFeatures = feature_bit(kFeatureIndirect) | feature_bit(kFeatureEventIndex) |
                              feature_bit(kFeatureVersion1) | feature_bit(kFeaturePackedRing);
// [VIRTIO-1.2 2.1] What a driver sets; NEEDS_RESET is the device's.
constexpr u8 kDriverStatus = static_cast<u8>(DeviceStatus::Acknowledge) |
                             static_cast<u8>(DeviceStatus::Driver) | static_cast<u8>(DeviceStatus::DriverOk) |
                             static_cast<u8>(DeviceStatus::FeaturesOk) |
                             static_cast<u8>(DeviceStatus::Failed);
constexpr u8 kAllStatus = kDriverStatus | static_cast<u8>(DeviceStatus::NeedsReset);
constexpr u8 kAllCauses =
    static_cast<u8>(InterruptCause::UsedBuffer) | static_cast<u8>(InterruptCause::Configuration);

constexpr u32 word_of(u64 features, u32 select) {
    return select < 2 ? static_cast<u32>(features >> (32 * select)) : 0;
}

}  // namespace

Core::Core(Device& device, MemoryMap& memory, QueueKicker& kicker)
    : device_(device), memory_(memory), kicker_(kicker) {
    for (const u16 size : device.queue_sizes()) queues_.push_back(std::make_unique<Queue>(memory_, size));
    device_.attach(*this);
}

// --- Status and features ---

u8 Core::status() const {
    // [VIRTIO-1.2 2.4.2] A reset is complete when the status reads 0.
    if (draining_ && state_.status == Flags<DeviceStatus>()) return status_before_.raw();
    return state_.status.raw();
}

bool Core::running() const {
    return state_.status.has(DeviceStatus::DriverOk) && !state_.status.has(DeviceStatus::NeedsReset) &&
           !state_.status.has(DeviceStatus::Failed) && !draining_;
}

void Core::write_status(u8 value) {
    if (value == 0) {
        reset();
        return;
    }
    const Flags<DeviceStatus> before = state_.status;
    // [VIRTIO-1.2 2.1.1] The driver clears no bit; what it tries to clear stays.
    Flags<DeviceStatus> next(before.raw() | (value & kDriverStatus));
    if (!before.has(DeviceStatus::FeaturesOk) && !features_fit(state_.driver_features))
        next.set(DeviceStatus::FeaturesOk, false);
    // [VIRTIO-1.2 3.1.1] Without an agreement there is no driver to be ready.
    if (!next.has(DeviceStatus::FeaturesOk)) next.set(DeviceStatus::DriverOk, false);
    state_.status = next;
    if (!before.has(DeviceStatus::DriverOk) && next.has(DeviceStatus::DriverOk) && !draining_) begin();
}

void Core::begin() {
    for (const auto& queue : queues_)
        if (queue->enabled() && queue->broken()) {
            needs_reset();
            return;
        }
    if (!running()) return;
    device_.start();
    resume();
}

void Core::resume() {
    if (!running()) return;
    for (unsigned i = 0; i < queue_count(); ++i)
        if (queues_[i]->enabled()) kicker_.kick(i);
    // What the host has done meanwhile.
    kicker_.wake();
}

u64 Core::offered() const {
    return device_.features() | kRingFeatures;
}

// [VIRTIO-1.2 2.2] A subset of what is offered; [VIRTIO-1.2 6.1] with VERSION_1, as there is no legacy
// interface.
bool Core::features_fit(u64 features) const {
    return (features & ~offered()) == 0 && (features & feature_bit(kFeatureVersion1)) != 0 &&
           device_.accepts(features);
}

u32 Core::device_features() const {
    return word_of(offered(), state_.device_feature_select);
}

u32 Core::driver_features() const {
    return word_of(state_.driver_features, state_.driver_feature_select);
}

void Core::write_driver_features(u32 value) {
    if (state_.status.has(DeviceStatus::FeaturesOk)) return;
    switch (state_.driver_feature_select) {
        case 0: state_.driver_features = (state_.driver_features & ~u64{0xffff'ffff}) | value; break;
        case 1: state_.driver_features = (state_.driver_features & 0xffff'ffff) | u64{value} << 32; break;
        default: break;
    }
}

Queue::Features Core::ring_features(u64 features) {
    return {.packed = (features & feature_bit(kFeaturePackedRing)) != 0,
            .indirect = (features & feature_bit(kFeatureIndirect)) != 0,
            .event_index = (features & feature_bit(kFeatureEventIndex)) != 0};
}

// --- Queues ---

Queue* Core::selected_queue() {
    return state_.queue_select < queues_.size() ? queues_[state_.queue_select].get() : nullptr;
}

void Core::enable_selected_queue() {
    Queue* const queue = selected_queue();
    // What a ring looks like is part of what has to be agreed on first.
    if (queue == nullptr || !state_.status.has(DeviceStatus::FeaturesOk) || queue->enabled()) return;
    const bool usable = queue->enable(ring_features(state_.driver_features));
    if (!usable && state_.status.has(DeviceStatus::DriverOk)) needs_reset();
}

void Core::disable_selected_queue() {
    Queue* const queue = selected_queue();
    if (queue == nullptr || state_.status.has(DeviceStatus::DriverOk)) return;
    queue->disable();
}

void Core::notify(u32 queue) {
    if (queue < queues_.size() && running() && queues_[queue]->enabled()) kicker_.kick(queue);
}

bool Core::pop(unsigned queue, Chain& chain) {
    if (!running()) return false;
    const Queue::Pop result = queues_[queue]->pop(chain);
    if (result == Queue::Pop::Broken) needs_reset();
    return result == Queue::Pop::Taken;
}

void Core::signal(unsigned queue) {
    if (queues_[queue]->interrupt_due()) port_->queue_interrupt(queue);
}

bool Core::service(unsigned queue) {
    if (queue >= queues_.size() || !running() || !queues_[queue]->enabled() || !port_->may_access_memory())
        return false;
    return device_.service(queue);
}

// --- Configuration and interrupts ---

bool Core::read_config(u64 offset, std::span<std::byte> out) {
    const u64 size = device_.config_size();
    if (offset >= size || out.size() > size - offset) return false;
    device_.read_config(static_cast<u32>(offset), out);
    return true;
}

bool Core::write_config(u64 offset, std::span<const std::byte> in) {
    const u64 size = device_.config_size();
    if (offset >= size || in.size() > size - offset) return false;
    device_.write_config(static_cast<u32>(offset), in);
    return true;
}

void Core::clear_causes(u8 which) {
    state_.causes = Flags<InterruptCause>(static_cast<u8>(state_.causes.raw() & ~which));
}

void Core::config_changed() {
    ++state_.config_generation;
    if (state_.status.has(DeviceStatus::DriverOk)) port_->config_interrupt();
}

void Core::needs_reset() {
    if (state_.status.has(DeviceStatus::NeedsReset)) return;
    state_.status.set(DeviceStatus::NeedsReset);
    // [VIRTIO-1.2 2.1.2] MUST notify of it, if the driver is ready.
    if (state_.status.has(DeviceStatus::DriverOk)) port_->config_interrupt();
}

// --- Reset and snapshots ---

void Core::reset() {
    const Flags<DeviceStatus> before(status());
    state_ = {};
    for (const auto& queue : queues_) queue->reset();
    draining_ = !device_.stop();
    status_before_ = draining_ ? before : Flags<DeviceStatus>();
}

void Core::stopped() {
    if (!draining_) return;
    draining_ = false;
    status_before_ = {};
    // A driver that did not wait for the reset to be complete.
    if (state_.status.has(DeviceStatus::DriverOk)) begin();
}

void Core::visit(StateVisitor& v, State& s) {
    auto& [status, device_select, driver_select, features, queue_select, generation, causes] = s;
    v.field(1, "status", status);
    v.field(2, "device feature select", device_select);
    v.field(3, "driver feature select", driver_select);
    v.field(4, "driver features", features);
    v.field(5, "queue select", queue_select);
    v.field(6, "config generation", generation);
    v.field(7, "interrupt causes", causes);
}

void Core::visit_state(StateVisitor& v) {
    visit(v, state_);
    for (unsigned i = 0; i < queue_count(); ++i)
        queues_[i]->visit_state(v, kFirstQueueField + i * Queue::kFields);
    device_.visit_state(v);
}

Status Core::load(StateVisitor& v) {
    State next;
    visit(v, next);
    const Queue::Features rings = ring_features(next.driver_features);
    bool valid = (next.status.raw() & ~kAllStatus) == 0 && (next.causes.raw() & ~kAllCauses) == 0;
    if (next.status.has(DeviceStatus::FeaturesOk)) valid = valid && features_fit(next.driver_features);
    if (next.status.has(DeviceStatus::DriverOk)) valid = valid && next.status.has(DeviceStatus::FeaturesOk);
    std::vector<Queue::State> queues;
    for (unsigned i = 0; i < queue_count(); ++i) {
        Queue::State state = queues_[i]->fresh_state();
        Queue::visit(v, kFirstQueueField + i * Queue::kFields, state);
        valid = valid && (state.setup.enabled == 0 || next.status.has(DeviceStatus::FeaturesOk)) &&
                queues_[i]->valid(state, rings);
        queues.push_back(state);
    }
    if (v.corrupt() || !valid)
        return fail(Errc::CorruptState, "virtio: the saved state holds values no device can have");
    if (auto status = device_.load(v); !status) return status;
    state_ = next;
    for (unsigned i = 0; i < queue_count(); ++i) queues_[i]->restore(queues[i], rings);
    return {};
}

}  // namespace tessera::virtio
