// A port's registers and its link.
#include "devices/ahci/port.h"

#include <bit>

namespace tessera::ahci {

namespace {

constexpr u32 kBusyOrData = static_cast<u32>(ata::Status::Busy) | static_cast<u32>(ata::Status::DataRequest);
constexpr u32 kHighestSpeed = 3;
constexpr u32 kPowerActive = 1;

constexpr u32 low(u64 value) {
    return static_cast<u32>(value);
}
constexpr u32 high(u64 value) {
    return static_cast<u32>(value >> 32);
}
constexpr u64 with_low(u64 value, u32 word) {
    return (value & ~u64{0xffff'ffff}) | word;
}
constexpr u64 with_high(u64 value, u32 word) {
    return (value & 0xffff'ffff) | u64{word} << 32;
}

}  // namespace

void Slot::done(BlockStatus status) {
    outcome_ = status;
    owner_.host_.completed(*this);
}

bool Completions::push(Slot& slot) {
    Slot* newest = newest_.load(std::memory_order_relaxed);
    do {
        slot.next_ = newest;
    } while (
        !newest_.compare_exchange_weak(newest, &slot, std::memory_order_release, std::memory_order_relaxed));
    return newest == nullptr;
}

Slot* Completions::take() {
    Slot* oldest = nullptr;
    for (Slot* slot = newest_.exchange(nullptr, std::memory_order_acquire); slot != nullptr;) {
        Slot* const older = slot->next_;
        slot->next_ = oldest;
        oldest = slot;
        slot = older;
    }
    return oldest;
}

Port::Port(PortHost& host, MemoryMap& memory, ata::Drive& drive)
    : host_(host), memory_(memory), drive_(drive) {
    for (u8 n = 0; n < kSlots; ++n) slots_.push_back(std::make_unique<Slot>(*this, n));
    connect_link();
}

// --- Registers ---

u32 Port::is() const {
    u32 value = state_.is;
    const Flags<PxSerr> serr(state_.serr);
    if (serr.has(PxSerr::Exchanged)) value |= static_cast<u32>(PxIs::PortConnect);
    if (serr.has(PxSerr::PhyReadyChange)) value |= static_cast<u32>(PxIs::PhyReadyChange);
    if (serr.has(PxSerr::UnknownFis)) value |= static_cast<u32>(PxIs::UnknownFis);
    return value;
}

u32 Port::ssts() const {
    switch (static_cast<Link>(state_.link)) {
        case Link::Down: return kDetNone;
        case Link::Resetting: return kDetPresent;
        case Link::Offline: return kDetOffline;
        case Link::Up: break;
    }
    // [AHCI 3.3.11] The host may forbid higher speeds.
    const u32 limit = state_.sctl >> kSpeedShift & kSpeedMask;
    const u32 speed = limit != 0 && limit < kHighestSpeed ? limit : kHighestSpeed;
    return kDetReady | speed << kSpeedShift | u32{state_.power} << kPowerShift;
}

// [AHCI 3.3.7] The command list runs until the last request is gone.
u32 Port::cmd() const {
    Flags<PxCmd> value = state_.cmd;
    value.set(PxCmd::FisReceiveRunning, value.has(PxCmd::FisReceive));
    value.set(PxCmd::CommandListRunning, value.has(PxCmd::Start) || in_flight_ != 0);
    const u32 slot = value.has(PxCmd::Start) ? state_.current : 0;
    return value.raw() | slot << kPxCmdSlotShift;
}

u32 Port::read(u64 reg) const {
    switch (reg) {
        case kPxClb: return low(state_.clb);
        case kPxClbu: return high(state_.clb);
        case kPxFb: return low(state_.fb);
        case kPxFbu: return high(state_.fb);
        case kPxIs: return is();
        case kPxIe: return state_.ie;
        case kPxCmd: return cmd();
        case kPxTfd: return u32{state_.error} << 8 | state_.status;
        case kPxSig: return state_.sig;
        case kPxSsts: return ssts();
        case kPxSctl: return state_.sctl;
        case kPxSerr: return state_.serr;
        case kPxSact: return state_.sact;
        case kPxCi: return state_.ci;
        default: return 0;
    }
}

void Port::write(u64 reg, u32 value) {
    const bool started = state_.cmd.has(PxCmd::Start);
    switch (reg) {
        case kPxClb: state_.clb = with_low(state_.clb, value & ~u32{0x3ff}); break;
        case kPxClbu: state_.clb = with_high(state_.clb, value); break;
        case kPxFb: state_.fb = with_low(state_.fb, value & ~u32{0xff}); break;
        case kPxFbu: state_.fb = with_high(state_.fb, value); break;
        case kPxIs: state_.is &= ~(value & kPxIsClearable); break;
        case kPxIe: state_.ie = value & kPxIeWritable; break;
        case kPxCmd: write_cmd(value); break;
        case kPxSctl: write_sctl(value & kSctlWritable); break;
        case kPxSerr: state_.serr &= ~value; break;
        // [AHCI 3.3.13], [AHCI 3.3.14] Set only, and only while started.
        case kPxSact:
            if (started) state_.sact |= value;
            break;
        case kPxCi:
            if (!started) break;
            state_.ci |= value;
            host_.kick(*this);
            break;
        default: break;
    }
}

void Port::write_cmd(u32 value) {
    const Flags<PxCmd> wanted(value);
    // [AHCI 3.3.7] Only while the command list does not run.
    if (wanted.has(PxCmd::CommandListOverride) && !state_.cmd.has(PxCmd::Start))
        state_.status = static_cast<u8>(state_.status & ~kBusyOrData);
    state_.cmd.set(PxCmd::IsAtapi, wanted.has(PxCmd::IsAtapi));
    state_.cmd.set(PxCmd::AtapiLed, wanted.has(PxCmd::AtapiLed));
    const u32 link_state = value >> kPxCmdInterfaceShift;
    if (link_state != 0) change_power(link_state);
    if (wanted.has(PxCmd::FisReceive)) {
        state_.cmd.set(PxCmd::FisReceive);
        if (state_.signature_waits != 0) send_signature();
    }
    if (wanted.has(PxCmd::Start) && !state_.cmd.has(PxCmd::Start)) start();
    if (!wanted.has(PxCmd::Start) && state_.cmd.has(PxCmd::Start)) stop();
    // [AHCI 3.3.7] Reception goes on as long as the command list runs.
    if (!wanted.has(PxCmd::FisReceive) && !state_.cmd.has(PxCmd::Start))
        state_.cmd.set(PxCmd::FisReceive, false);
}

// [AHCI 8.3.1] Only an idle link sleeps, and only if the host has not forbidden it.
void Port::change_power(u32 state) {
    if (static_cast<Link>(state_.link) != Link::Up || state_.ci != 0 || active_ != 0) return;
    const u32 forbidden = state_.sctl >> kPowerShift & kPowerMask;
    if (state == kIccActive || (state == kIccPartial && (forbidden & kNoPartial) == 0) ||
        (state == kIccSlumber && (forbidden & kNoSlumber) == 0))
        state_.power = static_cast<u8>(state);
}

void Port::start() {
    // [AHCI 10.3.1] Without FIS reception nothing can be started.
    if (!state_.cmd.has(PxCmd::FisReceive)) return;
    state_.cmd.set(PxCmd::Start);
}

void Port::stop() {
    state_.cmd.set(PxCmd::Start, false);
    state_.ci = 0;
    state_.sact = 0;
    state_.halted = 0;
    state_.current = kSlots - 1;
    drop_requests();
}

// What comes back from now on is for nobody.
void Port::drop_requests() {
    for (u32 left = active_; left != 0; left &= left - 1) {
        Slot& slot = *slots_[static_cast<std::size_t>(std::countr_zero(left))];
        slot.dropped_ = true;
    }
    dropped_ = in_flight_;
    active_ = active_queued_ = queue_done_ = 0;
}

// --- The link ---

void Port::write_sctl(u32 value) {
    const u32 before = state_.sctl & kDetMask;
    const u32 now = value & kDetMask;
    state_.sctl = value;
    if (before == now) return;
    if (now == kDetPresent || now == kDetOffline) {
        drop_requests();
        state_.link = static_cast<u8>(now == kDetPresent ? Link::Resetting : Link::Offline);
        state_.serr |= static_cast<u32>(PxSerr::PhyReadyChange);
        state_.status = kTfdNothing;
        state_.error = 0;
        state_.signature_waits = 0;
        state_.soft_reset = 0;
    } else if (now == kDetNone) {
        connect_link();
    }
}

// [AHCI 10.4.2] A device answers a link reset with its signature.
void Port::connect_link() {
    if (dropped_ != 0 || (state_.sctl & kDetMask) != kDetNone || static_cast<Link>(state_.link) == Link::Up)
        return;
    state_.link = static_cast<u8>(Link::Up);
    state_.power = kPowerActive;
    state_.serr |= (Flags(PxSerr::PhyReadyChange) | PxSerr::Exchanged).raw();
    state_.soft_reset = 0;
    drive_.reset(ata::ResetKind::Hardware);
    state_.status = static_cast<u8>(ata::Status::Busy);
    state_.signature_waits = 1;
    if (state_.cmd.has(PxCmd::FisReceive)) send_signature();
}

void Port::send_signature() {
    const ata::Registers registers = drive_.signature();
    state_.signature_waits = 0;
    state_.sig = (registers.count & 0xff) | static_cast<u32>(registers.lba & 0xff'ffff) << 8;
    send_registers(registers, false);
    resume();
}

// --- Errors ---

// [AHCI 6.2.2] Nothing more is done until software restarts the port.
void Port::halt(PxIs cause) {
    raise(cause);
    state_.halted = 1;
    flush_queue_results();
    drop_requests();
}

bool Port::ready() const {
    return state_.cmd.has(PxCmd::Start) && state_.halted == 0 && dropped_ == 0 &&
           static_cast<Link>(state_.link) == Link::Up && state_.signature_waits == 0 &&
           host_.may_access_memory();
}

void Port::resume() {
    if (state_.cmd.has(PxCmd::Start) && state_.ci != 0) host_.kick(*this);
}

// --- Reset and snapshots ---

void Port::reset() {
    drop_requests();
    State next;
    // [AHCI 10.4.3] These two stay.
    next.clb = state_.clb;
    next.fb = state_.fb;
    state_ = next;
}

void Port::power_on() {
    drop_requests();
    state_ = {};
    drive_.power_on();
}

void Port::visit(StateVisitor& v, unsigned first, State& s) {
    auto& [clb, fb, is, ie, cmd, current, sctl, serr, sact, ci, sig, status, error, link, power,
           signature_waits, soft_reset, halted] = s;
    v.field(first, "PxCLB", clb);
    v.field(first + 1, "PxFB", fb);
    v.field(first + 2, "PxIS", is);
    v.field(first + 3, "PxIE", ie);
    v.field(first + 4, "PxCMD", cmd);
    v.field(first + 5, "current slot", current);
    v.field(first + 6, "PxSCTL", sctl);
    v.field(first + 7, "PxSERR", serr);
    v.field(first + 8, "PxSACT", sact);
    v.field(first + 9, "PxCI", ci);
    v.field(first + 10, "PxSIG", sig);
    v.field(first + 11, "status", status);
    v.field(first + 12, "error", error);
    v.field(first + 13, "link", link);
    v.field(first + 14, "link power", power);
    v.field(first + 15, "signature waits", signature_waits);
    v.field(first + 16, "soft reset", soft_reset);
    v.field(first + 17, "halted", halted);
}

bool Port::valid(const State& s) {
    constexpr u32 kCmdBits = (Flags(PxCmd::Start) | PxCmd::SpinUp | PxCmd::PowerOn | PxCmd::FisReceive |
                              PxCmd::IsAtapi | PxCmd::AtapiLed)
                                 .raw();
    const bool link_power = s.power == kPowerActive || s.power == kIccPartial || s.power == kIccSlumber;
    return (s.clb & 0x3ff) == 0 && (s.fb & 0xff) == 0 && (s.is & ~kPxIsClearable) == 0 &&
           (s.ie & ~kPxIeWritable) == 0 && (s.cmd.raw() & ~kCmdBits) == 0 && s.cmd.has(PxCmd::SpinUp) &&
           s.cmd.has(PxCmd::PowerOn) && s.current < kSlots && (s.sctl & ~kSctlWritable) == 0 &&
           (s.serr & ~kSerrBits) == 0 && s.link <= static_cast<u8>(Link::Offline) && link_power &&
           s.signature_waits <= 1 && s.soft_reset <= 1 && s.halted <= 1;
}

void Port::visit_state(StateVisitor& v, unsigned first) {
    visit(v, first, state_);
    drive_.visit_state(v, first + kFields - ata::Drive::kFields);
}

bool Port::load(StateVisitor& v, unsigned first) {
    State next;
    visit(v, first, next);
    if (v.corrupt() || !valid(next) || !drive_.load(v, first + kFields - ata::Drive::kFields)) return false;
    loaded_ = next;
    return true;
}

void Port::commit_load() {
    state_ = loaded_;
    drive_.commit_load();
    drop_requests();
}

}  // namespace tessera::ahci
