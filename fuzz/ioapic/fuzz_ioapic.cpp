// Pokes the I/O APIC the way a hostile guest, restless devices and a hostile snapshot would.
#include "devices/ioapic/ioapic_rig.h"
#include "devices/testing/device_fuzz.h"

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer fixes this name.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    return tessera::testing_rig::fuzz_device<tessera::ioapic::IoApicRig>(data, size);
}
