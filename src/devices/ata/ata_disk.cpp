#include "devices/ata/ata_disk.h"

#include <algorithm>
#include <utility>

namespace tessera::ata {

namespace {

constexpr u64 kMask48 = (u64{1} << 48) - 1;
constexpr u32 kMostTags = 32;
// The geometry every large disk claims to have.
constexpr u64 kHeads = 16;
constexpr u64 kSectorsPerTrack = 63;
constexpr unsigned kTrimEntry = 8;  // bytes

u64 load64(std::span<const u8> bytes) {
    u64 value = 0;
    for (std::size_t n = 0; n < kTrimEntry; ++n) value |= u64{bytes[n]} << (8 * n);
    return value;
}

}  // namespace

AtaDisk::AtaDisk(Config config, BlockBackend& backend)
    : config_(std::move(config)),
      backend_(backend),
      info_(backend.info()),
      sector_size_(std::max<u32>(info_.logical_block, kSectorSize)),
      state_(initial_state()) {}

AtaDisk::State AtaDisk::initial_state() const {
    State state;
    state.write_cache = config_.write_cache ? 1 : 0;
    return state;
}

void AtaDisk::reset(ResetKind kind) {
    // [ACS-3 7.45.12] Software resets leave settings alone if the host said so.
    if (kind == ResetKind::Hardware || state_.reverting != 0) {
        state_ = initial_state();
        return;
    }
    state_.queue_failed = 0;
    state_.power = static_cast<u8>(PowerMode::Active);
}

Registers AtaDisk::signature() const {
    Registers registers;
    registers.error = Flags<Error>(kDiagnosticPassed);
    registers.count = 1;
    registers.lba = kDiskSignature;
    return registers;
}

bool AtaDisk::is_queued(const Taskfile& taskfile) const {
    return taskfile.opcode() == Opcode::ReadFpdmaQueued || taskfile.opcode() == Opcode::WriteFpdmaQueued;
}

// --- The ways a command ends ---

Step AtaDisk::end(Command& command) {
    command.result.device = command.taskfile.device;
    return Step::Done;
}

Step AtaDisk::abort(Command& command) {
    command.result.status.set(Status::Error);
    command.result.error.set(Error::Abort);
    return end(command);
}

Step AtaDisk::not_found(Command& command, u64 lba) {
    command.result.status.set(Status::Error);
    command.result.error.set(Error::IdNotFound);
    command.result.lba = lba & kMask48;
    return end(command);
}

// What the host could not do is the medium's fault when reading, the device's otherwise.
Step AtaDisk::failed(Command& command, BlockStatus status) {
    command.result.lba = command.offset / sector_size_;
    command.result.status.set(Status::Error);
    if (status == BlockStatus::Unsupported || status == BlockStatus::OutOfRange) return abort(command);
    if (command.operation == BlockOperation::Read) {
        command.result.error.set(Error::Uncorrectable);
        return end(command);
    }
    command.result.status.set(Status::DeviceFault);
    return abort(command);
}

// --- Commands ---

Step AtaDisk::begin(Command& command) {
    command.result = {};
    command.protocol = Protocol::NonData;
    const bool is_queue_log =
        command.taskfile.opcode() == Opcode::ReadLogExt || command.taskfile.opcode() == Opcode::ReadLogDmaExt;
    const bool reads_why = is_queue_log && (command.taskfile.lba & 0xff) == kLogQueueError;
    const bool queued = is_queued(command.taskfile);
    // [ACS-3 7.23] The tag is in the count register, the count in the features register. One that is refused
    // has a tag too.
    if (queued) {
        command.protocol = Protocol::Queued;
        command.tag = static_cast<u8>(command.taskfile.count >> 3 & (kMostTags - 1));
    }
    const bool refused = (state_.queue_failed != 0 && !reads_why) || (command.others_queued && !queued);
    const Step step = refused ? abort(command) : start(command);
    // The first failure is the one that is told.
    const bool queue_fails =
        (command.others_queued || queued) && step == Step::Done && command.result.status.has(Status::Error);
    if (queue_fails && state_.queue_failed == 0) note_failure(command);
    return step;
}

void AtaDisk::note_failure(const Command& command) {
    state_.queue_failed = 1;
    state_.failed_tag = is_queued(command.taskfile) ? command.tag : kNotQueued;
    state_.failed_status = command.result.status.raw();
    state_.failed_error = command.result.error.raw();
    state_.failed_count = command.result.count;
    state_.failed_lba = command.result.lba;
}

Step AtaDisk::go_on(Command& command, BlockStatus status) {
    if (status != BlockStatus::Ok) {
        const Step step = failed(command, status);
        if (command.protocol == Protocol::Queued && state_.queue_failed == 0) note_failure(command);
        return step;
    }
    if (command.taskfile.opcode() == Opcode::DataSetManagement) return trim_next(command);
    return end(command);
}

Step AtaDisk::start(Command& command) {
    using enum BlockOperation;
    switch (command.taskfile.opcode()) {
        case Opcode::ReadFpdmaQueued: return queued(command, Read);
        case Opcode::WriteFpdmaQueued: return queued(command, Write);
        case Opcode::ReadDmaExt: return transfer48(command, Read, Protocol::DmaIn);
        case Opcode::WriteDmaExt: return transfer48(command, Write, Protocol::DmaOut);
        case Opcode::WriteDmaFuaExt:
            command.force_unit_access = true;
            return transfer48(command, Write, Protocol::DmaOut);
        case Opcode::ReadDma:
        case Opcode::ReadDmaNoRetry: return transfer28(command, Read, Protocol::DmaIn);
        case Opcode::WriteDma:
        case Opcode::WriteDmaNoRetry: return transfer28(command, Write, Protocol::DmaOut);
        case Opcode::ReadSectors:
        case Opcode::ReadSectorsNoRetry: return transfer28(command, Read, Protocol::PioIn);
        case Opcode::WriteSectors:
        case Opcode::WriteSectorsNoRetry: return transfer28(command, Write, Protocol::PioOut);
        case Opcode::ReadSectorsExt: return transfer48(command, Read, Protocol::PioIn);
        case Opcode::WriteSectorsExt: return transfer48(command, Write, Protocol::PioOut);
        case Opcode::ReadMultiple: return multiple(command, Read, Addresses::Bits28);
        case Opcode::WriteMultiple: return multiple(command, Write, Addresses::Bits28);
        case Opcode::ReadMultipleExt: return multiple(command, Read, Addresses::Bits48);
        case Opcode::WriteMultipleExt: return multiple(command, Write, Addresses::Bits48);
        case Opcode::WriteMultipleFuaExt:
            command.force_unit_access = true;
            return multiple(command, Write, Addresses::Bits48);
        case Opcode::ReadVerify:
        case Opcode::ReadVerifyNoRetry: return verify(command, range28(command.taskfile));
        case Opcode::ReadVerifyExt: return verify(command, range48(command.taskfile));
        case Opcode::FlushCache:
        case Opcode::FlushCacheExt: return flush(command);
        case Opcode::DataSetManagement: return trim(command);
        default: return other(command);
    }
}

// --- Ranges ---

// No count is 256. Without the LBA bit it is cylinder, head and sector, as old drivers have it.
AtaDisk::Range AtaDisk::range28(const Taskfile& taskfile) const {
    const u64 count = (taskfile.count & 0xff) == 0 ? 256 : taskfile.count & 0xff;
    const u64 low = taskfile.lba & 0xff'ffff;
    const u64 head = taskfile.device & 0xf;
    if ((taskfile.device & kDeviceLba) != 0) return {.lba = head << 24 | low, .sectors = count};
    const u64 sector = low & 0xff;
    const u64 cylinder = low >> 8;
    // Sectors count from 1: there is no sector 0.
    if (sector == 0 || sector > kSectorsPerTrack || head >= kHeads) return {.lba = kMask48, .sectors = count};
    return {.lba = (cylinder * kHeads + head) * kSectorsPerTrack + sector - 1, .sectors = count};
}

AtaDisk::Range AtaDisk::range48(const Taskfile& taskfile) {
    return {.lba = taskfile.lba & kMask48, .sectors = taskfile.count == 0 ? u64{65536} : taskfile.count};
}

bool AtaDisk::in_range(const Range& range) const {
    return range.lba <= sectors() && range.sectors <= sectors() - range.lba;
}

Step AtaDisk::transfer28(Command& command, BlockOperation operation, Protocol protocol) {
    return transfer(command, operation, protocol, range28(command.taskfile));
}

Step AtaDisk::transfer48(Command& command, BlockOperation operation, Protocol protocol) {
    return transfer(command, operation, protocol, range48(command.taskfile));
}

Step AtaDisk::multiple(Command& command, BlockOperation operation, Addresses addresses) {
    const bool is_read = operation == BlockOperation::Read;
    // [ACS-3 7.26.3] Not before it was said how many.
    if (state_.multiple == 0) return abort(command);
    const Step step =
        transfer(command, operation, is_read ? Protocol::PioIn : Protocol::PioOut,
                 addresses == Addresses::Bits28 ? range28(command.taskfile) : range48(command.taskfile));
    command.block_bytes = state_.multiple * sector_size_;
    return step;
}

Step AtaDisk::queued(Command& command, BlockOperation operation) {
    const u64 count = command.taskfile.features;
    const Range range{.lba = command.taskfile.lba & kMask48, .sectors = count == 0 ? 65536 : count};
    command.force_unit_access = (command.taskfile.device & kDeviceFua) != 0;
    return transfer(command, operation, Protocol::Queued, range);
}

Step AtaDisk::transfer(Command& command, BlockOperation operation, Protocol protocol, const Range& range) {
    state_.power = static_cast<u8>(PowerMode::Active);
    if (!in_range(range)) return not_found(command, range.lba);
    const bool is_write = operation == BlockOperation::Write;
    if (is_write && info_.read_only) return abort(command);
    command.protocol = protocol;
    command.block_bytes = sector_size_;
    command.operation = operation;
    command.offset = range.lba * sector_size_;
    command.length = range.sectors * sector_size_;
    command.force_unit_access = is_write && (command.force_unit_access || state_.write_cache == 0);
    return Step::Backend;
}

Step AtaDisk::verify(Command& command, const Range& range) {
    state_.power = static_cast<u8>(PowerMode::Active);
    return in_range(range) ? end(command) : not_found(command, range.lba);
}

Step AtaDisk::flush(Command& command) {
    command.operation = BlockOperation::Flush;
    command.offset = command.length = 0;
    return Step::Backend;
}

// --- TRIM [ACS-3 7.5] ---

bool AtaDisk::can_trim() const {
    return info_.discard_granularity != 0 && !info_.read_only;
}

Step AtaDisk::trim(Command& command) {
    const u32 blocks = command.taskfile.count;
    if (!can_trim() || command.taskfile.features != kTrim || blocks == 0 || blocks > kBufferBlocks)
        return abort(command);
    command.protocol = Protocol::DmaOut;
    command.next_range = 0;
    command.operation = BlockOperation::Discard;
    command.buffer = std::span(buffer_).first(blocks * kBlock);
    return Step::FromHost;
}

// Ranges that follow one another are one; all of them are looked at before the first is discarded.
Step AtaDisk::trim_next(Command& command) {
    const auto entry = [&](u32 index) -> Range {
        const u64 value = load64(command.buffer.subspan(std::size_t{index} * kTrimEntry));
        return {.lba = value & kMask48, .sectors = value >> 48};
    };
    const auto entries = static_cast<u32>(command.buffer.size() / kTrimEntry);
    if (command.next_range == 0)
        for (u32 n = 0; n < entries; ++n)
            if (const Range range = entry(n); range.sectors != 0 && !in_range(range))
                return not_found(command, range.lba);
    Range all{.lba = 0, .sectors = 0};
    for (; command.next_range < entries; ++command.next_range) {
        const Range next = entry(command.next_range);
        if (next.sectors == 0) continue;
        if (all.sectors == 0)
            all = next;
        else if (next.lba == all.lba + all.sectors)
            all.sectors += next.sectors;
        else
            break;
    }
    if (all.sectors != 0) {
        command.operation = BlockOperation::Discard;
        command.offset = all.lba * sector_size_;
        command.length = all.sectors * sector_size_;
        return Step::Backend;
    }
    if (state_.write_cache == 0 && command.operation != BlockOperation::Flush) return flush(command);
    return end(command);
}

// --- Snapshots ---

void AtaDisk::visit(StateVisitor& v, unsigned first, State& s) {
    auto& [multiple, transfer_mode, write_cache, look_ahead, smart, reverting, power, queue_failed,
           failed_tag, failed_status, failed_error, failed_count, failed_lba] = s;
    v.field(first, "multiple", multiple);
    v.field(first + 1, "transfer mode", transfer_mode);
    v.field(first + 2, "write cache", write_cache);
    v.field(first + 3, "look ahead", look_ahead);
    v.field(first + 4, "smart", smart);
    v.field(first + 5, "reverting", reverting);
    v.field(first + 6, "power mode", power);
    v.field(first + 7, "queue failed", queue_failed);
    v.field(first + 8, "failed tag", failed_tag);
    v.field(first + 9, "failed status", failed_status);
    v.field(first + 10, "failed error", failed_error);
    v.field(first + 11, "failed count", failed_count);
    v.field(first + 12, "failed lba", failed_lba);
}

bool AtaDisk::load(StateVisitor& v, unsigned first) {
    State next;
    visit(v, first, next);
    const auto is_flag = [](u8 value) { return value <= 1; };
    if (v.corrupt() || next.multiple > kMostMultiple || !is_flag(next.write_cache) ||
        !is_flag(next.look_ahead) || !is_flag(next.smart) || !is_flag(next.reverting) ||
        !is_flag(next.queue_failed) || (next.failed_tag >= kMostTags && next.failed_tag != kNotQueued) ||
        next.failed_lba > kMask48)
        return false;
    loaded_ = next;
    return true;
}

}  // namespace tessera::ata
