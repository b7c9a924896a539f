#include "devices/hpet/hpet.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

namespace tessera::hpet {

namespace {

constexpr u64 kRouteCapabilities = ((u64{1} << kRouteCount) - 1) << kFirstRoute;
constexpr unsigned kLegacyLines = kRouteCount;  // the first of the two
constexpr u64 kLow32 = 0xffff'ffff;
// Timers that are due more often are served together: nothing a guest programs keeps the host busy.
constexpr u64 kShortestPauseNs = 20'000;
constexpr u64 kForever = std::numeric_limits<u64>::max();
// Beyond any life of a machine; sums with it do not overflow.
constexpr u64 kFarTicks = u64{1} << 58;

// The bits that never change: three 64-bit timers, all periodic, all with messages.
constexpr u64 kTimerCapabilities =
    (Flags(TimerConfig::PeriodicCapable) | TimerConfig::Size64 | TimerConfig::MessageCapable).raw() |
    kRouteCapabilities << kRouteCapShift;

constexpr bool is_32bit(Flags<TimerConfig> config) {
    return config.has(TimerConfig::Mode32);
}
constexpr u64 wrapped(Flags<TimerConfig> config, u64 value) {
    return is_32bit(config) ? value & kLow32 : value;
}

// Ticks from `from` until the counter reaches the comparator: never 0, as it has just left that value.
constexpr u64 distance(Flags<TimerConfig> config, u64 from, u64 comparator) {
    const u64 ticks = wrapped(config, comparator - from);
    if (ticks != 0) return ticks;
    return is_32bit(config) ? kLow32 + 1 : kForever;
}

constexpr u64 merge(u64 old, u64 value, u64 mask) {
    return (old & ~mask) | (value & mask);
}

}  // namespace

Hpet::Hpet(u16 vendor, Wires wires, Clock& clock, TimerQueue& timers)
    : vendor_(vendor),
      lines_{IrqLine(wires.io_apic, kFirstRoute),
             IrqLine(wires.io_apic, kFirstRoute + 1),
             IrqLine(wires.io_apic, kFirstRoute + 2),
             IrqLine(wires.io_apic, kFirstRoute + 3),
             IrqLine(wires.legacy, 0),
             IrqLine(wires.legacy, 8)},
      legacy_selected_(std::move(wires.legacy_selected)),
      messages_(wires.messages),
      clock_(clock),
      timer_(timers, *this) {}

u64 Hpet::capabilities() const {
    return kRevision | u64{kTimerCount - 1} << kLastTimerShift | kCounter64 | kLegacyCapable |
           u64{vendor_} << kVendorShift | kPeriodFs << kPeriodShift;
}

u64 Hpet::counter_now() const {
    if (!running()) return state_.counter;
    return state_.counter + (clock_.now_ns() - state_.start_ns) / kTickNs;
}

// --- Registers ---

std::optional<u64> Hpet::read_register(u64 offset) const {
    switch (offset) {
        case kCapabilities: return capabilities();
        case kConfiguration: return state_.config.raw();
        case kInterruptStatus: return state_.status;
        case kMainCounter: return counter_now();
        default: break;
    }
    if (offset < kTimers) return std::nullopt;
    const u64 n = (offset - kTimers) / kTimerStride;
    if (n >= kTimerCount) return std::nullopt;
    const TimerState& timer = state_.timers[n];
    switch ((offset - kTimers) % kTimerStride) {
        case kTimerConfiguration: return timer.config.raw() | kTimerCapabilities;
        case kTimerComparator: return timer.comparator;
        case kTimerMessage: return timer.message;
        default: return std::nullopt;
    }
}

IoStatus Hpet::read(u64 offset, std::span<std::byte> out) {
    if (out.size() != 4 && out.size() != 8) return IoStatus::BadWidth;
    if (offset % out.size() != 0) return IoStatus::Unaligned;
    if (offset >= kSize) return IoStatus::NoRegister;
    if (advance()) {
        sync();
        arm();
    }
    // [HPET 2.3.3] Reserved registers read as zero.
    const u64 value = read_register(offset & ~u64{7}).value_or(0) >> (8 * (offset % 8));
    std::memcpy(out.data(), &value, out.size());
    return IoStatus::Ok;
}

IoStatus Hpet::write(u64 offset, std::span<const std::byte> in) {
    if (in.size() != 4 && in.size() != 8) return IoStatus::BadWidth;
    if (offset % in.size() != 0) return IoStatus::Unaligned;
    if (offset >= kSize) return IoStatus::NoRegister;
    u64 value = 0;
    std::memcpy(&value, in.data(), in.size());
    const unsigned shift = 8 * static_cast<unsigned>(offset % 8);
    (void)advance();
    write_register(offset & ~u64{7}, value << shift, (in.size() == 8 ? ~u64{0} : kLow32) << shift);
    sync();
    arm();
    return IoStatus::Ok;
}

void Hpet::write_register(u64 offset, u64 value, u64 mask) {
    State& s = state_;
    switch (offset) {
        case kConfiguration: write_configuration(merge(s.config.raw(), value, mask) & kConfigBits); return;
        case kInterruptStatus: s.status &= ~(value & mask); return;
        case kMainCounter:
            // [HPET 2.3.7] Software halts the counter first. If it does not, it goes on from there.
            s.counter = s.seen = merge(counter_now(), value, mask);
            s.start_ns = clock_.now_ns();
            return;
        default: break;
    }
    if (offset < kTimers || (offset - kTimers) / kTimerStride >= kTimerCount) return;
    write_timer(static_cast<unsigned>((offset - kTimers) / kTimerStride), (offset - kTimers) % kTimerStride,
                value, mask);
}

void Hpet::write_configuration(u64 value) {
    State& s = state_;
    const Flags<Config> next(value);
    const bool was_running = running();
    if (next.has(Config::Enable) && !was_running) {
        s.start_ns = clock_.now_ns();
        s.seen = s.counter;
    }
    if (!next.has(Config::Enable) && was_running) s.counter = s.seen = counter_now();
    s.config = next;
}

void Hpet::write_timer(unsigned n, u64 offset, u64 value, u64 mask) {
    TimerState& timer = state_.timers[n];
    switch (offset) {
        case kTimerConfiguration: {
            u64 next = merge(timer.config.raw(), value, mask) & kTimerConfigBits;
            // [HPET 2.3.8] A route the timer does not have is not taken.
            const u64 route = next >> kRouteShift & kRouteMask;
            if ((kRouteCapabilities >> route & 1) == 0) next &= ~(kRouteMask << kRouteShift);
            timer.config = Flags<TimerConfig>(next);
            timer.comparator = wrapped(timer.config, timer.comparator);
            timer.period = wrapped(timer.config, timer.period);
            // An edge-triggered timer has no status.
            if (!timer.config.has(TimerConfig::Level)) state_.status &= ~(u64{1} << n);
            return;
        }
        case kTimerComparator: write_comparator(timer, value, mask); return;
        case kTimerMessage: timer.message = merge(timer.message, value, mask); return;
        default: return;
    }
}

// [HPET 2.3.9.2.2] Of a periodic timer, the register written is the period; with the value-set bit, which one
// write uses up, the comparator as well.
void Hpet::write_comparator(TimerState& timer, u64 value, u64 mask) {
    const bool periodic = timer.config.has(TimerConfig::Periodic);
    if (periodic) timer.period = wrapped(timer.config, merge(timer.period, value, mask));
    if (!periodic || timer.config.has(TimerConfig::ValueSet))
        timer.comparator = wrapped(timer.config, merge(timer.comparator, value, mask));
    timer.config.set(TimerConfig::ValueSet, false);
}

// --- Time ---

bool Hpet::advance() {
    if (!running()) return false;
    State& s = state_;
    const u64 now = counter_now();
    const u64 passed = now - s.seen;
    bool matched = false;
    for (unsigned n = 0; n < kTimerCount; ++n) {
        TimerState& timer = s.timers[n];
        const u64 until = distance(timer.config, s.seen, timer.comparator);
        if (until > passed) continue;
        // [HPET 2.3.9.2.2] A match moves the comparator by the period. Matches that were due since then are
        // one interrupt, as for a processor that had interrupts off.
        if (timer.config.has(TimerConfig::Periodic) && timer.period != 0) {
            const u64 periods = (passed - until) / timer.period + 1;
            timer.comparator = wrapped(timer.config, timer.comparator + periods * timer.period);
        }
        fire(n);
        matched = true;
    }
    s.seen = now;
    return matched;
}

void Hpet::fire(unsigned n) {
    const Flags<TimerConfig> config = state_.timers[n].config;
    const bool enabled = config.has(TimerConfig::InterruptEnable);
    // [HPET 2.3.9.1.2] Messages are edges.
    if (config.has(TimerConfig::MessageEnable)) {
        const u64 message = state_.timers[n].message;
        if (enabled) messages_.send(message >> 32, static_cast<u32>(message));
        return;
    }
    if (config.has(TimerConfig::Level)) {
        state_.status |= u64{1} << n;
        return;
    }
    const auto line = line_of(n);
    if (!enabled || !line) return;
    // On a legacy wire the edge is followed by a high level, as an 8259A forgets a request whose wire falls
    // before the acknowledge. On a pin that is shared with level-triggered PCI, it has to go at once.
    if (holds(state_, n)) {
        state_.held = static_cast<u8>(state_.held | 1U << n);
        lines_[*line].set(false);
        lines_[*line].set(true);
        return;
    }
    lines_[*line].set(true);
    lines_[*line].set(line_level(*line));
}

std::optional<unsigned> Hpet::line_of(unsigned n) const {
    const Flags<TimerConfig> config = state_.timers[n].config;
    if (config.has(TimerConfig::MessageEnable)) return std::nullopt;
    if (state_.config.has(Config::LegacyRoute) && n < 2) return kLegacyLines + n;
    const u64 route = config.raw() >> kRouteShift & kRouteMask;
    if (route < kFirstRoute) return std::nullopt;
    return static_cast<unsigned>(route) - kFirstRoute;
}

bool Hpet::holds(const State& s, unsigned n) {
    const Flags<TimerConfig> config = s.timers[n].config;
    return n < 2 && s.config.has(Config::LegacyRoute) && config.has(TimerConfig::InterruptEnable) &&
           !config.has(TimerConfig::Level) && !config.has(TimerConfig::MessageEnable);
}

bool Hpet::line_level(unsigned line) const {
    if (line >= kLegacyLines && (state_.held >> (line - kLegacyLines) & 1) != 0) return true;
    for (unsigned n = 0; n < kTimerCount; ++n)
        if ((state_.status >> n & 1) != 0 && state_.timers[n].config.has(TimerConfig::InterruptEnable) &&
            line_of(n) == line)
            return true;
    return false;
}

void Hpet::sync() {
    for (unsigned n = 0; n < kTimerCount; ++n)
        if (!holds(state_, n)) state_.held &= static_cast<u8>(~(1U << n));
    legacy_selected_.set(state_.config.has(Config::LegacyRoute));
    for (unsigned line = 0; line < kLines; ++line) lines_[line].set(line_level(line));
}

// For the nearest match anybody hears of.
void Hpet::arm() {
    timer_.cancel();
    if (!running()) return;
    u64 nearest = kForever;
    for (const TimerState& timer : state_.timers)
        if (timer.config.has(TimerConfig::InterruptEnable))
            nearest = std::min(nearest, distance(timer.config, state_.seen, timer.comparator));
    const u64 seen_after = state_.seen - state_.counter;  // ticks since the start
    if (nearest > kFarTicks || seen_after > kFarTicks) return;
    const u64 due_ns = state_.start_ns + (seen_after + nearest) * kTickNs;
    timer_.arm(std::max(due_ns, state_.fired_ns + kShortestPauseNs));
}

void Hpet::on_due() {
    state_.fired_ns = clock_.now_ns();
    (void)advance();
    sync();
    arm();
}

// --- Life ---

void Hpet::reset() {
    timer_.cancel();
    state_ = State{};
    sync();
}

void Hpet::visit(StateVisitor& v, State& s) {
    auto& [config, held, status, counter, start_ns, seen, fired_ns, timers] = s;
    v.field(1, "config", config);
    v.field(2, "status", status);
    v.field(7, "held", held);
    v.field(3, "counter", counter);
    v.field(4, "start_ns", start_ns);
    v.field(5, "seen", seen);
    v.field(6, "fired_ns", fired_ns);
    for (unsigned n = 0; n < kTimerCount; ++n) {
        auto& [timer_config, comparator, period, message] = timers[n];
        v.field(10 + 4 * n, "timer_config", timer_config);
        v.field(11 + 4 * n, "comparator", comparator);
        v.field(12 + 4 * n, "period", period);
        v.field(13 + 4 * n, "message", message);
    }
}

bool Hpet::valid(const State& s) {
    if ((s.config.raw() & ~kConfigBits) != 0 || s.status >> kTimerCount != 0 || s.held >> kTimerCount != 0)
        return false;
    for (unsigned n = 0; n < kTimerCount; ++n) {
        const TimerState& timer = s.timers[n];
        const u64 route = timer.config.raw() >> kRouteShift & kRouteMask;
        if ((timer.config.raw() & ~kTimerConfigBits) != 0 ||
            (route != 0 && (kRouteCapabilities >> route & 1) == 0) ||
            timer.comparator != wrapped(timer.config, timer.comparator) ||
            timer.period != wrapped(timer.config, timer.period) || ((s.held >> n & 1) != 0 && !holds(s, n)) ||
            ((s.status >> n & 1) != 0 && !timer.config.has(TimerConfig::Level)))
            return false;
    }
    return true;
}

Status Hpet::load(StateVisitor& v) {
    State next;
    visit(v, next);
    const u64 now = clock_.now_ns();
    const bool is_running = next.config.has(Config::Enable);
    if (v.corrupt() || !valid(next) || next.start_ns > now || next.fired_ns > now ||
        (is_running ? next.seen - next.counter > (now - next.start_ns) / kTickNs : next.seen != next.counter))
        return fail(Errc::CorruptState, "HPET: the saved state holds values no HPET can have");
    state_ = next;
    legacy_selected_.restore_level(state_.config.has(Config::LegacyRoute));
    for (unsigned line = 0; line < kLines; ++line) lines_[line].restore_level(line_level(line));
    arm();
    return {};
}

}  // namespace tessera::hpet
