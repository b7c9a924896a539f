#include "devices/pit8254/pit8254_counter.h"

#include <algorithm>

namespace tessera::pit8254 {

namespace {
// Far beyond any guest's life and far from overflow: 2^60 ticks are 30000 years.
constexpr Counter::Tick kLastTick = Counter::Tick{1} << 60;
constexpr u8 kDefinedModes = 6;
}  // namespace

// Zero is the largest count [8254 "Counter programming"]: 2^16, or 10^4 in BCD. Digits above nine count their
// weight.
u32 Counter::meaning(u16 count) const {
    if (count == 0) return modulus();
    if (state_.bcd == 0) return count;
    return (count & 0xfu) + (count >> 4 & 0xfu) * 10 + (count >> 8 & 0xfu) * 100 +
           (count >> 12 & 0xfu) * 1000;
}

u16 Counter::spelling(u32 value) const {
    value %= modulus();
    if (state_.bcd == 0) return static_cast<u16>(value);
    return static_cast<u16>(value % 10 | value / 10 % 10 << 4 | value / 100 % 10 << 8 |
                            value / 1000 % 10 << 12);
}

u64 Counter::elapsed(Tick now) const {
    if (phase() == Phase::Held) return state_.held;
    return now > state_.base ? static_cast<u64>(now - state_.base) : 0;
}

u16 Counter::current_count(Tick now) const {
    if (phase() == Phase::Idle) return static_cast<u16>(state_.held);
    const u64 e = elapsed(now);
    const u64 n = state_.length;
    switch (mode()) {
        case Mode::RateGenerator: return spelling(static_cast<u32>(n - e % n));
        case Mode::SquareWave: {
            // [8254 "Mode 3"] Counts by two; an odd count is loaded less one.
            const u64 p = e % n;
            const u64 into_half = p < high_ticks() ? p : p - high_ticks();
            return spelling(static_cast<u32>(n - n % 2 - std::min(2 * into_half, n - n % 2)));
        }
        case Mode::InterruptOnTerminalCount:
        case Mode::HardwareRetriggerableOneShot:
        case Mode::SoftwareTriggeredStrobe:
        case Mode::HardwareTriggeredStrobe: break;
    }
    // Goes on below zero.
    const u32 m = modulus();
    return spelling(static_cast<u32>((n % m + m - e % m) % m));
}

bool Counter::output_settled(Tick now) const {
    // [8254 "Mode definitions"] After the control word OUT is low in mode 0 only.
    if (phase() == Phase::Idle) return mode() != Mode::InterruptOnTerminalCount;
    const u64 e = elapsed(now);
    const u64 n = state_.length;
    switch (mode()) {
        case Mode::InterruptOnTerminalCount:
        case Mode::HardwareRetriggerableOneShot: return e >= n;
        // GATE low forces OUT high in modes 2 and 3. A count of 1 is illegal there and gives no pulses.
        case Mode::RateGenerator: return phase() == Phase::Held || n < 2 || e % n != n - 1;
        case Mode::SquareWave: return phase() == Phase::Held || n < 2 || e % n < high_ticks();
        case Mode::SoftwareTriggeredStrobe:
        case Mode::HardwareTriggeredStrobe: return phase() == Phase::Held || e != n;
    }
    return true;
}

std::optional<Counter::Tick> Counter::last_rise_settled(Tick now) const {
    if (phase() != Phase::Running) return std::nullopt;
    const u64 e = elapsed(now);
    const u64 n = state_.length;
    u64 at = n;
    if (periodic()) {
        if (n < 2 || e < n) return std::nullopt;
        at = e / n * n;
    } else if (mode() == Mode::SoftwareTriggeredStrobe || mode() == Mode::HardwareTriggeredStrobe) {
        at = n + 1;
    }
    if (e < at) return std::nullopt;
    return state_.base + static_cast<Tick>(at);
}

Counter::Tick Counter::next_rise_settled(Tick now) const {
    if (phase() != Phase::Running) return kNever;
    const u64 e = elapsed(now);
    const u64 n = state_.length;
    u64 at = n;
    if (periodic()) {
        if (n < 2) return kNever;
        at = (e / n + 1) * n;
    } else if (mode() == Mode::SoftwareTriggeredStrobe || mode() == Mode::HardwareTriggeredStrobe) {
        at = n + 1;
    }
    const Tick rise = state_.base + static_cast<Tick>(at);
    return rise > now ? rise : kNever;
}

void Counter::note_rises(Tick now) {
    if (const auto rise = last_rise_settled(now); rise && *rise > state_.seen) state_.rose = 1;
    state_.seen = std::max(state_.seen, now);
}

void Counter::settle(Tick now) {
    if (state_.load_at <= now) {
        const Tick at = state_.load_at;
        note_rises(at);
        load(at);
    }
    note_rises(now);
}

void Counter::load(Tick at) {
    // [8254 "Mode 3"] A new count written while running takes over at the end of a half cycle, which may be
    // the high one: the new cycle is then entered at its low half.
    const bool at_low_half = mode() == Mode::SquareWave && phase() == Phase::Running &&
                             elapsed(at) % state_.length == high_ticks() && state_.length >= 2;
    state_.length = meaning(state_.count);
    state_.base = at_low_half ? at - static_cast<Tick>(high_ticks()) : at;
    state_.load_at = kNever;
    state_.null_count = 0;
    state_.held = 0;
    const bool counts = state_.gate != 0 || hardware_triggered();
    set_phase(counts ? Phase::Running : Phase::Held);
}

// Freezes what the counting element shows.
void Counter::stop(Tick now) {
    state_.held = current_count(now);
    set_phase(Phase::Idle);
    state_.load_at = kNever;
}

// [8254 "Control word format"] All control logic is reset at once; OUT goes to its initial state.
void Counter::write_control(Access access, u8 mode, bool bcd, Tick now) {
    settle(now);
    stop(now);
    state_.access = static_cast<u8>(access);
    state_.mode = mode >= kDefinedModes ? static_cast<u8>(mode & 3) : mode;  // 6 and 7 are 2 and 3
    state_.bcd = bcd ? 1 : 0;
    state_.null_count = 1;
    state_.write_high_next = 0;
    state_.read_high_next = 0;
    state_.count_latched = 0;
    state_.status_latched = 0;
}

void Counter::write(u8 value, Tick now) {
    settle(now);
    switch (static_cast<Access>(state_.access)) {
        case Access::Low: state_.count = value; break;
        case Access::High: state_.count = static_cast<u16>(value << 8); break;
        case Access::Latch:
        case Access::LowThenHigh:
            state_.write_high_next ^= 1;
            if (state_.write_high_next != 0) {
                state_.low_byte = value;
                // [8254 "Mode 0"] The first byte stops the count and clears OUT.
                if (mode() == Mode::InterruptOnTerminalCount) stop(now);
                return;
            }
            state_.count = static_cast<u16>(value << 8 | state_.low_byte);
            break;
    }
    count_written(now);
}

void Counter::count_written(Tick now) {
    state_.null_count = 1;
    switch (mode()) {
        case Mode::InterruptOnTerminalCount:
            stop(now);
            state_.load_at = now + 1;
            break;
        case Mode::SoftwareTriggeredStrobe: state_.load_at = now + 1; break;
        case Mode::RateGenerator:
        case Mode::SquareWave:
            if (phase() == Phase::Idle) {
                state_.load_at = now + 1;
            } else if (phase() == Phase::Running && state_.load_at == kNever) {
                // At the end of the cycle, in mode 3 of the half cycle.
                const u64 n = state_.length;
                const u64 p = elapsed(now) % n;
                const u64 end = mode() == Mode::SquareWave && p < high_ticks() && n >= 2 ? high_ticks() : n;
                state_.load_at = now + static_cast<Tick>(end - p);
            }
            break;  // held by GATE: the trigger loads it
        case Mode::HardwareRetriggerableOneShot:
        case Mode::HardwareTriggeredStrobe: break;  // the trigger loads it
    }
}

void Counter::set_gate(bool high, Tick now) {
    settle(now);
    if ((state_.gate != 0) == high) return;
    state_.gate = high ? 1 : 0;
    if (hardware_triggered()) {
        // [8254 "Modes 1 and 5"] The rise is the trigger.
        if (high) state_.load_at = now + 1;
        return;
    }
    if (phase() == Phase::Idle) return;
    if (high) {
        if (periodic()) {
            state_.load_at = now + 1;
        } else if (phase() == Phase::Held) {
            state_.base = now - static_cast<Tick>(state_.held);
            set_phase(Phase::Running);
        }
        return;
    }
    if (periodic()) state_.load_at = kNever;
    if (phase() == Phase::Running) {
        state_.held = elapsed(now);
        set_phase(Phase::Held);
    }
}

void Counter::latch_count(Tick now) {
    if (state_.count_latched != 0) return;  // [8254 "Counter latch command"] the first one counts
    settle(now);
    state_.latched_count = current_count(now);
    state_.count_latched = 1;
}

void Counter::latch_status(Tick now) {
    if (state_.status_latched != 0) return;
    settle(now);
    u8 status = static_cast<u8>(state_.access << 4 | state_.mode << 1 | state_.bcd);
    if (state_.null_count != 0) status |= static_cast<u8>(StatusBit::NullCount);
    if (output_settled(now)) status |= static_cast<u8>(StatusBit::Output);
    state_.latched_status = status;
    state_.status_latched = 1;
}

u8 Counter::read(Tick now) {
    settle(now);
    if (state_.status_latched != 0) {
        state_.status_latched = 0;
        return state_.latched_status;
    }
    const u16 count = state_.count_latched != 0 ? state_.latched_count : current_count(now);
    bool high = static_cast<Access>(state_.access) == Access::High;
    bool complete = true;
    if (static_cast<Access>(state_.access) == Access::LowThenHigh) {
        high = state_.read_high_next != 0;
        complete = high;
        state_.read_high_next ^= 1;
    }
    if (complete) state_.count_latched = 0;
    return static_cast<u8>(high ? count >> 8 : count);
}

bool Counter::output(Tick now) {
    settle(now);
    return output_settled(now);
}

bool Counter::take_rise(Tick now) {
    settle(now);
    const bool rose = state_.rose != 0;
    state_.rose = 0;
    return rose;
}

Counter::Tick Counter::next_rise(Tick now) {
    settle(now);
    const Tick running = next_rise_settled(now);
    if (state_.load_at == kNever || running <= state_.load_at) return running;
    Counter after = *this;
    after.load(state_.load_at);
    return after.next_rise_settled(state_.load_at);
}

void Counter::reset(bool gate, Tick now) {
    state_ = State{};
    state_.gate = gate ? 1 : 0;
    state_.seen = now;
}

void Counter::visit(StateVisitor& v, unsigned first_id, State& s) {
    auto& [mode, access, bcd, gate, phase, null_count, write_high_next, read_high_next, count_latched,
           status_latched, latched_status, low_byte, latched_count, count, length, held, base, load_at, seen,
           rose] = s;
    v.field(first_id + 0, "mode", mode);
    v.field(first_id + 1, "access", access);
    v.field(first_id + 2, "bcd", bcd);
    v.field(first_id + 3, "gate", gate);
    v.field(first_id + 4, "phase", phase);
    v.field(first_id + 5, "null_count", null_count);
    v.field(first_id + 6, "write_high_next", write_high_next);
    v.field(first_id + 7, "read_high_next", read_high_next);
    v.field(first_id + 8, "count_latched", count_latched);
    v.field(first_id + 9, "status_latched", status_latched);
    v.field(first_id + 10, "latched_status", latched_status);
    v.field(first_id + 11, "low_byte", low_byte);
    v.field(first_id + 12, "latched_count", latched_count);
    v.field(first_id + 13, "count", count);
    v.field(first_id + 14, "length", length);
    v.field(first_id + 15, "held", held);
    const auto tick = [&](unsigned id, const char* name, Tick& t) {
        auto raw = static_cast<u64>(t);
        v.field(id, name, raw);
        t = static_cast<Tick>(raw);
    };
    tick(first_id + 16, "base", base);
    tick(first_id + 17, "load_at", load_at);
    tick(first_id + 18, "seen", seen);
    v.field(first_id + 19, "rose", rose);
}

bool Counter::valid(const State& s) {
    const auto bit = [](u8 v) { return v < 2; };
    const auto tick = [](Tick t) { return t >= -kLastTick && t <= kLastTick; };
    return s.mode < kDefinedModes && s.access >= 1 && s.access <= 3 && bit(s.bcd) && bit(s.gate) &&
           s.phase <= static_cast<u8>(Phase::Held) && bit(s.null_count) && bit(s.write_high_next) &&
           bit(s.read_high_next) && bit(s.count_latched) && bit(s.status_latched) && bit(s.rose) &&
           s.length >= 1 && s.length <= 0x1'0000 && s.held <= static_cast<u64>(kLastTick) && tick(s.base) &&
           tick(s.seen) && (tick(s.load_at) || s.load_at == kNever);
}

}  // namespace tessera::pit8254
