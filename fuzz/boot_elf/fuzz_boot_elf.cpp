// ELF files: a good one with bytes of its headers and notes overwritten, and anything at all.
#include <fuzzer/FuzzedDataProvider.h>

#include "boot/elf/elf_image.h"
#include "boot/testing/fuzz_rig.h"
#include "boot/testing/kernel_files.h"

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer fixes this name.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace tessera;        // NOLINT(google-build-using-namespace)
    using namespace tessera::boot;  // NOLINT(google-build-using-namespace)
    static GuestMemory memory(16 * kMiB, 4 * kMiB);
    FuzzedDataProvider input(data, size);
    Bytes file = make_elf({.is64 = input.ConsumeBool(), .pvh = input.ConsumeBool()});
    while (input.remaining_bytes() > 8 && input.ConsumeBool()) {
        const bool notes = input.ConsumeBool();
        const auto offset =
            input.ConsumeIntegralInRange<std::size_t>(notes ? 0x400 : 0, notes ? 0x430 : 0xb0);
        if (input.ConsumeBool()) {
            poke(file, offset, input.ConsumeIntegral<u8>());
        } else {
            poke(file, offset, input.ConsumeIntegral<u64>());
        }
    }
    file.resize(input.ConsumeIntegralInRange<std::size_t>(0, file.size()));
    const auto entry = input.PickValueInArray(
        {KernelEntry::Auto, KernelEntry::Linux64, KernelEntry::Linux32, KernelEntry::Pvh});
    boot_and_check({.kernel = {.name = "fuzz", .bytes = file},
                    .initrd = {},
                    .cmdline = "console=ttyS0",
                    .board = pc_board(1),
                    .entry = entry,
                    .random_seed = {}},
                   memory);
    (void)parse_elf("fuzz", std::as_bytes(std::span(data, size)));
    return 0;
}
