#include "devices/uart16550/uart16550.h"

#include <algorithm>
#include <optional>
#include <vector>

namespace tessera::uart16550 {

namespace {

std::optional<ReadReg> decode_read(u64 offset, bool dlab) {
    switch (offset) {
        case 0: return dlab ? ReadReg::DLL : ReadReg::RBR;
        case 1: return dlab ? ReadReg::DLM : ReadReg::IER;
        case 2: return ReadReg::IIR;
        case 3: return ReadReg::LCR;
        case 4: return ReadReg::MCR;
        case 5: return ReadReg::LSR;
        case 6: return ReadReg::MSR;
        case 7: return ReadReg::SCR;
        default: return std::nullopt;
    }
}

std::optional<WriteReg> decode_write(u64 offset, bool dlab) {
    switch (offset) {
        case 0: return dlab ? WriteReg::DLL : WriteReg::THR;
        case 1: return dlab ? WriteReg::DLM : WriteReg::IER;
        case 2: return WriteReg::FCR;
        case 3: return WriteReg::LCR;
        case 4: return WriteReg::MCR;
        case 5: return WriteReg::LSR;
        case 6: return WriteReg::MSR;
        case 7: return WriteReg::SCR;
        default: return std::nullopt;
    }
}

}  // namespace

bool Fifo::any_errors() const {
    for (u8 i = 0; i < count_; ++i)
        if (errors_[(head_ + i) % kFifoDepth] != 0) return true;
    return false;
}

void Fifo::push(u8 byte, u8 errors) {
    const unsigned at = (head_ + count_) % kFifoDepth;
    data_[at] = byte;
    errors_[at] = errors;
    ++count_;
}

void Fifo::pop() {
    head_ = static_cast<u8>((head_ + 1) % kFifoDepth);
    --count_;
}

void Fifo::replace_front(u8 byte, u8 errors) {
    data_[head_] = byte;
    errors_[head_] = errors;
}

void Fifo::visit(StateVisitor& v, unsigned id, std::string_view name) {
    std::vector<u8> pairs;
    for (u8 i = 0; i < count_; ++i) {
        const unsigned at = (head_ + i) % kFifoDepth;
        pairs.push_back(data_[at]);
        pairs.push_back(errors_[at]);
    }
    v.field(id, name, pairs);
    if (pairs.size() % 2 != 0 || pairs.size() / 2 > kFifoDepth) {
        malformed_ = true;
        return;
    }
    clear();
    for (std::size_t i = 0; i < pairs.size(); i += 2) {
        if ((pairs[i + 1] & ~kLsrCharacterErrors) != 0) malformed_ = true;
        push(pairs[i], pairs[i + 1]);
    }
}

u8 Uart16550::rx_trigger() const {
    return fifos_enabled() ? kRxTrigger[state_.fcr.raw() >> kFcrTriggerShift] : u8{1};
}

// [PC16550D 8.6] "FIFO interrupt mode operation": four character times, of the character the line is set to.
u64 Uart16550::timeout_ns() const {
    const Flags<Lcr> lcr = state_.lcr;
    const u64 bits =
        1 + 5 + (lcr.raw() & kLcrWordLength) + (lcr.has(Lcr::PEN) ? 1U : 0U) + (lcr.has(Lcr::STB) ? 2U : 1U);
    // A divisor of 0 stops the real baud generator; the shortest time keeps the guest alive.
    const u64 divisor = std::max(u64{1}, u64{state_.dlm} << 8 | state_.dll);
    return 4 * bits * 16 * divisor * 1'000'000'000 / kCrystalHz;
}

Flags<Lsr> Uart16550::line_status() const {
    const State& s = state_;
    Flags<Lsr> lsr(s.lsr_errors);
    lsr.set(Lsr::DR, !s.rx.empty());
    lsr.set(Lsr::THRE, s.tx.empty());
    lsr.set(Lsr::TEMT, s.tx.empty());
    // [PC16550D 8.4] Bit 7 is always 0 in the 16450 mode.
    lsr.set(Lsr::FifoError,
            fifos_enabled() && ((s.lsr_errors & kLsrCharacterErrors) != 0 || s.rx.any_errors()));
    return lsr;
}

// [PC16550D] Table IV "Interrupt Control Functions": highest priority first.
Iir Uart16550::pending_interrupt() const {
    const State& s = state_;
    if (s.ier.has(Ier::ELSI) && s.lsr_errors != 0) return Iir::LineStatus;
    if (s.ier.has(Ier::ERBFI)) {
        if (s.rx.size() >= rx_trigger()) return Iir::ReceivedData;
        if (s.timeout_pending != 0) return Iir::CharacterTimeout;
    }
    if (s.ier.has(Ier::ETBEI) && s.thre_pending != 0) return Iir::ThrEmpty;
    if (s.ier.has(Ier::EDSSI) && s.msr_deltas != 0) return Iir::ModemStatus;
    return Iir::None;
}

// On the PC, the OUT2 pin gates the interrupt line; loopback forces that pin inactive [PC16550D 8.7].
bool Uart16550::irq_level() const {
    return state_.mcr.has(Mcr::OUT2) && !loopback() && pending_interrupt() != Iir::None;
}

IoStatus Uart16550::read(u64 offset, std::span<std::byte> out) {
    if (out.size() != 1) return IoStatus::BadWidth;
    const auto reg = decode_read(offset, dlab());
    if (!reg) return IoStatus::NoRegister;
    out[0] = std::byte{read_register(*reg)};
    sync();
    return IoStatus::Ok;
}

IoStatus Uart16550::write(u64 offset, std::span<const std::byte> in) {
    if (in.size() != 1) return IoStatus::BadWidth;
    const auto reg = decode_write(offset, dlab());
    if (!reg) return IoStatus::NoRegister;
    write_register(*reg, std::to_integer<u8>(in[0]));
    sync();
    return IoStatus::Ok;
}

u8 Uart16550::read_register(ReadReg reg) {
    State& s = state_;
    switch (reg) {
        case ReadReg::RBR: return read_rbr();
        case ReadReg::IER: return s.ier.raw();
        case ReadReg::IIR: return read_iir();
        case ReadReg::LCR: return s.lcr.raw();
        case ReadReg::MCR: return s.mcr.raw();
        case ReadReg::LSR: return read_lsr();
        case ReadReg::MSR: {
            const u8 deltas = std::exchange(s.msr_deltas, u8{0});
            return modem_levels().raw() | deltas;
        }
        case ReadReg::SCR: return s.scratch;
        case ReadReg::DLL: return s.dll;
        case ReadReg::DLM: return s.dlm;
    }
    return 0xff;  // not reached: decode_read() makes no other value
}

void Uart16550::write_register(WriteReg reg, u8 value) {
    State& s = state_;
    switch (reg) {
        case WriteReg::THR: write_thr(value); break;
        case WriteReg::IER: write_ier(value); break;
        case WriteReg::FCR: write_fcr(value); break;
        case WriteReg::LCR: write_lcr(value); break;
        case WriteReg::MCR: write_mcr(value); break;
        // [PC16550D 8.4] Writing LSR is for factory testing; MSR's inputs cannot be written either.
        case WriteReg::LSR:
        case WriteReg::MSR: break;
        case WriteReg::SCR: s.scratch = value; break;
        case WriteReg::DLL: s.dll = value; break;
        case WriteReg::DLM: s.dlm = value; break;
    }
}

u8 Uart16550::read_rbr() {
    State& s = state_;
    s.timeout_pending = 0;
    if (s.rx.empty()) return 0;
    const u8 value = s.rx.front();
    s.rx.pop();
    // [PC16550D 8.4] A character's errors are revealed when it gets to the top of the FIFO.
    s.lsr_errors |= s.rx.front_errors();
    restart_timeout();
    return value;
}

u8 Uart16550::read_iir() {
    const Iir pending = pending_interrupt();
    if (pending == Iir::ThrEmpty) state_.thre_pending = 0;
    return static_cast<u8>(static_cast<u8>(pending) | (fifos_enabled() ? kIirFifosEnabled : 0));
}

u8 Uart16550::read_lsr() {
    const u8 value = line_status().raw();
    state_.lsr_errors = 0;
    if (!state_.rx.empty()) state_.rx.clear_front_errors();
    return value;
}

void Uart16550::write_ier(u8 value) {
    const Flags<Ier> next(value & kIerMask);
    if (next.has(Ier::ETBEI) && !state_.ier.has(Ier::ETBEI) && state_.tx.empty()) state_.thre_pending = 1;
    state_.ier = next;
    restart_timeout();
}

void Uart16550::write_thr(u8 value) {
    // Writing THR ends the interrupt and the byte leaving begins it anew: a controller that senses edges must
    // see both.
    state_.thre_pending = 0;
    sync();
    transmit(value);
}

// DEVIATION: all eight bits are sent whatever the word length because both ends of this wire take bytes, and
// a small guest that finds no firmware's settings and sets none would otherwise print five bits a character.
void Uart16550::transmit(u8 byte) {
    State& s = state_;
    if (loopback()) {
        push_received(byte, 0);
        s.thre_pending = s.tx.empty() ? 1 : 0;
        return;
    }
    if (s.tx.empty() && wire_.put(byte)) {
        s.thre_pending = 1;
        return;
    }
    // [PC16550D 8.4] A guest that writes without looking at THRE loses the byte.
    if (s.tx.size() < depth()) s.tx.push(byte, 0);
}

void Uart16550::drain() {
    State& s = state_;
    if (s.tx.empty()) return;
    while (!s.tx.empty() && wire_.put(s.tx.front())) s.tx.pop();
    if (s.tx.empty()) s.thre_pending = 1;
}

void Uart16550::transmit_ready() {
    drain();
    sync();
}

void Uart16550::write_fcr(u8 value) {
    State& s = state_;
    const Flags<Fcr> next(value);
    // [PC16550D 8.6] Changing the mode clears both FIFOs; the other bits only count when bit 0 is written
    // as 1.
    const bool mode_changed = next.has(Fcr::Enable) != fifos_enabled();
    if (mode_changed || (next.has(Fcr::Enable) && next.has(Fcr::ClearRx))) {
        s.rx.clear();
        s.timeout_pending = 0;
        s.lsr_errors &= static_cast<u8>(Lsr::OE);
    }
    if ((mode_changed || (next.has(Fcr::Enable) && next.has(Fcr::ClearTx))) && !s.tx.empty()) {
        s.tx.clear();
        s.thre_pending = 1;
    }
    s.fcr = Flags<Fcr>(next.has(Fcr::Enable) ? value & kFcrKept : 0);
    restart_timeout();
}

void Uart16550::write_lcr(u8 value) {
    const bool was = state_.lcr.has(Lcr::Break);
    state_.lcr = Flags<Lcr>(value);
    const bool is = state_.lcr.has(Lcr::Break);
    if (is == was) return;
    if (!loopback())
        wire_.set_break(is);
    else if (is)
        push_received(0, static_cast<u8>(Lsr::BI));
}

void Uart16550::write_mcr(u8 value) {
    State& s = state_;
    const Flags<Msr> before = modem_levels();
    s.mcr = Flags<Mcr>(value & kMcrMask);
    note_modem_changes(before);
    // [PC16550D 8.7] In loopback the four outputs are forced inactive.
    wire_.set_modem_control(!loopback() && s.mcr.has(Mcr::DTR), !loopback() && s.mcr.has(Mcr::RTS));
}

// [PC16550D 8.7] In loopback CTS, DSR, RI and DCD are connected to RTS, DTR, OUT1 and OUT2.
Flags<Msr> Uart16550::modem_levels() const {
    if (!loopback()) return state_.inputs;
    const Flags<Mcr> mcr = state_.mcr;
    Flags<Msr> looped;
    looped.set(Msr::CTS, mcr.has(Mcr::RTS));
    looped.set(Msr::DSR, mcr.has(Mcr::DTR));
    looped.set(Msr::RI, mcr.has(Mcr::OUT1));
    looped.set(Msr::DCD, mcr.has(Mcr::OUT2));
    return looped;
}

void Uart16550::note_modem_changes(Flags<Msr> before) {
    const Flags<Msr> after = modem_levels();
    Flags<Msr> changed(static_cast<u8>(before.raw() ^ after.raw()));
    // [PC16550D 8.8] RI only counts when it ends.
    if (after.has(Msr::RI)) changed.set(Msr::RI, false);
    state_.msr_deltas |= static_cast<u8>((changed.raw() & kMsrInputs) >> 4);
}

void Uart16550::set_modem_inputs(ModemInputs inputs) {
    const Flags<Msr> before = modem_levels();
    Flags<Msr>& now = state_.inputs;
    now.set(Msr::CTS, inputs.cts);
    now.set(Msr::DSR, inputs.dsr);
    now.set(Msr::RI, inputs.ri);
    now.set(Msr::DCD, inputs.dcd);
    note_modem_changes(before);
    sync();
}

void Uart16550::push_received(u8 byte, u8 errors) {
    State& s = state_;
    if (s.rx.size() < depth()) {
        s.rx.push(byte, errors);
    } else {
        s.lsr_errors |= static_cast<u8>(Lsr::OE);
        // [PC16550D 8.4] Without FIFOs the new character destroys the old one; with FIFOs the new one is
        // lost.
        if (!fifos_enabled()) s.rx.replace_front(byte, errors);
    }
    s.lsr_errors |= s.rx.front_errors();
    restart_timeout();
}

u8 Uart16550::receive_room() const {
    if (loopback()) return 0;
    if (flow_ == FlowControl::RtsCts && !state_.mcr.has(Mcr::RTS)) return 0;
    return static_cast<u8>(depth() - state_.rx.size());
}

std::size_t Uart16550::receive(std::span<const u8> bytes) {
    const std::size_t count = std::min<std::size_t>(bytes.size(), receive_room());
    if (count == 0) return 0;
    for (const u8 byte : bytes.first(count)) state_.rx.push(byte, 0);
    restart_timeout();
    sync();
    return count;
}

void Uart16550::receive_break() {
    if (loopback()) return;
    push_received(0, static_cast<u8>(Lsr::BI));
    sync();
}

// The timeout runs while characters below the trigger level wait for a guest that asked for interrupts.
// Moving the deadline later leaves an armed timer alone; it looks again when it fires. That keeps reading a
// FIFO empty free of timer calls.
void Uart16550::restart_timeout() {
    State& s = state_;
    if (!fifos_enabled() || !s.ier.has(Ier::ERBFI) || s.rx.empty() || s.rx.size() >= rx_trigger()) {
        s.timeout_deadline_ns = Timer::kIdle;
        if (s.rx.empty()) s.timeout_pending = 0;
        return;
    }
    s.timeout_deadline_ns = clock_.now_ns() + timeout_ns();
    if (timeout_timer_.queue_deadline_ns > s.timeout_deadline_ns) timeout_timer_.arm(s.timeout_deadline_ns);
}

void Uart16550::on_timeout() {
    State& s = state_;
    if (s.timeout_deadline_ns == Timer::kIdle) return;
    if (clock_.now_ns() < s.timeout_deadline_ns) {
        timeout_timer_.arm(s.timeout_deadline_ns);
        return;
    }
    s.timeout_deadline_ns = Timer::kIdle;
    s.timeout_pending = 1;
    sync();
}

// The far end is not reset: what it puts on the modem inputs stays.
void Uart16550::reset() {
    const Flags<Msr> inputs = state_.inputs;
    timeout_timer_.cancel();
    state_ = State{};
    state_.inputs = inputs;
    wire_.set_break(false);
    wire_.set_modem_control(false, false);
    sync();
}

void Uart16550::visit(StateVisitor& v, State& s) {
    // A member added to State without a line here does not compile.
    auto& [ier, fcr, lcr, mcr, lsr_errors, msr_deltas, inputs, scratch, dll, dlm, thre_pending,
           timeout_pending, timeout_deadline_ns, rx, tx] = s;
    v.field(1, "ier", ier);
    v.field(2, "fcr", fcr);
    v.field(3, "lcr", lcr);
    v.field(4, "mcr", mcr);
    v.field(5, "lsr_errors", lsr_errors);
    v.field(6, "msr_deltas", msr_deltas);
    v.field(7, "inputs", inputs);
    v.field(8, "scratch", scratch);
    v.field(9, "dll", dll);
    v.field(10, "dlm", dlm);
    v.field(11, "thre_pending", thre_pending);
    v.field(12, "timeout_pending", timeout_pending);
    v.field(13, "timeout_deadline_ns", timeout_deadline_ns);
    rx.visit(v, 14, "rx");
    tx.visit(v, 15, "tx");
}

Status Uart16550::load(StateVisitor& v) {
    State next;
    visit(v, next);
    if (v.corrupt()) return fail(Errc::CorruptState, "uart16550: a register does not fit its width");
    const u8 depth = next.fcr.has(Fcr::Enable) ? kFifoDepth : u8{1};
    if (next.rx.malformed() || next.tx.malformed() || next.rx.size() > depth || next.tx.size() > depth)
        return fail(Errc::CorruptState, "uart16550: a FIFO is longer than it can be");
    if ((next.ier.raw() & ~kIerMask) != 0 || (next.fcr.raw() & ~kFcrKept) != 0 ||
        (next.mcr.raw() & ~kMcrMask) != 0 || (next.lsr_errors & ~kLsrErrors) != 0 ||
        (next.inputs.raw() & ~kMsrInputs) != 0 || (next.msr_deltas & ~kMsrDeltas) != 0 ||
        next.thre_pending > 1 || next.timeout_pending > 1)
        return fail(Errc::CorruptState, "uart16550: a register has bits that cannot be set");
    if (!next.fcr.has(Fcr::Enable) && next.fcr.raw() != 0)
        return fail(Errc::CorruptState, "uart16550: FIFO settings without FIFOs");
    timeout_timer_.cancel();
    state_ = next;
    if (state_.timeout_deadline_ns != Timer::kIdle) timeout_timer_.arm(state_.timeout_deadline_ns);
    irq_.restore_level(irq_level());
    return {};
}

}  // namespace tessera::uart16550
