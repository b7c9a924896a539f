// How a port carries out commands: from the command list to the drive, data between guest memory and drive or
// backend, the drive's answers back [AHCI 5.3], [AHCI 5.4].
#include <algorithm>
#include <bit>
#include <cstring>

#include "devices/ahci/port.h"

namespace tessera::ahci {

namespace {

constexpr u8 kBusyOrData = static_cast<u8>(ata::Status::Busy) | static_cast<u8>(ata::Status::DataRequest);
constexpr u32 kLeastFisLength = 2;  // double words [AHCI 4.2.2]
constexpr u32 kMostFisLength = 16;

// [SATA 10.5.5] A register FIS to the device.
ata::Taskfile taskfile_of(std::span<const u8, kFisRegisterSize> fis) {
    return {.command = fis[2],
            .device = fis[7],
            .features = static_cast<u16>(fis[3] | fis[11] << 8),
            .count = static_cast<u16>(fis[12] | fis[13] << 8),
            .lba = u64{fis[4]} | u64{fis[5]} << 8 | u64{fis[6]} << 16 | u64{fis[8]} << 24 |
                   u64{fis[9]} << 32 | u64{fis[10]} << 40};
}

// What registers and PIO setup FISes to the host have in common [SATA 10.5.6], [SATA 10.5.11].
void put_registers(std::span<u8, kFisRegisterSize> fis, const ata::Registers& registers) {
    fis[2] = registers.status.raw();
    fis[3] = registers.error.raw();
    for (unsigned n = 0; n < 3; ++n) {
        fis[4 + n] = static_cast<u8>(registers.lba >> (8 * n));
        fis[8 + n] = static_cast<u8>(registers.lba >> (24 + 8 * n));
    }
    fis[7] = registers.device;
    fis[12] = static_cast<u8>(registers.count);
    fis[13] = static_cast<u8>(registers.count >> 8);
}

void put32(std::span<u8> out, u32 value) {
    for (unsigned n = 0; n < 4; ++n) out[n] = static_cast<u8>(value >> (8 * n));
}

bool to_host(const ata::Command& command) {
    return command.operation == BlockOperation::Read;
}

bool moves_data(BlockOperation operation) {
    return operation == BlockOperation::Read || operation == BlockOperation::Write;
}

}  // namespace

// --- Taking commands ---

// [AHCI 5.3.2] The one behind the last one, round the list.
bool Port::next_slot(u8& number) const {
    const u32 waiting = state_.ci & ~active_;
    if (!ready() || waiting == 0 || (state_.status & kBusyOrData) != 0 || active_ != active_queued_)
        return false;
    const unsigned first = (state_.current + 1U) % kSlots;
    number = static_cast<u8>(
        (first + static_cast<unsigned>(std::countr_zero(std::rotr(waiting, static_cast<int>(first))))) %
        kSlots);
    return true;
}

void Port::service() {
    u8 number = 0;
    for (unsigned taken = 0; taken < kSlots && next_slot(number); ++taken) fetch(*slots_[number]);
    settle();
}

void Port::fetch(Slot& slot) {
    state_.current = slot.number_;
    state_.power = static_cast<u8>(kIccActive);
    slot.header_ = state_.clb + slot.number_ * kHeaderSize;
    slot.dropped_ = false;
    std::array<u32, 4> header{};
    if (!memory_.read(slot.header_, std::as_writable_bytes(std::span(header))))
        return halt(PxIs::HostBusFatal);
    slot.table_ = (header[2] & ~u32{kTableAlignment - 1}) | u64{header[3]} << 32;
    const u32 length = header[0] & kHeaderFisLength;
    if (length < kLeastFisLength || length > kMostFisLength) return refuse_fis();
    std::array<u8, kFisRegisterSize> fis{};
    const auto bytes = std::span(fis).first(std::min<std::size_t>(fis.size(), std::size_t{length} * 4));
    if (!memory_.read(slot.table_, std::as_writable_bytes(bytes))) return halt(PxIs::HostBusFatal);
    if (static_cast<FisType>(fis[0]) != FisType::RegisterToDevice) return refuse_fis();
    const Flags<Header> flags(header[0]);
    if ((fis[1] & kFisCommand) == 0) return control(slot, fis[15], flags);
    state_.status = static_cast<u8>(ata::Status::Busy);
    // A device in reset takes no commands.
    if (state_.soft_reset != 0) return;

    slot.command_ = {};
    slot.command_.taskfile = taskfile_of(fis);
    slot.command_.others_queued = active_queued_ != 0;
    slot.moved_ = slot.left_ = 0;
    slot.regions_.start(slot.table_ + kTableRegions, header[0] >> kHeaderEntriesShift);
    if (slot.command_.taskfile.opcode() == ata::Opcode::Packet) {
        // [AHCI 5.3.7] Without the bit the controller has no command to send when the device asks for it.
        if (!flags.has(Header::Atapi)) return refuse_fis();
        if (!memory_.read(slot.table_ + kTableAtapi, std::as_writable_bytes(std::span(slot.command_.packet))))
            return halt(PxIs::HostBusFatal);
    }
    begin(slot);
}

void Port::begin(Slot& slot) {
    const u32 bit = u32{1} << slot.number_;
    active_ |= bit;
    const ata::Step step = drive_.begin(slot.command_);
    if (slot.command_.protocol == ata::Protocol::Queued) {
        // [AHCI 5.6.4.1] The tag is the slot's number: by the tag the controller finds the data's place.
        if (slot.command_.tag != slot.number_) return refuse_fis();
        active_queued_ |= bit;
        state_.ci &= ~bit;
        ata::Registers accepted;
        accepted.device = slot.command_.taskfile.device;
        send_registers(accepted, false);
        if (step == ata::Step::Backend) send_dma_setup(slot);
    }
    // Where received FISes go may be no memory.
    if (state_.halted == 0) perform(slot, step);
}

// The device would not acknowledge it; and we do not send it again and again.
void Port::refuse_fis() {
    state_.serr |= static_cast<u32>(PxSerr::ProtocolError);
    halt(PxIs::InterfaceFatal);
}

// [AHCI 10.4.1] SRST set, and cleared again, by two FISes.
void Port::control(Slot& slot, u8 control, Flags<Header> header) {
    const u32 bit = u32{1} << slot.number_;
    const bool reset = (control & ata::kControlReset) != 0;
    const bool was_reset = state_.soft_reset != 0;
    state_.soft_reset = reset ? 1 : 0;
    if (reset) {
        drop_requests();
        state_.status = static_cast<u8>(ata::Status::Busy);
    } else if (was_reset) {
        drive_.reset(ata::ResetKind::Software);
        state_.ci &= ~bit;
        send_signature();
        return;
    }
    if (header.has(Header::ClearBusy) || !reset) {
        state_.status = static_cast<u8>(state_.status & ~kBusyOrData);
        state_.ci &= ~bit;
    }
}

// --- Carrying them out ---

void Port::perform(Slot& slot, ata::Step step) {
    ata::Command& command = slot.command_;
    // Every round is a step of the drive; those without the backend are few.
    for (;;) {
        auto what = RegionList::Trouble::None;
        switch (step) {
            case ata::Step::Done: return finish(slot);
            case ata::Step::Backend: slot.left_ = command.length; return ask_backend(slot);
            case ata::Step::ToHost: what = slot.regions_.copy_out(memory_, command.buffer); break;
            case ata::Step::FromHost: what = slot.regions_.copy_in(memory_, command.buffer); break;
        }
        if (what != RegionList::Trouble::None) return trouble(what);
        slot.moved_ += command.buffer.size();
        step = drive_.go_on(command, BlockStatus::Ok);
    }
}

// The next part of a transfer: as much as fits into one request.
void Port::ask_backend(Slot& slot) {
    const ata::Command& command = slot.command_;
    slot.operation = command.operation;
    slot.force_unit_access = command.force_unit_access;
    slot.offset = command.offset + (command.length - slot.left_);
    slot.length = slot.left_;
    slot.buffers = {};
    slot.piece_count_ = 0;
    if (moves_data(command.operation)) {
        RegionList::Pieces pieces{.host = slot.pieces_, .guest = slot.places_};
        if (const auto what = slot.regions_.collect(memory_, slot.left_, kSectorSize, pieces);
            what != RegionList::Trouble::None)
            return trouble(what);
        slot.piece_count_ = pieces.count;
        slot.buffers = std::span(slot.pieces_).first(pieces.count);
        slot.length = pieces.bytes;
    }
    slot.left_ -= slot.length;
    ++in_flight_;
    batch_[batched_++] = &slot;
}

// A list that is too short ends in an overflow when data comes; going out, the device would wait
// for ever. Both are for software to clear up.
void Port::trouble(RegionList::Trouble what) {
    if (what == RegionList::Trouble::BadAddress) return halt(PxIs::HostBusFatal);
    raise(PxIs::Overflow);
    halt(PxIs::InterfaceFatal);
}

void Port::flush_batch() {
    if (batched_ == 0) return;
    const auto batch = std::span(batch_).first(batched_);
    batched_ = 0;
    drive_.backend()->submit(batch);
}

void Port::request_done(Slot& slot) {
    --in_flight_;
    if (slot.operation == BlockOperation::Read)
        for (std::size_t n = 0; n < slot.piece_count_; ++n)
            memory_.changed_in_host(slot.places_[n], slot.pieces_[n].iov_len);
    if (slot.dropped_) {
        slot.dropped_ = false;
        if (--dropped_ != 0) return;
        host_.drained();
        connect_link();  // if that was what it waited for
        return resume();
    }
    const bool ok = slot.outcome_ == BlockStatus::Ok;
    if (ok && moves_data(slot.operation)) slot.moved_ += slot.length;
    if (ok && slot.left_ != 0) return ask_backend(slot);
    perform(slot, drive_.go_on(slot.command_, slot.outcome_));
}

void Port::settle() {
    flush_queue_results();
    flush_batch();
    u8 number = 0;
    if (next_slot(number)) host_.kick(*this);
}

// --- Ends ---

void Port::finish(Slot& slot) {
    if (slot.regions_.take_interrupt()) raise(PxIs::DescriptorProcessed);
    const u32 bit = u32{1} << slot.number_;
    active_ &= ~bit;
    if (slot.command_.protocol == ata::Protocol::Queued) {
        active_queued_ &= ~bit;
        return finish_queued(slot);
    }
    const ata::Registers& result = slot.command_.result;
    const bool failed = result.status.has(ata::Status::Error) || result.status.has(ata::Status::DeviceFault);
    // [AHCI 5.4.1] PRDBC
    const auto moved = std::bit_cast<std::array<std::byte, 4>>(static_cast<u32>(slot.moved_));
    if (!memory_.write(slot.header_ + kHeaderByteCount, moved)) return halt(PxIs::HostBusFatal);
    const ata::Protocol protocol = slot.command_.protocol;
    if (!failed) state_.ci &= ~bit;
    if (!failed && slot.moved_ != 0 &&
        (protocol == ata::Protocol::PioIn || protocol == ata::Protocol::PioOut ||
         protocol == ata::Protocol::PacketPio))
        send_pio_setup(slot);
    // [SATA 11.8] Data that was read ends with the last block; everything else with the registers.
    if (failed || protocol != ata::Protocol::PioIn)
        send_registers(result, true);
    else
        take_registers(result);
    if (!failed) return;
    state_.current = slot.number_;
    halt(PxIs::TaskFileError);
}

void Port::finish_queued(Slot& slot) {
    const ata::Registers& result = slot.command_.result;
    if (!result.status.has(ata::Status::Error)) {
        queue_done_ |= u32{1} << slot.command_.tag;
        return;
    }
    flush_queue_results();
    state_.current = slot.number_;
    send_device_bits(result, 0);
    halt(PxIs::TaskFileError);
}

// All that were done in one go are told of by one FIS.
void Port::flush_queue_results() {
    if (queue_done_ == 0) return;
    const u32 tags = queue_done_;
    queue_done_ = 0;
    state_.sact &= ~tags;
    send_device_bits(ata::Registers(), tags);
}

// --- FISes to the host ---

void Port::receive(u64 place, std::span<const u8> fis) {
    if (!state_.cmd.has(PxCmd::FisReceive) || !host_.may_access_memory()) return;
    if (!memory_.write(state_.fb + place, std::as_bytes(fis))) halt(PxIs::HostBusFatal);
}

void Port::take_registers(const ata::Registers& registers) {
    state_.status = registers.status.raw();
    state_.error = registers.error.raw();
}

void Port::send_registers(const ata::Registers& registers, bool interrupt) {
    std::array<u8, kFisRegisterSize> fis{};
    fis[0] = static_cast<u8>(FisType::RegisterToHost);
    fis[1] = interrupt ? kFisInterrupt : 0;
    put_registers(fis, registers);
    take_registers(registers);
    receive(kReceivedRegister, fis);
    if (interrupt) raise(PxIs::RegisterFis);
}

// The last of a transfer: those before it would be written to the same place.
void Port::send_pio_setup(const Slot& slot) {
    const ata::Command& command = slot.command_;
    const bool in = command.protocol != ata::Protocol::PioOut;
    const u64 block = std::max<u64>(command.block_bytes, 1);
    const u64 last = slot.moved_ % block != 0 ? slot.moved_ % block : block;
    std::array<u8, kFisRegisterSize> fis{};
    put_registers(fis, command.result);
    fis[0] = static_cast<u8>(FisType::PioSetup);
    fis[1] = in ? kFisToHost | kFisInterrupt : 0;
    fis[2] |= static_cast<u8>(ata::Status::DataRequest);
    fis[15] = command.result.status.raw();
    fis[16] = static_cast<u8>(last);
    fis[17] = static_cast<u8>(last >> 8);
    receive(kReceivedPioSetup, fis);
    if (in) raise(PxIs::PioSetupFis);
}

void Port::send_dma_setup(const Slot& slot) {
    std::array<u8, kFisDmaSetupSize> fis{};
    fis[0] = static_cast<u8>(FisType::DmaSetup);
    fis[1] = to_host(slot.command_) ? kFisToHost : 0;
    fis[4] = slot.command_.tag;
    put32(std::span(fis).subspan(20), static_cast<u32>(slot.command_.length));
    receive(kReceivedDmaSetup, fis);
}

// [SATA 10.5.7] All of the status but busy and data request.
void Port::send_device_bits(const ata::Registers& registers, u32 tags) {
    std::array<u8, kFisSetDeviceBitsSize> fis{};
    fis[0] = static_cast<u8>(FisType::SetDeviceBits);
    fis[1] = kFisInterrupt;
    fis[2] = static_cast<u8>(registers.status.raw() & ~kBusyOrData);
    fis[3] = registers.error.raw();
    put32(std::span(fis).subspan(4), tags);
    state_.status = static_cast<u8>((state_.status & kBusyOrData) | fis[2]);
    state_.error = fis[3];
    receive(kReceivedSetDeviceBits, fis);
    raise(PxIs::SetDeviceBitsFis);
}

}  // namespace tessera::ahci
