// ACPI fixed hardware registers, as [ACPI 6.5 4.8] prints them. Nothing but the specification.
#pragma once

#include "base/types.h"

namespace tessera::acpi_pm {

// [ACPI 6.5 4.8.3.1.1] PM1 Status: write 1 to clear.
enum class Pm1Status : u16 {
    TMR_STS = 1 << 0,
    BM_STS = 1 << 4,
    GBL_STS = 1 << 5,
    PWRBTN_STS = 1 << 8,
    SLPBTN_STS = 1 << 9,
    RTC_STS = 1 << 10,
    PCIEXP_WAKE_STS = 1 << 14,
    WAK_STS = 1 << 15,
};

// [ACPI 6.5 4.8.3.1.2] PM1 Enable: the same places as the status they let through to the SCI.
enum class Pm1Enable : u16 {
    TMR_EN = 1 << 0,
    GBL_EN = 1 << 5,
    PWRBTN_EN = 1 << 8,
    SLPBTN_EN = 1 << 9,
    RTC_EN = 1 << 10,
    PCIEXP_WAKE_DIS = 1 << 14,
};

// [ACPI 6.5 4.8.3.2.1] PM1 Control. GBL_RLS and SLP_EN are write-only.
enum class Pm1Control : u16 { SCI_EN = 1 << 0, BM_RLD = 1 << 1, GBL_RLS = 1 << 2, SLP_EN = 1 << 13 };
inline constexpr u16 kSleepTypeMask = 0x1c00;
inline constexpr unsigned kSleepTypeShift = 10;

// [ACPI 6.5 4.8.2.1] The power management timer.
inline constexpr u64 kPmTimerHz = 3'579'545;

}  // namespace tessera::acpi_pm
