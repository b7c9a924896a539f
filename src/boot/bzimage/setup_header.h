// The setup header of a Linux kernel file, and the boot_params page ("zero page") it is handed back in:
// offsets and values of the Linux/x86 boot protocol 2.00 - 2.15, and nothing else. [LINUX-BOOT "The Real-Mode
// Kernel Header"], [LINUX-ZEROPAGE]. The header has the same offsets in the file and in the page.
#pragma once

#include <cstddef>

#include "base/types.h"

namespace tessera::boot::linux_header {

inline constexpr std::size_t kSetupSects = 0x1f1;         // u8
inline constexpr std::size_t kSysSize = 0x1f4;            // u32 (u16 before 2.04), in 16-byte paragraphs
inline constexpr std::size_t kVidMode = 0x1fa;            // u16
inline constexpr std::size_t kBootFlag = 0x1fe;           // u16
inline constexpr std::size_t kJump = 0x200;               // u8 opcode, u8 displacement: the header's end
inline constexpr std::size_t kHeader = 0x202;             // "HdrS"
inline constexpr std::size_t kVersion = 0x206;            // u16
inline constexpr std::size_t kTypeOfLoader = 0x210;       // u8
inline constexpr std::size_t kLoadFlags = 0x211;          // u8
inline constexpr std::size_t kCode32Start = 0x214;        // u32
inline constexpr std::size_t kRamdiskImage = 0x218;       // u32
inline constexpr std::size_t kRamdiskSize = 0x21c;        // u32
inline constexpr std::size_t kHeapEndPtr = 0x224;         // u16, 2.01
inline constexpr std::size_t kCmdLinePtr = 0x228;         // u32, 2.02
inline constexpr std::size_t kInitrdAddrMax = 0x22c;      // u32, 2.03
inline constexpr std::size_t kKernelAlignment = 0x230;    // u32, 2.05
inline constexpr std::size_t kRelocatableKernel = 0x234;  // u8, 2.05
inline constexpr std::size_t kXLoadFlags = 0x236;         // u16, 2.12
inline constexpr std::size_t kCmdlineSize = 0x238;        // u32, 2.06
inline constexpr std::size_t kPayloadOffset = 0x248;      // u32, 2.08, from the protected-mode part
inline constexpr std::size_t kPayloadLength = 0x24c;      // u32, 2.08
inline constexpr std::size_t kSetupData = 0x250;          // u64, 2.09
inline constexpr std::size_t kPrefAddress = 0x258;        // u64, 2.10
inline constexpr std::size_t kInitSize = 0x260;           // u32, 2.10
inline constexpr std::size_t kHeaderLimit = 0x290;        // nothing of the header lies beyond

inline constexpr u16 kBootFlagValue = 0xaa55;
inline constexpr u32 kHeaderMagic = 0x5372'6448;  // "HdrS"

// loadflags
inline constexpr u8 kLoadedHigh = 1 << 0;
inline constexpr u8 kKaslr = 1 << 1;  // told to the kernel: it was put at a random place
inline constexpr u8 kKeepSegments = 1 << 6;
inline constexpr u8 kCanUseHeap = 1 << 7;
// xloadflags
inline constexpr u16 kXlfKernel64 = 1 << 0;
inline constexpr u16 kXlfCanBeLoadedAbove4G = 1 << 1;

inline constexpr u8 kLoaderUndefined = 0xff;  // a boot loader without an assigned number
inline constexpr u16 kVideoNormal = 0xffff;

inline constexpr u32 kInitrdAddrMaxBefore203 = 0x37ff'ffff;
inline constexpr u32 kCmdlineSizeBefore206 = 255;
inline constexpr u64 kSectorSize = 512;
inline constexpr u64 kEntry64Offset = 0x200;  // startup_64 from the load address

}  // namespace tessera::boot::linux_header

namespace tessera::boot::boot_params {

inline constexpr std::size_t kSize = 4096;
inline constexpr std::size_t kExtMemK = 0x002;           // screen_info.ext_mem_k, u16: KiB above 1 MiB
inline constexpr std::size_t kOldCmdLineMagic = 0x020;   // u16, protocol 2.00 and 2.01
inline constexpr std::size_t kOldCmdLineOffset = 0x022;  // u16, from the page's start
inline constexpr std::size_t kAcpiRsdpAddr = 0x070;      // u64, 2.14
inline constexpr std::size_t kExtRamdiskImage = 0x0c0;   // u32: bits 63-32
inline constexpr std::size_t kExtRamdiskSize = 0x0c4;    // u32
inline constexpr std::size_t kExtCmdLinePtr = 0x0c8;     // u32
inline constexpr std::size_t kAltMemK = 0x1e0;           // u32: KiB above 1 MiB
inline constexpr std::size_t kE820Entries = 0x1e8;       // u8
inline constexpr std::size_t kE820Table = 0x2d0;         // 20 bytes each
inline constexpr std::size_t kE820Max = 128;

inline constexpr u16 kOldCmdLineMagicValue = 0xa33f;

// struct setup_data: u64 next, u32 type, u32 len, data
inline constexpr u32 kSetupDataRngSeed = 9;

}  // namespace tessera::boot::boot_params
