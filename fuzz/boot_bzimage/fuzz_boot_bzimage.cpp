// A bzImage whose header says anything: booted in 32 MiB below and 4 MiB above the PCI hole.
#include <fuzzer/FuzzedDataProvider.h>

#include "boot/bzimage/bzimage.h"
#include "boot/testing/fuzz_rig.h"
#include "boot/testing/kernel_files.h"

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer fixes this name.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace tessera;        // NOLINT(google-build-using-namespace)
    using namespace tessera::boot;  // NOLINT(google-build-using-namespace)
    static GuestMemory memory(32 * kMiB, 4 * kMiB);
    FuzzedDataProvider input(data, size);
    Bytes file = make_bzimage();
    // Some fields of a good header overwritten, then cut or grown.
    while (input.remaining_bytes() > 8 && input.ConsumeBool()) {
        const auto offset = input.ConsumeIntegralInRange<std::size_t>(0x1f1, 0x28f);
        poke(file, offset, input.ConsumeIntegral<u32>());
    }
    file.resize(input.ConsumeIntegralInRange<std::size_t>(0, 2 * file.size()));
    const auto entry = input.PickValueInArray(
        {KernelEntry::Auto, KernelEntry::Linux64, KernelEntry::Linux32, KernelEntry::Pvh});
    const auto initrd_size = input.ConsumeIntegralInRange<std::size_t>(0, 3 * kMiB);
    const std::string cmdline = input.ConsumeRandomLengthString(3000);
    Bytes initrd(initrd_size);
    poke_text(initrd, 0, "\x1f\x8b");
    BootRequest request{.kernel = {.name = "fuzz", .bytes = file},
                        .initrd = {},
                        .cmdline = cmdline,
                        .board = pc_board(1),
                        .entry = entry,
                        .random_seed = {}};
    if (initrd_size != 0) request.initrd = BootFile{.name = "initrd", .bytes = initrd};
    boot_and_check(request, memory);

    // And the bytes as they are.
    (void)parse_bzimage("fuzz", std::as_bytes(std::span(data, size)));
    return 0;
}
