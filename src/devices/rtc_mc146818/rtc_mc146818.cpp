#include "devices/rtc_mc146818/rtc_mc146818.h"

#include <algorithm>
#include <vector>

namespace tessera::rtc_mc146818 {

namespace {

constexpr u64 kNsPerSecond = 1'000'000'000;
// An alarm far away is looked at again now and then, as the host's wall clock may have been set meanwhile.
constexpr u64 kLookAgainNs = 60 * kNsPerSecond;

constexpr u8 kModeBits = static_cast<u8>(~kClearedByReset);

constexpr bool is_time(u8 index) {
    switch (index) {
        case kSeconds:
        case kMinutes:
        case kHours:
        case kDayOfWeek:
        case kDayOfMonth:
        case kMonth:
        case kYear:
        case kCentury: return true;
        default: return false;
    }
}

constexpr u64 ticks_of(u64 ns) {
    return ns / kNsPerSecond * kTimeBaseHz + ns % kNsPerSecond * kTimeBaseHz / kNsPerSecond;
}

// The first nanosecond at which `ticks` have passed.
constexpr u64 ns_of(u64 ticks) {
    return ticks / kTimeBaseHz * kNsPerSecond +
           (ticks % kTimeBaseHz * kNsPerSecond + kTimeBaseHz - 1) / kTimeBaseHz;
}

}  // namespace

Rtc::Rtc(Config config, IrqLine irq, Clock& clock, TimerQueue& timers)
    : irq_(std::move(irq)), clock_(clock), timer_(timers, *this) {
    state_.offset_seconds =
        static_cast<u64>(std::clamp<s64>(config.utc_offset_seconds, -kLastSecond, kLastSecond));
    state_.seen_second = static_cast<u64>(rtc_seconds());
    state_.seen_period = period_count();
}

u64 Rtc::shifted_wall_ns() const {
    return clock_.wall_ns() + state_.phase_ns;
}

s64 Rtc::rtc_seconds() const {
    return static_cast<s64>(shifted_wall_ns() / kNsPerSecond) + static_cast<s64>(state_.offset_seconds);
}

// [MC146818A] Table 5 "Periodic interrupt rate" for a 32.768 kHz time base: rates 1 and 2 repeat 8 and 9.
u64 Rtc::period_ticks() const {
    const unsigned rate = state_.a & kRateMask;
    if (rate == 0 || !divider_runs()) return 0;
    return u64{1} << (rate <= 2 ? rate + 6 : rate - 1);
}

// Counted from the machine's power-on, so that interrupts keep their beat however late they are served.
u64 Rtc::period_count() const {
    const u64 ticks = period_ticks();
    return ticks == 0 ? 0 : ticks_of(clock_.now_ns()) / ticks;
}

bool Rtc::update_in_progress() const {
    return running() && shifted_wall_ns() % kNsPerSecond >= kNsPerSecond - kUpdateInProgressNs;
}

// Brings the flags up to date: what a chip does as time goes by is done when somebody looks.
void Rtc::account() {
    State& s = state_;
    const u64 periods = period_count();
    if (periods > s.seen_period) s.flags.set(RegisterC::PF);
    s.seen_period = periods;
    const s64 now = rtc_seconds();
    const s64 seen = static_cast<s64>(s.seen_second);
    // A host clock set back shows as no update.
    if (running() && now > seen) {
        s.flags.set(RegisterC::UF);
        if (next_alarm(seen + 1, format(), s.cmos) <= now) s.flags.set(RegisterC::AF);
    }
    s.seen_second = static_cast<u64>(now);
}

// A timer runs only while the line is low and an enabled source can raise it.
void Rtc::arm() {
    const State& s = state_;
    u64 deadline = Timer::kIdle;
    if (!irq_level()) {
        const u64 wall = shifted_wall_ns();
        const u64 now = clock_.now_ns();
        if (s.enables.has(RegisterB::PIE) && period_ticks() != 0)
            deadline = ns_of((s.seen_period + 1) * period_ticks());
        const u64 to_update = kNsPerSecond - wall % kNsPerSecond;
        if (running() && s.enables.has(RegisterB::UIE)) deadline = std::min(deadline, now + to_update);
        if (running() && s.enables.has(RegisterB::AIE)) {
            const s64 second = static_cast<s64>(s.seen_second);
            const s64 alarm = next_alarm(second + 1, format(), s.cmos);
            if (alarm != kNever) {
                const u64 wait = to_update + static_cast<u64>(alarm - second - 1) * kNsPerSecond;
                deadline = std::min(deadline, now + std::min(wait, kLookAgainNs));
            }
        }
    }
    if (deadline == Timer::kIdle)
        timer_.cancel();
    else if (deadline != timer_.queue_deadline_ns)
        timer_.arm(deadline);
}

void Rtc::sync() {
    account();
    irq_.set(irq_level());
    arm();
}

IoStatus Rtc::read(u64 offset, std::span<std::byte> out) {
    if (offset >= kPortCount) return IoStatus::NoRegister;
    if (out.size() != 1 && !(out.size() == 2 && offset == 0)) return IoStatus::BadWidth;
    // The index cannot be read back: a PC's port 0x70 answers as an empty bus.
    if (offset == 0) out[0] = std::byte{0xff};
    if (offset + out.size() == kPortCount) out.back() = std::byte{read_data()};
    return IoStatus::Ok;
}

IoStatus Rtc::write(u64 offset, std::span<const std::byte> in) {
    if (offset >= kPortCount) return IoStatus::NoRegister;
    if (in.size() != 1 && !(in.size() == 2 && offset == 0)) return IoStatus::BadWidth;
    if (offset == 0) {
        const u8 value = std::to_integer<u8>(in[0]);
        state_.index = value & 0x7f;
        state_.nmi_mask = value >> 7;
    }
    if (offset + in.size() == kPortCount) write_data(std::to_integer<u8>(in.back()));
    return IoStatus::Ok;
}

u8 Rtc::read_data() {
    State& s = state_;
    sync();
    switch (s.index) {
        case kRegisterA: return static_cast<u8>(s.a | (update_in_progress() ? kUip : 0));
        case kRegisterB: return (s.modes | s.enables).raw();
        case kRegisterC: {
            const auto value =
                static_cast<u8>(s.flags.raw() | (irq_level() ? static_cast<u8>(RegisterC::IRQF) : 0));
            s.flags = {};
            sync();
            return value;
        }
        case kRegisterD: return kVrt;
        default: break;
    }
    if (!is_time(s.index) || !running()) return s.cmos[s.index];
    CmosBytes now{};
    encode_time(rtc_seconds(), format(), s.weekday_shift, now);
    return now[s.index];
}

void Rtc::write_data(u8 value) {
    State& s = state_;
    account();
    switch (s.index) {
        case kRegisterA: write_a(value); break;
        case kRegisterB: write_b(value); break;
        case kRegisterC:
        case kRegisterD: break;  // read-only
        default:
            if (is_time(s.index))
                write_time(s.index, value);
            else
                s.cmos[s.index] = value;
            break;
    }
    sync();
}

void Rtc::write_time(u8 index, u8 value) {
    if (!running()) {
        state_.cmos[index] = value;
        return;
    }
    CmosBytes now{};
    encode_time(rtc_seconds(), format(), state_.weekday_shift, now);
    now[index] = value;
    set_running_time(now);
}

void Rtc::set_running_time(const CmosBytes& cmos) {
    State& s = state_;
    const Decoded decoded = decode_time(cmos, format());
    s.offset_seconds = static_cast<u64>(decoded.seconds - static_cast<s64>(shifted_wall_ns() / kNsPerSecond));
    s.weekday_shift = decoded.weekday_shift;
    s.seen_second = static_cast<u64>(decoded.seconds);
}

// The time goes on from what the registers hold.
void Rtc::thaw() {
    set_running_time(state_.cmos);
}

void Rtc::write_a(u8 value) {
    State& s = state_;
    const bool ran = running();
    const bool divider_ran = divider_runs();
    // GAP: the 4.19 MHz and 1.05 MHz time bases; a PC's crystal is 32.768 kHz, and with another setting the
    // clock stands.
    if (ran && (value & kDividerMask) != kDivider32KHz) freeze();
    s.a = value & (kDividerMask | kRateMask);
    if (!divider_ran && divider_runs()) {
        const u64 fraction = clock_.wall_ns() % kNsPerSecond;
        s.phase_ns = static_cast<u32>((kNsPerSecond + kFirstUpdateNs - fraction) % kNsPerSecond);
        s.seen_second = static_cast<u64>(rtc_seconds());
    }
    if (!ran && running()) thaw();
    s.seen_period = period_count();
}

void Rtc::write_b(u8 value) {
    State& s = state_;
    const bool ran = running();
    Flags<RegisterB> next(value);
    const bool stops = next.has(RegisterB::SET);
    if (ran && stops) freeze();
    // [MC146818A] SET going high clears UIE.
    if (stops) next.set(RegisterB::UIE, false);
    s.modes = Flags<RegisterB>(next.raw() & kModeBits);
    s.enables = Flags<RegisterB>(next.raw() & kClearedByReset);
    if (!ran && running()) thaw();
}

void Rtc::reset() {
    State& s = state_;
    account();
    s.enables = {};
    s.flags = {};
    s.index = 0;
    s.nmi_mask = 0;
    sync();
}

void Rtc::firmware_init() {
    write_a(State{}.a);
    write_b(static_cast<u8>(RegisterB::H24));
    sync();
}

bool Rtc::preset(u8 index, u8 value) {
    if (index < kFirstRam || index >= kCmosSize || index == kCentury) return false;
    state_.cmos[index] = value;
    return true;
}

bool Rtc::visit(StateVisitor& v, State& s) {
    auto& [cmos, index, nmi_mask, a, modes, enables, flags, offset_seconds, phase_ns, weekday_shift,
           seen_second, seen_period] = s;
    std::vector<u8> bytes(cmos.begin(), cmos.end());
    v.field(1, "cmos", bytes);
    const bool complete = bytes.size() == cmos.size();
    if (complete) std::ranges::copy(bytes, cmos.begin());
    v.field(2, "index", index);
    v.field(3, "nmi_mask", nmi_mask);
    v.field(4, "a", a);
    v.field(5, "modes", modes);
    v.field(6, "enables", enables);
    v.field(7, "flags", flags);
    v.field(8, "offset_seconds", offset_seconds);
    v.field(9, "phase_ns", phase_ns);
    v.field(10, "weekday_shift", weekday_shift);
    v.field(11, "seen_second", seen_second);
    v.field(12, "seen_period", seen_period);
    return complete;
}

Status Rtc::load(StateVisitor& v) {
    State next;
    if (!visit(v, next)) return fail(Errc::CorruptState, "rtc_mc146818: the memory is not 128 bytes");
    if (v.corrupt()) return fail(Errc::CorruptState, "rtc_mc146818: a register does not fit its width");
    const auto in_range = [](u64 seconds) {
        return static_cast<s64>(seconds) >= 2 * kFirstSecond - kLastSecond &&
               static_cast<s64>(seconds) <= 2 * kLastSecond;
    };
    if (next.index >= kCmosSize || next.nmi_mask > 1 || (next.a & ~(kDividerMask | kRateMask)) != 0 ||
        (next.modes.raw() & ~kModeBits) != 0 || (next.enables.raw() & ~kClearedByReset) != 0 ||
        (next.flags.raw() & ~kFlagBits) != 0 || next.weekday_shift > 6)
        return fail(Errc::CorruptState, "rtc_mc146818: a register has a value that cannot be set");
    if (!in_range(next.offset_seconds) || !in_range(next.seen_second) || next.phase_ns >= kNsPerSecond)
        return fail(Errc::CorruptState, "rtc_mc146818: the time is outside the years 0 to 9999");
    state_ = next;
    arm();
    irq_.restore_level(irq_level());
    return {};
}

}  // namespace tessera::rtc_mc146818
