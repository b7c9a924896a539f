// The ACPI tables of a board, as bytes: RSDP, XSDT, RSDT, FADT (revision 6), FACS, DSDT, MADT, MCFG and HPET,
// made from the board's description without a compiler. [ACPI 6.5 5.2]
#pragma once

#include <vector>

#include "base/result.h"
#include "base/types.h"
#include "boot/board.h"

namespace tessera::boot {

struct AcpiTables {
    std::vector<std::byte> bytes;  // to lie at the address they were made for; the RSDP is at their start
    u64 rsdp;                      // guest physical
};

// Tables for [base, end), both below 4 GiB, `base` a multiple of 64. Fails when they do not fit.
[[nodiscard]] Result<AcpiTables> make_acpi_tables(const BoardDescription& board, u64 base, u64 end);

// One table each, complete with header and checksum.
[[nodiscard]] std::vector<std::byte> make_fadt(const BoardDescription& board, u32 facs, u32 dsdt);
[[nodiscard]] std::vector<std::byte> make_madt(const BoardDescription& board);
[[nodiscard]] std::vector<std::byte> make_dsdt(const BoardDescription& board);
// For boards that have these.
[[nodiscard]] std::vector<std::byte> make_mcfg(const PciDescription& pci);
[[nodiscard]] std::vector<std::byte> make_hpet(const HpetDescription& hpet);

}  // namespace tessera::boot
