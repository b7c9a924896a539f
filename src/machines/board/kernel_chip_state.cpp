#include "machines/board/kernel_chip_state.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/flags.h"

namespace tessera {

// --- Local APIC ---

namespace {

using lapic::ApicBase;
using lapic::Lapic;
using lapic::Lvt;
using lapic::Register;
using lapic::TimerMode;
using lapic::VectorSet;

constexpr u32 kLvtBits = 0x7f7ff;  // all that any entry has
constexpr std::array<Register, lapic::kLvtCount> kLvtRegisters{
    Register::LvtCmci,  Register::LvtTimer, Register::LvtThermal, Register::LvtPerformance,
    Register::LvtLint0, Register::LvtLint1, Register::LvtError};

// [SDM 3A Table 11-1] Registers stand at multiples of 16.
constexpr std::size_t place(Register reg, unsigned index = 0) {
    return (std::size_t{static_cast<u8>(reg)} + index) * 16;
}

void put(kvm_lapic_state& page, std::size_t at, u32 value) {
    std::memcpy(&page.regs[at], &value, sizeof value);
}

u32 get(const kvm_lapic_state& page, std::size_t at) {
    u32 value = 0;
    std::memcpy(&value, &page.regs[at], sizeof value);
    return value;
}

void put(kvm_lapic_state& page, Register first, const VectorSet& set) {
    for (unsigned i = 0; i < 2 * VectorSet::kWords; ++i) put(page, place(first, i), set.part(i));
}

VectorSet get_set(const kvm_lapic_state& page, Register first) {
    VectorSet set;
    for (unsigned i = 0; i < 2 * VectorSet::kWords; ++i)
        set.words[i / 2] |= u64{get(page, place(first, i))} << (i % 2 * 32);
    return set;
}

bool is_x2apic(u64 apic_base) {
    return Flags<ApicBase>(apic_base).has(ApicBase::EXTD);
}

bool counts(TimerMode mode) {
    return mode == TimerMode::OneShot || mode == TimerMode::Periodic;
}

// [SDM 3A Figure 11-10]
unsigned divide_shift(u32 configuration) {
    return ((configuration & 3) + (configuration >> 1 & 4) + 1) & 7;
}

// What is left of the count; at least 1, for a count that runs has not been reported yet.
u32 count_left(const lapic::LapicTimer::State& timer, u64 now_ns) {
    const u64 elapsed = now_ns > timer.start_ns ? now_ns - timer.start_ns : 0;
    const u64 ticks = elapsed >> divide_shift(timer.divide);
    return ticks < timer.count ? static_cast<u32>(timer.count - ticks) : 1;
}

}  // namespace

KernelLocalApic to_kernel(const Lapic::Saved& saved, u32 apic_id, u64 now_ns) {
    const Lapic::State& s = saved.registers;
    const lapic::LapicTimer::State& timer = saved.timer;
    const bool x2apic = is_x2apic(s.apic_base);
    KernelLocalApic kernel{.page = {}, .apic_base = s.apic_base, .tsc_deadline = timer.deadline};
    kvm_lapic_state& page = kernel.page;
    put(page, place(Register::Id), x2apic ? apic_id : apic_id << 24);
    put(page, place(Register::Tpr), s.tpr);
    put(page, place(Register::Ldr), x2apic ? apic_id >> 4 << 16 | u32{1} << (apic_id & 0xf) : s.ldr);
    put(page, place(Register::Dfr), s.dfr);
    put(page, place(Register::Svr), s.svr);
    put(page, Register::Isr0, s.isr);
    put(page, Register::Tmr0, s.tmr);
    put(page, Register::Irr0, s.irr);
    put(page, place(Register::Esr), s.esr);
    put(page, place(Register::Icr), static_cast<u32>(s.icr));
    put(page, place(Register::IcrHigh), static_cast<u32>(s.icr >> 32));
    for (unsigned i = 0; i < lapic::kLvtCount; ++i) put(page, place(kLvtRegisters[i]), s.lvt[i]);
    put(page, place(Register::DivideConfiguration), timer.divide);
    // KVM takes an initial count with a current count of zero for a timer that is due: one that has run out
    // is shown as stopped.
    if (counts(static_cast<TimerMode>(timer.mode)) && timer.count != 0) {
        put(page, place(Register::InitialCount), timer.initial);
        put(page, place(Register::CurrentCount), count_left(timer, now_ns));
    }
    return kernel;
}

Lapic::Saved from_kernel(const KernelLocalApic& kernel, const AroundLocalApic& around) {
    const kvm_lapic_state& page = kernel.page;
    const bool x2apic = is_x2apic(kernel.apic_base);
    Lapic::Saved saved;
    Lapic::State& s = saved.registers;
    s.apic_base = kernel.apic_base;
    s.tpr = static_cast<u8>(get(page, place(Register::Tpr)));
    s.ldr = x2apic ? 0 : get(page, place(Register::Ldr)) & 0xff00'0000;
    s.dfr = get(page, place(Register::Dfr)) | 0x0fff'ffff;
    s.svr = get(page, place(Register::Svr)) & lapic::kSvrBits;
    s.isr = get_set(page, Register::Isr0);
    s.tmr = get_set(page, Register::Tmr0);
    s.irr = get_set(page, Register::Irr0);
    // KVM lets a guest send vectors that no local APIC accepts.
    for (VectorSet* set : {&s.isr, &s.tmr, &s.irr}) set->words[0] &= ~u64{0xffff};
    s.esr = get(page, place(Register::Esr)) & 0xff;
    const u32 high = get(page, place(Register::IcrHigh)) & (x2apic ? 0xffff'ffff : 0xff00'0000);
    s.icr = u64{high} << 32 |
            (get(page, place(Register::Icr)) & lapic::kIcrBits & ~static_cast<u32>(lapic::Icr::Busy));
    for (unsigned i = 0; i < lapic::kLvtCount; ++i) s.lvt[i] = get(page, place(kLvtRegisters[i])) & kLvtBits;
    s.pins = around.pins;

    lapic::LapicTimer::State& timer = saved.timer;
    const u32 timer_entry = s.lvt[static_cast<unsigned>(Lvt::Timer)];
    const auto mode = static_cast<TimerMode>(timer_entry >> 17 & 3);
    timer.mode = static_cast<u8>(mode);
    timer.divide = static_cast<u8>(get(page, place(Register::DivideConfiguration)) & 0x0b);
    timer.tsc_offset = around.tsc_offset;
    if (counts(mode)) {
        timer.initial = get(page, place(Register::InitialCount));
        timer.count = std::min(get(page, place(Register::CurrentCount)), timer.initial);
        if (mode == TimerMode::Periodic && timer.count == 0) timer.count = timer.initial;
        timer.start_ns = around.now_ns;
    } else if (mode == TimerMode::TscDeadline) {
        timer.deadline = kernel.tsc_deadline;
    }
    return saved;
}

// --- I/O APIC ---

namespace {

using ioapic::IoApic;
using ioapic::Redirection;

bool is_level(IoApic::Entry entry) {
    const auto mode = static_cast<DeliveryMode>(entry.raw() >> ioapic::kDeliveryModeShift & 7);
    return entry.has(Redirection::Level) &&
           (mode == DeliveryMode::Fixed || mode == DeliveryMode::LowestPriority);
}

}  // namespace

kvm_ioapic_state to_kernel(const IoApic::State& state) {
    kvm_ioapic_state kernel{};
    kernel.base_address = IoApic::kDefaultBase;
    kernel.ioregsel = state.select;
    kernel.id = state.id;
    for (unsigned pin = 0; pin < ioapic::kPins; ++pin) {
        const IoApic::Entry entry = state.table[pin];
        kernel.redirtbl[pin].bits = entry.raw();
        // KVM sends for every bit of IRR when it is given one: an edge was sent when it came.
        if (is_level(entry)) kernel.irr |= state.levels & u32{1} << pin;
    }
    return kernel;
}

IoApic::State from_kernel(const kvm_ioapic_state& kernel, u32 levels) {
    IoApic::State state;
    state.id = static_cast<u8>(kernel.id & ioapic::kIdMask);
    state.select = static_cast<u8>(kernel.ioregsel);
    state.levels = levels & ((u32{1} << ioapic::kPins) - 1);
    for (unsigned pin = 0; pin < ioapic::kPins; ++pin) {
        const u64 bits = kernel.redirtbl[pin].bits;
        IoApic::Entry entry(bits & ioapic::kWritable);
        // KVM has it for any level-triggered entry.
        entry.set(Redirection::RemoteIrr, IoApic::Entry(bits).has(Redirection::RemoteIrr) && is_level(entry));
        state.table[pin] = entry;
    }
    return state;
}

// --- 8259A pair ---

namespace {

using pic8259::Chip;
using pic8259::Icw1;
using pic8259::Icw4;
using pic8259::Pic8259Pair;

constexpr u8 kTimerInput = 1 << 0;
constexpr u8 kCascade = 1U << pic8259::kCascadeLevel;

kvm_pic_state to_kernel(const Chip::State& s, u8 lines, u8 elcr_mask) {
    const u8 level = s.icw1.has(Icw1::LTIM) ? u8{0xff} : s.level_inputs;
    kvm_pic_state kernel{};
    kernel.last_irr = lines;
    kernel.irr = static_cast<u8>(lines & (level | s.latched));
    kernel.imr = s.imr;
    kernel.isr = s.isr;
    kernel.priority_add = (s.lowest + 1) & 7;
    kernel.irq_base = s.icw2 & 0xf8;
    kernel.read_reg_select = s.read_isr;
    kernel.poll = s.poll;
    kernel.special_mask = s.special_mask;
    kernel.init_state = s.step;
    kernel.auto_eoi = s.icw4.has(Icw4::AEOI) ? 1 : 0;
    kernel.rotate_on_auto_eoi = s.rotate_in_aeoi;
    kernel.special_fully_nested_mode = s.icw4.has(Icw4::SFNM) ? 1 : 0;
    kernel.init4 = s.icw1.has(Icw1::IC4) ? 1 : 0;
    kernel.elcr = s.level_inputs;
    kernel.elcr_mask = elcr_mask;
    return kernel;
}

Chip::State from_kernel(const kvm_pic_state& kernel, u8 lines, u8 elcr_mask, u8 icw3) {
    Chip::State s;
    s.step = kernel.init_state & 3;
    s.icw1.set(Icw1::IC4, kernel.init4 != 0);
    s.icw2 = kernel.irq_base & 0xf8;
    s.icw3 = icw3;
    s.icw4.set(Icw4::UPM, kernel.init4 != 0);
    s.icw4.set(Icw4::AEOI, kernel.auto_eoi != 0);
    s.icw4.set(Icw4::SFNM, kernel.special_fully_nested_mode != 0);
    s.imr = kernel.imr;
    s.isr = kernel.isr;
    s.level_inputs = kernel.elcr & elcr_mask;
    s.latched = static_cast<u8>(kernel.irr & ~s.level_inputs & lines);
    s.lowest = (kernel.priority_add + 7U) & 7;
    s.special_mask = kernel.special_mask != 0 ? 1 : 0;
    s.rotate_in_aeoi = kernel.rotate_on_auto_eoi != 0 ? 1 : 0;
    s.read_isr = kernel.read_reg_select != 0 ? 1 : 0;
    s.poll = kernel.poll != 0 ? 1 : 0;
    return s;
}

}  // namespace

KernelPic to_kernel(const Pic8259Pair::State& state) {
    const auto low = static_cast<u8>(state.lines);
    KernelPic kernel{
        .master = to_kernel(state.master, static_cast<u8>(low | (state.cascade != 0 ? kCascade : 0)),
                            pic8259::kElcr1Writable),
        .slave = to_kernel(state.slave, static_cast<u8>(state.lines >> 8), pic8259::kElcr2Writable)};
    // The slave's INT is a pulse there, made anew whenever the slave has something to say; so is OUT of the
    // 8254's counter 0.
    kernel.master.last_irr &= static_cast<u8>(~(kCascade | kTimerInput));
    return kernel;
}

Pic8259Pair::State from_kernel(const KernelPic& kernel, u16 lines) {
    Pic8259Pair::State state;
    state.lines = lines & static_cast<u16>(~kCascade);
    state.slave = from_kernel(kernel.slave, static_cast<u8>(lines >> 8), pic8259::kElcr2Writable,
                              pic8259::kCascadeLevel);
    state.master =
        from_kernel(kernel.master, static_cast<u8>(state.lines), pic8259::kElcr1Writable, kCascade);
    Chip slave;
    slave.restore(state.slave);
    state.cascade = slave.interrupt_output(static_cast<u8>(lines >> 8)) ? 1 : 0;
    if (state.cascade != 0) state.master.latched |= kCascade;
    return state;
}

// --- 8254 ---

namespace {

using pit8254::Access;
using pit8254::Counter;
using pit8254::Pit8254;
using pit8254::Port61;
using Phase = Counter::Phase;
using PitMode = pit8254::Mode;

constexpr u32 kLongest = 0x1'0000;
constexpr u8 kLastMode = 5;
// How far KVM's channels have come in a value of two bytes: read_state, write_state, count_latched.
constexpr u8 kWordLow = 3, kWordHigh = 4, kLatchedHigh = 2;
constexpr s64 kNsPerSecond = 1'000'000'000;
// Ages beyond this are nonsense: a hundred years.
constexpr s64 kOldest = s64{100} * 366 * 86400 * kNsPerSecond;

bool is_periodic(u8 mode) {
    return mode == static_cast<u8>(PitMode::RateGenerator) || mode == static_cast<u8>(PitMode::SquareWave);
}
bool is_hardware_triggered(u8 mode) {
    return mode == static_cast<u8>(PitMode::HardwareRetriggerableOneShot) ||
           mode == static_cast<u8>(PitMode::HardwareTriggeredStrobe);
}

// Where a value of one or two bytes stands.
u8 byte_state(const Counter::State& s, bool high_next) {
    if (s.access != static_cast<u8>(Access::LowThenHigh)) return s.access;
    return high_next ? kWordHigh : kWordLow;
}

u64 elapsed(const Counter::State& s, Counter::Tick now) {
    if (static_cast<Phase>(s.phase) == Phase::Held) return s.held;
    return now > s.base ? static_cast<u64>(now - s.base) : 0;
}

// What the kernel's counter is to begin with. Those that count once begin with what is left, so that they
// show and end the same; the others can only begin anew.
u32 kernel_count(const Counter::State& s, Counter::Tick now) {
    const bool idle = static_cast<Phase>(s.phase) == Phase::Idle;
    const u32 written = s.count == 0 ? kLongest : s.count;
    if (s.bcd != 0 || is_periodic(s.mode) || idle) return idle && s.count == 0 ? kLongest : written;
    const u64 gone = elapsed(s, now) % kLongest;
    const u64 left = (s.length + u64{kLongest} - gone) % kLongest;
    return left == 0 ? kLongest : static_cast<u32>(left);
}

// The load that waits in `s` happens at once.
Counter::State with_count_loaded(Counter::State s, Counter::Tick now) {
    if (s.load_at == Counter::kNever) return s;
    Counter counter;
    counter.restore(s);
    (void)counter.output(s.load_at);
    s = counter.state();
    s.base = std::min(s.base, now);
    return s;
}

kvm_pit_channel_state to_kernel(const Counter::State& before, const KernelMoment& now) {
    const Counter::Tick tick = Pit8254::tick_at(now.guest_ns);
    const Counter::State s = with_count_loaded(before, tick);
    kvm_pit_channel_state kernel{};
    kernel.count = kernel_count(s, tick);
    kernel.latched_count = s.latched_count;
    kernel.status_latched = s.status_latched;
    kernel.status = s.latched_status;
    if (s.count_latched != 0) {
        const bool high = s.access == static_cast<u8>(Access::LowThenHigh) && s.read_high_next != 0;
        kernel.count_latched = high ? kLatchedHigh : s.access;
    }
    kernel.read_state = byte_state(s, s.count_latched == 0 && s.read_high_next != 0);
    kernel.write_state = byte_state(s, s.write_high_next != 0);
    kernel.write_latch = s.low_byte;
    kernel.rw_mode = s.access;
    kernel.mode = s.mode;
    kernel.bcd = s.bcd;
    kernel.gate = s.gate;
    kernel.count_load_time = now.kernel_ns;
    return kernel;
}

// [8254 "Counter programming"]
u32 meaning(u16 count, bool bcd) {
    if (!bcd) return count == 0 ? kLongest : u32{count};
    if (count == 0) return 10'000;
    return (count & 0xfU) + (count >> 4 & 0xfU) * 10 + (count >> 8 & 0xfU) * 100 +
           (count >> 12 & 0xfU) * 1000;
}

// What the counting element does, as far as the kernel tells.
void take_count(Counter::State& s, const kvm_pit_channel_state& kernel, const KernelMoment& now) {
    const Counter::Tick tick = Pit8254::tick_at(now.guest_ns);
    s.seen = tick;
    if (kernel.mode > kLastMode) return;  // nobody has programmed it
    s.count = static_cast<u16>(kernel.count);
    s.length = std::max(meaning(s.count, s.bcd != 0), u32{1});
    s.null_count = 0;
    const s64 loaded_ns = kernel.count_load_time;
    const bool sensible =
        loaded_ns >= 0 && loaded_ns <= now.kernel_ns && now.kernel_ns - loaded_ns <= kOldest;
    const s64 age = sensible ? now.kernel_ns - loaded_ns : 0;
    const Counter::Tick gone = Pit8254::tick_at(static_cast<u64>(age));
    if (s.gate == 0 && !is_hardware_triggered(s.mode)) {
        s.phase = static_cast<u8>(Phase::Held);
        s.held = static_cast<u64>(gone);
        if (is_periodic(s.mode)) s.held %= s.length;
        return;
    }
    s.phase = static_cast<u8>(Phase::Running);
    s.base = tick - gone;
}

Counter::State from_kernel(const kvm_pit_channel_state& kernel, const KernelMoment& now) {
    Counter::State s;
    s.mode = kernel.mode > kLastMode ? 0 : kernel.mode;
    const bool access_known = kernel.rw_mode >= 1 && kernel.rw_mode <= 3;
    s.access = access_known ? kernel.rw_mode : static_cast<u8>(Access::LowThenHigh);
    s.bcd = kernel.bcd != 0 ? 1 : 0;
    s.gate = kernel.gate != 0 ? 1 : 0;
    const bool words = s.access == static_cast<u8>(Access::LowThenHigh);
    s.count_latched = kernel.count_latched != 0 ? 1 : 0;
    s.status_latched = kernel.status_latched != 0 ? 1 : 0;
    s.latched_status = kernel.status;
    s.latched_count = kernel.latched_count;
    const bool high =
        s.count_latched != 0 ? kernel.count_latched == kLatchedHigh : kernel.read_state == kWordHigh;
    s.read_high_next = words && high ? 1 : 0;
    s.write_high_next = words && kernel.write_state == kWordHigh ? 1 : 0;
    s.low_byte = kernel.write_latch;
    take_count(s, kernel, now);
    return s;
}

// Whether the guest has left the counting element alone.
bool untouched(const kvm_pit_channel_state& then, const kvm_pit_channel_state& now) {
    return then.count == now.count && then.mode == now.mode && then.bcd == now.bcd && then.gate == now.gate &&
           then.rw_mode == now.rw_mode && then.count_load_time == now.count_load_time;
}

void go_on(Counter::State& s, const Counter::State& before, Counter::Tick now) {
    s.count = before.count;
    s.length = before.length;
    s.held = before.held;
    s.base = before.base;
    s.load_at = before.load_at;
    s.phase = before.phase;
    s.null_count = before.null_count;
    s.mode = before.mode;
    // A count that waited to be loaded has been. What rose meanwhile the kernel has shown: `seen` is now.
    Counter counter;
    counter.restore(s);
    (void)counter.output(now);
    s = counter.state();
}

s64 period_ns(u32 count) {
    return static_cast<s64>(u64{count} * kNsPerSecond / Pit8254::kInputHz);
}

// Rises of a counter that has loaded `length` at `base`, up to and with `tick`.
s64 rises(const Counter::State& s, Counter::Tick tick) {
    return tick < s.base ? 0 : (tick - s.base) / static_cast<s64>(s.length);
}

// Whether our counter 0 would have risen once more than the kernel's, which began its period anew.
bool owes_a_tick(const Counter::State& s, const KernelPitStay& stay, const KernelMoment& now) {
    if (!is_periodic(s.mode) || static_cast<Phase>(s.phase) != Phase::Running || s.length < 2) return false;
    const s64 stayed = now.kernel_ns - stay.since_ns;
    const s64 there = stayed / period_ns(stay.given.channels[0].count);
    const auto arrived =
        Pit8254::tick_at(now.guest_ns - std::min(now.guest_ns, static_cast<u64>(std::max(stayed, s64{0}))));
    const s64 here = rises(s, Pit8254::tick_at(now.guest_ns)) - rises(s, arrived);
    return here > there;
}

}  // namespace

kvm_pit_state2 to_kernel(const Pit8254::State& state, const KernelMoment& now, HpetLegacy legacy) {
    kvm_pit_state2 kernel{};
    for (unsigned i = 0; i < pit8254::kCounters; ++i) kernel.channels[i] = to_kernel(state.counters[i], now);
    if (Flags<Port61>(state.port61).has(Port61::SpeakerData)) kernel.flags |= KVM_PIT_FLAGS_SPEAKER_DATA_ON;
    if (legacy == HpetLegacy::On) kernel.flags |= KVM_PIT_FLAGS_HPET_LEGACY;
    return kernel;
}

Pit8254::State from_kernel(const kvm_pit_state2& kernel, const KernelMoment& now, const KernelPitStay* stay) {
    Pit8254::State state;
    for (unsigned i = 0; i < pit8254::kCounters; ++i) {
        kvm_pit_channel_state channel = kernel.channels[i];
        const bool same = stay != nullptr && untouched(stay->given.channels[i], channel);
        if (i < 2) channel.gate = 1;
        // KVM does not tell when counter 0 was loaded.
        if (i == 0) channel.count_load_time = now.kernel_ns;
        state.counters[i] = from_kernel(channel, now);
        if (same) go_on(state.counters[i], stay->before.counters[i], Pit8254::tick_at(now.guest_ns));
        if (same && i == 0 && owes_a_tick(state.counters[0], *stay, now)) state.counters[0].rose = 1;
    }
    Flags<Port61> port61;
    port61.set(Port61::Gate2, state.counters[2].gate != 0);
    port61.set(Port61::SpeakerData, (kernel.flags & KVM_PIT_FLAGS_SPEAKER_DATA_ON) != 0);
    state.port61 = port61.raw();
    Counter zero;
    zero.restore(state.counters[0]);
    state.wire = zero.output(Pit8254::tick_at(now.guest_ns)) ? 1 : 0;
    return state;
}

std::optional<u64> distance_to_kernel_tick(const kvm_pit_state2& kernel, const KernelPitStay& stay,
                                           s64 kernel_ns) {
    const kvm_pit_channel_state& zero = kernel.channels[0];
    if (zero.mode > kLastMode || !untouched(stay.given.channels[0], zero) || kernel_ns < stay.since_ns)
        return std::nullopt;
    const s64 stayed = kernel_ns - stay.since_ns;
    const s64 period = period_ns(zero.count);
    if (period == 0) return std::nullopt;
    if (!is_periodic(zero.mode)) return static_cast<u64>(std::max(period - stayed, stayed - period));
    const s64 phase = stayed % period;
    return static_cast<u64>(std::min(phase, period - phase));
}

}  // namespace tessera
