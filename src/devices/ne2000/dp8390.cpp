// The chip as its host sees it: registers, remote DMA, the start of transmissions, loopback.
#include "devices/ne2000/dp8390.h"

#include <algorithm>

#include "devices/ne2000/frame_check.h"

namespace tessera::ne2000 {

namespace {

constexpr unsigned kAddressBytes = 6;

constexpr u8 low(u16 value) {
    return static_cast<u8>(value);
}
constexpr u8 high(u16 value) {
    return static_cast<u8>(value >> 8);
}
void set_low(u16& value, u8 byte) {
    value = static_cast<u16>((value & 0xff00) | byte);
}
void set_high(u16& value, u8 byte) {
    value = static_cast<u16>((value & 0x00ff) | byte << 8);
}
constexpr u8 byte_of(u64 value, unsigned n) {
    return static_cast<u8>(value >> (8 * n));
}
void set_byte(u64& value, unsigned n, u8 byte) {
    value = (value & ~(u64{0xff} << (8 * n))) | u64{byte} << (8 * n);
}
constexpr u16 page_address(u8 page) {
    return static_cast<u16>(page << 8);
}

}  // namespace

// --- Registers ---

bool Dp8390::online() const {
    return state_.command.has(Command::Start) && !state_.command.has(Command::Stop);
}

// [DP8390D 10.0] RST: in the reset state, and from an overflow until packets were removed.
u8 Dp8390::interrupt_status() const {
    auto status = state_.interrupts;
    status.set(Interrupt::Reset, !online() || state_.overflowed != 0);
    return status.raw();
}

u8 Dp8390::read_register(unsigned number) {
    if (number == kCommandRegister) return state_.command.raw();
    switch (page()) {
        case 0: return read_page0(static_cast<Read0>(number));
        case 1: return read_page1(number);
        case 2: return read_page2(static_cast<Read2>(number));
        default: return 0;  // [DP8390D 10.0] the test page; boards have registers of their own there
    }
}

u8 Dp8390::read_page0(Read0 which) {
    State& s = state_;
    const auto take_tally = [&s](Tally tally) {
        return std::exchange(s.tallies[static_cast<unsigned>(tally)], u8{0});
    };
    switch (which) {
        case Read0::Cr: return s.command.raw();
        case Read0::Clda0: return low(s.local_address);
        case Read0::Clda1: return high(s.local_address);
        case Read0::Bnry: return s.boundary;
        case Read0::Tsr: return s.transmit_status.raw();
        case Read0::Ncr: return 0;  // collisions
        case Read0::Fifo: {
            // [DP8390D 10.0] Only in loopback.
            if (loopback() == 0) return 0;
            const u8 value = byte_of(s.fifo, s.fifo_next);
            s.fifo_next = static_cast<u8>((s.fifo_next + 1) % kLoopbackFifo);
            return value;
        }
        case Read0::Isr: return interrupt_status();
        case Read0::Crda0: return low(s.remote_address);
        case Read0::Crda1: return high(s.remote_address);
        case Read0::Id0:
        case Read0::Id1: return 0;
        case Read0::Rsr: return s.receive_status.raw();
        case Read0::Cntr0: return take_tally(Tally::Alignment);
        case Read0::Cntr1: return take_tally(Tally::Crc);
        case Read0::Cntr2: return take_tally(Tally::Missed);
    }
    return 0;
}

u8 Dp8390::read_page1(unsigned number) const {
    if (number == kCurr) return state_.current;
    if (number >= kMar0) return byte_of(state_.multicast, number - kMar0);
    return byte_of(state_.physical, number - kPar0);
}

u8 Dp8390::read_page2(Read2 which) const {
    const State& s = state_;
    switch (which) {
        case Read2::Cr: return s.command.raw();
        case Read2::Pstart: return s.page_start;
        case Read2::Pstop: return s.page_stop;
        case Read2::RemoteNext: return s.remote_next;
        case Read2::Tpsr: return s.transmit_page;
        case Read2::LocalNext: return s.local_next;
        case Read2::AddressCounterUpper: return high(s.address_counter);
        case Read2::AddressCounterLower: return low(s.address_counter);
        case Read2::Reserved8:
        case Read2::Reserved9:
        case Read2::ReservedA:
        case Read2::ReservedB: return 0xff;
        case Read2::Rcr: return s.receive_config.raw() | kReceiveConfigOnes;
        case Read2::Tcr: return s.transmit_config.raw() | kTransmitConfigOnes;
        case Read2::Dcr: return s.data_config.raw() | kDataConfigOnes;
        case Read2::Imr: return s.mask.raw();
    }
    return 0;
}

void Dp8390::write_register(unsigned number, u8 value) {
    if (number == kCommandRegister) {
        write_command(value);
    } else {
        switch (page()) {
            case 0: write_page0(static_cast<Write0>(number), value); break;
            case 1: write_page1(number, value); break;
            case 2: write_page2(number, value); break;
            default: break;
        }
    }
    sync();
}

void Dp8390::write_page0(Write0 which, u8 value) {
    State& s = state_;
    switch (which) {
        case Write0::Cr: return;
        case Write0::Pstart: s.page_start = value; return;
        case Write0::Pstop: s.page_stop = value; return;
        case Write0::Bnry:
            s.boundary = value;
            s.overflowed = 0;
            board_.work_wanted();
            return;
        case Write0::Tpsr: s.transmit_page = value; return;
        case Write0::Tbcr0: set_low(s.transmit_count, value); return;
        case Write0::Tbcr1: set_high(s.transmit_count, value); return;
        case Write0::Isr:
            // A one clears; RST comes from elsewhere.
            s.interrupts = Flags<Interrupt>(s.interrupts.raw() & static_cast<u8>(~value));
            board_.work_wanted();
            return;
        case Write0::Rsar0: set_low(s.remote_start, value); return;
        case Write0::Rsar1: set_high(s.remote_start, value); return;
        case Write0::Rbcr0: set_low(s.remote_count, value); return;
        case Write0::Rbcr1: set_high(s.remote_count, value); return;
        case Write0::Rcr:
            s.receive_config = Flags<ReceiveConfig>(value & kReceiveConfigBits);
            board_.work_wanted();
            return;
        case Write0::Tcr:
            s.transmit_config = Flags<TransmitConfig>(value & kTransmitConfigBits);
            if (!s.transmit_config.has(TransmitConfig::AutoDisable)) s.muted = 0;
            board_.work_wanted();
            return;
        case Write0::Dcr: s.data_config = Flags<DataConfig>(value & kDataConfigBits); return;
        case Write0::Imr:
            s.mask = Flags<Interrupt>(value);
            s.mask.set(Interrupt::Reset, false);
            board_.work_wanted();
            return;
    }
}

void Dp8390::write_page1(unsigned number, u8 value) {
    if (number == kCurr)
        state_.current = value;
    else if (number >= kMar0)
        set_byte(state_.multicast, number - kMar0, value);
    else
        set_byte(state_.physical, number - kPar0, value);
}

// [DP8390D 10.0] For diagnosis: the counters the two DMA channels work with.
void Dp8390::write_page2(unsigned number, u8 value) {
    State& s = state_;
    switch (static_cast<Write2>(number)) {
        case Write2::Clda0: set_low(s.local_address, value); return;
        case Write2::Clda1: set_high(s.local_address, value); return;
        case Write2::RemoteNext: s.remote_next = value; return;
        case Write2::LocalNext: s.local_next = value; return;
        case Write2::AddressCounterUpper: set_high(s.address_counter, value); return;
        case Write2::AddressCounterLower: set_low(s.address_counter, value); return;
    }
}

void Dp8390::write_command(u8 value) {
    const auto old = state_.command;
    const bool was_online = online();
    Flags<Command> next(value);
    // Neither of the two: the chip stays what it is.
    if (!next.has(Command::Start) && !next.has(Command::Stop)) {
        next.set(Command::Start, old.has(Command::Start));
        next.set(Command::Stop, old.has(Command::Stop));
    }
    // [DP8390D 10.0] TXP is reset by the chip alone. A frame that has not left when the chip is stopped is
    // not reported as sent, and the driver's procedure for overflows sends it again.
    const bool transmit = next.has(Command::Transmit);
    next.set(Command::Transmit, old.has(Command::Transmit) && !next.has(Command::Stop));
    state_.command = next;
    if (online() && !was_online) {
        state_.overflowed = 0;
        board_.work_wanted();
    }
    // A transfer goes on when the same command comes again, as it does with every change of pages.
    if (!online() || remote_operation() != (old.raw() & kRemoteMask)) state_.remote_active = 0;
    if (online() && state_.remote_active == 0) start_remote();
    if (transmit && online() && !state_.command.has(Command::Transmit)) start_transmission();
}

// --- Remote DMA ---

// [DP8390D 10.0] The command begins a transfer. One of no bytes is over at once: drivers look for their
// interrupt that way.
void Dp8390::start_remote() {
    State& s = state_;
    switch (remote_operation()) {
        case kRemoteRead:
        case kRemoteWrite: s.remote_address = s.remote_start; break;
        case kRemoteSend: {
            if (!s.data_config.has(DataConfig::AutoInitialize)) return;
            // [DP8390D 8.0] The packet at the boundary: address and count come from there.
            std::array<u8, kPacketHeader> header{};
            board_.read_memory(page_address(s.boundary), header);
            s.remote_address = page_address(s.boundary);
            s.remote_next = header[1];
            const unsigned first = swapped() ? 3 : 2;
            s.remote_count = static_cast<u16>(header[first] | header[first ^ 1] << 8);
            break;
        }
        default: return;
    }
    if (s.remote_count != 0)
        s.remote_active = 1;
    else
        s.interrupts.set(Interrupt::RemoteComplete);
}

bool Dp8390::read_data(std::span<u8> out) {
    if (state_.remote_active == 0 || remote_operation() == kRemoteWrite) return false;
    board_.read_memory(state_.remote_address, out);
    remote_step(static_cast<u16>(out.size()));
    return true;
}

bool Dp8390::write_data(std::span<const u8> in) {
    if (state_.remote_active == 0 || remote_operation() != kRemoteWrite) return false;
    board_.write_memory(state_.remote_address, in);
    remote_step(static_cast<u16>(in.size()));
    return true;
}

void Dp8390::remote_step(u16 bytes) {
    State& s = state_;
    s.remote_address = static_cast<u16>(s.remote_address + bytes);
    // [DP8390D 8.0] The channel follows the ring round its end.
    if (s.remote_address == page_address(s.page_stop)) s.remote_address = page_address(s.page_start);
    s.remote_count = static_cast<u16>(s.remote_count - std::min(s.remote_count, bytes));
    if (s.remote_count == 0) {
        s.remote_active = 0;
        s.interrupts.set(Interrupt::RemoteComplete);
        if (remote_operation() == kRemoteSend) {
            // [DP8390D 8.0] The packet is gone from the ring.
            s.boundary = s.remote_next;
            s.overflowed = 0;
            board_.work_wanted();
        }
    }
    sync();
}

// --- Transmission ---

void Dp8390::start_transmission() {
    state_.transmit_status = TransmitStatus::AlwaysOne;
    state_.command.set(Command::Transmit);
    if (loopback() != 0)
        loop_back();
    else
        board_.work_wanted();
}

std::optional<u16> Dp8390::transmission() const {
    if (!state_.command.has(Command::Transmit) || loopback() != 0 || state_.muted != 0) return std::nullopt;
    return state_.transmit_count;
}

void Dp8390::read_transmission(std::span<u8> out) const {
    u16 at = page_address(state_.transmit_page);
    for (auto rest = out; !rest.empty();) {
        const auto part = rest.first(std::min(rest.size(), kPageSize));
        board_.read_memory(at, part);
        if (swapped())
            for (std::size_t n = 0; n + 1 < part.size(); n += 2) std::swap(part[n], part[n + 1]);
        rest = rest.subspan(part.size());
        at = static_cast<u16>(at + part.size());
    }
}

void Dp8390::transmitted() {
    State& s = state_;
    s.command.set(Command::Transmit, false);
    s.transmit_status = Flags(TransmitStatus::AlwaysOne) | TransmitStatus::Transmitted;
    s.interrupts.set(Interrupt::Transmitted);
    s.local_address = static_cast<u16>(page_address(s.transmit_page) + s.transmit_count);
    sync();
}

void Dp8390::put_in_fifo(u64 position, u8 value) {
    set_byte(state_.fifo, static_cast<unsigned>(position % kLoopbackFifo), value);
}

// [DP8390D 11.0] The frame comes back into the FIFO and is looked at, not stored.
void Dp8390::loop_back() {
    State& s = state_;
    // In word mode one half of each word is sent and the other lane receives.
    const u64 step = wide() ? 2 : 1;
    const u64 lane = wide() && !s.data_config.has(DataConfig::ByteOrder) ? 1 : 0;
    const u64 bytes = s.transmit_count / step;
    std::array<u8, kAddressBytes> address{};
    u32 sum = kCheckStart;
    std::array<u8, kPageSize> page{};
    for (u64 n = 0; n < bytes; ++n) {
        const u64 at = n * step + lane;
        if (at % kPageSize == lane)
            board_.read_memory(static_cast<u16>(page_address(s.transmit_page) + at / kPageSize * kPageSize),
                               page);
        const u8 value = page[at % kPageSize];
        if (n < kAddressBytes) address[n] = value;
        sum = check_add(sum, std::span(&value, 1));
        put_in_fifo(n, value);
    }
    const Recognised who = recognise(address);
    u64 total = bytes;
    if (brings_check()) {
        // A frame for somebody else is not looked at further.
        const bool bad = who.accepted && sum != kCheckGood;
        s.receive_status = bad ? ReceiveStatus::CrcError : ReceiveStatus::Intact;
        s.receive_status.set(ReceiveStatus::Group, who.accepted && who.group);
    } else {
        // Making a check sequence keeps the only logic for it busy: the receiver sees an error.
        s.receive_status = ReceiveStatus::CrcError;
        for (unsigned n = 0; n < kFrameCheckSize; ++n) put_in_fifo(total++, byte_of(check_sequence(sum), n));
    }
    const auto length = static_cast<u16>(total);
    put_in_fifo(total, low(length));
    put_in_fifo(total + 1, high(length));
    put_in_fifo(total + 2, high(length));
    s.fifo_next = 0;
    transmitted();
    // Inside the chip neither carrier nor heartbeat are seen; the encoder's loop has a carrier.
    s.transmit_status.set(TransmitStatus::CarrierLost, loopback() == kLoopbackController);
    s.transmit_status.set(TransmitStatus::Heartbeat,
                          loopback() == kLoopbackController || loopback() == kLoopbackEncoder);
}

// --- Life ---

void Dp8390::sync() {
    interrupt_.set((state_.interrupts.raw() & state_.mask.raw()) != 0);
}

void Dp8390::reset() {
    state_ = State{};
    sync();
}

void Dp8390::restore(const State& s) {
    state_ = s;
    interrupt_.restore_level((s.interrupts.raw() & s.mask.raw()) != 0);
}

bool Dp8390::valid(const State& s) {
    const auto within = [](u8 value, u8 bits) { return (value & ~bits) == 0; };
    const bool runs = s.command.has(Command::Start) && !s.command.has(Command::Stop);
    constexpr auto kNoReset = static_cast<u8>(~static_cast<u8>(Interrupt::Reset));
    return within(s.interrupts.raw(), kNoReset) && within(s.mask.raw(), kNoReset) &&
           within(s.data_config.raw(), kDataConfigBits) &&
           within(s.transmit_config.raw(), kTransmitConfigBits) &&
           within(s.receive_config.raw(), kReceiveConfigBits) &&
           (runs || !s.command.has(Command::Transmit)) && s.physical >> 48 == 0 &&
           s.fifo_next < kLoopbackFifo && s.overflowed <= 1 && s.muted <= 1 && s.remote_active <= 1 &&
           (runs || s.remote_active == 0) &&
           std::ranges::all_of(s.tallies, [](u8 tally) { return tally <= kTallyLimit; });
}

void Dp8390::visit(StateVisitor& v, State& s) {
    auto& [command, interrupts, mask, data_config, transmit_config, receive_config, transmit_status,
           receive_status, page_start, page_stop, boundary, current, transmit_page, transmit_count,
           remote_start, remote_count, remote_address, local_address, address_counter, remote_next,
           local_next, physical, multicast, tallies, fifo, fifo_next, overflowed, muted, remote_active] = s;
    v.field(1, "command", command);
    v.field(2, "interrupts", interrupts);
    v.field(3, "mask", mask);
    v.field(4, "data_config", data_config);
    v.field(5, "transmit_config", transmit_config);
    v.field(6, "receive_config", receive_config);
    v.field(7, "transmit_status", transmit_status);
    v.field(8, "receive_status", receive_status);
    v.field(9, "page_start", page_start);
    v.field(10, "page_stop", page_stop);
    v.field(11, "boundary", boundary);
    v.field(12, "current", current);
    v.field(13, "transmit_page", transmit_page);
    v.field(14, "transmit_count", transmit_count);
    v.field(15, "remote_start", remote_start);
    v.field(16, "remote_count", remote_count);
    v.field(17, "remote_address", remote_address);
    v.field(18, "local_address", local_address);
    v.field(19, "address_counter", address_counter);
    v.field(20, "remote_next", remote_next);
    v.field(21, "local_next", local_next);
    v.field(22, "physical", physical);
    v.field(23, "multicast", multicast);
    for (unsigned n = 0; n < kTallyCount; ++n) v.field(24 + n, "tally", tallies[n]);
    v.field(27, "fifo", fifo);
    v.field(28, "fifo_next", fifo_next);
    v.field(29, "overflowed", overflowed);
    v.field(30, "muted", muted);
    v.field(31, "remote_active", remote_active);
}

}  // namespace tessera::ne2000
