// Configuration space of PCI functions: registers, bits, capability numbers; the specification and nothing
// else.
#pragma once

#include "base/types.h"

namespace tessera::pci {

inline constexpr u16 kConventionalSize = 256;
inline constexpr u16 kExtendedSize = 4096;  // [PCIE 7.2]
inline constexpr unsigned kDevicesPerBus = 32;
inline constexpr unsigned kFunctionsPerDevice = 8;
inline constexpr unsigned kPins = 4;

// Offsets in every header [PCI 6.1].
inline constexpr u16 kVendorId = 0x00;
inline constexpr u16 kDeviceId = 0x02;
inline constexpr u16 kCommand = 0x04;
inline constexpr u16 kStatus = 0x06;
inline constexpr u16 kRevision = 0x08;
inline constexpr u16 kClassCode = 0x09;  // three bytes: interface, subclass, class
inline constexpr u16 kCacheLineSize = 0x0c;
inline constexpr u16 kLatencyTimer = 0x0d;
inline constexpr u16 kHeaderType = 0x0e;
inline constexpr u16 kBars = 0x10;
inline constexpr u16 kCapabilities = 0x34;
inline constexpr u16 kInterruptLine = 0x3c;
inline constexpr u16 kInterruptPin = 0x3d;
// Type 0 only.
inline constexpr u16 kSubsystemVendor = 0x2c;
inline constexpr u16 kSubsystem = 0x2e;
inline constexpr u16 kRomBar = 0x30;
// Type 1 only [PCI-BRIDGE 3.2].
inline constexpr u16 kPrimaryBus = 0x18;
inline constexpr u16 kSecondaryBus = 0x19;
inline constexpr u16 kSubordinateBus = 0x1a;
inline constexpr u16 kSecondaryLatency = 0x1b;
inline constexpr u16 kIoBase = 0x1c;
inline constexpr u16 kIoLimit = 0x1d;
inline constexpr u16 kSecondaryStatus = 0x1e;
inline constexpr u16 kMemoryBase = 0x20;
inline constexpr u16 kMemoryLimit = 0x22;
inline constexpr u16 kPrefetchBase = 0x24;
inline constexpr u16 kPrefetchLimit = 0x26;
inline constexpr u16 kPrefetchBaseUpper = 0x28;
inline constexpr u16 kPrefetchLimitUpper = 0x2c;
inline constexpr u16 kIoBaseUpper = 0x30;
inline constexpr u16 kIoLimitUpper = 0x32;
inline constexpr u16 kBridgeRomBar = 0x38;
inline constexpr u16 kBridgeControl = 0x3e;

inline constexpr u16 kFirstCapability = 0x40;
inline constexpr u16 kFirstExtendedCapability = 0x100;

// [PCI 6.2.2]
enum class Command : u16 {
    Io = 1 << 0,
    Memory = 1 << 1,
    BusMaster = 1 << 2,
    ParityErrorResponse = 1 << 6,
    Serr = 1 << 8,
    IntxDisable = 1 << 10,
};
// [PCI 6.2.3]
enum class PciStatus : u16 {
    Interrupt = 1 << 3,
    CapabilityList = 1 << 4,
};
// [PCI-BRIDGE 3.2.5.18]
enum class BridgeControl : u16 {
    ParityErrorResponse = 1 << 0,
    Serr = 1 << 1,
    SecondaryReset = 1 << 6,
};

inline constexpr u8 kMultifunction = 0x80;  // in the header type

// [PCI 6.2.5.1]
inline constexpr u32 kBarIo = 1;
inline constexpr u32 kBarMemory64 = 4;
inline constexpr u32 kBarPrefetchable = 8;
inline constexpr u32 kRomEnable = 1;  // [PCI 6.2.5.2]

// [PCI appendix H] and the PCI Code and ID Assignment Specification
enum class CapabilityId : u8 {
    PowerManagement = 0x01,
    Msi = 0x05,
    Vendor = 0x09,
    Express = 0x10,
    Msix = 0x11
};

// [PCI 6.8.1.3]
enum class MsiControl : u16 { Enable = 1 << 0, Is64Bit = 1 << 7, Maskable = 1 << 8 };
inline constexpr unsigned kMsiCapableShift = 1;  // log2 of the messages wanted
inline constexpr unsigned kMsiEnabledShift = 4;  // log2 of the messages granted
// [PCI 6.8.2.3]
enum class MsixControl : u16 { FunctionMask = 1 << 14, Enable = 1 << 15 };
inline constexpr u64 kMsixEntrySize = 16;
inline constexpr unsigned kMsixVectorsMost = 2048;
inline constexpr u32 kMsixEntryMasked = 1;

// [PCI-PM 3.2.4]
inline constexpr u16 kPowerStateMask = 3;
inline constexpr u16 kPowerStateD3 = 3;
inline constexpr u16 kNoSoftReset = 1 << 3;

}  // namespace tessera::pci
