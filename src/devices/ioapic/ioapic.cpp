#include "devices/ioapic/ioapic.h"

#include <cstring>
#include <optional>

namespace tessera::ioapic {

namespace {

using Entry = Flags<Redirection>;

constexpr DeliveryMode delivery_mode_of(Entry entry) {
    return static_cast<DeliveryMode>(entry.raw() >> kDeliveryModeShift & 7);
}
constexpr u8 vector_of(Entry entry) {
    return static_cast<u8>(entry.raw());
}

// [82093AA 3.2.4] Only these two can be level triggered; the others are treated as edges whatever bit 15
// says.
constexpr bool is_level(Entry entry) {
    const DeliveryMode mode = delivery_mode_of(entry);
    return entry.has(Redirection::Level) &&
           (mode == DeliveryMode::Fixed || mode == DeliveryMode::LowestPriority);
}

constexpr std::optional<Window> window_at(u64 offset) {
    switch (offset) {
        case static_cast<u64>(Window::IOREGSEL): return Window::IOREGSEL;
        case static_cast<u64>(Window::IOWIN): return Window::IOWIN;
        case static_cast<u64>(Window::EOIR): return Window::EOIR;
        default: return std::nullopt;
    }
}

// [82093AA 3.1] Registers are double words; the select and EOI registers, of 8 bits, also answer narrower
// accesses.
constexpr bool width_fits(Window window, std::size_t width) {
    return width == 4 || (window != Window::IOWIN && (width == 1 || width == 2));
}

Status refuse_state() {
    return fail(Errc::CorruptState, "I/O APIC: the saved state holds values no I/O APIC can have");
}

}  // namespace

IoStatus IoApic::read(u64 offset, std::span<std::byte> out) {
    const auto window = window_at(offset);
    if (!window || *window == Window::EOIR) return IoStatus::NoRegister;
    if (!width_fits(*window, out.size())) return IoStatus::BadWidth;
    const u32 value = *window == Window::IOREGSEL ? u32{state_.select} : read_selected();
    std::memcpy(out.data(), &value, out.size());
    return IoStatus::Ok;
}

IoStatus IoApic::write(u64 offset, std::span<const std::byte> in) {
    const auto window = window_at(offset);
    if (!window) return IoStatus::NoRegister;
    if (!width_fits(*window, in.size())) return IoStatus::BadWidth;
    u32 value = 0;
    std::memcpy(&value, in.data(), in.size());
    switch (*window) {
        case Window::IOREGSEL: state_.select = static_cast<u8>(value); break;
        case Window::IOWIN: write_selected(value); break;
        case Window::EOIR: end_of_interrupt(static_cast<u8>(value)); break;
    }
    return IoStatus::Ok;
}

u32 IoApic::read_selected() const {
    const u8 select = state_.select;
    switch (static_cast<Index>(select)) {
        case Index::IOAPICID:
        case Index::IOAPICARB: return u32{state_.id} << kIdShift;
        case Index::IOAPICVER: return kVersion | (kPins - 1) << 16;
        case Index::IOREDTBL: break;
    }
    if (select < static_cast<u8>(Index::IOREDTBL) || select >= kIndexEnd) return 0;
    const u64 entry = state_.table[(select - 0x10u) / 2].raw();
    return static_cast<u32>((select & 1) != 0 ? entry >> 32 : entry);
}

void IoApic::write_selected(u32 value) {
    const u8 select = state_.select;
    if (select == static_cast<u8>(Index::IOAPICID)) {
        state_.id = static_cast<u8>(value >> kIdShift & kIdMask);
        return;
    }
    if (select < static_cast<u8>(Index::IOREDTBL) || select >= kIndexEnd) return;  // read only or reserved
    const unsigned pin = (select - 0x10u) / 2;
    const u64 old = state_.table[pin].raw();
    const u64 next =
        (select & 1) != 0 ? (old & 0xffff'ffff) | u64{value} << 32 : (old & ~u64{0xffff'ffff}) | value;
    write_entry(pin, Entry(next & kWritable));
}

void IoApic::write_entry(unsigned pin, Entry next) {
    // Remote IRR is the chip's; an entry that is no longer level triggered has none, which is how software
    // that cannot name a vector in EOIR ends an interrupt by hand.
    next.set(Redirection::RemoteIrr, state_.table[pin].has(Redirection::RemoteIrr) && is_level(next));
    state_.table[pin] = next;
    deliver_level(pin);
}

bool IoApic::active(unsigned pin) const {
    const bool requests = (state_.levels >> pin & 1) != 0;
    const bool wired_low = (config_.active_low_pins >> pin & 1) != 0;
    return requests == (wired_low == state_.table[pin].has(Redirection::ActiveLow));
}

void IoApic::set_level(unsigned pin, bool high) {
    if (pin >= kPins) return;
    const u32 bit = u32{1} << pin;
    const bool was_active = active(pin);
    state_.levels = high ? state_.levels | bit : state_.levels & ~bit;
    const Entry entry = state_.table[pin];
    if (is_level(entry)) {
        deliver_level(pin);
    } else if (active(pin) && !was_active && !entry.has(Redirection::Masked)) {
        // [82093AA 3.2.4] An edge on a masked pin is ignored, not held.
        send(pin);
    }
}

// [82093AA 3.2.4] Level-triggered: sent when active, and not again until the local APIC has ended it.
void IoApic::deliver_level(unsigned pin) {
    Entry& entry = state_.table[pin];
    if (!is_level(entry) || entry.has(Redirection::Masked) || entry.has(Redirection::RemoteIrr) ||
        !active(pin))
        return;
    entry.set(Redirection::RemoteIrr);
    send(pin);
}

void IoApic::send(unsigned pin) {
    const Entry entry = state_.table[pin];
    ApicMessage message;
    message.destination = wide_destination(static_cast<u8>(entry.raw() >> kDestinationShift));
    message.destination_mode =
        entry.has(Redirection::LogicalDestination) ? DestinationMode::Logical : DestinationMode::Physical;
    message.delivery_mode = delivery_mode_of(entry);
    message.vector = vector_of(entry);
    message.trigger = is_level(entry) ? TriggerMode::Level : TriggerMode::Edge;
    // [82093AA 3.2.4] 110b is reserved: only CPUs send start-up messages.
    if (message.delivery_mode == DeliveryMode::StartUp) message.delivery_mode = DeliveryMode::Reserved;
    fabric_.deliver(message);
}

void IoApic::end_of_interrupt(u8 vector) {
    for (unsigned pin = 0; pin < kPins; ++pin) {
        Entry& entry = state_.table[pin];
        if (!entry.has(Redirection::RemoteIrr) || vector_of(entry) != vector) continue;
        entry.set(Redirection::RemoteIrr, false);
        deliver_level(pin);
    }
}

void IoApic::reset() {
    State fresh;
    fresh.id = config_.id & kIdMask;
    fresh.levels = state_.levels;
    fresh.table.fill(Redirection::Masked);
    state_ = fresh;
}

void IoApic::visit(StateVisitor& v, State& s) {
    auto& [id, select, levels, table] = s;
    v.field(1, "id", id);
    v.field(2, "select", select);
    v.field(3, "levels", levels);
    for (unsigned pin = 0; pin < kPins; ++pin) v.field(10 + pin, "redirection", table[pin]);
}

bool IoApic::valid(const State& s) {
    if (s.id > kIdMask || s.levels >> kPins != 0) return false;
    for (const Entry entry : s.table) {
        if ((entry.raw() & ~(kWritable | static_cast<u64>(Redirection::RemoteIrr))) != 0) return false;
        if (entry.has(Redirection::RemoteIrr) && !is_level(entry)) return false;
    }
    return true;
}

Status IoApic::load(StateVisitor& v) {
    State next;
    next.table.fill(Redirection::Masked);
    visit(v, next);
    if (v.corrupt()) return refuse_state();
    return restore(next);
}

Status IoApic::restore(const State& state) {
    if (!valid(state)) return refuse_state();
    state_ = state;
    return {};
}

}  // namespace tessera::ioapic
