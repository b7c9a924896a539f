#include "devices/lapic/lapic.h"

#include <algorithm>

#include "base/flags.h"

namespace tessera::lapic {

namespace {

// The word senders read: bits 31:0 the logical ID, then the mode and two flags.
constexpr unsigned kPublishedModeShift = 32;
constexpr u64 kPublishedCluster = u64{1} << 34;
constexpr u64 kPublishedFixed = u64{1} << 35;

constexpr u32 bit(LvtBit b) {
    return static_cast<u32>(b);
}
constexpr u32 bit(Post p) {
    return static_cast<u32>(p);
}
constexpr u32 kEventBits = bit(Post::Nmi) | bit(Post::Smi) | bit(Post::Init) | bit(Post::StartUp);
constexpr u32 kEventVectorMask = 0xff0000;
constexpr u32 kEventVectorShift = 16;

constexpr DeliveryMode delivery_mode_of(u32 lvt) {
    return static_cast<DeliveryMode>(lvt >> 8 & 7);
}

Status refuse_state() {
    return fail(Errc::CorruptState, "local APIC: the saved state holds values no local APIC can have");
}

}  // namespace

Lapic::Lapic(const Config& config, const Clock& clock, const TscSource& tsc, TimerQueue& timers,
             ApicFabric& fabric)
    : config_(config), fabric_(fabric), wakeup_(timers, *this), timer_(clock, tsc, wakeup_) {
    reset();
}

// --- Any thread.

void Lapic::post_and_wake(Post what) {
    inbox_.post(what);
    if (waker_ != nullptr) waker_->wake();
}

void Lapic::on_timer_fire() {
    post_and_wake(Post::Timer);
}

void Lapic::accept(const ApicMessage& message) {
    switch (message.delivery_mode) {
        case DeliveryMode::Fixed:
        case DeliveryMode::LowestPriority:
            // [SDM 3A 11.4.7.2] Disabled by software: takes INIT, NMI, SMI and SIPI only.
            if (!accepts_fixed()) return;
            if (message.vector < kFirstLegalVector) return post_and_wake(Post::IllegalVector);
            inbox_.post_vector(message.vector, message.trigger == TriggerMode::Level);
            break;
        case DeliveryMode::Smi: inbox_.post(Post::Smi); break;
        case DeliveryMode::Nmi: inbox_.post(Post::Nmi); break;
        case DeliveryMode::Init: inbox_.post_init(); break;
        case DeliveryMode::StartUp: inbox_.post_start_up(message.vector); break;
        case DeliveryMode::ExtInt: inbox_.post(Post::ExtInt); break;
        case DeliveryMode::Reserved: return;
    }
    if (waker_ != nullptr) waker_->wake();
}

bool Lapic::accepts_fixed() const {
    return (published_.load(std::memory_order_acquire) & kPublishedFixed) != 0;
}

bool Lapic::matches(const ApicMessage& message) const {
    const u64 word = published_.load(std::memory_order_acquire);
    const auto mode = static_cast<Mode>(word >> kPublishedModeShift & 3);
    if (mode == Mode::Disabled || message.except == config_.apic_id) return false;
    const u32 destination = message.destination;
    if (destination == ApicMessage::kBroadcast) return true;
    if (message.destination_mode == DestinationMode::Physical) return destination == config_.apic_id;
    const u32 own = static_cast<u32>(word);
    // [SDM 3A 11.12.10.2] Cluster in the high half, one bit per CPU in the low half.
    if (mode == Mode::X2apic) return destination >> 16 == own >> 16 && (destination & own & 0xffff) != 0;
    if (destination > 0xff) return false;
    // [SDM 3A 11.6.2.2]
    if ((word & kPublishedCluster) != 0)
        return destination >> 4 == own >> 4 && (destination & own & 0xf) != 0;
    return (destination & own) != 0;
}

void Lapic::set_lint(unsigned pin, bool high) {
    if (pin > 1) return;
    inbox_.set_pin(pin, high);
    if (waker_ != nullptr && !inbox_.empty()) waker_->wake();
}

// --- Owner's thread.

Lapic::Mode Lapic::mode() const {
    const Flags<ApicBase> base(state_.apic_base);
    if (!base.has(ApicBase::EN)) return Mode::Disabled;
    return base.has(ApicBase::EXTD) ? Mode::X2apic : Mode::Xapic;
}

bool Lapic::software_enabled() const {
    return Flags<Svr>(state_.svr).has(Svr::Enable);
}
bool Lapic::globally_enabled() const {
    return mode() != Mode::Disabled;
}
bool Lapic::is_bootstrap() const {
    return Flags<ApicBase>(state_.apic_base).has(ApicBase::BSP);
}

// [SDM 3A 11.12.10.2] In x2APIC mode the logical ID follows from the APIC ID: 16 CPUs to a cluster.
u32 Lapic::logical_id() const {
    if (mode() == Mode::X2apic) return config_.apic_id >> 4 << 16 | u32{1} << (config_.apic_id & 0xf);
    return state_.ldr >> 24;
}

void Lapic::publish() {
    const Mode m = mode();
    u64 word = logical_id() | u64{static_cast<u8>(m)} << kPublishedModeShift;
    if (state_.dfr >> kDfrModelShift == kDfrModelCluster) word |= kPublishedCluster;
    if (m != Mode::Disabled && software_enabled()) word |= kPublishedFixed;
    published_.store(word, std::memory_order_release);
}

// [SDM 3A 11.8.3.1]
u8 Lapic::ppr() const {
    const int in_service = std::max(state_.isr.highest(), 0);
    const unsigned tpr = state_.tpr;
    if (tpr >> 4 >= static_cast<unsigned>(in_service) >> 4) return static_cast<u8>(tpr);
    return static_cast<u8>(in_service & 0xf0);
}

bool Lapic::pin_active(Lvt entry) const {
    const bool high = (state_.pins >> (entry == Lvt::Lint0 ? 0 : 1) & 1) != 0;
    return high != ((lvt(entry) & bit(LvtBit::ActiveLow)) != 0);
}

bool Lapic::extint_pending() const {
    // [SDM 3A 11.4.3] Globally disabled, LINT0 is the CPU's INTR.
    if (mode() == Mode::Disabled) return (state_.pins & 1) != 0;
    if ((state_.events & bit(Post::ExtInt)) != 0) return true;
    for (const Lvt pin : {Lvt::Lint0, Lvt::Lint1}) {
        const u32 entry = lvt(pin);
        if (delivery_mode_of(entry) == DeliveryMode::ExtInt && (entry & bit(LvtBit::Masked)) == 0 &&
            pin_active(pin))
            return true;
    }
    return false;
}

// The output of the chip is a function of its state; every change ends here.
void Lapic::refresh() {
    const int requested = state_.irr.highest();
    deliverable_ =
        extint_pending() || (requested >= 0 && static_cast<unsigned>(requested) >> 4 > ppr() >> 4u);
}

// After the CPU itself changed something: it looks here only when woken.
void Lapic::wake_if_news(bool deliverable_before) {
    if (waker_ != nullptr && ((deliverable_ && !deliverable_before) || state_.events != 0)) waker_->wake();
}

void Lapic::merge_inbox() {
    const Inbox::Taken taken = inbox_.take();
    if (taken.has(Post::Init)) state_.events &= ~(bit(Post::StartUp) | kEventVectorMask);
    u32 fresh = taken.summary & (kEventBits | bit(Post::ExtInt));
    if (taken.has(Post::StartUp)) {
        if ((state_.events & bit(Post::StartUp)) == 0)
            fresh |= u32{taken.start_up_vector()} << kEventVectorShift;
        else
            fresh &= ~bit(Post::StartUp);
    }
    state_.events |= fresh;
    if (taken.has(Post::Vectors)) merge_vectors();
    if (taken.has(Post::IllegalVector)) log_error(Esr::ReceiveIllegalVector);
    if (taken.has(Post::Timer)) {
        timer_.wakeup_fired();
        run_timer();
    }
    merge_pins(taken);
    refresh();
}

void Lapic::merge_vectors() {
    VectorSet edge;
    VectorSet level;
    inbox_.take_vectors(edge, level);
    if (mode() == Mode::Disabled) return;
    // [SDM 3A 11.8.4] TMR follows the trigger mode at the acceptance into IRR.
    for (unsigned i = 0; i < VectorSet::kWords; ++i) {
        state_.irr.words[i] |= edge.words[i] | level.words[i];
        state_.tmr.words[i] = (state_.tmr.words[i] & ~edge.words[i]) | level.words[i];
    }
}

void Lapic::merge_pins(Inbox::Taken taken) {
    state_.pins = inbox_.pins();
    deliver_pin(Lvt::Lint0, taken.has(Post::Lint0Rise), taken.has(Post::Lint0Fall));
    deliver_pin(Lvt::Lint1, taken.has(Post::Lint1Rise), taken.has(Post::Lint1Fall));
}

// [SDM 3A 11.5.1] ExtINT is a level and seen by extint_pending(); the others are requested here.
void Lapic::deliver_pin(Lvt entry, bool rise, bool fall) {
    if (mode() == Mode::Disabled) {
        if (entry == Lvt::Lint1 && rise) state_.events |= bit(Post::Nmi);
        return;
    }
    u32& value = lvt(entry);
    if ((value & bit(LvtBit::Masked)) != 0) return;
    const bool edge = (value & bit(LvtBit::ActiveLow)) != 0 ? fall : rise;
    switch (delivery_mode_of(value)) {
        case DeliveryMode::Fixed:
            // LINT1 is always edge sensitive.
            if ((value & bit(LvtBit::Level)) == 0 || entry == Lvt::Lint1) {
                if (edge) accept_vector(static_cast<u8>(value), TriggerMode::Edge);
            } else if (pin_active(entry) && (value & bit(LvtBit::RemoteIrr)) == 0) {
                value |= bit(LvtBit::RemoteIrr);
                accept_vector(static_cast<u8>(value), TriggerMode::Level);
            }
            break;
        case DeliveryMode::Nmi:
            if (edge) state_.events |= bit(Post::Nmi);
            break;
        case DeliveryMode::Smi:
            if (edge) state_.events |= bit(Post::Smi);
            break;
        case DeliveryMode::Init:
            if (edge)
                state_.events = (state_.events & ~bit(Post::StartUp) & ~kEventVectorMask) | bit(Post::Init);
            break;
        case DeliveryMode::ExtInt:
        case DeliveryMode::LowestPriority:
        case DeliveryMode::Reserved:
        case DeliveryMode::StartUp: break;
    }
}

void Lapic::accept_vector(u8 vector, TriggerMode trigger) {
    if (vector < kFirstLegalVector) return log_error(Esr::ReceiveIllegalVector);
    state_.irr.insert(vector);
    if (trigger == TriggerMode::Level)
        state_.tmr.insert(vector);
    else
        state_.tmr.erase(vector);
}

void Lapic::log_error(Esr error) {
    // Once per kind until software has looked, so an illegal vector in the error entry itself ends here.
    if (Flags<Esr>(state_.esr_pending).has(error)) return;
    state_.esr_pending |= static_cast<u32>(error);
    deliver_lvt(Lvt::Error);
}

void Lapic::deliver_lvt(Lvt entry) {
    u32& value = lvt(entry);
    if (mode() == Mode::Disabled || (value & bit(LvtBit::Masked)) != 0) return;
    const bool fixed = entry == Lvt::Timer || entry == Lvt::Error;
    const u8 vector = static_cast<u8>(value);
    // [SDM 3A 11.5.1] The mask of the performance counters' entry sets itself at delivery.
    if (entry == Lvt::Performance) value |= bit(LvtBit::Masked);
    switch (fixed ? DeliveryMode::Fixed : delivery_mode_of(value)) {
        case DeliveryMode::Fixed: accept_vector(vector, TriggerMode::Edge); break;
        case DeliveryMode::Nmi: state_.events |= bit(Post::Nmi); break;
        case DeliveryMode::Smi: state_.events |= bit(Post::Smi); break;
        case DeliveryMode::Init:
            state_.events = (state_.events & ~bit(Post::StartUp) & ~kEventVectorMask) | bit(Post::Init);
            break;
        case DeliveryMode::LowestPriority:
        case DeliveryMode::Reserved:
        case DeliveryMode::StartUp:
        case DeliveryMode::ExtInt: break;  // [SDM 3A 11.5.1] not for these sources
    }
}

void Lapic::raise_local(Lvt entry) {
    if (entry == Lvt::Lint0 || entry == Lvt::Lint1) return;  // these have pins
    const bool before = deliverable_;
    deliver_lvt(entry);
    refresh();
    wake_if_news(before);
}

void Lapic::run_timer() {
    if (timer_.expire_if_due()) deliver_lvt(Lvt::Timer);
}

void Lapic::run_timer_and_refresh() {
    const bool before = deliverable_;
    run_timer();
    refresh();
    wake_if_news(before);
}

CpuInterrupts::Events Lapic::take_events() {
    if (!inbox_.empty()) merge_inbox();
    Events events;
    u32 taken = state_.events & (kEventBits | kEventVectorMask);
    if (taken == 0) return events;
    // A SIPI that came after an INIT waits until the CPU has carried the INIT out: before, it would be
    // ignored.
    if ((taken & bit(Post::Init)) != 0 && (taken & bit(Post::StartUp)) != 0) {
        taken &= ~(bit(Post::StartUp) | kEventVectorMask);
        if (waker_ != nullptr) waker_->wake();
    }
    state_.events &= ~taken;
    events.nmi = (taken & bit(Post::Nmi)) != 0;
    events.smi = (taken & bit(Post::Smi)) != 0;
    events.init = (taken & bit(Post::Init)) != 0;
    if ((taken & bit(Post::StartUp)) != 0) events.sipi = static_cast<u8>(taken >> kEventVectorShift);
    return events;
}

std::optional<u8> Lapic::acknowledge() {
    if (!inbox_.empty()) merge_inbox();
    if (extint_pending()) {
        state_.events &= ~bit(Post::ExtInt);
        const auto vector = pic_ != nullptr ? pic_->acknowledge_interrupt() : std::nullopt;
        // The acknowledge moved the 8259A's INTR, which is in the inbox now.
        merge_inbox();
        if (vector) return vector;
    }
    const int requested = mode() == Mode::Disabled ? -1 : state_.irr.highest();
    if (requested < 0 || static_cast<unsigned>(requested) >> 4 <= ppr() >> 4u) {
        refresh();
        return std::nullopt;
    }
    const auto vector = static_cast<u8>(requested);
    state_.irr.erase(vector);
    state_.isr.insert(vector);
    refresh();
    return vector;
}

// [SDM 3A 11.8.5]
void Lapic::end_of_interrupt() {
    const int highest = state_.isr.highest();
    if (highest < 0) return;
    const bool before = deliverable_;
    const auto vector = static_cast<u8>(highest);
    state_.isr.erase(vector);
    if (state_.tmr.has(vector)) {
        u32& lint0 = lvt(Lvt::Lint0);
        if ((lint0 & bit(LvtBit::RemoteIrr)) != 0 && static_cast<u8>(lint0) == vector) {
            lint0 &= ~bit(LvtBit::RemoteIrr);
            deliver_pin(Lvt::Lint0, false, false);
        }
        // The chip is at rest here: the I/O APIC may send the next message before this returns.
        if (eoi_sink_ != nullptr && !Flags<Svr>(state_.svr).has(Svr::EoiBroadcastSuppression))
            eoi_sink_->end_of_interrupt(vector);
        if (!inbox_.empty()) merge_inbox();
    }
    refresh();
    wake_if_news(before);
}

bool Lapic::requested() {
    if (!inbox_.empty()) merge_inbox();
    return state_.irr.highest() >= 0 || extint_pending();
}

bool Lapic::eoi_can_wait(u8 vector) {
    if (mode() == Mode::Disabled || requested()) return false;
    VectorSet others = state_.isr;
    others.erase(vector);
    return state_.isr.has(vector) && others.highest() < 0 && !state_.tmr.has(vector);
}

void Lapic::set_cr8(u8 value) {
    const bool before = deliverable_;
    state_.tpr = static_cast<u8>(value << 4);
    refresh();
    wake_if_news(before);
}

void Lapic::set_tsc_offset(s64 offset) {
    timer_.set_tsc_offset(offset);
    run_timer_and_refresh();
}

// --- Reset and snapshots.

Lapic::State Lapic::initial_state(u64 apic_base) {
    State s;
    s.apic_base = apic_base;
    s.lvt.fill(bit(LvtBit::Masked));
    return s;
}

// [SDM 3A 11.4.7.3] What came after the INIT (a SIPI, an NMI) is still to be reported.
void Lapic::init_reset() {
    merge_inbox();
    const u32 events = state_.events & (kEventBits | kEventVectorMask);
    state_ = initial_state(state_.apic_base);
    state_.events = events;
    state_.pins = inbox_.pins();
    timer_.reset();
    publish();
    refresh();
}

// [SDM 3A 11.4.7.1]
void Lapic::reset() {
    inbox_.clear();
    state_ = initial_state(kDefaultBase | static_cast<u64>(ApicBase::EN) |
                           (config_.bootstrap ? static_cast<u64>(ApicBase::BSP) : 0));
    state_.pins = inbox_.pins();
    timer_.reset();
    timer_.set_tsc_offset(0);
    publish();
    refresh();
}

void Lapic::enter_virtual_wire_mode() {
    write_svr(static_cast<u32>(Svr::Enable) | kSvrReset);
    lvt(Lvt::Lint0) = static_cast<u32>(DeliveryMode::ExtInt) << 8;
    lvt(Lvt::Lint1) = static_cast<u32>(DeliveryMode::Nmi) << 8;
    refresh();
}

void Lapic::visit(StateVisitor& v, State& s) {
    auto& [apic_base, tpr, ldr, dfr, svr, isr, tmr, irr, esr, esr_pending, icr, lvt, events, pins] = s;
    v.field(1, "apic_base", apic_base);
    v.field(2, "tpr", tpr);
    v.field(3, "ldr", ldr);
    v.field(4, "dfr", dfr);
    v.field(5, "svr", svr);
    v.field(6, "esr", esr);
    v.field(7, "esr_pending", esr_pending);
    v.field(8, "icr", icr);
    v.field(9, "events", events);
    v.field(10, "pins", pins);
    for (unsigned i = 0; i < VectorSet::kWords; ++i) {
        v.field(20 + i, "isr", isr.words[i]);
        v.field(24 + i, "tmr", tmr.words[i]);
        v.field(28 + i, "irr", irr.words[i]);
    }
    for (unsigned i = 0; i < kLvtCount; ++i) v.field(40 + i, "lvt", lvt[i]);
}

// What is due by now belongs to the state; a loaded chip would find it at once.
void Lapic::settle() {
    if (!inbox_.empty()) merge_inbox();
    run_timer_and_refresh();
}

void Lapic::visit_state(StateVisitor& v) {
    settle();
    visit(v, state_);
    LapicTimer::State timer = timer_.state();
    LapicTimer::visit(v, timer);
}

bool Lapic::valid(const State& s) const {
    const Flags<ApicBase> base(s.apic_base);
    constexpr u64 kFlags =
        static_cast<u64>(ApicBase::BSP) | static_cast<u64>(ApicBase::EXTD) | static_cast<u64>(ApicBase::EN);
    const u64 address = s.apic_base & ~u64{0xfff};
    if (base.has(ApicBase::EXTD) && (!base.has(ApicBase::EN) || !config_.x2apic)) return false;
    if ((s.apic_base & 0xfff & ~kFlags) != 0 || address >> config_.physical_address_bits != 0) return false;
    if ((s.svr & ~kSvrBits) != 0 || s.pins > 3) return false;
    if ((s.events & ~(kEventBits | kEventVectorMask | bit(Post::ExtInt))) != 0) return false;
    // Vectors 0-15 are never accepted.
    return ((s.irr.words[0] | s.isr.words[0]) & 0xffff) == 0;
}

Status Lapic::load(StateVisitor& v) {
    Saved next{.registers = initial_state(0), .timer = {}};
    visit(v, next.registers);
    LapicTimer::visit(v, next.timer);
    if (v.corrupt()) return refuse_state();
    return restore(next);
}

Lapic::Saved Lapic::saved() {
    settle();
    return {.registers = state_, .timer = timer_.state()};
}

Status Lapic::restore(const Saved& saved) {
    if (!valid(saved.registers) || !LapicTimer::valid(saved.timer)) return refuse_state();
    inbox_.clear();
    inbox_.restore_pins(saved.registers.pins);
    state_ = saved.registers;
    timer_.restore(saved.timer);
    publish();
    run_timer();
    refresh();
    wake_if_news(false);
    return {};
}

}  // namespace tessera::lapic
