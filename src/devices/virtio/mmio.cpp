#include "devices/virtio/mmio.h"

#include <cstring>

namespace tessera::virtio {

IoStatus Mmio::read(u64 offset, std::span<std::byte> out) {
    if (offset >= kMmioConfig)
        return core_.read_config(offset - kMmioConfig, out) ? IoStatus::Ok : IoStatus::NoRegister;
    // [VIRTIO-1.2 4.2.2.2] 32 bits wide and aligned.
    if (out.size() != sizeof(u32)) return IoStatus::BadWidth;
    if (offset % sizeof(u32) != 0) return IoStatus::Unaligned;
    u32 value = 0;
    if (!read_register(offset, value)) return IoStatus::NoRegister;
    std::memcpy(out.data(), &value, sizeof value);
    return IoStatus::Ok;
}

IoStatus Mmio::write(u64 offset, std::span<const std::byte> in) {
    if (offset >= kMmioConfig) {
        const bool done = core_.write_config(offset - kMmioConfig, in);
        sync();
        return done ? IoStatus::Ok : IoStatus::NoRegister;
    }
    if (in.size() != sizeof(u32)) return IoStatus::BadWidth;
    if (offset % sizeof(u32) != 0) return IoStatus::Unaligned;
    u32 value = 0;
    std::memcpy(&value, in.data(), sizeof value);
    const bool done = write_register(offset, value);
    sync();
    return done ? IoStatus::Ok : IoStatus::NoRegister;
}

bool Mmio::read_register(u64 offset, u32& value) {
    const auto reg = static_cast<MmioRegister>(offset);
    switch (reg) {
        case MmioRegister::MagicValue: value = kMmioMagic; return true;
        case MmioRegister::Version: value = kMmioVersion; return true;
        case MmioRegister::DeviceID: value = static_cast<u32>(core_.type()); return true;
        case MmioRegister::VendorID: value = kVendor; return true;
        case MmioRegister::DeviceFeatures: value = core_.device_features(); return true;
        case MmioRegister::QueueSizeMax:
        case MmioRegister::QueueReady: value = read_queue(reg); return true;
        case MmioRegister::InterruptStatus: value = core_.causes().raw(); return true;
        case MmioRegister::Status: value = core_.status(); return true;
        // [VIRTIO-1.2 4.2.2] A region that is not there has the length -1.
        case MmioRegister::SHMLenLow:
        case MmioRegister::SHMLenHigh:
        case MmioRegister::SHMBaseLow:
        case MmioRegister::SHMBaseHigh: value = ~u32{0}; return true;
        case MmioRegister::ConfigGeneration: value = core_.config_generation(); return true;
        default: return false;  // write only, or reserved
    }
}

u32 Mmio::read_queue(MmioRegister reg) {
    const Queue* const queue = core_.selected_queue();
    if (queue == nullptr) return 0;
    return reg == MmioRegister::QueueSizeMax ? u32{queue->most()} : u32{queue->enabled()};
}

bool Mmio::write_register(u64 offset, u32 value) {
    const auto reg = static_cast<MmioRegister>(offset);
    switch (reg) {
        case MmioRegister::DeviceFeaturesSel: core_.select_device_features(value); return true;
        case MmioRegister::DriverFeatures: core_.write_driver_features(value); return true;
        case MmioRegister::DriverFeaturesSel: core_.select_driver_features(value); return true;
        case MmioRegister::QueueSel:
            core_.select_queue(value > 0xffff ? u16{0xffff} : static_cast<u16>(value));
            return true;
        case MmioRegister::QueueSize:
        case MmioRegister::QueueReady:
        case MmioRegister::QueueDescLow:
        case MmioRegister::QueueDescHigh:
        case MmioRegister::QueueDriverLow:
        case MmioRegister::QueueDriverHigh:
        case MmioRegister::QueueDeviceLow:
        case MmioRegister::QueueDeviceHigh: write_queue(reg, value); return true;
        case MmioRegister::QueueNotify: core_.notify(value); return true;
        case MmioRegister::InterruptACK: core_.clear_causes(static_cast<u8>(value)); return true;
        case MmioRegister::Status: core_.write_status(static_cast<u8>(value)); return true;
        case MmioRegister::SHMSel: return true;
        default: return false;  // read only, or reserved
    }
}

void Mmio::write_queue(MmioRegister reg, u32 value) {
    Queue* const queue = core_.selected_queue();
    if (queue == nullptr) return;
    using Area = Queue::Area;
    using Half = Queue::Half;
    switch (reg) {
        // Sizes that do not fit 16 bits are as wrong as 0 is.
        case MmioRegister::QueueSize:
            queue->set_size(value > 0xffff ? u16{0} : static_cast<u16>(value));
            break;
        case MmioRegister::QueueReady:
            if ((value & 1) != 0)
                core_.enable_selected_queue();
            else
                core_.disable_selected_queue();
            break;
        case MmioRegister::QueueDescLow: queue->set_address(Area::Descriptors, Half::Low, value); break;
        case MmioRegister::QueueDescHigh: queue->set_address(Area::Descriptors, Half::High, value); break;
        case MmioRegister::QueueDriverLow: queue->set_address(Area::Driver, Half::Low, value); break;
        case MmioRegister::QueueDriverHigh: queue->set_address(Area::Driver, Half::High, value); break;
        case MmioRegister::QueueDeviceLow: queue->set_address(Area::Device, Half::Low, value); break;
        case MmioRegister::QueueDeviceHigh: queue->set_address(Area::Device, Half::High, value); break;
        default: break;
    }
}

void Mmio::queue_interrupt(unsigned /*queue*/) {
    core_.add_cause(InterruptCause::UsedBuffer);
    sync();
}

void Mmio::config_interrupt() {
    core_.add_cause(InterruptCause::Configuration);
    sync();
}

void Mmio::reset() {
    core_.reset();
    sync();
}

Status Mmio::load(StateVisitor& v) {
    if (auto status = core_.load(v); !status) return status;
    irq_.restore_level(core_.causes() != Flags<InterruptCause>());
    return {};
}

}  // namespace tessera::virtio
