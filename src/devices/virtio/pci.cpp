#include "devices/virtio/pci.h"

#include <array>
#include <cstring>
#include <utility>

#include "base/assert.h"

namespace tessera::virtio {

namespace {

constexpr unsigned kMsixBar = 1;
// Snapshot fields; the core's are up to 1100, the devices' from 2000.
constexpr unsigned kConfigField = 1200;
constexpr unsigned kMsixField = 1201;  // and the next
constexpr unsigned kConfigVectorField = 1210;
constexpr unsigned kFirstQueueVectorField = 1220;

// [PCI appendix D]
constexpr u32 class_of(DeviceType type) {
    switch (type) {
        case DeviceType::Network: return 0x02'00'00;  // Ethernet controller
        case DeviceType::Block: return 0x01'80'00;    // mass storage, other
        case DeviceType::Console: return 0x07'80'00;  // communication, other
        case DeviceType::Socket: return 0x02'80'00;   // network, other
        case DeviceType::Entropy:
        case DeviceType::Balloon: break;
    }
    return 0xff'00'00;
}

constexpr pci::ConfigSpace::Identity identity_of(DeviceType type) {
    return {.vendor = kPciVendor,
            .device = static_cast<u16>(kPciFirstDevice + static_cast<u16>(type)),
            .class_code = class_of(type),
            .revision = 1,  // [VIRTIO-1.2 4.1.2.1] at least 1: not transitional
            .subsystem_vendor = kPciVendor,
            .subsystem = static_cast<u16>(kPciFirstDevice + static_cast<u16>(type)),
            .pin = 1};
}

// [VIRTIO-1.2 4.1.3.1] Each field in its own width; a 64-bit one as two of 32 bits.
constexpr std::size_t width_of(CommonRegister reg) {
    switch (reg) {
        case CommonRegister::DeviceStatus:
        case CommonRegister::ConfigGeneration: return 1;
        case CommonRegister::ConfigMsixVector:
        case CommonRegister::NumQueues:
        case CommonRegister::QueueSelect:
        case CommonRegister::QueueSize:
        case CommonRegister::QueueMsixVector:
        case CommonRegister::QueueEnable:
        case CommonRegister::QueueNotifyOff: return 2;
        case CommonRegister::DeviceFeatureSelect:
        case CommonRegister::DeviceFeature:
        case CommonRegister::DriverFeatureSelect:
        case CommonRegister::DriverFeature:
        case CommonRegister::QueueDescLow:
        case CommonRegister::QueueDescHigh:
        case CommonRegister::QueueDriverLow:
        case CommonRegister::QueueDriverHigh:
        case CommonRegister::QueueDeviceLow:
        case CommonRegister::QueueDeviceHigh: return 4;
    }
    return 0;  // not the beginning of a field
}

void put32(std::span<u8> bytes, std::size_t at, u32 value) {
    std::memcpy(bytes.subspan(at).data(), &value, sizeof value);
}

}  // namespace

Pci::Pci(Device& device, MemoryMap& memory, QueueKicker& kicker)
    : core_(device, memory, kicker),
      config_(identity_of(device.type())),
      msix_(config_, {.vectors = core_.queue_count() + 1, .bar = kMsixBar}),
      vectors_(no_vectors()) {
    core_.connect(*this);
    config_.add_bar(kRegistersBar, pci::BarKind::Memory32, kBarSize, *this);
    config_.add_bar(kMsixBar, pci::BarKind::Memory32, msix_.size(), msix_);
    add_structures();
    config_.add_power_management();
    config_.watch(pci::kCommand, 2, *this);
}

// --- Capabilities ---

void Pci::add_structures() {
    add_structure(PciStructure::Common, kCommonOffset, kCommonSize, {}, {});
    std::array<u8, 4> multiplier{};
    put32(multiplier, 0, kNotifyMultiplier);
    add_structure(PciStructure::Notify, kNotifyOffset, core_.queue_count() * kNotifyMultiplier, multiplier,
                  {});
    add_structure(PciStructure::Isr, kIsrOffset, 1, {}, {});
    if (core_.config_size() != 0)
        add_structure(PciStructure::Device, kDeviceOffset, core_.config_size(), {}, {});
    // [VIRTIO-1.2 4.1.4.9] The driver writes bar, offset and length; the window's bytes are not stored.
    std::array<u8, kLongCapabilitySize - 2> writable{};
    writable[kCapabilityBar - 2] = 0xff;
    put32(writable, kCapabilityOffset - 2, ~u32{0});
    put32(writable, kCapabilityLength - 2, ~u32{0});
    window_ = add_structure(PciStructure::ConfigAccess, 0, 0, std::array<u8, 4>{}, writable);
}

u8 Pci::add_structure(PciStructure kind, u64 offset, u32 length, std::span<const u8> more,
                      std::span<const u8> writable) {
    std::array<u8, kLongCapabilitySize - 2> body{};  // behind ID and next pointer
    const std::size_t size = kCapabilitySize + more.size();
    body[0] = static_cast<u8>(size);
    body[1] = static_cast<u8>(kind);
    body[kCapabilityBar - 2] = u8{kRegistersBar};
    put32(body, kCapabilityOffset - 2, static_cast<u32>(offset));
    put32(body, kCapabilityLength - 2, length);
    if (!more.empty()) std::memcpy(&body[kCapabilityData - 2], more.data(), more.size());
    return config_.add_capability(pci::CapabilityId::Vendor, std::span(body).first(size - 2), writable);
}

bool Pci::touches_window(u16 offset, std::size_t width) const {
    const unsigned data = window_ + kCapabilityData;
    return offset < data + 4U && offset + width > data;
}

// [VIRTIO-1.2 4.1.4.9.1] What the window is open to; 0: nothing.
std::size_t Pci::window(u32& offset) const {
    offset = config_.get32(static_cast<u16>(window_ + kCapabilityOffset));
    const u32 length = config_.get32(static_cast<u16>(window_ + kCapabilityLength));
    const bool natural = length == 1 || length == 2 || length == 4;
    if (config_.get8(static_cast<u16>(window_ + kCapabilityBar)) != kRegistersBar || !natural ||
        offset % length != 0)
        return 0;
    return length;
}

void Pci::read_config(u16 offset, std::span<std::byte> out) {
    config_.read(offset, out);
    if (!touches_window(offset, out.size())) return;
    std::array<std::byte, 4> data{};
    data.fill(std::byte{0xff});
    u32 where = 0;
    if (const std::size_t length = window(where); length != 0)
        (void)read(where, std::span(data).first(length));
    const unsigned first = window_ + kCapabilityData;
    for (std::size_t i = 0; i < out.size(); ++i)
        if (offset + i - first < data.size()) out[i] = data[offset + i - first];
}

void Pci::write_config(u16 offset, std::span<const std::byte> in) {
    config_.write(offset, in);
    if (offset != window_ + kCapabilityData) return;
    u32 where = 0;
    const std::size_t length = window(where);
    if (length != 0 && length <= in.size()) (void)write(where, in.first(length));
}

// --- BAR 0 ---

IoStatus Pci::read(u64 offset, std::span<std::byte> out) {
    if (offset < kIsrOffset) return read_common(offset, out);
    if (offset < kDeviceOffset) return read_isr(offset - kIsrOffset, out);
    if (offset < kNotifyOffset)
        return core_.read_config(offset - kDeviceOffset, out) ? IoStatus::Ok : IoStatus::NoRegister;
    return IoStatus::NoRegister;
}

IoStatus Pci::write(u64 offset, std::span<const std::byte> in) {
    IoStatus status = IoStatus::NoRegister;
    if (offset < kIsrOffset)
        status = write_common(offset, in);
    else if (offset >= kNotifyOffset)
        status = notify(offset - kNotifyOffset, in.size());
    else if (offset >= kDeviceOffset && core_.write_config(offset - kDeviceOffset, in))
        status = IoStatus::Ok;
    sync();
    return status;
}

IoStatus Pci::read_common(u64 offset, std::span<std::byte> out) {
    const auto reg = static_cast<CommonRegister>(offset);
    const std::size_t width = width_of(reg);
    if (width == 0) return IoStatus::NoRegister;
    if (out.size() != width) return IoStatus::BadWidth;
    const u32 value = common_value(reg);
    std::memcpy(out.data(), &value, width);
    return IoStatus::Ok;
}

IoStatus Pci::write_common(u64 offset, std::span<const std::byte> in) {
    const auto reg = static_cast<CommonRegister>(offset);
    const std::size_t width = width_of(reg);
    if (width == 0) return IoStatus::NoRegister;
    if (in.size() != width) return IoStatus::BadWidth;
    u32 value = 0;
    std::memcpy(&value, in.data(), width);
    set_common(reg, value);
    return IoStatus::Ok;
}

u32 Pci::common_value(CommonRegister reg) {
    switch (reg) {
        case CommonRegister::DeviceFeatureSelect: return core_.device_feature_select();
        case CommonRegister::DeviceFeature: return core_.device_features();
        case CommonRegister::DriverFeatureSelect: return core_.driver_feature_select();
        case CommonRegister::DriverFeature: return core_.driver_features();
        case CommonRegister::ConfigMsixVector: return vectors_.config;
        case CommonRegister::NumQueues: return core_.queue_count();
        case CommonRegister::DeviceStatus: return core_.status();
        case CommonRegister::ConfigGeneration: return core_.config_generation();
        case CommonRegister::QueueSelect: return core_.queue_select();
        default: return queue_value(reg);
    }
}

// [VIRTIO-1.2 4.1.4.3.1] A queue there is not has the size 0.
u32 Pci::queue_value(CommonRegister reg) {
    const Queue* const queue = core_.selected_queue();
    if (queue == nullptr) return reg == CommonRegister::QueueMsixVector ? u32{kNoVector} : 0;
    const Queue::Setup& setup = queue->setup();
    switch (reg) {
        case CommonRegister::QueueSize: return setup.size;
        case CommonRegister::QueueMsixVector: return vectors_.queues[core_.queue_select()];
        case CommonRegister::QueueEnable: return setup.enabled;
        case CommonRegister::QueueNotifyOff: return core_.queue_select();
        case CommonRegister::QueueDescLow: return static_cast<u32>(setup.descriptors);
        case CommonRegister::QueueDescHigh: return static_cast<u32>(setup.descriptors >> 32);
        case CommonRegister::QueueDriverLow: return static_cast<u32>(setup.driver);
        case CommonRegister::QueueDriverHigh: return static_cast<u32>(setup.driver >> 32);
        case CommonRegister::QueueDeviceLow: return static_cast<u32>(setup.device);
        case CommonRegister::QueueDeviceHigh: return static_cast<u32>(setup.device >> 32);
        default: return 0;
    }
}

// [VIRTIO-1.2 4.1.5.1.2.1] A vector that cannot be had reads back as none.
u16 Pci::usable_vector(u32 vector) const {
    return vector < msix_.vectors() ? static_cast<u16>(vector) : kNoVector;
}

void Pci::set_common(CommonRegister reg, u32 value) {
    switch (reg) {
        case CommonRegister::DeviceFeatureSelect: core_.select_device_features(value); break;
        case CommonRegister::DriverFeatureSelect: core_.select_driver_features(value); break;
        case CommonRegister::DriverFeature: core_.write_driver_features(value); break;
        case CommonRegister::ConfigMsixVector: vectors_.config = usable_vector(value); break;
        case CommonRegister::DeviceStatus:
            core_.write_status(static_cast<u8>(value));
            // [VIRTIO-1.2 4.1.5.1.2.1] A reset forgets the vectors too.
            if (value == 0) vectors_ = no_vectors();
            break;
        case CommonRegister::QueueSelect: core_.select_queue(static_cast<u16>(value)); break;
        default: set_queue(reg, value); break;
    }
}

void Pci::set_queue(CommonRegister reg, u32 value) {
    Queue* const queue = core_.selected_queue();
    if (queue == nullptr) return;
    using Area = Queue::Area;
    using Half = Queue::Half;
    switch (reg) {
        case CommonRegister::QueueSize: queue->set_size(static_cast<u16>(value)); break;
        case CommonRegister::QueueMsixVector:
            vectors_.queues[core_.queue_select()] = usable_vector(value);
            break;
        // [VIRTIO-1.2 4.1.4.3.2] The driver does not write 0; it resets.
        case CommonRegister::QueueEnable:
            if (value == 1) core_.enable_selected_queue();
            break;
        case CommonRegister::QueueDescLow: queue->set_address(Area::Descriptors, Half::Low, value); break;
        case CommonRegister::QueueDescHigh: queue->set_address(Area::Descriptors, Half::High, value); break;
        case CommonRegister::QueueDriverLow: queue->set_address(Area::Driver, Half::Low, value); break;
        case CommonRegister::QueueDriverHigh: queue->set_address(Area::Driver, Half::High, value); break;
        case CommonRegister::QueueDeviceLow: queue->set_address(Area::Device, Half::Low, value); break;
        case CommonRegister::QueueDeviceHigh: queue->set_address(Area::Device, Half::High, value); break;
        default: break;  // read only
    }
}

// [VIRTIO-1.2 4.1.4.5.1] Reading tells and ends the interrupt.
IoStatus Pci::read_isr(u64 offset, std::span<std::byte> out) {
    if (offset != 0) return IoStatus::NoRegister;
    if (out.size() != 1) return IoStatus::BadWidth;
    const u8 causes = core_.causes().raw();
    out[0] = std::byte{causes};
    core_.clear_causes(causes);
    sync();
    return IoStatus::Ok;
}

// [VIRTIO-1.2 4.1.4.4] A place for each queue; what is written there adds nothing.
IoStatus Pci::notify(u64 offset, std::size_t width) {
    if (offset % kNotifyMultiplier != 0 || offset / kNotifyMultiplier >= core_.queue_count())
        return IoStatus::NoRegister;
    if (width != 2 && width != 4) return IoStatus::BadWidth;
    core_.notify(static_cast<u32>(offset / kNotifyMultiplier));
    return IoStatus::Ok;
}

// --- Interrupts ---

void Pci::interrupt(InterruptCause cause, u16 vector) {
    if (msix_.enabled()) {
        if (vector != kNoVector) msix_.signal(vector);
        return;
    }
    core_.add_cause(cause);
    sync();
}

void Pci::queue_interrupt(unsigned queue) {
    interrupt(InterruptCause::UsedBuffer, vectors_.queues[queue]);
}

void Pci::config_interrupt() {
    interrupt(InterruptCause::Configuration, vectors_.config);
}

// The guest may have made us bus master, or woken us: what waits for that is looked at again.
void Pci::config_written() {
    if (config_.bus_master()) core_.resume();
}

// --- Reset and snapshots ---

Pci::Vectors Pci::no_vectors() const {
    return {.config = kNoVector, .queues = std::vector<u16>(core_.queue_count(), kNoVector)};
}

void Pci::reset() {
    core_.reset();
    vectors_ = no_vectors();
    msix_.reset();
    config_.reset();
}

void Pci::visit_state(StateVisitor& v) {
    core_.visit_state(v);
    auto config = config_.state();
    auto msix = msix_.state();
    pci::ConfigSpace::visit(v, kConfigField, config);
    pci::Msix::visit(v, kMsixField, msix);
    v.field(kConfigVectorField, "config vector", vectors_.config);
    for (unsigned i = 0; i < core_.queue_count(); ++i)
        v.field(kFirstQueueVectorField + i, "queue vector", vectors_.queues[i]);
}

Status Pci::load(StateVisitor& v) {
    auto config = config_.initial_state();
    auto msix = msix_.initial_state();
    Vectors vectors = no_vectors();
    pci::ConfigSpace::visit(v, kConfigField, config);
    pci::Msix::visit(v, kMsixField, msix);
    v.field(kConfigVectorField, "config vector", vectors.config);
    bool valid =
        config_.valid(config) && msix_.valid(msix) && usable_vector(vectors.config) == vectors.config;
    for (unsigned i = 0; i < core_.queue_count(); ++i) {
        v.field(kFirstQueueVectorField + i, "queue vector", vectors.queues[i]);
        valid = valid && usable_vector(vectors.queues[i]) == vectors.queues[i];
    }
    if (v.corrupt() || !valid)
        return fail(Errc::CorruptState, "virtio over PCI: the saved state holds values no function can have");
    if (auto status = core_.load(v); !status) return status;
    config_.restore(std::move(config));
    msix_.restore(std::move(msix));
    vectors_ = std::move(vectors);
    return {};
}

}  // namespace tessera::virtio
