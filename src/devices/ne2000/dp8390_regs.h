// Registers and bits of the DP8390D network interface controller [DP8390D 10.0], and of the pages and ports
// around it on NE2000 boards and in the RTL8029AS.
#pragma once

#include "base/types.h"

namespace tessera::ne2000 {

// --- The chip: sixteen registers, of which four pages are switched by the command register. Names are those
// of the data sheet.

inline constexpr unsigned kChipRegisters = 16;
inline constexpr unsigned kCommandRegister = 0;

// Page 0.
enum class Read0 : u8 {
    Cr,
    Clda0,
    Clda1,
    Bnry,
    Tsr,
    Ncr,
    Fifo,
    Isr,
    Crda0,
    Crda1,
    Id0,  // RTL8029AS; reserved in the DP8390D
    Id1,
    Rsr,
    Cntr0,
    Cntr1,
    Cntr2,
};
enum class Write0 : u8 {
    Cr,
    Pstart,
    Pstop,
    Bnry,
    Tpsr,
    Tbcr0,
    Tbcr1,
    Isr,
    Rsar0,
    Rsar1,
    Rbcr0,
    Rbcr1,
    Rcr,
    Tcr,
    Dcr,
    Imr,
};
// Page 1, read and written alike: PAR0-5, CURR, MAR0-7.
inline constexpr unsigned kPar0 = 1;
inline constexpr unsigned kCurr = 7;
inline constexpr unsigned kMar0 = 8;
// Page 2: what page 0 only takes, and the counters inside.
enum class Read2 : u8 {
    Cr,
    Pstart,
    Pstop,
    RemoteNext,
    Tpsr,
    LocalNext,
    AddressCounterUpper,
    AddressCounterLower,
    Reserved8,
    Reserved9,
    ReservedA,
    ReservedB,
    Rcr,
    Tcr,
    Dcr,
    Imr,
};
enum class Write2 : u8 {
    Clda0 = 1,
    Clda1 = 2,
    RemoteNext = 3,
    LocalNext = 5,
    AddressCounterUpper = 6,
    AddressCounterLower = 7,
};

enum class Command : u8 {
    Stop = 0x01,
    Start = 0x02,
    Transmit = 0x04,
    RemoteRead = 0x08,
    RemoteWrite = 0x10,
    RemoteAbort = 0x20,
    Page0 = 0x40,
    Page1 = 0x80,
};
inline constexpr u8 kRemoteMask = 0x38;
inline constexpr u8 kRemoteRead = 0x08;
inline constexpr u8 kRemoteWrite = 0x10;
inline constexpr u8 kRemoteSend = 0x18;
inline constexpr unsigned kPageShift = 6;

enum class Interrupt : u8 {
    Received = 0x01,         // PRX
    Transmitted = 0x02,      // PTX
    ReceiveError = 0x04,     // RXE
    TransmitError = 0x08,    // TXE
    Overwrite = 0x10,        // OVW
    CounterOverflow = 0x20,  // CNT
    RemoteComplete = 0x40,   // RDC
    Reset = 0x80,            // RST: no interrupt
};

enum class DataConfig : u8 {
    WordTransfer = 0x01,    // WTS
    ByteOrder = 0x02,       // BOS: the first byte is the upper one
    LongAddress = 0x04,     // LAS
    Normal = 0x08,          // LS: no loopback
    AutoInitialize = 0x10,  // AR: the send command works
    Fifo0 = 0x20,
    Fifo1 = 0x40,
};
inline constexpr u8 kDataConfigBits = 0x7f;
inline constexpr u8 kDataConfigOnes = 0x80;  // reserved, read as ones

enum class TransmitConfig : u8 {
    InhibitCrc = 0x01,
    Loopback0 = 0x02,
    Loopback1 = 0x04,
    AutoDisable = 0x08,      // ATD
    CollisionOffset = 0x10,  // OFST
};
inline constexpr u8 kTransmitConfigBits = 0x1f;
inline constexpr u8 kTransmitConfigOnes = 0xe0;
inline constexpr u8 kLoopbackMask = 0x06;
inline constexpr u8 kLoopbackController = 0x02;  // mode 1: inside the chip
inline constexpr u8 kLoopbackEncoder = 0x04;     // mode 2: through the encoder

enum class ReceiveConfig : u8 {
    SaveErrors = 0x01,   // SEP
    Runts = 0x02,        // AR
    Broadcast = 0x04,    // AB
    Multicast = 0x08,    // AM
    Promiscuous = 0x10,  // PRO
    Monitor = 0x20,      // MON
};
inline constexpr u8 kReceiveConfigBits = 0x3f;
inline constexpr u8 kReceiveConfigOnes = 0xc0;

enum class TransmitStatus : u8 {
    Transmitted = 0x01,
    AlwaysOne = 0x02,
    Collided = 0x04,
    Aborted = 0x08,
    CarrierLost = 0x10,
    Underrun = 0x20,
    Heartbeat = 0x40,  // none was seen
    OutOfWindow = 0x80,
};

enum class ReceiveStatus : u8 {
    Intact = 0x01,
    CrcError = 0x02,
    AlignmentError = 0x04,
    Overrun = 0x08,
    Missed = 0x10,
    Group = 0x20,     // PHY: a multicast or broadcast address
    Disabled = 0x40,  // DIS: by monitor mode
    Deferring = 0x80,
};

inline constexpr unsigned kTallyCount = 3;
inline constexpr u8 kTallyLimit = 192;  // [DP8390D 10.0] where the counters stop
inline constexpr u8 kTallyWarning = 128;
inline constexpr std::size_t kLoopbackFifo = 8;  // the half that receives in loopback
inline constexpr std::size_t kPageSize = 256;
inline constexpr std::size_t kPacketHeader = 4;  // status, next page, byte count
inline constexpr std::size_t kLeastPacket = 64;  // bytes with the check sequence; below: a runt

// --- The board: 32 ports.
inline constexpr u64 kPortCount = 32;
inline constexpr u64 kDataPort = 0x10;   // to 17h
inline constexpr u64 kResetPort = 0x18;  // to 1Fh

// What the chip's local bus reaches.
inline constexpr u16 kStationRomEnd = 0x4000;  // 32 bytes, again and again
inline constexpr u16 kStationRomSize = 32;
inline constexpr u16 kRamBase = 0x4000;
inline constexpr u16 kRamSize = 0x4000;

// --- RTL8029AS [RTL8029AS 5].
inline constexpr u8 kRealtekId0 = 0x50;  // 'P', 'C'
inline constexpr u8 kRealtekId1 = 0x43;
// Page 3.
enum class Realtek : u8 {
    EepromCommand = 1,  // 9346CR
    Config0 = 3,
    Config2 = 5,
    Config3 = 6,
    HaltClock = 9,
    Id0 = 14,
    Id1 = 15,
};
inline constexpr u8 kRealtekPciId0 = 0x29;
inline constexpr u8 kRealtekPciId1 = 0x80;
// 9346CR: mode in the two upper bits, the lines to the EEPROM below.
inline constexpr u8 kEepromModeMask = 0xc0;
inline constexpr u8 kEepromModeConfig = 0xc0;  // CONFIG registers can be written
inline constexpr u8 kEepromModeLoad = 0x40;
inline constexpr u8 kEepromOutLines = 0x0e;  // EECS, EESK, EEDI
// CONFIG2: medium, flow control; CONFIG3: duplex, lamps, power.
inline constexpr u8 kConfig2Reset = 0x40;  // 10BaseT
inline constexpr u8 kConfig2Writable = 0xe0;
inline constexpr u8 kConfig3Reset = 0x40;     // full duplex
inline constexpr u8 kConfig3Writable = 0x06;  // SLEEP, PWRDN; the others are the EEPROM's

}  // namespace tessera::ne2000
