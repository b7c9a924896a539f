// A CD drive's tables: mode pages, table of contents, features, disc and track.
#include <algorithm>

#include "devices/ata/mmc_drive.h"

namespace tessera::ata {

namespace {

constexpr u8 kDescribeInTime = 2;  // MSF
constexpr u64 kFramesPerMinute = 4500;
constexpr u8 kPersistent = 2;
constexpr u8 kCurrent = 1;

constexpr u64 get16(std::span<const u8> bytes, std::size_t at) {
    return u64{bytes[at]} << 8 | bytes[at + 1];
}

}  // namespace

// --- Mode pages [MMC-6 7], [SPC-3 6.9] ---

MmcDrive::Answer MmcDrive::mode_sense(Cdb cdb, bool long_form) {
    constexpr u8 kSaved = 3;
    constexpr u8 kChangeable = 1;
    const u8 control = cdb[2] >> 6;
    const auto wanted = static_cast<ModePage>(cdb[2] & 0x3f);
    if (control == kSaved) return refuse(kSavingUnsupported);
    Reply reply(buffer_);
    // No block descriptors. The medium type is obsolete.
    if (long_form)
        reply.zeros(8);
    else
        reply.zeros(4);
    bool found = false;
    const auto page = [&](ModePage which, std::span<const u8> body) {
        if (wanted != which && wanted != ModePage::All) return;
        found = true;
        reply.put8(static_cast<u8>(which));
        reply.put8(body.size());
        for (const u8 byte : body) reply.put8(control == kChangeable ? 0 : byte);  // nothing can be changed
    };
    page(ModePage::ErrorRecovery, std::array<u8, 10>{0, 5});
    page(ModePage::AudioControl, std::array<u8, 14>{4, 0, 0, 0, 0, 75, 1, 0xff, 2, 0xff});
    page(ModePage::PowerCondition, std::array<u8, 10>{});
    page(ModePage::Timeout, std::array<u8, 8>{});
    // Reads CD-R, CD-RW, DVD-ROM; mode 2 forms; locks, ejects, has a tray.
    const u8 lock = static_cast<u8>(0x29 | state_.locked << 1);
    constexpr u8 kSpeedHigh = 0x16;  // 32 times, in kB/s
    constexpr u8 kSpeedLow = 0x00;
    page(ModePage::Capabilities, std::array<u8, 20>{0x0b, 0, 0x70, 0, lock, 0, kSpeedHigh, kSpeedLow, 1, 0, 2,
                                                    0, kSpeedHigh, kSpeedLow});
    if (!found) return refuse(kInvalidField);
    if (long_form) {
        reply.set16(0, reply.size() - 2);
        return give(reply, get16(cdb, 7));
    }
    reply.set8(0, reply.size() - 1);
    return give(reply, cdb[4]);
}

// --- Table of contents [MMC-6 6.26] ---

MmcDrive::Answer MmcDrive::read_toc(Cdb cdb) {
    const u64 allocation = get16(cdb, 7);
    const bool in_time = (cdb[1] & kDescribeInTime) != 0;
    // Old drives' drivers put it into the control byte.
    const u8 format = (cdb[2] & 0xf) != 0 ? cdb[2] & 0xf : cdb[9] >> 6;
    Reply reply(buffer_);
    const auto address = [&](u64 block) {
        if (!in_time) return reply.put32(block);
        const u64 frames = std::min<u64>(block, 0xff'ffff) + kFirstTrackMsf;
        reply.put8(0);
        reply.put8(std::min<u64>(frames / kFramesPerMinute, 0xff));
        reply.put8(frames / 75 % 60);
        reply.put8(frames % 75);
    };
    const auto track = [&](u8 number, u64 block) {
        reply.put8(0);
        reply.put8(kDataTrack);
        reply.put8(number);
        reply.put8(0);
        address(block);
    };
    const u64 end = std::min<u64>(config_.blocks, 0xffff'ffff);
    reply.put16(0);
    reply.put8(1);  // first and last track, or session
    reply.put8(1);
    switch (format) {
        case 0:
            if (cdb[6] > 1 && cdb[6] != kLeadOut) return refuse(kInvalidField);
            if (cdb[6] <= 1) track(1, 0);
            track(kLeadOut, end);
            break;
        case 1: track(1, 0); break;
        case 2: {
            // Session 1: its first track, last track, lead-out, and the track itself.
            const auto entry = [&](u8 point, u8 minute, u8 second, u8 frame) {
                reply.put8(1);
                reply.put8(kDataTrack);
                reply.put8(0);
                reply.put8(point);
                reply.zeros(4);
                reply.put8(minute);
                reply.put8(second);
                reply.put8(frame);
            };
            const auto at = [&](u8 point, u64 block) {
                const u64 frames = std::min<u64>(block, 0xff'ffff) + kFirstTrackMsf;
                entry(point, static_cast<u8>(std::min<u64>(frames / kFramesPerMinute, 0xff)),
                      static_cast<u8>(frames / 75 % 60), static_cast<u8>(frames % 75));
            };
            entry(0xa0, 1, 0, 0);
            entry(0xa1, 1, 0, 0);
            at(0xa2, end);
            at(1, 0);
            break;
        }
        default: return refuse(kInvalidField);
    }
    reply.set16(0, reply.size() - 2);
    return give(reply, allocation);
}

// --- Features [MMC-6 6.5] ---

MmcDrive::Answer MmcDrive::get_configuration(Cdb cdb) {
    const u8 which = cdb[1] & 3;
    const u64 from = get16(cdb, 2);
    const u16 profile = !has_disc() ? 0 : is_dvd() ? kProfileDvd : kProfileCd;
    if (which == 3) return refuse(kInvalidField);
    Reply reply(buffer_);
    reply.zeros(6);
    reply.put16(profile);
    struct Feature {
        CdFeature number;
        u8 version;
        u8 flags;
        std::array<u8, 8> body;
        u8 size;
    };
    const auto current = [](bool is) { return static_cast<u8>(is ? kCurrent : 0); };
    const u8 cd = current(profile == kProfileCd);
    const u8 dvd = current(profile == kProfileDvd);
    constexpr u8 kAlways = kPersistent | kCurrent;
    const std::array<Feature, 9> features = {
        {{CdFeature::ProfileList, 0, kAlways, {0, kProfileDvd, dvd, 0, 0, kProfileCd, cd, 0}, 8},
         {CdFeature::Core, 2 << 2, kAlways, {0, 0, 0, 7, 1}, 8},  // on serial ATA
         {CdFeature::Morphing, 1 << 2, kAlways, {2}, 4},
         {CdFeature::RemovableMedium, 0, kAlways, {0x29}, 4},  // a tray that locks and ejects
         {CdFeature::RandomReadable, 0, current(profile != 0), {0, 0, 8, 0, 0, 1}, 8},
         {CdFeature::CdRead, 2 << 2, cd, {}, 4},
         {CdFeature::DvdRead, 0, dvd, {}, 0},
         {CdFeature::PowerManagement, 0, kAlways, {}, 0},
         {CdFeature::Timeout, 0, kAlways, {}, 0}}};
    for (const Feature& feature : features) {
        const auto number = static_cast<u16>(feature.number);
        if (number < from || (which == 2 && number != from) ||
            (which == 1 && (feature.flags & kCurrent) == 0))
            continue;
        reply.put16(number);
        reply.put8(feature.version | feature.flags);
        reply.put8(feature.size);
        for (u8 n = 0; n < feature.size; ++n) reply.put8(feature.body.at(n));
    }
    reply.set32(0, reply.size() - 4);
    return give(reply, get16(cdb, 7));
}

// --- Disc and track ---

// [MMC-6 6.21] One finished session of one track.
MmcDrive::Answer MmcDrive::disc_information(Cdb cdb) {
    if ((cdb[1] & 7) != 0) return refuse(kInvalidField);
    Reply reply(buffer_);
    reply.put16(32);
    reply.put8(0x0e);  // complete, and so is its last session
    reply.put8(1);     // first track
    reply.put8(1);     // sessions
    reply.put8(1);     // first and last track of the last session
    reply.put8(1);
    reply.put8(0x20);  // no bar code, unrestricted use
    reply.zeros(8);    // CD-ROM; no identification; no more sessions
    for (unsigned n = 0; n < 8; ++n) reply.put8(0xff);
    reply.zeros(10);
    return give(reply, get16(cdb, 7));
}

// [MMC-6 6.27] By block, track or session.
MmcDrive::Answer MmcDrive::track_information(Cdb cdb) {
    const u8 by = cdb[1] & 3;
    const u64 number = get16(cdb, 2) << 16 | get16(cdb, 4);
    const bool found = by == 0 ? number < config_.blocks : by != 3 && number == 1;
    if (!found) return refuse(kInvalidField);
    Reply reply(buffer_);
    reply.put16(34);
    reply.put8(1);  // track
    reply.put8(1);  // session
    reply.put8(0);
    reply.put8(4);  // a data track
    reply.put8(1);  // of mode 1
    reply.put8(0);
    reply.put32(0);  // where it begins; next writable; free; packet size
    reply.zeros(12);
    reply.put32(std::min<u64>(config_.blocks, 0xffff'ffff));
    reply.zeros(8);
    return give(reply, get16(cdb, 7));
}

}  // namespace tessera::ata
