// A hostile guest and corrupt snapshots against acpi_pm.
#include "devices/acpi_pm/acpi_pm_rig.h"
#include "devices/testing/device_fuzz.h"

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer fixes this name.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    return tessera::testing_rig::fuzz_device<tessera::acpi_pm::AcpiPmRig24>(data, size);
}
