#include "devices/pit8254/pit8254.h"

#include <algorithm>

namespace tessera::pit8254 {

namespace {

constexpr u64 kNsPerSecond = 1'000'000'000;
// [PIIX 2.5.5] Bit 4 changes with every refresh request, which a PC programs to about 15 us.
constexpr u64 kRefreshNs = 15'085;

Status refuse_state() {
    return fail(Errc::CorruptState, "8254: the saved state holds values no 8254 can have");
}

}  // namespace

Counter::Tick Pit8254::tick_at(u64 ns) {
    return static_cast<Counter::Tick>(u128{ns} * kInputHz / kNsPerSecond);
}

// The first moment that belongs to the tick.
u64 Pit8254::ns_of(Counter::Tick tick) {
    const u128 ns = (static_cast<u128>(tick) * kNsPerSecond + kInputHz - 1) / kInputHz;
    return static_cast<u64>(std::min(ns, u128{Timer::kIdle - 1}));
}

Counter::Tick Pit8254::now() const {
    return tick_at(clock_.now_ns());
}

void Pit8254::sync() {
    const Counter::Tick t = now();
    Counter& zero = counters_[0];
    // OUT is low for one clock in mode 2: too short for anybody to look, but the edge counts. A rise seen
    // late is shown even when OUT is low again, for the guest was not there to take it in between; the wire
    // follows at the next look.
    if (zero.take_rise(t)) {
        out0_.set(false);
        out0_.set(true);
        earliest_ns_ = clock_.now_ns() + kShortestPeriodNs;
    } else {
        out0_.set(zero.output(t));
    }
    arm(zero.next_rise(t));
}

void Pit8254::arm(Counter::Tick at) {
    if (at == Counter::kNever) {
        if (armed_) wakeup_.cancel();
        armed_ = false;
        return;
    }
    armed_ = true;
    wakeup_.arm(std::max(ns_of(at), earliest_ns_));
}

void Pit8254::write_control(u8 value) {
    const unsigned select = value >> 6;
    const Counter::Tick t = now();
    if (select == kReadBack) {
        const Flags<ReadBack> command(value);
        for (unsigned i = 0; i < kCounters; ++i) {
            if ((value >> (i + 1) & 1) == 0) continue;
            if (!command.has(ReadBack::NoCount)) counters_[i].latch_count(t);
            if (!command.has(ReadBack::NoStatus)) counters_[i].latch_status(t);
        }
        return;
    }
    const auto access = static_cast<Access>(value >> 4 & 3);
    if (access == Access::Latch)
        counters_[select].latch_count(t);
    else
        counters_[select].write_control(access, value >> 1 & 7, (value & 1) != 0, t);
}

IoStatus Pit8254::CounterPorts::read(u64 offset, std::span<std::byte> out) {
    if (out.size() != 1) return IoStatus::BadWidth;
    // [8254 "Read operations"] The control port drives nothing.
    if (offset >= kCounters) return IoStatus::NoRegister;
    out[0] = std::byte{pit_.counters_[offset].read(pit_.now())};
    return IoStatus::Ok;
}

IoStatus Pit8254::CounterPorts::write(u64 offset, std::span<const std::byte> in) {
    if (in.size() != 1) return IoStatus::BadWidth;
    if (offset > kControlPort) return IoStatus::NoRegister;
    const auto value = std::to_integer<u8>(in[0]);
    if (offset == kControlPort)
        pit_.write_control(value);
    else
        pit_.counters_[offset].write(value, pit_.now());
    // The limit is for what runs by itself.
    if (offset == 0 || (offset == kControlPort && value >> 6 == 0)) pit_.earliest_ns_ = 0;
    pit_.sync();
    return IoStatus::Ok;
}

u8 Pit8254::read_port61() {
    Flags<Port61> value(port61_);
    value.set(Port61::RefreshToggle, (clock_.now_ns() / kRefreshNs & 1) != 0);
    value.set(Port61::Output2, counters_[2].output(now()));
    return value.raw();
}

IoStatus Pit8254::SpeakerPort::read(u64 offset, std::span<std::byte> out) {
    if (out.size() != 1) return IoStatus::BadWidth;
    if (offset != 0) return IoStatus::NoRegister;
    out[0] = std::byte{pit_.read_port61()};
    return IoStatus::Ok;
}

IoStatus Pit8254::SpeakerPort::write(u64 offset, std::span<const std::byte> in) {
    if (in.size() != 1) return IoStatus::BadWidth;
    if (offset != 0) return IoStatus::NoRegister;
    pit_.port61_ = std::to_integer<u8>(in[0]) & kPort61Writable;
    pit_.counters_[2].set_gate(Flags<Port61>(pit_.port61_).has(Port61::Gate2), pit_.now());
    return IoStatus::Ok;
}

void Pit8254::reset() {
    const Counter::Tick t = now();
    port61_ = 0;
    earliest_ns_ = 0;
    counters_[0].reset(true, t);
    counters_[1].reset(true, t);
    counters_[2].reset(false, t);
    sync();
}

Pit8254::State Pit8254::state() const {
    State now{.counters = {}, .port61 = port61_, .earliest_ns = earliest_ns_, .wire = 0};
    for (unsigned i = 0; i < kCounters; ++i) now.counters[i] = counters_[i].state();
    now.wire = out0_.is_high() ? 1 : 0;
    return now;
}

void Pit8254::visit_state(StateVisitor& v) {
    State now = state();
    visit(v, now);
}

void Pit8254::visit(StateVisitor& v, State& s) {
    auto& [counters, port61, earliest_ns, wire] = s;
    for (unsigned i = 0; i < kCounters; ++i) Counter::visit(v, 10 + i * 30, counters[i]);
    v.field(1, "port61", port61);
    v.field(2, "earliest_ns", earliest_ns);
    v.field(3, "wire", wire);
}

bool Pit8254::valid(const State& s) {
    for (const Counter::State& counter : s.counters)
        if (!Counter::valid(counter)) return false;
    const u8 gate2 = Flags<Port61>(s.port61).has(Port61::Gate2) ? 1 : 0;
    return s.wire < 2 && (s.port61 & ~kPort61Writable) == 0 && s.counters[0].gate == 1 &&
           s.counters[1].gate == 1 && s.counters[2].gate == gate2;
}

Status Pit8254::load(StateVisitor& v) {
    State next;
    visit(v, next);
    if (v.corrupt()) return refuse_state();
    return restore(next);
}

Status Pit8254::restore(const State& state) {
    if (!valid(state)) return refuse_state();
    for (unsigned i = 0; i < kCounters; ++i) counters_[i].restore(state.counters[i]);
    port61_ = state.port61;
    earliest_ns_ = state.earliest_ns;
    out0_.restore_level(state.wire != 0);
    Counter ahead = counters_[0];  // looking ahead changes nothing in what was loaded
    const Counter::Tick t = now();
    arm(ahead.take_rise(t) ? t : ahead.next_rise(t));  // a rise may be still to be shown
    return {};
}

}  // namespace tessera::pit8254
