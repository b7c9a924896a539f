#include "devices/ahci/ahci.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <utility>

#include "base/assert.h"

namespace tessera::ahci {

namespace {

constexpr u32 kBohcBits = (Flags(Bohc::FirmwareOwned) | Bohc::SystemOwned | Bohc::SmiOnOwnership |
                           Bohc::OwnershipChanged | Bohc::FirmwareBusy)
                              .raw();

}  // namespace

Ahci::Ahci(Ids ids, std::span<ata::Drive* const> drives, MemoryMap& memory, QueueKicker& kicker)
    : kicker_(kicker),
      config_({.vendor = ids.vendor,
               .device = ids.device,
               .class_code = kClassCode,
               .subsystem_vendor = ids.vendor,
               .subsystem = ids.device,
               .pin = 1}) {
    TESSERA_ASSERT(!drives.empty() && drives.size() <= kMostPorts, "the machine counts them");
    config_.add_bar(kAbar, pci::BarKind::Memory32, kAbarSize, *this);
    config_.add_power_management();
    PortHost& host = *this;
    for (ata::Drive* const drive : drives) ports_.push_back(std::make_unique<Port>(host, memory, *drive));
}

// --- Configuration space ---

void Ahci::write_config(u16 offset, std::span<const std::byte> in) {
    const bool could = config_.bus_master();
    PciFunction::write_config(offset, in);
    if (!could && config_.bus_master()) resume();
    sync();
}

void Ahci::resume() {
    for (const auto& port : ports_) port->resume();
}

// --- Registers ---

// Where ones are commands and zeros leave alone: the rest of the word of a narrow write is zeros.
bool Ahci::bits_are_commands(u64 offset) {
    if (offset < kFirstPort) return offset == kIs;
    const u64 reg = offset % kPortSize;
    return reg == kPxIs || reg == kPxSerr || reg == kPxSact || reg == kPxCi;
}

u32 Ahci::read_word(u64 offset) const {
    if (offset >= kFirstPort) {
        const u64 port = (offset - kFirstPort) / kPortSize;
        return port < ports_.size() ? ports_[port]->read(offset % kPortSize) : 0;
    }
    const auto count = static_cast<u32>(ports_.size());
    switch (offset) {
        case kCap:
            return (Flags(Cap::PartialCapable) | Cap::SlumberCapable | Cap::PioMultipleBlocks |
                    Cap::AhciOnly | Cap::CommandListOverride | Cap::ActivityLed | Cap::NativeQueueing |
                    Cap::Addresses64)
                       .raw() |
                   kCapThirdGeneration | (kSlots - 1) << kCapSlotsShift | (count - 1);
        case kGhc: return state_.ghc.raw();
        case kIs: return state_.is;
        case kPi: return count == kMostPorts ? ~u32{0} : (u32{1} << count) - 1;
        case kVs: return kVersion131;
        case kCap2: return static_cast<u32>(Cap2::Handoff);
        case kBohc: return state_.bohc.raw();
        default: return 0;
    }
}

void Ahci::write_word(u64 offset, u32 value) {
    // [AHCI 10.4.3] Until the reset is complete there is nobody to write to.
    if (state_.ghc.has(Ghc::Reset)) return;
    if (offset >= kFirstPort) {
        const u64 port = (offset - kFirstPort) / kPortSize;
        if (port < ports_.size()) ports_[port]->write(offset % kPortSize, value);
        return;
    }
    switch (offset) {
        case kGhc: write_ghc(Flags<Ghc>(value)); break;
        case kIs:
            state_.is &= ~value;
            state_.announced = 0;  // [AHCI 10.7.2.1] what is left is announced again
            break;
        case kBohc: write_bohc(Flags<Bohc>(value)); break;
        default: break;
    }
}

void Ahci::write_ghc(Flags<Ghc> value) {
    state_.ghc.set(Ghc::InterruptEnable, value.has(Ghc::InterruptEnable));
    if (!value.has(Ghc::InterruptEnable)) state_.announced = 0;
    if (value.has(Ghc::Reset)) reset_ports();
}

// [AHCI 10.6.3] There is no firmware to hand over from, and no SMI.
void Ahci::write_bohc(Flags<Bohc> value) {
    const bool owned = state_.bohc.has(Bohc::SystemOwned);
    const bool changed = state_.bohc.has(Bohc::OwnershipChanged) && !value.has(Bohc::OwnershipChanged);
    Flags<Bohc> next(value.raw() & kBohcBits);
    next.set(Bohc::OwnershipChanged, changed || (!owned && value.has(Bohc::SystemOwned)));
    state_.bohc = next;
}

IoStatus Ahci::read(u64 offset, std::span<std::byte> out) {
    const std::size_t width = out.size();
    if (!std::has_single_bit(width) || width > 8) return IoStatus::BadWidth;
    if (offset % width != 0) return IoStatus::Unaligned;
    std::array<u32, 2> words{};
    const u64 first = offset & ~u64{3};
    words[0] = read_word(first);
    if (width == 8) words[1] = read_word(first + 4);
    const auto bytes = std::bit_cast<std::array<std::byte, 8>>(words);
    std::memcpy(out.data(), std::span(bytes).subspan(offset - first).data(), width);
    return IoStatus::Ok;
}

IoStatus Ahci::write(u64 offset, std::span<const std::byte> in) {
    const std::size_t width = in.size();
    if (!std::has_single_bit(width) || width > 8) return IoStatus::BadWidth;
    if (offset % width != 0) return IoStatus::Unaligned;
    const u64 first = offset & ~u64{3};
    std::array<u32, 2> words{};
    if (width < 4 && !bits_are_commands(first)) words[0] = read_word(first);
    auto bytes = std::bit_cast<std::array<std::byte, 8>>(words);
    std::memcpy(std::span(bytes).subspan(offset - first).data(), in.data(), width);
    words = std::bit_cast<std::array<u32, 2>>(bytes);
    write_word(first, words[0]);
    if (width == 8) write_word(first + 4, words[1]);
    sync();
    return IoStatus::Ok;
}

// --- Interrupts [AHCI 10.7] ---

void Ahci::sync() {
    u32 pending = 0;
    for (std::size_t n = 0; n < ports_.size(); ++n)
        if (ports_[n]->interrupt()) pending |= u32{1} << n;
    const u32 fresh = pending & ~state_.is;
    state_.is |= pending;
    const bool wanted = state_.is != 0 && state_.ghc.has(Ghc::InterruptEnable);
    config_.set_interrupt(wanted);
    if (fresh != 0) state_.announced = 0;
    if (wanted && state_.announced == 0 && msi_.enabled()) {
        state_.announced = 1;
        msi_.signal(0);
    }
}

// --- Work ---

void Ahci::kick(const Port& port) {
    for (unsigned n = 0; n < ports_.size(); ++n)
        if (ports_[n].get() == &port) kicker_.kick(n);
}

void Ahci::completed(Slot& slot) {
    if (completions_.push(slot)) kicker_.wake();
}

bool Ahci::service(unsigned queue) {
    if (queue >= ports_.size() || state_.ghc.has(Ghc::Reset)) return false;
    ports_[queue]->service();
    // Backends often are done by now.
    run_backend();
    return false;
}

void Ahci::run_backend() {
    for (Slot* slot = completions_.take(); slot != nullptr;) {
        Slot& done = *slot;
        slot = Completions::next(done);  // the next request of this slot changes it
        Completions::owner(done).request_done(done);
    }
    for (const auto& port : ports_) port->settle();
    sync();
}

bool Ahci::draining() const {
    return std::ranges::any_of(ports_, [](const auto& port) { return port->draining(); });
}

unsigned Ahci::in_flight() const {
    unsigned all = 0;
    for (const auto& port : ports_) all += port->in_flight();
    return all;
}

// --- Resets ---

void Ahci::reset_ports() {
    state_.ghc = Flags(Ghc::AhciEnable) | Ghc::Reset;
    state_.is = 0;
    state_.announced = 0;
    for (const auto& port : ports_) port->reset();
    drained();
}

// [AHCI 10.4.3] The bit reads zero when the reset is complete; the links come up by themselves.
void Ahci::drained() {
    if (!state_.ghc.has(Ghc::Reset) || draining()) return;
    state_.ghc.set(Ghc::Reset, false);
    connect_links();
}

void Ahci::connect_links() {
    for (const auto& port : ports_) port->connect_link();
}

void Ahci::reset() {
    for (const auto& port : ports_) port->power_on();
    state_ = {};
    if (draining())
        state_.ghc.set(Ghc::Reset);
    else
        connect_links();
    config_.reset();
}

// --- Snapshots ---

void Ahci::visit(StateVisitor& v, State& s) {
    auto& [ghc, is, bohc, announced] = s;
    v.field(10, "GHC", ghc);
    v.field(11, "IS", is);
    v.field(12, "BOHC", bohc);
    v.field(13, "announced", announced);
}

void Ahci::visit_state(StateVisitor& v) {
    auto config = config_.state();
    pci::ConfigSpace::visit(v, 1, config);
    visit(v, state_);
    for (unsigned n = 0; n < ports_.size(); ++n)
        ports_[n]->visit_state(v, kFirstPortField + n * Port::kFields);
}

Status Ahci::load(StateVisitor& v) {
    auto config = config_.initial_state();
    pci::ConfigSpace::visit(v, 1, config);
    State next;
    visit(v, next);
    const u32 ports = read_word(kPi);
    const Flags<Ghc> known = Flags(Ghc::AhciEnable) | Ghc::InterruptEnable;
    bool valid = config_.valid(config) && (next.ghc.raw() & ~known.raw()) == 0 &&
                 next.ghc.has(Ghc::AhciEnable) && (next.is & ~ports) == 0 && next.announced <= 1 &&
                 (next.bohc.raw() & ~kBohcBits) == 0;
    for (unsigned n = 0; n < ports_.size(); ++n)
        valid = ports_[n]->load(v, kFirstPortField + n * Port::kFields) && valid;
    if (v.corrupt() || !valid)
        return fail(Errc::CorruptState, "AHCI: the saved state holds values no controller can have");
    config_.restore(std::move(config));
    state_ = next;
    for (const auto& port : ports_) port->commit_load();
    resume();
    return {};
}

}  // namespace tessera::ahci
