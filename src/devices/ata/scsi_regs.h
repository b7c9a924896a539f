// SCSI commands of a CD drive, sense codes, mode pages, features [SPC-3], [MMC-6]. Nothing but the
// specifications lives here.
#pragma once

#include "base/types.h"

namespace tessera::ata {

inline constexpr u8 kCdDevice = 5;          // peripheral device type
inline constexpr u8 kRemovable = 0x80;      // INQUIRY byte 1
inline constexpr u64 kCdBlock = 2048;       // bytes
inline constexpr u32 kFirstTrackMsf = 150;  // frames before block 0
inline constexpr u8 kDataTrack = 0x14;      // address 1, data track that must not be copied over
inline constexpr u8 kLeadOut = 0xaa;

enum class ScsiOpcode : u8 {
    TestUnitReady = 0x00,
    RequestSense = 0x03,
    Inquiry = 0x12,
    ModeSense6 = 0x1a,
    StartStopUnit = 0x1b,
    PreventAllow = 0x1e,
    ReadFormatCapacities = 0x23,
    ReadCapacity = 0x25,
    Read10 = 0x28,
    Seek10 = 0x2b,
    SynchronizeCache = 0x35,
    ReadToc = 0x43,
    GetConfiguration = 0x46,
    GetEventStatus = 0x4a,
    ReadDiscInformation = 0x51,
    ReadTrackInformation = 0x52,
    ModeSense10 = 0x5a,
    ReportLuns = 0xa0,
    Read12 = 0xa8,
    SetCdSpeed = 0xbb,
    MechanismStatus = 0xbd,
    ReadCd = 0xbe,
};

enum class SenseKey : u8 {
    None = 0,
    NotReady = 2,
    MediumError = 3,
    IllegalRequest = 5,
    UnitAttention = 6,
};

// Key, additional code and its qualifier [SPC-3 4.5.6].
struct Sense {
    SenseKey key = SenseKey::None;
    u8 code = 0;
    u8 qualifier = 0;
};
inline constexpr Sense kNoSense{};
inline constexpr Sense kNoMediumClosed{.key = SenseKey::NotReady, .code = 0x3a, .qualifier = 1};
inline constexpr Sense kNoMediumOpen{.key = SenseKey::NotReady, .code = 0x3a, .qualifier = 2};
inline constexpr Sense kReadError{.key = SenseKey::MediumError, .code = 0x11, .qualifier = 0};
inline constexpr Sense kInvalidOpcode{.key = SenseKey::IllegalRequest, .code = 0x20, .qualifier = 0};
inline constexpr Sense kOutOfRange{.key = SenseKey::IllegalRequest, .code = 0x21, .qualifier = 0};
inline constexpr Sense kInvalidField{.key = SenseKey::IllegalRequest, .code = 0x24, .qualifier = 0};
inline constexpr Sense kSavingUnsupported{.key = SenseKey::IllegalRequest, .code = 0x39, .qualifier = 0};
inline constexpr Sense kRemovalPrevented{.key = SenseKey::IllegalRequest, .code = 0x53, .qualifier = 2};
inline constexpr Sense kWrongTrackMode{.key = SenseKey::IllegalRequest, .code = 0x64, .qualifier = 0};
inline constexpr Sense kMediumChanged{.key = SenseKey::UnitAttention, .code = 0x28, .qualifier = 0};
inline constexpr Sense kWasReset{.key = SenseKey::UnitAttention, .code = 0x29, .qualifier = 0};

// [MMC-6 5.2]
enum class CdFeature : u16 {
    ProfileList = 0x0000,
    Core = 0x0001,
    Morphing = 0x0002,
    RemovableMedium = 0x0003,
    RandomReadable = 0x0010,
    CdRead = 0x001e,
    DvdRead = 0x001f,
    PowerManagement = 0x0100,
    Timeout = 0x0105,
};
inline constexpr u16 kProfileCd = 0x0008;
inline constexpr u16 kProfileDvd = 0x0010;

// [MMC-6 6.6.2] Media events.
enum class MediaEvent : u8 { None = 0, EjectRequest = 1, New = 2, Removed = 3 };
inline constexpr u8 kMediaClass = 4;

// [MMC-6 7], [SPC-3 7.4]
enum class ModePage : u8 {
    ErrorRecovery = 0x01,
    AudioControl = 0x0e,
    PowerCondition = 0x1a,
    Timeout = 0x1d,
    Capabilities = 0x2a,
    All = 0x3f,
};

}  // namespace tessera::ata
