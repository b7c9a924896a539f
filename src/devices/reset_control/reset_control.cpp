#include "devices/reset_control/reset_control.h"

namespace tessera::reset_control {

IoStatus ResetControl::read(u64 offset, std::span<std::byte> out) {
    if (out.size() != 1) return IoStatus::BadWidth;
    if (offset != 0) return IoStatus::NoRegister;
    out[0] = std::byte{state_.control.raw()};
    return IoStatus::Ok;
}

// [ICH9 13.7.5] RST_CPU going from 0 to 1 starts the reset; SYS_RST and FULL_RST written before or with it
// say which. DEVIATION: without SYS_RST only the CPUs would be reset (INIT); we reset the machine, because
// software that asks for it wants a reboot and firmware that would tell the two apart is not there.
IoStatus ResetControl::write(u64 offset, std::span<const std::byte> in) {
    if (in.size() != 1) return IoStatus::BadWidth;
    if (offset != 0) return IoStatus::NoRegister;
    const bool was = state_.control.has(RstCnt::RST_CPU);
    state_.control = Flags<RstCnt>(std::to_integer<u8>(in[0]) & kRstCntMask);
    if (!was && state_.control.has(RstCnt::RST_CPU)) machine_.request_reset(ResetSource::ResetRegister);
    return IoStatus::Ok;
}

void ResetControl::visit(StateVisitor& v, State& s) {
    auto& [control] = s;
    v.field(1, "control", control);
}

Status ResetControl::load(StateVisitor& v) {
    State next;
    visit(v, next);
    if (v.corrupt() || (next.control.raw() & ~kRstCntMask) != 0)
        return fail(Errc::CorruptState, "reset_control: the register has bits that cannot be set");
    state_ = next;
    return {};
}

}  // namespace tessera::reset_control
