#include "devices/pci/config_access.h"

#include <cstring>

namespace tessera::pci {

namespace {

// Where the parts of an address begin: in CONFIG_ADDRESS, and in ECAM's.
constexpr unsigned kPortDeviceShift = 11, kPortFunctionShift = 8;
constexpr unsigned kEcamBusShift = 20, kEcamDeviceShift = 15, kEcamFunctionShift = 12;

constexpr Slot slot_of(u64 address, unsigned device_shift, unsigned function_shift) {
    return {.device = static_cast<u8>(address >> device_shift & (kDevicesPerBus - 1)),
            .function = static_cast<u8>(address >> function_shift & (kFunctionsPerDevice - 1))};
}

constexpr IoStatus check_width(u64 offset, std::size_t width) {
    if (width != 1 && width != 2 && width != 4) return IoStatus::BadWidth;
    return offset % 4 + width > 4 ? IoStatus::Unaligned : IoStatus::Ok;
}

}  // namespace

// --- Mechanism #1 ---

Slot ConfigPorts::slot() const {
    return slot_of(state_.address, kPortDeviceShift, kPortFunctionShift);
}

u16 ConfigPorts::register_at(u64 offset) const {
    return static_cast<u16>((state_.address & 0xfc) + (offset - kConfigDataOffset));
}

IoStatus ConfigPorts::read(u64 offset, std::span<std::byte> out) {
    if (offset == kResetRegisterOffset && out.size() == 1) return reset_register_.read(0, out);
    if (offset >= kConfigDataOffset) {
        if (offset >= kConfigPortCount) return IoStatus::NoRegister;
        if (const IoStatus status = check_width(offset, out.size()); status != IoStatus::Ok) return status;
        // [PCI 3.2.2.3.2] Without the enable bit the access is passed on, and nobody has these ports.
        if ((state_.address & kAddressEnable) == 0) return IoStatus::NoRegister;
        root_.read_config(bus(), slot(), register_at(offset), out);
        return IoStatus::Ok;
    }
    // [PCI 3.2.2.3.2]: only double words are the register, anything else goes on to the bus.
    if (offset != 0 || out.size() != sizeof(u32)) return IoStatus::NoRegister;
    std::memcpy(out.data(), &state_.address, sizeof(u32));
    return IoStatus::Ok;
}

IoStatus ConfigPorts::write(u64 offset, std::span<const std::byte> in) {
    if (offset == kResetRegisterOffset && in.size() == 1) return reset_register_.write(0, in);
    if (offset >= kConfigDataOffset) {
        if (offset >= kConfigPortCount) return IoStatus::NoRegister;
        if (const IoStatus status = check_width(offset, in.size()); status != IoStatus::Ok) return status;
        if ((state_.address & kAddressEnable) == 0) return IoStatus::NoRegister;
        root_.write_config(bus(), slot(), register_at(offset), in);
        return IoStatus::Ok;
    }
    if (offset != 0 || in.size() != sizeof(u32)) return IoStatus::NoRegister;
    std::memcpy(&state_.address, in.data(), sizeof(u32));
    state_.address &= kAddressBits;
    return IoStatus::Ok;
}

void ConfigPorts::visit(StateVisitor& v, State& s) {
    auto& [address] = s;
    v.field(1, "address", address);
}

Status ConfigPorts::load(StateVisitor& v) {
    State loaded;
    visit(v, loaded);
    if (v.corrupt() || (loaded.address & ~kAddressBits) != 0)
        return fail(Errc::CorruptState, "PCI configuration: CONFIG_ADDRESS has bits that do not exist");
    state_ = loaded;
    return {};
}

// --- ECAM ---

IoStatus Ecam::read(u64 offset, std::span<std::byte> out) {
    if (const IoStatus status = check_width(offset, out.size()); status != IoStatus::Ok) return status;
    if (offset >= kSize) return IoStatus::NoRegister;
    root_.read_config(static_cast<u8>(offset >> kEcamBusShift),
                      slot_of(offset, kEcamDeviceShift, kEcamFunctionShift),
                      static_cast<u16>(offset % kExtendedSize), out);
    return IoStatus::Ok;
}

IoStatus Ecam::write(u64 offset, std::span<const std::byte> in) {
    if (const IoStatus status = check_width(offset, in.size()); status != IoStatus::Ok) return status;
    if (offset >= kSize) return IoStatus::NoRegister;
    root_.write_config(static_cast<u8>(offset >> kEcamBusShift),
                       slot_of(offset, kEcamDeviceShift, kEcamFunctionShift),
                       static_cast<u16>(offset % kExtendedSize), in);
    return IoStatus::Ok;
}

}  // namespace tessera::pci
