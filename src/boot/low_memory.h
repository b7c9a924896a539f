// Where the loader puts what it hands to a kernel, below 1 MiB. Of the part below 640 KiB only the BIOS data
// areas survive the kernel's start.
#pragma once

#include "base/types.h"
#include "boot/board.h"

namespace tessera::boot::low_memory {

inline constexpr u64 kBiosData = 0x400;  // 256 bytes
inline constexpr u64 kGdt = 0x600;
inline constexpr u64 kPvhInfo = 0x1000;  // hvm_start_info, its module list and memory map: 4 KiB
inline constexpr u64 kPml4 = 0x2000;     // six pages: PML4, PDPT, four page directories
inline constexpr u64 kPageTablesEnd = 0x8000;
inline constexpr u64 kStackTop = 0x1'0000;  // from kPageTablesEnd
inline constexpr u64 kSetupData = 0x1'0000;
inline constexpr u64 kSetupDataEnd = 0x9'0000;
// Page and command line share a 64 KiB segment, as the protocols before 2.02 need.
inline constexpr u64 kBootParams = 0x9'0000;
inline constexpr u64 kCommandLine = 0x9'1000;
inline constexpr u64 kCommandLineEnd = kEbdaBase;

// ACPI from kTablesBase; MP table and SMBIOS in the segment that is searched for their entry points.
inline constexpr u64 kAcpiTablesEnd = 0xf'0000;
inline constexpr u64 kSmbios = 0xf'0000;
inline constexpr u64 kMpTable = 0xf'2000;
inline constexpr u64 kMpTableEnd = 0xf'8000;

}  // namespace tessera::boot::low_memory
