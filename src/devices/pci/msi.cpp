#include "devices/pci/msi.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "base/assert.h"

namespace tessera::pci {

namespace {

// [PCI 6.8.1]: offsets in the capability with a 64-bit address and masks.
constexpr u16 kControl = 2;
constexpr u16 kAddress = 4;
constexpr u16 kUpperAddress = 8;
constexpr u16 kData = 12;
constexpr u16 kMask = 16;
constexpr u16 kPending = 20;
constexpr u16 kSize = 24;
constexpr unsigned kMessagesMost = 32;
constexpr u16 kEnabledMask = 7U << kMsiEnabledShift;

void put(std::span<u8> body, u16 offset, u32 value, std::size_t size) {
    std::memcpy(body.subspan(offset - 2U).data(), &value, size);
}

}  // namespace

Msi::Msi(ConfigSpace& config, unsigned messages)
    : config_(config), most_log2_(static_cast<unsigned>(std::countr_zero(messages))) {
    TESSERA_ASSERT(std::has_single_bit(messages) && messages <= kMessagesMost, "our devices choose it");
    const u32 every = messages == kMessagesMost ? ~u32{0} : (u32{1} << messages) - 1;
    std::array<u8, kSize - 2> body{};
    std::array<u8, kSize - 2> writable{};
    const u32 control = (Flags(MsiControl::Is64Bit) | MsiControl::Maskable).raw();
    put(body, kControl, control | most_log2_ << kMsiCapableShift, 2);
    put(writable, kControl, static_cast<u32>(MsiControl::Enable) | kEnabledMask, 2);
    put(writable, kAddress, ~u32{3}, 4);
    put(writable, kUpperAddress, ~u32{0}, 4);
    put(writable, kData, 0xffff, 2);
    put(writable, kMask, every, 4);
    base_ = config_.add_capability(CapabilityId::Msi, body, writable);
    for (u16 n = 0; n < 4; ++n)
        config_.set_volatile(static_cast<u16>(base_ + kPending + n), static_cast<u8>(every >> (8 * n)));
    config_.watch(base_, kSize, *this);
    config_.watch(kCommand, 2, *this);
}

bool Msi::enabled() const {
    return Flags<MsiControl>(config_.get16(static_cast<u16>(base_ + kControl))).has(MsiControl::Enable);
}

// [PCI 6.8.1.3] 110b and 111b are reserved, and software grants at most what was asked for.
unsigned Msi::granted() const {
    const unsigned log2 =
        (config_.get16(static_cast<u16>(base_ + kControl)) & kEnabledMask) >> kMsiEnabledShift;
    return 1U << std::min(log2, most_log2_);
}

void Msi::signal(unsigned message) {
    if (enabled()) send_or_hold(message % granted());
}

void Msi::send_or_hold(unsigned message) {
    const u32 bit = u32{1} << message;
    const auto pending_at = static_cast<u16>(base_ + kPending);
    const bool hold = (config_.get32(static_cast<u16>(base_ + kMask)) & bit) != 0 || !config_.bus_master();
    const u32 pending = config_.get32(pending_at);
    config_.put32(pending_at, hold ? pending | bit : pending & ~bit);
    if (hold) return;
    const u64 address = config_.get32(static_cast<u16>(base_ + kAddress)) |
                        u64{config_.get32(static_cast<u16>(base_ + kUpperAddress))} << 32;
    const u32 data = config_.get16(static_cast<u16>(base_ + kData));
    config_.send_message(address, (data & ~(granted() - 1)) | message);
}

void Msi::config_written() {
    if (!enabled()) return;
    const u32 pending = config_.get32(static_cast<u16>(base_ + kPending));
    for (unsigned message = 0; message < kMessagesMost; ++message)
        if ((pending >> message & 1) != 0 && message < granted()) send_or_hold(message);
}

}  // namespace tessera::pci
