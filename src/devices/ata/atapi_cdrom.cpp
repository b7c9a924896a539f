#include "devices/ata/atapi_cdrom.h"

#include "devices/ata/identify.h"

namespace tessera::ata {

namespace {

constexpr u8 kByDma = 1;  // PACKET's features register
constexpr u8 kMultiwordDma = 0x20;
constexpr u8 kUltraDma = 0x40;
constexpr u8 kCommandDone = 3;  // the interrupt reason at the end [ACS-3 7.18.4]

}  // namespace

AtapiCdrom::AtapiCdrom(const std::string& serial, BlockBackend* disc)
    : serial_(serial),
      disc_(disc),
      mmc_({.serial = serial,
            .disc = disc != nullptr ? Disc::Inserted : Disc::None,
            .blocks = disc != nullptr ? disc->info().size / kCdBlock : 0}) {}

void AtapiCdrom::power_on() {
    state_ = {};
    mmc_.power_on();
}

void AtapiCdrom::reset(ResetKind kind) {
    if (kind == ResetKind::Hardware) state_ = {};
    state_.power = static_cast<u8>(PowerMode::Active);
    mmc_.reset();
}

Registers AtapiCdrom::signature() const {
    Registers registers;
    // [ACS-3 7.18.5] Not ready for any command but those for packet devices.
    registers.status = {};
    registers.error = Flags<Error>(kDiagnosticPassed);
    registers.count = 1;
    registers.lba = kPacketSignature;
    return registers;
}

// --- Commands ---

Step AtapiCdrom::end(Command& command) {
    command.result.device = command.taskfile.device;
    return Step::Done;
}

Step AtapiCdrom::abort(Command& command) {
    command.result.status.set(Status::Error);
    command.result.error.set(Error::Abort);
    return end(command);
}

Step AtapiCdrom::begin(Command& command) {
    command.result = {};
    command.protocol = Protocol::NonData;
    switch (command.taskfile.opcode()) {
        case Opcode::Packet: return packet(command);
        case Opcode::IdentifyPacketDevice: return identify(command);
        case Opcode::SetFeatures: return set_features(command);
        case Opcode::ExecuteDiagnostic:
        case Opcode::DeviceReset:
            reset(ResetKind::Software);
            command.result = signature();
            return Step::Done;
        case Opcode::IdentifyDevice:
        case Opcode::ReadSectors: {
            // [ACS-3 7.12.6] By this a host finds out what it has before it.
            const Step step = abort(command);
            command.result.lba = kPacketSignature;
            command.result.count = 1;
            return step;
        }
        case Opcode::StandbyImmediate:
        case Opcode::Standby:
        case Opcode::Sleep: state_.power = static_cast<u8>(PowerMode::Standby); return end(command);
        case Opcode::IdleImmediate:
        case Opcode::Idle: state_.power = static_cast<u8>(PowerMode::Idle); return end(command);
        case Opcode::CheckPowerMode: command.result.count = state_.power; return end(command);
        default: return abort(command);
    }
}

Step AtapiCdrom::packet(Command& command) {
    state_.power = static_cast<u8>(PowerMode::Active);
    const bool by_dma = (command.taskfile.features & kByDma) != 0;
    command.protocol = by_dma ? Protocol::PacketDma : Protocol::PacketPio;
    // [ACS-3 7.18.3] The most bytes between two interrupts; odd only at the end.
    const auto limit = static_cast<u32>(command.taskfile.lba >> 8 & 0xfffe);
    command.block_bytes = limit != 0 ? limit : 0xfffe;
    const MmcDrive::Answer answer =
        mmc_.execute(std::span<const u8>(command.packet).first<MmcDrive::kBlockSize>());
    if (answer.blocks != 0) {
        command.operation = BlockOperation::Read;
        command.offset = answer.first_block * kCdBlock;
        command.length = answer.blocks * kCdBlock;
        return Step::Backend;
    }
    if (answer.key == SenseKey::None && !answer.data.empty()) {
        command.buffer = answer.data;
        return Step::ToHost;
    }
    return finish(command, answer.key);
}

Step AtapiCdrom::go_on(Command& command, BlockStatus status) {
    if (command.taskfile.opcode() != Opcode::Packet) return end(command);
    return finish(command, status == BlockStatus::Ok ? SenseKey::None : mmc_.read_failed().key);
}

Step AtapiCdrom::finish(Command& command, SenseKey key) const {
    command.result.count = kCommandDone;
    if (key != SenseKey::None) {
        command.result.status.set(Status::Error);
        command.result.error = Flags<Error>(static_cast<u8>(static_cast<u8>(key) << kSenseKeyShift));
    }
    return end(command);
}

Step AtapiCdrom::identify(Command& command) {
    const u8 mode = state_.transfer_mode;
    const auto selected = [&](u8 kind) { return (mode & 0xf8) == kind ? 0x100U << (mode & 7U) : 0U; };
    IdentifyWords words;
    words.set(0, 0x85c0);  // packet device, CD, removable, 12-byte commands
    words.set_text(10, 10, serial_);
    words.set_text(23, 4, "1.0");
    words.set_text(27, 20, "Tessera CD-ROM");
    words.set(49, 0x0f00);  // DMA, LBA, IORDY
    words.set(50, 0x4000);
    words.set(53, 6);
    words.set(63, static_cast<u16>(0x0007 | selected(kMultiwordDma)));
    words.set(64, 3);
    for (unsigned word = 65; word <= 68; ++word) words.set(word, 120);
    words.set(76, 0x000e);  // three speeds, no queues
    words.set(77, 3 << 1);
    words.set(80, 0x03f0);  // up to ACS-2
    // NOP, DEVICE RESET, PACKET, power management.
    words.set(82, 0x4218);
    words.set(83, 0x4000);
    words.set(84, 0x4000);
    words.set(85, 0x4218);
    words.set(87, 0x4000);
    words.set(88, static_cast<u16>(0x007f | selected(kUltraDma)));
    words.set(222, 0x107f);
    words.copy_to(std::span(buffer_).first<IdentifyWords::kBytes>());
    command.protocol = Protocol::PioIn;
    command.block_bytes = IdentifyWords::kBytes;
    command.buffer = buffer_;
    return Step::ToHost;
}

Step AtapiCdrom::set_features(Command& command) {
    if (static_cast<Feature>(command.taskfile.features & 0xff) != Feature::SetTransferMode)
        return abort(command);
    const auto mode = static_cast<u8>(command.taskfile.count);
    const u8 number = mode & 7;
    const bool pio = mode <= 1 || ((mode & 0xf8) == 8 && number <= 4);
    const bool dma =
        ((mode & 0xf8) == kMultiwordDma && number <= 2) || ((mode & 0xf8) == kUltraDma && number <= 6);
    if (!pio && !dma) return abort(command);
    if (dma) state_.transfer_mode = mode;
    return end(command);
}

// --- Snapshots ---

void AtapiCdrom::visit(StateVisitor& v, unsigned first, State& s) {
    auto& [transfer_mode, power] = s;
    v.field(first, "transfer mode", transfer_mode);
    v.field(first + 1, "power mode", power);
}

void AtapiCdrom::visit_state(StateVisitor& v, unsigned first) {
    visit(v, first, state_);
    auto mmc = mmc_.state();
    MmcDrive::visit(v, first + 2, mmc);
}

bool AtapiCdrom::load(StateVisitor& v, unsigned first) {
    State next;
    MmcDrive::State mmc;
    visit(v, first, next);
    MmcDrive::visit(v, first + 2, mmc);
    if (v.corrupt() || !MmcDrive::valid(mmc)) return false;
    loaded_ = next;
    loaded_mmc_ = mmc;
    return true;
}

void AtapiCdrom::commit_load() {
    state_ = loaded_;
    mmc_.restore(loaded_mmc_);
}

}  // namespace tessera::ata
