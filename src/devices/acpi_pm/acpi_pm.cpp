#include "devices/acpi_pm/acpi_pm.h"

namespace tessera::acpi_pm {

namespace {

constexpr u64 kNsPerSecond = 1'000'000'000;

// What can ever be set: there is no sleep button, no bus master status, no global lock owner and no PCI
// Express wake.
constexpr u16 kStatusMask = static_cast<u16>(Pm1Status::TMR_STS) | static_cast<u16>(Pm1Status::PWRBTN_STS) |
                            static_cast<u16>(Pm1Status::RTC_STS) | static_cast<u16>(Pm1Status::WAK_STS);
constexpr u16 kEnableMask = static_cast<u16>(Pm1Enable::TMR_EN) | static_cast<u16>(Pm1Enable::GBL_EN) |
                            static_cast<u16>(Pm1Enable::PWRBTN_EN) | static_cast<u16>(Pm1Enable::RTC_EN);
constexpr u16 kControlKept = kSleepTypeMask | static_cast<u16>(Pm1Control::BM_RLD);

IoStatus check(u64 offset, std::size_t width, u64 size) {
    if (width != 1 && width != 2 && width != 4) return IoStatus::BadWidth;
    if (offset % width != 0) return IoStatus::Unaligned;
    if (offset >= size || width > size - offset) return IoStatus::NoRegister;
    return IoStatus::Ok;
}

constexpr u8 byte_of(u32 value, u64 index) {
    return static_cast<u8>(value >> (8 * index));
}

constexpr u16 with_byte(u16 value, u64 index, u8 byte) {
    const unsigned shift = index == 0 ? 0 : 8;
    return static_cast<u16>((value & ~(0xffU << shift)) | (unsigned{byte} << shift));
}

}  // namespace

// Exact: whole seconds and the rest apart, so that 64 bits hold every product.
u64 AcpiPm::ticks() const {
    const u64 now = clock_.now_ns();
    return now / kNsPerSecond * kPmTimerHz + now % kNsPerSecond * kPmTimerHz / kNsPerSecond;
}

u64 AcpiPm::timer_halves() const {
    return ticks() >> (static_cast<unsigned>(config_.timer_width) - 1);
}

u32 AcpiPm::timer_value() const {
    const u64 mask = (u64{1} << static_cast<unsigned>(config_.timer_width)) - 1;
    return static_cast<u32>(ticks() & mask);
}

// [ACPI 6.5 4.8.3.1.1] TMR_STS is set when the highest bit changes, either way.
void AcpiPm::note_carry() {
    const u64 halves = timer_halves();
    if (halves == state_.halves_seen) return;
    state_.halves_seen = halves;
    state_.status.set(Pm1Status::TMR_STS);
}

// Somebody can only see the moment of the carry when it makes an interrupt; else reading computes it.
void AcpiPm::arm_carry() {
    if (!state_.enable.has(Pm1Enable::TMR_EN) || state_.status.has(Pm1Status::TMR_STS)) {
        carry_timer_.cancel();
        return;
    }
    const u64 next = (state_.halves_seen + 1) << (static_cast<unsigned>(config_.timer_width) - 1);
    const u64 seconds = next / kPmTimerHz;
    const u64 rest = next % kPmTimerHz;
    carry_timer_.arm(seconds * kNsPerSecond + (rest * kNsPerSecond + kPmTimerHz - 1) / kPmTimerHz);
}

bool AcpiPm::sci_level() const {
    const State& s = state_;
    return (s.status.raw() & s.enable.raw()) != 0 || (gpe_status() & s.gpe_enable) != 0;
}

void AcpiPm::sync() {
    note_carry();
    arm_carry();
    sci_.set(sci_level());
}

u8 AcpiPm::read_byte(u64 offset, u32 timer) const {
    if (offset < kPm1EnableOffset) return byte_of(state_.status.raw(), offset - kPm1StatusOffset);
    if (offset < kPm1ControlOffset) return byte_of(state_.enable.raw(), offset - kPm1EnableOffset);
    // [ACPI 6.5 4.8.3.2.1] SCI_EN: always in ACPI mode.
    if (offset < kPm1ControlOffset + 2)
        return byte_of(state_.control | static_cast<u16>(Pm1Control::SCI_EN), offset - kPm1ControlOffset);
    if (offset >= kPmTimerOffset) return byte_of(timer, offset - kPmTimerOffset);
    return 0;
}

IoStatus AcpiPm::read(u64 offset, std::span<std::byte> out) {
    const IoStatus status = check(offset, out.size(), kPmBlockSize);
    if (status != IoStatus::Ok) return status;
    // The timer is read often and changes nothing.
    const u32 timer = offset >= kPmTimerOffset ? timer_value() : 0;
    if (offset < kPm1EnableOffset) sync();
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = std::byte{read_byte(offset + i, timer)};
    return IoStatus::Ok;
}

void AcpiPm::write_byte(u64 offset, u8 value) {
    State& s = state_;
    if (offset < kPm1EnableOffset) {
        const u16 clear = with_byte(0, offset - kPm1StatusOffset, value);
        s.status = Flags<Pm1Status>(static_cast<u16>(s.status.raw() & ~clear));
    } else if (offset < kPm1ControlOffset) {
        s.enable =
            Flags<Pm1Enable>(with_byte(s.enable.raw(), offset - kPm1EnableOffset, value) & kEnableMask);
    } else if (offset < kPm1ControlOffset + 2) {
        write_control(with_byte(s.control, offset - kPm1ControlOffset, value));
    }
    // The timer is read-only [ACPI 6.5 4.8.3.3].
}

void AcpiPm::write_control(u16 value) {
    State& s = state_;
    s.control = value & kControlKept;
    if (!Flags<Pm1Control>(value).has(Pm1Control::SLP_EN)) return;
    if ((s.control & kSleepTypeMask) >> kSleepTypeShift == config_.s5_sleep_type) {
        machine_.request_power_off();
        return;
    }
    // GAP: S1 to S4. The DSDT does not offer them; a guest that tries finds itself woken at once and does not
    // wait for ever.
    ++refused_sleeps_;
    s.status.set(Pm1Status::WAK_STS);
}

IoStatus AcpiPm::write(u64 offset, std::span<const std::byte> in) {
    const IoStatus status = check(offset, in.size(), kPmBlockSize);
    if (status != IoStatus::Ok) return status;
    note_carry();
    for (std::size_t i = 0; i < in.size(); ++i) write_byte(offset + i, std::to_integer<u8>(in[i]));
    sync();
    return IoStatus::Ok;
}

IoStatus AcpiPm::read_gpe0(u64 offset, std::span<std::byte> out) {
    const IoStatus status = check(offset, out.size(), kGpe0BlockSize);
    if (status != IoStatus::Ok) return status;
    const u32 both = gpe_status() | u32{state_.gpe_enable} << 16;
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = std::byte{byte_of(both, offset + i)};
    return IoStatus::Ok;
}

// [ACPI 6.5 4.8.4.1] Clearing a status bit whose input is still high has no effect that lasts.
IoStatus AcpiPm::write_gpe0(u64 offset, std::span<const std::byte> in) {
    const IoStatus status = check(offset, in.size(), kGpe0BlockSize);
    if (status != IoStatus::Ok) return status;
    State& s = state_;
    for (std::size_t i = 0; i < in.size(); ++i) {
        const u64 at = offset + i;
        const u8 value = std::to_integer<u8>(in[i]);
        if (at < 2)
            s.gpe_latched = static_cast<u16>(s.gpe_latched & ~with_byte(0, at, value));
        else
            s.gpe_enable = with_byte(s.gpe_enable, at - 2, value);
    }
    sync();
    return IoStatus::Ok;
}

bool AcpiPm::press_power_button() {
    state_.status.set(Pm1Status::PWRBTN_STS);
    sync();
    return state_.enable.has(Pm1Enable::PWRBTN_EN);
}

void AcpiPm::rtc_alarm() {
    state_.status.set(Pm1Status::RTC_STS);
    sync();
}

void AcpiPm::set_gpe(unsigned gpe, bool high) {
    if (gpe >= kGpeCount) return;
    const u16 bit = static_cast<u16>(1U << gpe);
    State& s = state_;
    s.gpe_latched |= s.gpe_inputs;
    s.gpe_inputs = static_cast<u16>(high ? s.gpe_inputs | bit : s.gpe_inputs & ~bit);
    sync();
}

// The timer counts on, and what drives the general-purpose events is not ours to reset.
void AcpiPm::reset() {
    const u16 inputs = state_.gpe_inputs;
    state_ = State{};
    state_.gpe_inputs = inputs;
    state_.halves_seen = timer_halves();
    sync();
}

void AcpiPm::visit_state(StateVisitor& v) {
    visit(v, state_);
}

void AcpiPm::visit(StateVisitor& v, State& s) {
    auto& [status, enable, control, gpe_latched, gpe_enable, gpe_inputs, halves_seen] = s;
    v.field(1, "status", status);
    v.field(2, "enable", enable);
    v.field(3, "control", control);
    v.field(4, "gpe_latched", gpe_latched);
    v.field(5, "gpe_enable", gpe_enable);
    v.field(6, "gpe_inputs", gpe_inputs);
    v.field(7, "halves_seen", halves_seen);
}

Status AcpiPm::load(StateVisitor& v) {
    State next;
    visit(v, next);
    if (v.corrupt()) return fail(Errc::CorruptState, "acpi_pm: a register does not fit its width");
    if ((next.status.raw() & ~kStatusMask) != 0 || (next.enable.raw() & ~kEnableMask) != 0 ||
        (next.control & ~kControlKept) != 0)
        return fail(Errc::CorruptState, "acpi_pm: a register has bits that cannot be set");
    if (next.halves_seen > timer_halves())
        return fail(Errc::CorruptState, "acpi_pm: the timer is ahead of the machine's clock");
    state_ = next;
    arm_carry();
    sci_.restore_level(sci_level());
    return {};
}

}  // namespace tessera::acpi_pm
