#include "devices/pci_config/pci_config.h"

#include <algorithm>
#include <cstring>

namespace tessera::pci_config {

IoStatus PciConfig::read(u64 offset, std::span<std::byte> out) {
    if (offset == kResetRegisterOffset && out.size() == 1) return reset_register_.read(0, out);
    if (offset >= kDataOffset) {
        // No function answers: master abort, all ones [PCI 3.2.2.3.4].
        if (offset - kDataOffset + out.size() > sizeof(u32)) return IoStatus::BadWidth;
        std::ranges::fill(out, std::byte{0xff});
        return IoStatus::Ok;
    }
    // [PCI 3.2.2.3.2]: only double words are the register, anything else goes on to the bus.
    if (offset != 0 || out.size() != sizeof(u32)) return IoStatus::NoRegister;
    std::memcpy(out.data(), &state_.address, sizeof(u32));
    return IoStatus::Ok;
}

IoStatus PciConfig::write(u64 offset, std::span<const std::byte> in) {
    if (offset == kResetRegisterOffset && in.size() == 1) return reset_register_.write(0, in);
    if (offset >= kDataOffset)
        return offset - kDataOffset + in.size() > sizeof(u32) ? IoStatus::BadWidth : IoStatus::Ok;
    if (offset != 0 || in.size() != sizeof(u32)) return IoStatus::NoRegister;
    std::memcpy(&state_.address, in.data(), sizeof(u32));
    state_.address &= kAddressBits;
    return IoStatus::Ok;
}

void PciConfig::visit(StateVisitor& v, State& s) {
    auto& [address] = s;
    v.field(1, "address", address);
}

Status PciConfig::load(StateVisitor& v) {
    State loaded;
    visit(v, loaded);
    if (v.corrupt() || (loaded.address & ~kAddressBits) != 0)
        return fail(Errc::CorruptState, "pci_config: CONFIG_ADDRESS has bits that do not exist");
    state_ = loaded;
    return {};
}

}  // namespace tessera::pci_config
