// An ATA disk's commands apart from transfers: what it is, settings, power, SMART, logs.
#include <algorithm>
#include <bit>

#include "devices/ata/ata_disk.h"
#include "devices/ata/identify.h"

namespace tessera::ata {

namespace {

constexpr u64 kMost28 = 0x0fff'ffff;    // sectors a 28-bit command reaches
constexpr u32 kChsSectors = 0xfb'fc10;  // 16383 * 16 * 63
constexpr unsigned kModeShift = 8;
constexpr u8 kUltraDma = 0x40;
constexpr u8 kMultiwordDma = 0x20;
constexpr u8 kPioModes = 0x08;
constexpr u64 kPage = 512;

void put16(std::span<u8> out, std::size_t at, u64 value) {
    out[at] = static_cast<u8>(value);
    out[at + 1] = static_cast<u8>(value >> 8);
}

// The byte that makes the sum of a page zero.
void put_checksum(std::span<u8> page) {
    u8 sum = 0;
    for (const u8 byte : page.first(kPage - 1)) sum = static_cast<u8>(sum + byte);
    page[kPage - 1] = static_cast<u8>(-sum);
}

// Pages of a log, none: there is no such log.
constexpr u32 pages_of(u8 log) {
    switch (log) {
        case kLogDirectory:
        case kLogSummaryError:
        case kLogExtendedError:
        case kLogQueueError:
        case kLogPhyEvents: return 1;
        case kLogIdentify: return 2;
        default: return 0;
    }
}

}  // namespace

Step AtaDisk::to_host(Command& command, Protocol protocol, u64 bytes) {
    command.protocol = protocol;
    command.block_bytes = kBlock;
    command.buffer = std::span(buffer_).first(bytes);
    return Step::ToHost;
}

Step AtaDisk::other(Command& command) {
    switch (command.taskfile.opcode()) {
        case Opcode::IdentifyDevice: return identify(command);
        case Opcode::SetFeatures: return set_features(command);
        case Opcode::SetMultiple: return set_multiple(command);
        case Opcode::ReadNativeMax: return native_max(command, Addresses::Bits28);
        case Opcode::ReadNativeMaxExt: return native_max(command, Addresses::Bits48);
        case Opcode::ExecuteDiagnostic: return diagnose(command);
        case Opcode::Smart: return smart(command);
        case Opcode::ReadLogExt: return read_log(command, Protocol::PioIn);
        case Opcode::ReadLogDmaExt: return read_log(command, Protocol::DmaIn);
        case Opcode::Standby:
        case Opcode::StandbyOld:
        case Opcode::StandbyImmediate:
        case Opcode::StandbyImmediateOld:
        case Opcode::Sleep:
        case Opcode::SleepOld: return power(command, PowerMode::Standby);
        case Opcode::Idle:
        case Opcode::IdleOld:
        case Opcode::IdleImmediate:
        case Opcode::IdleImmediateOld: return power(command, PowerMode::Idle);
        case Opcode::CheckPowerMode:
        case Opcode::CheckPowerModeOld: command.result.count = state_.power; return end(command);
        case Opcode::Recalibrate:
        case Opcode::Seek:
        case Opcode::InitializeParameters: return end(command);
        default: return abort(command);  // NOP and what there is not
    }
}

Step AtaDisk::power(Command& command, PowerMode mode) {
    state_.power = static_cast<u8>(mode);
    return end(command);
}

// --- What it is [ACS-3 7.12.7] ---

Step AtaDisk::identify(Command& command) {
    fill_identify();
    return to_host(command, Protocol::PioIn, kBlock);
}

void AtaDisk::fill_identify() {
    IdentifyWords words;
    words.set(0, 0x0040);  // a fixed disk
    words.set(1, 16383);
    words.set(3, 16);
    words.set(6, 63);
    words.set_text(10, 10, config_.serial);
    words.set_text(23, 4, "1.0");
    words.set_text(27, 20, "Tessera disk");
    words.set(47, 0x8000 | kMostMultiple);
    words.set(48, 0x4000);
    words.set(49, 0x2f00);  // DMA, LBA, IORDY, standard standby timer
    words.set(50, 0x4000);
    words.set(53, 7);
    words.set(54, 16383);
    words.set(55, 16);
    words.set(56, 63);
    words.set32(57, static_cast<u32>(std::min<u64>(sectors(), kChsSectors)));
    words.set(59, state_.multiple != 0 ? 0x0100 | state_.multiple : 0);
    words.set32(60, static_cast<u32>(std::min(sectors(), kMost28)));
    const u8 mode = state_.transfer_mode;
    const auto selected = [&](u8 kind) {
        return (mode & 0xf8) == kind ? 1U << (kModeShift + (mode & 7U)) : 0U;
    };
    words.set(63, static_cast<u16>(0x0007 | selected(kMultiwordDma)));
    words.set(64, 3);
    for (unsigned word = 65; word <= 68; ++word) words.set(word, 120);
    words.set(75, 31);      // 32 queued commands
    words.set(76, 0x810e);  // three speeds, queued commands, READ LOG DMA EXT as good as READ LOG EXT
    words.set(77, 3 << 1);  // the third speed is in use
    words.set(80, 0x03f0);  // up to ACS-2
    // SMART, power management, write cache, look-ahead, NOP; 48 bits, flushes; error log, logs, FUA.
    words.set(82, 0x4069);
    words.set(83, 0x7400);
    words.set(84, 0x4061);
    words.set(85, static_cast<u16>(0x4008 | state_.smart | state_.write_cache << 5 | state_.look_ahead << 6));
    words.set(86, 0xb400);
    words.set(87, 0x4061);
    words.set(88, static_cast<u16>(0x007f | selected(kUltraDma)));
    words.set64(100, sectors());
    if (can_trim()) {
        words.set(105, kBufferBlocks);
        words.set(169, 1);
    }
    const u32 in_physical = std::max<u32>(1, info_.physical_block / sector_size_);
    words.set(
        106, static_cast<u16>(0x4000 | (in_physical > 1 ? 0x2000 : 0) |
                              (sector_size_ > kSectorSize ? 0x1000 : 0) | (std::bit_width(in_physical) - 1)));
    if (sector_size_ > kSectorSize) words.set32(117, sector_size_ / 2);
    words.set(119, 0x4008);  // READ LOG DMA EXT
    words.set(120, 0x4008);
    words.set(209, 0x4000);
    words.set(217, 1);       // does not rotate
    words.set(222, 0x107f);  // serial ATA 3.1
    words.copy_to(std::span(buffer_).first<IdentifyWords::kBytes>());
}

// --- Settings ---

Step AtaDisk::set_features(Command& command) {
    switch (static_cast<Feature>(command.taskfile.features & 0xff)) {
        case Feature::EnableWriteCache: state_.write_cache = 1; return end(command);
        case Feature::DisableWriteCache:
            state_.write_cache = 0;
            return flush(command);  // what is in the cache is not to be lost [ACS-3 7.45.9]
        case Feature::EnableLookAhead: state_.look_ahead = 1; return end(command);
        case Feature::DisableLookAhead: state_.look_ahead = 0; return end(command);
        case Feature::EnableReverting: state_.reverting = 1; return end(command);
        case Feature::DisableReverting: state_.reverting = 0; return end(command);
        case Feature::SetTransferMode: {
            const auto mode = static_cast<u8>(command.taskfile.count);
            const u8 number = mode & 7;
            const bool known = mode <= 1 || ((mode & 0xf8) == kPioModes && number <= 4) ||
                               ((mode & 0xf8) == kMultiwordDma && number <= 2) ||
                               ((mode & 0xf8) == kUltraDma && number <= 6);
            if (!known) return abort(command);
            // PIO is there whatever DMA mode is chosen.
            if (mode >= kMultiwordDma) state_.transfer_mode = mode;
            return end(command);
        }
    }
    return abort(command);
}

Step AtaDisk::set_multiple(Command& command) {
    const u8 count = command.taskfile.count & 0xff;
    if (count > kMostMultiple || (count != 0 && !std::has_single_bit(count))) return abort(command);
    state_.multiple = count;
    return end(command);
}

Step AtaDisk::native_max(Command& command, Addresses addresses) {
    const u64 last = std::max<u64>(sectors(), 1) - 1;
    command.result.device = kDeviceLba;
    if (addresses == Addresses::Bits48) {
        command.result.lba = last;
        return Step::Done;
    }
    const u64 low = std::min(last, kMost28 - 1);
    command.result.lba = low & 0xff'ffff;
    command.result.device = static_cast<u8>(kDeviceLba | low >> 24);
    return Step::Done;
}

Step AtaDisk::diagnose(Command& command) {
    command.result = signature();
    return Step::Done;
}

// --- SMART [ACS-3 7.48] ---

Step AtaDisk::smart(Command& command) {
    if ((command.taskfile.lba & 0xff'ff00) != kSmartSignature) return abort(command);
    const auto feature = static_cast<SmartFeature>(command.taskfile.features & 0xff);
    if (state_.smart == 0 && feature != SmartFeature::Enable) return abort(command);
    switch (feature) {
        case SmartFeature::Enable: state_.smart = 1; return end(command);
        case SmartFeature::Disable: state_.smart = 0; return end(command);
        case SmartFeature::Autosave:
        case SmartFeature::SaveValues: return end(command);
        case SmartFeature::ReturnStatus:
            command.result.lba = kSmartSignature;  // as it was sent: all is well
            return end(command);
        case SmartFeature::ReadData:
        case SmartFeature::ReadThresholds: return smart_data(command);
        case SmartFeature::ReadLog: {
            const u32 pages = command.taskfile.count & 0xff;
            const auto log = static_cast<u8>(command.taskfile.lba);
            const bool of_smart = log == kLogDirectory || log == kLogSummaryError;
            if (!of_smart || !fill_log(log, 0, pages)) return abort(command);
            return to_host(command, Protocol::PioIn, pages * kBlock);
        }
    }
    return abort(command);
}

// No attributes: there is nothing that wears out.
Step AtaDisk::smart_data(Command& command) {
    const auto page = std::span(buffer_).first<kBlock>();
    std::ranges::fill(page, u8{0});
    page[0] = 1;    // revision
    page[368] = 3;  // saves by itself, before power goes
    page[370] = 1;  // has an error log
    if (static_cast<SmartFeature>(command.taskfile.features & 0xff) == SmartFeature::ReadThresholds) {
        page[368] = 0;
        page[370] = 0;
    }
    put_checksum(page);
    return to_host(command, Protocol::PioIn, kBlock);
}

// --- Logs [ACS-3 7.24] ---

Step AtaDisk::read_log(Command& command, Protocol protocol) {
    const u64 lba = command.taskfile.lba;
    const auto log = static_cast<u8>(lba);
    const auto page = static_cast<u32>((lba >> 8 & 0xff) | (lba >> 32 & 0xff) << 8);
    const u32 pages = command.taskfile.count;
    // SMART's own is not for this command.
    if (log == kLogSummaryError || !fill_log(log, page, pages)) return abort(command);
    if (log == kLogQueueError) state_.queue_failed = 0;
    return to_host(command, protocol, pages * kBlock);
}

bool AtaDisk::fill_log(u8 log, u32 page, u32 pages) {
    const u32 all = pages_of(log);
    if (pages == 0 || page >= all || pages > all - page) return false;
    const auto out = std::span(buffer_).first(pages * kBlock);
    std::ranges::fill(out, u8{0});
    switch (log) {
        case kLogDirectory:
            out[0] = 1;  // version
            for (const u8 there :
                 {kLogSummaryError, kLogExtendedError, kLogQueueError, kLogPhyEvents, kLogIdentify})
                put16(out, std::size_t{2} * there, pages_of(there));
            break;
        case kLogSummaryError:
        case kLogExtendedError:
            out[0] = 1;  // version; no errors
            put_checksum(out);
            break;
        case kLogQueueError:
            // [ACS-3 A.14] The registers of the command that failed, and its tag.
            out[0] = state_.failed_tag;
            out[2] = state_.failed_status;
            out[3] = state_.failed_error;
            for (unsigned n = 0; n < 3; ++n) {
                out[4 + n] = static_cast<u8>(state_.failed_lba >> (8 * n));
                out[8 + n] = static_cast<u8>(state_.failed_lba >> (24 + 8 * n));
            }
            out[7] = kDeviceLba;
            put16(out, 12, state_.failed_count);
            put_checksum(out);
            break;
        case kLogPhyEvents: put_checksum(out); break;  // no counters
        case kLogIdentify: {
            // [ACS-3 A.11] Page 0 lists the pages there are; page 1 is IDENTIFY DEVICE's data.
            std::array<u8, kPage> list{};
            list[8] = 2;
            list[10] = 1;
            list[2] = 0;
            put16(list, 0, 1);
            if (page == 1 || pages == 2) {
                fill_identify();
                if (pages == 2) std::ranges::copy_n(buffer_.begin(), kPage, out.subspan(kPage).begin());
            }
            if (page == 0) std::ranges::copy(list, out.begin());
            break;
        }
        default: return false;
    }
    return true;
}

}  // namespace tessera::ata
