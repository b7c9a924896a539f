// Registers and memory structures of a serial ATA host bus adapter [AHCI 3, 4]. Nothing but the specification
// lives here.
#pragma once

#include "base/flags.h"
#include "base/types.h"

namespace tessera::ahci {

inline constexpr unsigned kMostPorts = 32;
inline constexpr unsigned kSlots = 32;

// --- [AHCI 3.1] Generic host control, at the beginning of the BAR.
inline constexpr u64 kCap = 0x00;
inline constexpr u64 kGhc = 0x04;
inline constexpr u64 kIs = 0x08;
inline constexpr u64 kPi = 0x0c;
inline constexpr u64 kVs = 0x10;
inline constexpr u64 kCap2 = 0x24;
inline constexpr u64 kBohc = 0x28;
inline constexpr u64 kFirstPort = 0x100;
inline constexpr u64 kPortSize = 0x80;

enum class Cap : u32 {
    PartialCapable = 1 << 13,
    SlumberCapable = 1 << 14,
    PioMultipleBlocks = 1 << 15,
    AhciOnly = 1 << 18,
    CommandListOverride = 1 << 24,
    ActivityLed = 1 << 25,
    NativeQueueing = 1 << 30,
    Addresses64 = 1U << 31,
};
inline constexpr unsigned kCapSlotsShift = 8;
inline constexpr u32 kCapThirdGeneration = 3 << 20;
inline constexpr u32 kVersion131 = 0x0001'0301;

enum class Ghc : u32 { Reset = 1 << 0, InterruptEnable = 1 << 1, AhciEnable = 1U << 31 };
enum class Cap2 : u32 { Handoff = 1 << 0 };
// [AHCI 3.1.11]
enum class Bohc : u32 {
    FirmwareOwned = 1 << 0,
    SystemOwned = 1 << 1,
    SmiOnOwnership = 1 << 2,
    OwnershipChanged = 1 << 3,
    FirmwareBusy = 1 << 4,
};

// --- [AHCI 3.3] Port registers, from the port's place on.
inline constexpr u64 kPxClb = 0x00;
inline constexpr u64 kPxClbu = 0x04;
inline constexpr u64 kPxFb = 0x08;
inline constexpr u64 kPxFbu = 0x0c;
inline constexpr u64 kPxIs = 0x10;
inline constexpr u64 kPxIe = 0x14;
inline constexpr u64 kPxCmd = 0x18;
inline constexpr u64 kPxTfd = 0x20;
inline constexpr u64 kPxSig = 0x24;
inline constexpr u64 kPxSsts = 0x28;
inline constexpr u64 kPxSctl = 0x2c;
inline constexpr u64 kPxSerr = 0x30;
inline constexpr u64 kPxSact = 0x34;
inline constexpr u64 kPxCi = 0x38;

// [AHCI 3.3.5]
enum class PxIs : u32 {
    RegisterFis = 1 << 0,
    PioSetupFis = 1 << 1,
    DmaSetupFis = 1 << 2,
    SetDeviceBitsFis = 1 << 3,
    UnknownFis = 1 << 4,
    DescriptorProcessed = 1 << 5,
    PortConnect = 1 << 6,
    MechanicalPresence = 1 << 7,
    PhyReadyChange = 1 << 22,
    PortMultiplier = 1 << 23,
    Overflow = 1 << 24,
    InterfaceNonFatal = 1 << 26,
    InterfaceFatal = 1 << 27,
    HostBusData = 1 << 28,
    HostBusFatal = 1 << 29,
    TaskFileError = 1 << 30,
    ColdPresence = 1U << 31,
};
// Not those that mirror PxSERR.
inline constexpr u32 kPxIsClearable = 0xfd80'00af;
inline constexpr u32 kPxIeWritable = 0xfdc0'00ff;

// [AHCI 3.3.7]
enum class PxCmd : u32 {
    Start = 1 << 0,
    SpinUp = 1 << 1,
    PowerOn = 1 << 2,
    CommandListOverride = 1 << 3,
    FisReceive = 1 << 4,
    FisReceiveRunning = 1 << 14,
    CommandListRunning = 1 << 15,
    IsAtapi = 1 << 24,
    AtapiLed = 1 << 25,
};
inline constexpr unsigned kPxCmdSlotShift = 8;
inline constexpr unsigned kPxCmdInterfaceShift = 28;
inline constexpr u32 kIccActive = 1;
inline constexpr u32 kIccPartial = 2;
inline constexpr u32 kIccSlumber = 6;

inline constexpr u8 kTfdNothing = 0x7f;  // as long as no device has said anything

// [AHCI 3.3.10], [AHCI 3.3.11]
inline constexpr u32 kDetNone = 0;
inline constexpr u32 kDetPresent = 1;  // no communication yet; in PxSCTL: reset the link
inline constexpr u32 kDetReady = 3;
inline constexpr u32 kDetOffline = 4;
inline constexpr u32 kDetMask = 0xf;
inline constexpr unsigned kSpeedShift = 4;
inline constexpr u32 kSpeedMask = 0xf;
inline constexpr unsigned kPowerShift = 8;
inline constexpr u32 kPowerMask = 0xf;
inline constexpr u32 kNoPartial = 1;  // of PxSCTL.IPM
inline constexpr u32 kNoSlumber = 2;
inline constexpr u32 kSctlWritable = 0xfff;

// [AHCI 3.3.12]
enum class PxSerr : u32 {
    ProtocolError = 1 << 10,
    InternalError = 1 << 11,
    PhyReadyChange = 1 << 16,
    UnknownFis = 1 << 25,
    Exchanged = 1 << 26,
};
inline constexpr u32 kSerrBits = 0x07ff'0f03;

// --- [AHCI 4.2.1] The received FISes of a port.
inline constexpr u64 kReceivedDmaSetup = 0x00;
inline constexpr u64 kReceivedPioSetup = 0x20;
inline constexpr u64 kReceivedRegister = 0x40;
inline constexpr u64 kReceivedSetDeviceBits = 0x58;

// --- [AHCI 4.2.2] The command list: 32 headers.
inline constexpr u64 kHeaderSize = 32;
inline constexpr u64 kHeaderByteCount = 4;  // where PRDBC is
enum class Header : u32 {
    Atapi = 1 << 5,
    Write = 1 << 6,
    Prefetchable = 1 << 7,
    Reset = 1 << 8,
    Bist = 1 << 9,
    ClearBusy = 1 << 10,
};
inline constexpr u32 kHeaderFisLength = 0x1f;  // double words
inline constexpr unsigned kHeaderEntriesShift = 16;
inline constexpr u64 kTableAlignment = 128;

// --- [AHCI 4.2.3] A command table: the FIS, an ATAPI command, physical regions.
inline constexpr u64 kTableAtapi = 0x40;
inline constexpr u64 kTableRegions = 0x80;
inline constexpr u64 kRegionSize = 16;
inline constexpr u32 kRegionInterrupt = 1U << 31;
inline constexpr u32 kRegionBytes = 0x3f'ffff;  // less one; always odd

// --- [SATA 10.5] Frame information structures.
enum class FisType : u8 {
    RegisterToDevice = 0x27,
    RegisterToHost = 0x34,
    DmaSetup = 0x41,
    PioSetup = 0x5f,
    SetDeviceBits = 0xa1,
};
inline constexpr std::size_t kFisRegisterSize = 20;
inline constexpr std::size_t kFisDmaSetupSize = 28;
inline constexpr std::size_t kFisSetDeviceBitsSize = 8;
inline constexpr u8 kFisCommand = 0x80;    // to the device: a command, not the control register
inline constexpr u8 kFisInterrupt = 0x40;  // to the host
inline constexpr u8 kFisToHost = 0x20;     // direction, in setups

}  // namespace tessera::ahci
