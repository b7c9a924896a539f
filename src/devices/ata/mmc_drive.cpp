#include "devices/ata/mmc_drive.h"

#include <algorithm>

namespace tessera::ata {

namespace {

// Larger than any CD: 80 minutes and a little are 360,000 blocks.
constexpr u64 kMostCdBlocks = 450'000;
constexpr u8 kStart = 1;
constexpr u8 kLoadEject = 2;
constexpr u8 kPolled = 1;
constexpr u8 kVitalData = 1;  // EVPD

constexpr u64 get16(std::span<const u8> bytes, std::size_t at) {
    return u64{bytes[at]} << 8 | bytes[at + 1];
}
constexpr u64 get32(std::span<const u8> bytes, std::size_t at) {
    return get16(bytes, at) << 16 | get16(bytes, at + 2);
}

// Those that are carried out although there is something to be told first.
constexpr bool ignores_attention(ScsiOpcode opcode) {
    switch (opcode) {
        case ScsiOpcode::Inquiry:
        case ScsiOpcode::RequestSense:
        case ScsiOpcode::ReportLuns:
        case ScsiOpcode::GetConfiguration:
        case ScsiOpcode::GetEventStatus: return true;
        default: return false;
    }
}

constexpr bool needs_disc(ScsiOpcode opcode) {
    switch (opcode) {
        case ScsiOpcode::TestUnitReady:
        case ScsiOpcode::ReadCapacity:
        case ScsiOpcode::Read10:
        case ScsiOpcode::Read12:
        case ScsiOpcode::ReadCd:
        case ScsiOpcode::Seek10:
        case ScsiOpcode::ReadToc:
        case ScsiOpcode::ReadDiscInformation:
        case ScsiOpcode::ReadTrackInformation: return true;
        default: return false;
    }
}

}  // namespace

// --- Replies ---

void MmcDrive::Reply::put8(u64 value) {
    to_[size_++] = static_cast<u8>(value);
}
void MmcDrive::Reply::put16(u64 value) {
    put8(value >> 8);
    put8(value);
}
void MmcDrive::Reply::put24(u64 value) {
    put8(value >> 16);
    put16(value);
}
void MmcDrive::Reply::put32(u64 value) {
    put16(value >> 16);
    put16(value);
}
void MmcDrive::Reply::zeros(std::size_t count) {
    for (std::size_t n = 0; n < count; ++n) put8(0);
}
void MmcDrive::Reply::text(std::string_view text, std::size_t width) {
    for (std::size_t n = 0; n < width; ++n) put8(n < text.size() ? static_cast<u8>(text[n]) : u8{' '});
}
void MmcDrive::Reply::set16(std::size_t at, u64 value) {
    set8(at, value >> 8);
    set8(at + 1, value);
}
void MmcDrive::Reply::set32(std::size_t at, u64 value) {
    set16(at, value >> 16);
    set16(at + 2, value);
}

MmcDrive::Answer MmcDrive::good() {
    state_.key = state_.code = state_.qualifier = 0;
    return {};
}

MmcDrive::Answer MmcDrive::refuse(const Sense& sense) {
    state_.key = static_cast<u8>(sense.key);
    state_.code = sense.code;
    state_.qualifier = sense.qualifier;
    return {.key = sense.key, .data = {}};
}

// [SPC-3 4.3.4.6] What does not fit into the allocation length is left out, and that is no error.
MmcDrive::Answer MmcDrive::give(const Reply& reply, u64 allocation) {
    Answer answer = good();
    answer.data = std::span(buffer_).first(std::min<u64>(reply.size(), allocation));
    return answer;
}

// --- Commands ---

bool MmcDrive::is_dvd() const {
    return config_.blocks > kMostCdBlocks;
}

void MmcDrive::reset() {
    state_.reset_pending = 1;
    state_.locked = 0;
    (void)good();
}

MmcDrive::Answer MmcDrive::execute(Cdb cdb) {
    const auto opcode = static_cast<ScsiOpcode>(cdb[0]);
    if (!ignores_attention(opcode)) {
        if (state_.reset_pending != 0) {
            state_.reset_pending = 0;
            return refuse(kWasReset);
        }
        if (state_.change_pending != 0) {
            state_.change_pending = 0;
            return refuse(kMediumChanged);
        }
    }
    if (needs_disc(opcode) && !has_disc()) return refuse(no_disc());
    return run(cdb);
}

MmcDrive::Answer MmcDrive::run(Cdb cdb) {
    switch (static_cast<ScsiOpcode>(cdb[0])) {
        case ScsiOpcode::TestUnitReady:
        case ScsiOpcode::SetCdSpeed:
        case ScsiOpcode::SynchronizeCache: return good();
        case ScsiOpcode::RequestSense: return request_sense(cdb);
        case ScsiOpcode::Inquiry: return (cdb[1] & kVitalData) != 0 ? vital_data(cdb) : inquiry(cdb);
        case ScsiOpcode::ModeSense6: return mode_sense(cdb, false);
        case ScsiOpcode::ModeSense10: return mode_sense(cdb, true);
        case ScsiOpcode::StartStopUnit: return start_stop(cdb);
        case ScsiOpcode::PreventAllow: state_.locked = cdb[4] & 1; return good();
        case ScsiOpcode::ReadFormatCapacities: return format_capacities(cdb);
        case ScsiOpcode::ReadCapacity: return read_capacity();
        case ScsiOpcode::Read10: return read(get32(cdb, 2), get16(cdb, 7));
        case ScsiOpcode::Read12: return read(get32(cdb, 2), get32(cdb, 6));
        case ScsiOpcode::ReadCd: return read_cd(cdb);
        case ScsiOpcode::Seek10: return get32(cdb, 2) < config_.blocks ? good() : refuse(kOutOfRange);
        case ScsiOpcode::ReadToc: return read_toc(cdb);
        case ScsiOpcode::GetConfiguration: return get_configuration(cdb);
        case ScsiOpcode::GetEventStatus: return get_event(cdb);
        case ScsiOpcode::ReadDiscInformation: return disc_information(cdb);
        case ScsiOpcode::ReadTrackInformation: return track_information(cdb);
        case ScsiOpcode::ReportLuns: return report_luns(cdb);
        case ScsiOpcode::MechanismStatus: return mechanism_status(cdb);
    }
    return refuse(kInvalidOpcode);
}

MmcDrive::Answer MmcDrive::read(u64 first, u64 count) {
    if (first > config_.blocks || count > config_.blocks - first) return refuse(kOutOfRange);
    // What one request moves is bounded.
    if (count > kMostBlocks) return refuse(kInvalidField);
    Answer answer = good();
    answer.first_block = first;
    answer.blocks = count;
    return answer;
}

// [MMC-6 6.19] Of a data track, and no more than its user data.
MmcDrive::Answer MmcDrive::read_cd(Cdb cdb) {
    constexpr u8 kUserData = 0x10;
    const u8 type = cdb[1] >> 2 & 7;
    const u64 count = u64{cdb[6]} << 16 | get16(cdb, 7);
    if (type != 0 && type != 2) return refuse(kWrongTrackMode);
    if (cdb[10] != 0) return refuse(kInvalidField);  // sub-channels
    if ((cdb[9] & 0xf8) == 0) return read(get32(cdb, 2), 0);
    if ((cdb[9] & 0xfe) != kUserData) return refuse(kInvalidField);
    return read(get32(cdb, 2), count);
}

// [SPC-3 6.27] What is to be told is told here, and is told then.
MmcDrive::Answer MmcDrive::request_sense(Cdb cdb) {
    Sense sense{.key = static_cast<SenseKey>(state_.key), .code = state_.code, .qualifier = state_.qualifier};
    if (sense.key == SenseKey::None && state_.reset_pending != 0) {
        sense = kWasReset;
        state_.reset_pending = 0;
    } else if (sense.key == SenseKey::None && state_.change_pending != 0) {
        sense = kMediumChanged;
        state_.change_pending = 0;
    }
    Reply reply(buffer_);
    reply.put8(0x70);  // current, fixed format
    reply.put8(0);
    reply.put8(static_cast<u8>(sense.key));
    reply.zeros(4);
    reply.put8(10);  // bytes that follow
    reply.zeros(4);
    reply.put8(sense.code);
    reply.put8(sense.qualifier);
    reply.zeros(4);
    return give(reply, cdb[4]);
}

// [SPC-3 6.4.2]
MmcDrive::Answer MmcDrive::inquiry(Cdb cdb) {
    if (cdb[2] != 0) return refuse(kInvalidField);
    Reply reply(buffer_);
    reply.put8(kCdDevice);
    reply.put8(kRemovable);
    reply.put8(5);  // SPC-3
    reply.put8(2);  // format of this reply
    reply.put8(31);
    reply.zeros(3);
    reply.text("TESSERA", 8);
    reply.text("CD-ROM", 16);
    reply.text("1.0", 4);
    return give(reply, get16(cdb, 3));
}

// [SPC-3 7.6] Which pages there are, the serial number, a name.
MmcDrive::Answer MmcDrive::vital_data(Cdb cdb) {
    const std::size_t serial = std::min<std::size_t>(config_.serial.size(), 20);
    Reply reply(buffer_);
    reply.put8(kCdDevice);
    reply.put8(cdb[2]);
    switch (cdb[2]) {
        case 0x00:
            reply.put16(3);
            for (const unsigned page : {0x00, 0x80, 0x83}) reply.put8(page);
            break;
        case 0x80:
            reply.put16(serial);
            reply.text(config_.serial, serial);
            break;
        case 0x83:
            reply.put16(4 + 8 + serial);
            reply.put8(2);  // ASCII
            reply.put8(1);  // begins with the vendor
            reply.put8(0);
            reply.put8(8 + serial);
            reply.text("TESSERA", 8);
            reply.text(config_.serial, serial);
            break;
        default: return refuse(kInvalidField);
    }
    return give(reply, get16(cdb, 3));
}

// [MMC-6 6.45]
MmcDrive::Answer MmcDrive::start_stop(Cdb cdb) {
    const u8 what = cdb[4] & (kStart | kLoadEject);
    if (what == kLoadEject && state_.tray_open == 0) {
        if (state_.locked != 0) return refuse(kRemovalPrevented);
        state_.tray_open = 1;
        state_.event = static_cast<u8>(MediaEvent::Removed);
    } else if (what == (kStart | kLoadEject) && state_.tray_open != 0) {
        state_.tray_open = 0;
        if (config_.disc == Disc::Inserted) {
            state_.change_pending = 1;
            state_.event = static_cast<u8>(MediaEvent::New);
        }
    }
    return good();
}

MmcDrive::Answer MmcDrive::read_capacity() {
    Reply reply(buffer_);
    reply.put32(std::min<u64>(std::max<u64>(config_.blocks, 1) - 1, 0xffff'ffff));
    reply.put32(kCdBlock);
    return give(reply, reply.size());
}

// [MMC-6 6.24]
MmcDrive::Answer MmcDrive::format_capacities(Cdb cdb) {
    Reply reply(buffer_);
    reply.put32(8);
    reply.put32(has_disc() ? std::min<u64>(config_.blocks, 0xffff'ffff) : 0xffff'ffff);
    reply.put8(has_disc() ? 2 : 3);  // formatted; no medium
    reply.put24(kCdBlock);
    return give(reply, get16(cdb, 7));
}

MmcDrive::Answer MmcDrive::report_luns(Cdb cdb) {
    const u64 allocation = get32(cdb, 6);
    Reply reply(buffer_);
    reply.put32(8);
    reply.zeros(4 + 8);  // unit 0
    return give(reply, allocation);
}

// [MMC-6 6.6] Asked again and again instead of an interrupt; each event is told once.
MmcDrive::Answer MmcDrive::get_event(Cdb cdb) {
    if ((cdb[1] & kPolled) == 0) return refuse(kInvalidField);
    const u64 allocation = get16(cdb, 7);
    Reply reply(buffer_);
    if ((cdb[4] & 1U << kMediaClass) == 0) {
        reply.put16(2);
        reply.put8(0x80);  // no class of those asked for
        reply.put8(1U << kMediaClass);
        return give(reply, allocation);
    }
    reply.put16(6);
    reply.put8(kMediaClass);
    reply.put8(1U << kMediaClass);
    reply.put8(state_.event);
    reply.put8((has_disc() ? 2 : 0) | state_.tray_open);
    reply.put16(0);
    if (allocation > 4) state_.event = 0;
    return give(reply, allocation);
}

// [MMC-6 6.13]
MmcDrive::Answer MmcDrive::mechanism_status(Cdb cdb) {
    Reply reply(buffer_);
    reply.put8(0);
    reply.put8(state_.tray_open != 0 ? 0x10 : 0);
    reply.zeros(6);  // no changer
    return give(reply, get16(cdb, 8));
}

// --- Snapshots ---

void MmcDrive::visit(StateVisitor& v, unsigned first, State& s) {
    auto& [key, code, qualifier, reset_pending, change_pending, tray_open, locked, event] = s;
    v.field(first, "sense key", key);
    v.field(first + 1, "sense code", code);
    v.field(first + 2, "sense qualifier", qualifier);
    v.field(first + 3, "reset pending", reset_pending);
    v.field(first + 4, "change pending", change_pending);
    v.field(first + 5, "tray open", tray_open);
    v.field(first + 6, "locked", locked);
    v.field(first + 7, "event", event);
}

bool MmcDrive::valid(const State& s) {
    return s.key <= 0xf && s.reset_pending <= 1 && s.change_pending <= 1 && s.tray_open <= 1 &&
           s.locked <= 1 && s.event <= static_cast<u8>(MediaEvent::Removed);
}

}  // namespace tessera::ata
