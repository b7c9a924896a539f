#include "devices/pci/pci_bus.h"

#include <algorithm>
#include <fmt/format.h>

#include "base/assert.h"

namespace tessera::pci {

namespace {

constexpr u8 kRootBus = 0;

// What a function reads like that is not there.
void float_bus(std::span<std::byte> out) {
    std::ranges::fill(out, std::byte{0xff});
}

}  // namespace

// One function's way to the rest of the machine.
class PciBus::Uplink final : public PciUplink {
public:
    Uplink(PciBus& bus, Seat& seat) : bus_(bus), seat_(seat) {}

    void place_bar(unsigned bar, std::optional<u64> address) override {
        const Bar& region = seat_.function->config().bars().at(bar);
        const auto range = seat_.ranges.at(bar);
        if (!range) return;
        if (address && !bus_.reachable(region.kind, *address, region.size)) address.reset();
        (region.kind == BarKind::Io ? bus_.around_.ports : bus_.around_.memory).place(*range, address);
    }
    void send_message(u64 address, u32 data) override {
        if (bus_.may_write_memory()) bus_.around_.messages.send(address, data);
    }

private:
    PciBus& bus_;
    Seat& seat_;
};

// --- Building ---

Status PciBus::attach(std::string name, Slot slot, PciFunction& function, Lock& lock, PciBridgeSide* bridge) {
    if (slot.device >= kDevicesPerBus || slot.function >= kFunctionsPerDevice)
        return fail(Errc::InvalidArgument,
                    fmt::format("{}: there is no PCI slot {:02x}.{}", name, slot.device, slot.function));
    if (const Seat* other = by_slot_[slot.index()]; other != nullptr)
        return fail(Errc::InvalidArgument, fmt::format("{} and {} both have PCI slot {:02x}.{}", name,
                                                       other->name, slot.device, slot.function));
    Seat* const first = by_slot_[Slot{.device = slot.device}.index()];
    // [PCI 3.2.2.3.4] Function 0 tells that there are others.
    if (slot.function != 0) {
        if (first == nullptr)
            return fail(Errc::InvalidArgument,
                        fmt::format("{}: PCI slot {:02x} has no function 0", name, slot.device));
        first->function->config().set_multifunction();
    }
    auto seat = std::make_unique<Seat>(Seat{.name = std::move(name),
                                            .slot = slot,
                                            .function = &function,
                                            .lock = &lock,
                                            .bridge = bridge,
                                            .uplink = nullptr,
                                            .ranges = {}});
    ConfigSpace& config = function.config();
    for (unsigned n = 0; n < config.bars().size(); ++n) {
        const Bar& bar = config.bars()[n];
        if (bar.size == 0) continue;
        IoBus& space = bar.kind == BarKind::Io ? around_.ports : around_.memory;
        seat->ranges[n] = space.add_movable(
            n == kRomBarIndex ? fmt::format("{} ROM", seat->name) : fmt::format("{} BAR {}", seat->name, n),
            bar.size, *bar.region, lock);
    }
    seat->uplink = std::make_unique<Uplink>(*this, *seat);
    config.connect(*seat->uplink,
                   config.pin() == 0
                       ? IrqLine::detached()
                       : IrqLine(around_.interrupts, interrupt_line(slot.device, config.pin() - 1U)));
    by_slot_[slot.index()] = seat.get();
    seats_.push_back(std::move(seat));
    return {};
}

std::optional<u8> PciBus::free_device(u8 first) const {
    for (u8 device = first; device < kDevicesPerBus; ++device)
        if (by_slot_[Slot{.device = device}.index()] == nullptr) return device;
    return std::nullopt;
}

void PciBus::connect(PciBus& parent, Slot slot, PciBridgeSide& self) {
    parent_ = &parent;
    bridge_slot_ = slot;
    bridge_ = &self;
}

// [PCI-BRIDGE 9.1]: behind a bridge a pin becomes the next one with every device number.
unsigned PciBus::interrupt_line(u8 device, unsigned pin) const {
    if (parent_ == nullptr) return interrupt_line_of(device, pin);
    return parent_->interrupt_line(bridge_slot_.device, (device + pin) % kPins);
}

// --- Ways through bridges ---

bool PciBus::reachable(BarKind kind, u64 address, u64 size) const {
    return bridge_ == nullptr ||
           (bridge_->forwards_down(kind, address, size) && parent_->reachable(kind, address, size));
}

bool PciBus::may_write_memory() const {
    return bridge_ == nullptr || (bridge_->forwards_up() && parent_->may_write_memory());
}

void PciBus::place_bars_again() {
    for (const auto& seat : seats_) {
        {
            const LockGuard guard(*seat->lock);
            seat->function->config().place_bars_again();
        }
        if (seat->bridge != nullptr) seat->bridge->secondary().place_bars_again();
    }
}

void PciBus::reset_functions() {
    for (const auto& seat : seats_) {
        const LockGuard guard(*seat->lock);
        seat->function->reset();
    }
}

// --- Configuration accesses ---

// The tree is walked as it is built, so that no bus numbers a guest writes lead in circles. Of two bridges
// that claim the same bus, the one attached first has it.
PciBus::Seat* PciBus::find(u8 bus, Slot slot) {
    PciBus* here = this;
    u8 number = kRootBus;
    while (number != bus) {
        const auto way = std::ranges::find_if(here->seats_, [&](const auto& seat) {
            if (seat->bridge == nullptr) return false;
            const ConfigSpace& config = seat->function->config();
            const u8 secondary = config.get8(kSecondaryBus);
            return secondary != kRootBus && secondary <= bus && bus <= config.get8(kSubordinateBus);
        });
        if (way == here->seats_.end()) return nullptr;
        number = (*way)->function->config().get8(kSecondaryBus);
        here = &(*way)->bridge->secondary();
    }
    return here->by_slot_[slot.index()];
}

void PciBus::read_config(u8 bus, Slot slot, u16 offset, std::span<std::byte> out) {
    Seat* const seat = find(bus, slot);
    if (seat == nullptr) {
        float_bus(out);
        return;
    }
    const LockGuard guard(*seat->lock);
    seat->function->read_config(offset, out);
}

void PciBus::write_config(u8 bus, Slot slot, u16 offset, std::span<const std::byte> in) {
    Seat* const seat = find(bus, slot);
    if (seat == nullptr) return;
    const LockGuard guard(*seat->lock);
    seat->function->write_config(offset, in);
}

}  // namespace tessera::pci
