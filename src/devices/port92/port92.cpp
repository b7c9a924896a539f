#include "devices/port92/port92.h"

namespace tessera::port92 {

namespace {
// GAP: the security lock needs a power-on password in CMOS to guard; the watchdog is a Micro Channel part.
constexpr u8 kKept = static_cast<u8>(ControlA::FastReset) | static_cast<u8>(ControlA::A20) |
                     static_cast<u8>(ControlA::LightA) | static_cast<u8>(ControlA::LightB);
}  // namespace

IoStatus Port92::read(u64 offset, std::span<std::byte> out) {
    if (out.size() != 1) return IoStatus::BadWidth;
    if (offset != 0) return IoStatus::NoRegister;
    out[0] = std::byte{state_.control.raw()};
    return IoStatus::Ok;
}

// [PS2-TRM] FastReset going from 0 to 1 resets the system; it stays set so that software can tell afterwards.
IoStatus Port92::write(u64 offset, std::span<const std::byte> in) {
    if (in.size() != 1) return IoStatus::BadWidth;
    if (offset != 0) return IoStatus::NoRegister;
    const bool was = state_.control.has(ControlA::FastReset);
    state_.control = Flags<ControlA>(std::to_integer<u8>(in[0]) & kKept);
    drive_a20();
    if (!was && state_.control.has(ControlA::FastReset)) machine_.request_reset(ResetSource::Port92);
    return IoStatus::Ok;
}

void Port92::reset() {
    state_ = State{};
    drive_a20();
}

void Port92::visit(StateVisitor& v, State& s) {
    auto& [control] = s;
    v.field(1, "control", control);
}

Status Port92::load(StateVisitor& v) {
    State next;
    visit(v, next);
    if (v.corrupt() || (next.control.raw() & ~kKept) != 0)
        return fail(Errc::CorruptState, "port92: the register has bits that cannot be set");
    state_ = next;
    drive_a20();
    return {};
}

}  // namespace tessera::port92
