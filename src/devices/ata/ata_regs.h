// Registers and commands of ATA and ATAPI devices [ACS-3]. Nothing but the specification lives here.
#pragma once

#include "base/flags.h"
#include "base/types.h"

namespace tessera::ata {

// [ACS-3 6.2]
enum class Status : u8 {
    Error = 1 << 0,  // of PACKET: check condition
    DataRequest = 1 << 3,
    SeekComplete = 1 << 4,  // obsolete, and set by everything there is
    DeviceFault = 1 << 5,
    Ready = 1 << 6,
    Busy = 1 << 7,
};
// [ACS-3 6.3]
enum class Error : u8 {
    EndOfMedia = 1 << 1,
    Abort = 1 << 2,
    IdNotFound = 1 << 4,
    Uncorrectable = 1 << 6,
    InterfaceCrc = 1 << 7,
};
inline constexpr unsigned kSenseKeyShift = 4;  // of PACKET's error register [ACS-3 6.3.9]
// The count register after PACKET [ACS-3 7.18.4]: which way the data goes, and whether it is a command's.
enum class InterruptReason : u8 { CommandOrData = 1 << 0, InOrOut = 1 << 1 };

inline constexpr u8 kDeviceLba = 1 << 6;
inline constexpr u8 kDeviceFua = 1 << 7;     // of FPDMA QUEUED
inline constexpr u8 kControlReset = 1 << 2;  // SRST of the device control register

// [ACS-3 7], and a few of older editions that drivers still use.
enum class Opcode : u8 {
    Nop = 0x00,
    DataSetManagement = 0x06,
    DeviceReset = 0x08,
    Recalibrate = 0x10,
    ReadSectors = 0x20,
    ReadSectorsNoRetry = 0x21,
    ReadSectorsExt = 0x24,
    ReadDmaExt = 0x25,
    ReadNativeMaxExt = 0x27,
    ReadMultipleExt = 0x29,
    ReadLogExt = 0x2f,
    WriteSectors = 0x30,
    WriteSectorsNoRetry = 0x31,
    WriteSectorsExt = 0x34,
    WriteDmaExt = 0x35,
    WriteMultipleExt = 0x39,
    WriteDmaFuaExt = 0x3d,
    ReadVerify = 0x40,
    ReadVerifyNoRetry = 0x41,
    ReadVerifyExt = 0x42,
    ReadLogDmaExt = 0x47,
    ReadFpdmaQueued = 0x60,
    WriteFpdmaQueued = 0x61,
    Seek = 0x70,
    ExecuteDiagnostic = 0x90,
    InitializeParameters = 0x91,
    StandbyImmediateOld = 0x94,
    IdleImmediateOld = 0x95,
    StandbyOld = 0x96,
    IdleOld = 0x97,
    CheckPowerModeOld = 0x98,
    SleepOld = 0x99,
    Packet = 0xa0,
    IdentifyPacketDevice = 0xa1,
    Smart = 0xb0,
    ReadMultiple = 0xc4,
    WriteMultiple = 0xc5,
    SetMultiple = 0xc6,
    ReadDma = 0xc8,
    ReadDmaNoRetry = 0xc9,
    WriteDma = 0xca,
    WriteDmaNoRetry = 0xcb,
    WriteMultipleFuaExt = 0xce,
    StandbyImmediate = 0xe0,
    IdleImmediate = 0xe1,
    Standby = 0xe2,
    Idle = 0xe3,
    ReadBuffer = 0xe4,
    CheckPowerMode = 0xe5,
    Sleep = 0xe6,
    FlushCache = 0xe7,
    WriteBuffer = 0xe8,
    ReadBufferDma = 0xe9,
    FlushCacheExt = 0xea,
    WriteBufferDma = 0xeb,
    IdentifyDevice = 0xec,
    SetFeatures = 0xef,
    ReadNativeMax = 0xf8,
};

// [ACS-3 7.45] SET FEATURES, in the features register.
enum class Feature : u8 {
    EnableWriteCache = 0x02,
    SetTransferMode = 0x03,
    DisableLookAhead = 0x55,
    DisableReverting = 0x66,
    DisableWriteCache = 0x82,
    EnableLookAhead = 0xaa,
    EnableReverting = 0xcc,
};

// [ACS-3 7.48] SMART, in the features register.
enum class SmartFeature : u8 {
    ReadData = 0xd0,
    ReadThresholds = 0xd1,  // obsolete, and asked for
    Autosave = 0xd2,
    SaveValues = 0xd3,
    ReadLog = 0xd5,
    Enable = 0xd8,
    Disable = 0xd9,
    ReturnStatus = 0xda,
};
inline constexpr u64 kSmartSignature = 0xc2'4f'00;  // LBA bits 23:8
inline constexpr u64 kSmartFailing = 0x2c'f4'00;

// [ACS-3 A] General purpose logs.
inline constexpr u8 kLogDirectory = 0x00;
inline constexpr u8 kLogSummaryError = 0x01;   // SMART's
inline constexpr u8 kLogExtendedError = 0x03;  // the general purpose one
inline constexpr u8 kLogQueueError = 0x10;
inline constexpr u8 kLogPhyEvents = 0x11;
inline constexpr u8 kLogIdentify = 0x30;

inline constexpr u8 kTrim = 1;  // DATA SET MANAGEMENT, in the features register

// What the registers hold after a reset, by which a host tells devices apart.
inline constexpr u64 kDiskSignature = 0x00'00'01;
inline constexpr u64 kPacketSignature = 0xeb'14'01;
inline constexpr u8 kDiagnosticPassed = 1;

// [ACS-3 7.3.2] CHECK POWER MODE, in the count register.
enum class PowerMode : u8 { Standby = 0x00, Idle = 0x80, Active = 0xff };

}  // namespace tessera::ata
