#include "devices/pci/config_space.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "base/assert.h"

namespace tessera::pci {

namespace {

constexpr const char* kOurs = "only our own devices build configuration spaces";
constexpr u64 kSmallestMemory = 16;
constexpr u64 kSmallestIo = 4;
constexpr u64 kLargestIo = 256;  // [PCI 6.2.5.1]
constexpr u64 kSmallestRom = 2 * kKiB;
constexpr u64 kPortSpace = 0x1'0000;
constexpr u64 kSpace32 = 0x1'0000'0000;

constexpr bool is_64bit(BarKind kind) {
    return kind == BarKind::Memory64 || kind == BarKind::Prefetchable64;
}

constexpr u32 type_bits(BarKind kind) {
    switch (kind) {
        case BarKind::Io: return kBarIo;
        case BarKind::Memory32: return 0;
        case BarKind::Memory64: return kBarMemory64;
        case BarKind::Prefetchable64: return kBarMemory64 | kBarPrefetchable;
    }
    return 0;
}

constexpr bool touches(u16 offset, std::size_t size, u16 first, u16 length) {
    return offset < first + length && offset + size > first;
}

}  // namespace

ConfigSpace::ConfigSpace(const Identity& identity) : header_(identity.header) {
    const std::size_t size =
        identity.size == ConfigSize::Extended ? kExtendedSize : std::size_t{kConventionalSize};
    state_.bytes.resize(size);
    writable_.resize(size);
    volatile_.resize(size);
    put16(kVendorId, identity.vendor);
    put16(kDeviceId, identity.device);
    put8(kRevision, identity.revision);
    for (unsigned n = 0; n < 3; ++n)
        put8(static_cast<u16>(kClassCode + n), static_cast<u8>(identity.class_code >> (8 * n)));
    put8(kHeaderType, static_cast<u8>(identity.header));
    TESSERA_ASSERT(identity.pin <= kPins, kOurs);
    put8(kInterruptPin, identity.pin);
    if (identity.header == HeaderKind::Endpoint) {
        put16(kSubsystemVendor, identity.subsystem_vendor);
        put16(kSubsystem, identity.subsystem);
    }
    constexpr u16 kCommandBits =
        (Flags(Command::BusMaster) | Command::ParityErrorResponse | Command::Serr | Command::IntxDisable)
            .raw();
    writable_[kCommand] = static_cast<u8>(kCommandBits);
    writable_[kCommand + 1] = static_cast<u8>(kCommandBits >> 8);
    if (identity.pin == 0)  // [PCI 6.2.2] A function without INTx# may hardwire the bit to 0.
        writable_[kCommand + 1] &= static_cast<u8>(~(static_cast<u16>(Command::IntxDisable) >> 8));
    else
        writable_[kInterruptLine] = 0xff;
    writable_[kCacheLineSize] = 0xff;
    volatile_[kStatus] = static_cast<u8>(PciStatus::Interrupt);
    built();
}

// --- Building ---

u16 ConfigSpace::bar_offset(unsigned bar) const {
    if (bar == kRomBarIndex) return header_ == HeaderKind::Endpoint ? kRomBar : kBridgeRomBar;
    return static_cast<u16>(kBars + 4 * bar);
}

void ConfigSpace::put_bar_masks(unsigned bar, u32 type, u64 size) {
    const u16 offset = bar_offset(bar);
    const u64 mask = ~(size - 1);
    put32(offset, type);
    const bool wide = (type & kBarIo) == 0 && (type & kBarMemory64) != 0;
    std::memcpy(writable_.data() + offset, &mask, wide ? sizeof(u64) : sizeof(u32));
}

void ConfigSpace::add_bar(unsigned bar, BarKind kind, u64 size, IoDevice& region) {
    const unsigned count = header_ == HeaderKind::Endpoint ? kBarCount : 2;
    TESSERA_ASSERT(bar + (is_64bit(kind) ? 1 : 0) < count && std::has_single_bit(size), kOurs);
    TESSERA_ASSERT(kind == BarKind::Io ? size >= kSmallestIo && size <= kLargestIo : size >= kSmallestMemory,
                   kOurs);
    TESSERA_ASSERT(
        bars_[bar].size == 0 && (bar == 0 || !is_64bit(bars_[bar - 1].kind) || bars_[bar - 1].size == 0),
        kOurs);
    TESSERA_ASSERT(is_64bit(kind) || size < kSpace32, kOurs);
    bars_[bar] = {.kind = kind, .size = size, .region = &region};
    put_bar_masks(bar, type_bits(kind), size);
    writable_[kCommand] |= static_cast<u8>(kind == BarKind::Io ? Command::Io : Command::Memory);
    built();
}

void ConfigSpace::add_rom(u64 size, IoDevice& region) {
    TESSERA_ASSERT(std::has_single_bit(size) && size >= kSmallestRom && size <= 16 * kMiB, kOurs);
    bars_[kRomBarIndex] = {.kind = BarKind::Memory32, .size = size, .region = &region};
    put_bar_masks(kRomBarIndex, 0, size);
    writable_[bar_offset(kRomBarIndex)] |= kRomEnable;
    writable_[kCommand] |= static_cast<u8>(Command::Memory);
    built();
}

u8 ConfigSpace::add_capability(CapabilityId id, std::span<const u8> body, std::span<const u8> writable) {
    const u16 offset = next_capability_;
    const auto size = static_cast<u16>((2 + body.size() + 3) & ~std::size_t{3});
    TESSERA_ASSERT(offset + size <= kConventionalSize && writable.size() <= body.size(), kOurs);
    put8(last_link_, static_cast<u8>(offset));
    put8(offset, static_cast<u8>(id));
    last_link_ = static_cast<u16>(offset + 1);
    next_capability_ = static_cast<u16>(offset + size);
    std::ranges::copy(body, state_.bytes.begin() + offset + 2);
    std::ranges::copy(writable, writable_.begin() + offset + 2);
    state_.bytes[kStatus] |= static_cast<u8>(PciStatus::CapabilityList);
    if (id == CapabilityId::Msi) msi_control_ = static_cast<u16>(offset + 2);
    if (id == CapabilityId::Msix) msix_control_ = static_cast<u16>(offset + 2);
    built();
    return static_cast<u8>(offset);
}

u16 ConfigSpace::add_extended_capability(u16 id, u8 version, std::span<const u8> body,
                                         std::span<const u8> writable) {
    const u16 offset = next_extended_;
    const auto size = static_cast<u16>((4 + body.size() + 3) & ~std::size_t{3});
    TESSERA_ASSERT(offset + size <= end() && writable.size() <= body.size() && version <= 0xf, kOurs);
    // [PCIE 7.6.3]: ID, version, where the next one is.
    put32(offset, id | u32{version} << 16);
    if (last_extended_ != 0) put32(last_extended_, get32(last_extended_) | u32{offset} << 20);
    last_extended_ = offset;
    next_extended_ = static_cast<u16>(offset + size);
    std::ranges::copy(body, state_.bytes.begin() + offset + 4);
    std::ranges::copy(writable, writable_.begin() + offset + 4);
    built();
    return offset;
}

void ConfigSpace::add_power_management() {
    // [PCI-PM 3.2.3], [PCI-PM 3.2.4]: version 3, no PME from any state; PowerState is written, and leaving
    // D3hot is no reset.
    constexpr std::array<u8, 6> kBody = {3, 0, kNoSoftReset, 0, 0, 0};
    constexpr std::array<u8, 3> kWritable = {0, 0, kPowerStateMask};
    power_control_ = static_cast<u16>(add_capability(CapabilityId::PowerManagement, kBody, kWritable) + 4);
}

void ConfigSpace::define(u16 offset, u8 value, u8 writable) {
    TESSERA_ASSERT(offset < end(), kOurs);
    put8(offset, value);
    writable_[offset] = writable;
    built();
}

void ConfigSpace::watch(u16 offset, u16 size, ConfigWatcher& watcher) {
    watches_.push_back({.offset = offset, .size = size, .watcher = &watcher});
}

void ConfigSpace::set_multifunction() {
    state_.bytes[kHeaderType] |= kMultifunction;
    built();
}

void ConfigSpace::set_reset_bit(u16 offset, u8 bit) {
    reset_bit_ = ResetBit{.offset = offset, .bit = bit};
    writable_[offset] |= bit;
}

// --- Registers ---

u16 ConfigSpace::get16(u16 offset) const {
    u16 value = 0;
    std::memcpy(&value, state_.bytes.data() + offset, sizeof value);
    return value;
}

u32 ConfigSpace::get32(u16 offset) const {
    u32 value = 0;
    std::memcpy(&value, state_.bytes.data() + offset, sizeof value);
    return value;
}

void ConfigSpace::put16(u16 offset, u16 value) {
    std::memcpy(state_.bytes.data() + offset, &value, sizeof value);
}

void ConfigSpace::put32(u16 offset, u32 value) {
    std::memcpy(state_.bytes.data() + offset, &value, sizeof value);
}

void ConfigSpace::read(u16 offset, std::span<std::byte> out) const {
    // Nobody answers beyond what a conventional function has.
    if (offset + out.size() > end()) {
        std::ranges::fill(out, std::byte{0xff});
        return;
    }
    std::memcpy(out.data(), state_.bytes.data() + offset, out.size());
}

void ConfigSpace::write(u16 offset, std::span<const std::byte> in) {
    if (offset + in.size() > end()) return;
    const u8 power_before = power_control_ != 0 ? state_.bytes[power_control_] : u8{0};
    for (std::size_t n = 0; n < in.size(); ++n) {
        u8& byte = state_.bytes[offset + n];
        const u8 mask = writable_[offset + n];
        byte = static_cast<u8>((byte & ~mask) | (std::to_integer<u8>(in[n]) & mask));
    }
    // [PCI-PM 3.2.4] A state the function does not have: the write is as if it had not been.
    if (power_control_ != 0) {
        const u8 power = state_.bytes[power_control_] & kPowerStateMask;
        if (power != 0 && power != kPowerStateD3) state_.bytes[power_control_] = power_before;
    }
    if (reset_bit_ && (state_.bytes[reset_bit_->offset] & reset_bit_->bit) != 0) {
        state_.bytes[reset_bit_->offset] &= static_cast<u8>(~reset_bit_->bit);
        reset_requested_ = true;
    }
    for (const Watch& watch : watches_)
        if (touches(offset, in.size(), watch.offset, watch.size)) watch.watcher->config_written();
    sync();
}

bool ConfigSpace::take_reset_request() {
    return std::exchange(reset_requested_, false);
}

// --- What follows from the registers ---

bool ConfigSpace::powered() const {
    return power_control_ == 0 || (state_.bytes[power_control_] & kPowerStateMask) != kPowerStateD3;
}

bool ConfigSpace::bus_master() const {
    return powered() && command().has(Command::BusMaster);
}

std::optional<u64> ConfigSpace::bar_address(unsigned bar) const {
    const Bar& region = bars_[bar];
    if (region.size == 0 || !powered()) return std::nullopt;
    const bool is_io = region.kind == BarKind::Io;
    if (!command().has(is_io ? Command::Io : Command::Memory)) return std::nullopt;
    const u16 offset = bar_offset(bar);
    u64 value = get32(offset);
    if (bar == kRomBarIndex && (value & kRomEnable) == 0) return std::nullopt;
    const bool wide = is_64bit(region.kind);
    if (wide) value |= u64{get32(static_cast<u16>(offset + 4))} << 32;
    const u64 address = value & ~(region.size - 1);
    const u64 all_ones = ~(region.size - 1) & (wide ? ~u64{0} : kSpace32 - 1);
    if (address == 0 || address == all_ones) return std::nullopt;
    // A PC has 64 Ki ports, and the address lines above are not decoded by anyone.
    if (is_io && address > kPortSpace - region.size) return std::nullopt;
    return address;
}

void ConfigSpace::update_bars() {
    for (unsigned bar = 0; bar < bars_.size(); ++bar) {
        if (bars_[bar].size == 0) continue;
        const auto address = bar_address(bar);
        if (address == placed_[bar]) continue;
        placed_[bar] = address;
        if (uplink_ != nullptr) uplink_->place_bar(bar, address);
    }
}

void ConfigSpace::place_bars_again() {
    placed_.fill(std::nullopt);
    if (uplink_ == nullptr) return;
    for (unsigned bar = 0; bar < bars_.size(); ++bar)
        if (bars_[bar].size != 0) {
            placed_[bar] = bar_address(bar);
            uplink_->place_bar(bar, placed_[bar]);
        }
}

bool ConfigSpace::messages_enabled() const {
    return (msi_control_ != 0 && Flags<MsiControl>(get16(msi_control_)).has(MsiControl::Enable)) ||
           (msix_control_ != 0 && Flags<MsixControl>(get16(msix_control_)).has(MsixControl::Enable));
}

// [PCI 6.2.3]: the status bit shows the request whatever the disable bit says. [PCI 6.8.1.3]: a function with
// messages enabled is prohibited from using its pin.
bool ConfigSpace::intx_level() const {
    return interrupt() && powered() && !command().has(Command::IntxDisable) && !messages_enabled();
}

void ConfigSpace::sync() {
    update_bars();
    if (intx_) intx_->set(intx_level());
}

void ConfigSpace::set_interrupt(bool asserted) {
    Flags<PciStatus> status(get16(kStatus));
    status.set(PciStatus::Interrupt, asserted);
    put16(kStatus, status.raw());
    if (intx_) intx_->set(intx_level());
}

bool ConfigSpace::interrupt() const {
    return Flags<PciStatus>(get16(kStatus)).has(PciStatus::Interrupt);
}

void ConfigSpace::send_message(u64 address, u32 data) {
    if (uplink_ != nullptr && bus_master()) uplink_->send_message(address, data);
}

void ConfigSpace::connect(PciUplink& uplink, IrqLine intx) {
    uplink_ = &uplink;
    intx_.emplace(std::move(intx));
    place_bars_again();
    sync();
}

void ConfigSpace::program_bar(unsigned bar, u64 address) {
    const u16 offset = bar_offset(bar);
    const std::size_t size = is_64bit(bars_[bar].kind) ? sizeof(u64) : sizeof(u32);
    for (std::size_t n = 0; n < size; ++n, address >>= 8) {
        u8& byte = state_.bytes[offset + n];
        byte = static_cast<u8>((byte & ~writable_[offset + n]) | (address & writable_[offset + n]));
    }
    sync();
}

void ConfigSpace::enable(Flags<Command> bits) {
    const u16 mask = static_cast<u16>(writable_[kCommand] | writable_[kCommand + 1] << 8);
    put16(kCommand, static_cast<u16>(get16(kCommand) | (bits.raw() & mask)));
    sync();
}

void ConfigSpace::reset() {
    state_.bytes = initial_;
    reset_requested_ = false;
    sync();
}

bool ConfigSpace::valid(const State& s) const {
    if (s.bytes.size() != initial_.size()) return false;
    for (std::size_t n = 0; n < s.bytes.size(); ++n)
        if (((s.bytes[n] ^ initial_[n]) & ~(writable_[n] | volatile_[n])) != 0) return false;
    if (reset_bit_ && (s.bytes[reset_bit_->offset] & reset_bit_->bit) != 0) return false;
    if (power_control_ == 0) return true;
    const u8 power = s.bytes[power_control_] & kPowerStateMask;
    return power == 0 || power == kPowerStateD3;
}

void ConfigSpace::restore(State s) {
    state_ = std::move(s);
    reset_requested_ = false;
    update_bars();
    if (intx_) intx_->restore_level(intx_level());
}

}  // namespace tessera::pci
