#include "devices/pci/root_port.h"

namespace tessera::pci {

namespace {

constexpr u32 kClass = 0x06'04'00;
constexpr u8 kWindow64 = 1;  // in the low nibble of a prefetchable base or limit [PCI-BRIDGE 3.2.5.9]
// Granules of the windows [PCI-BRIDGE 3.2.5.6], [PCI-BRIDGE 3.2.5.8].
constexpr u64 kIoGranule = 0x1000;
constexpr u64 kMemoryGranule = kMiB;

ConfigSpace::Identity identity(RootPort::Ids ids) {
    return {.vendor = ids.vendor,
            .device = ids.device,
            .class_code = kClass,
            .pin = 1,
            .header = HeaderKind::Bridge,
            .size = ConfigSize::Extended};
}

struct Register {
    u16 offset;
    u8 value;
    u8 writable;
};
// Windows are closed at reset: their bases lie above their limits. I/O windows are of 16 bits, prefetchable
// ones of 64.
constexpr Register kRegisters[] = {
    {kCommand, 0,
     static_cast<u8>(
         (Flags(Command::Io) | Command::Memory | Command::BusMaster | Command::ParityErrorResponse).raw())},
    {kPrimaryBus, 0, 0xff},
    {kSecondaryBus, 0, 0xff},
    {kSubordinateBus, 0, 0xff},
    {kIoBase, 0xf0, 0xf0},
    {kIoLimit, 0, 0xf0},
    {kMemoryBase, 0xf0, 0xf0},
    {kMemoryBase + 1, 0xff, 0xff},
    {kMemoryLimit, 0, 0xf0},
    {kMemoryLimit + 1, 0, 0xff},
    {kPrefetchBase, 0xf0 | kWindow64, 0xf0},
    {kPrefetchBase + 1, 0xff, 0xff},
    {kPrefetchLimit, kWindow64, 0xf0},
    {kPrefetchLimit + 1, 0, 0xff},
    {kBridgeControl, 0,
     static_cast<u8>(
         (Flags(BridgeControl::ParityErrorResponse) | BridgeControl::Serr | BridgeControl::SecondaryReset)
             .raw())},
};

}  // namespace

RootPort::RootPort(const PciSurroundings& around, Ids ids, u8 port)
    : config_(identity(ids)), secondary_(around) {
    for (const Register& r : kRegisters) config_.define(r.offset, r.value, r.writable);
    for (const u16 upper : {kPrefetchBaseUpper, kPrefetchLimitUpper})
        for (u16 n = 0; n < 4; ++n) config_.define(static_cast<u16>(upper + n), 0, 0xff);
    config_.add_power_management();
    add_express(config_, ExpressKind::RootPort, port);
}

void RootPort::write_config(u16 offset, std::span<const std::byte> in) {
    PciFunction::write_config(offset, in);
    const bool was_in_reset = in_reset_;
    follow_registers();
    secondary_.place_bars_again();
    if (in_reset_ && !was_in_reset) secondary_.reset_functions();
}

void RootPort::follow_registers() {
    masters_.store(config_.bus_master(), std::memory_order_relaxed);
    in_reset_ = Flags<BridgeControl>(config_.get16(kBridgeControl)).has(BridgeControl::SecondaryReset);
}

void RootPort::reset() {
    config_.reset();
    follow_registers();
    secondary_.place_bars_again();
    secondary_.reset_functions();
}

RootPort::Window RootPort::io_window() const {
    return {.first = u64{config_.get8(kIoBase)} / 0x10 * kIoGranule,
            .last = u64{config_.get8(kIoLimit)} / 0x10 * kIoGranule + (kIoGranule - 1)};
}

RootPort::Window RootPort::memory_window() const {
    return {.first = u64{config_.get16(kMemoryBase)} / 0x10 * kMemoryGranule,
            .last = u64{config_.get16(kMemoryLimit)} / 0x10 * kMemoryGranule + (kMemoryGranule - 1)};
}

RootPort::Window RootPort::prefetch_window() const {
    const u64 base = u64{config_.get16(kPrefetchBase)} / 0x10 * kMemoryGranule;
    const u64 limit = u64{config_.get16(kPrefetchLimit)} / 0x10 * kMemoryGranule;
    return {.first = base | u64{config_.get32(kPrefetchBaseUpper)} << 32,
            .last = (limit | u64{config_.get32(kPrefetchLimitUpper)} << 32) + (kMemoryGranule - 1)};
}

// [PCI-BRIDGE 3.2.5.3]: each space has its enable bit. DEVIATION: a region that lies in a window only in part
// is not forwarded at all, because no software places one so for use.
bool RootPort::forwards_down(BarKind kind, u64 address, u64 size) const {
    if (!config_.powered()) return false;
    if (kind == BarKind::Io) return config_.command().has(Command::Io) && io_window().holds(address, size);
    return config_.command().has(Command::Memory) &&
           (memory_window().holds(address, size) || prefetch_window().holds(address, size));
}

void RootPort::visit_state(StateVisitor& v) {
    auto config = config_.state();
    ConfigSpace::visit(v, 1, config);
}

Status RootPort::load(StateVisitor& v) {
    auto config = config_.initial_state();
    ConfigSpace::visit(v, 1, config);
    if (!config_.valid(config))
        return fail(Errc::CorruptState, "PCI root port: registers no guest could have made");
    config_.restore(std::move(config));
    follow_registers();
    secondary_.place_bars_again();
    return {};
}

}  // namespace tessera::pci
