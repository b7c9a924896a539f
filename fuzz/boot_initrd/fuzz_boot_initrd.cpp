// The check of initrd files, on chained archives of arbitrary fields and on anything at all.
#include <fuzzer/FuzzedDataProvider.h>
#include <string>

#include "boot/initrd/initrd.h"

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer fixes this name.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    FuzzedDataProvider input(data, size);
    std::string file;
    while (input.remaining_bytes() > 16 && file.size() < 1 << 16) {
        std::string header = "070701" + std::string(104, '0');
        const auto put = [&](std::size_t at, std::uint32_t value) {
            for (std::size_t n = 8; n-- > 0; value >>= 4) header[at + n] = "0123456789abcdef"[value & 15];
        };
        put(54, input.ConsumeIntegral<std::uint32_t>() >> input.ConsumeIntegralInRange<unsigned>(0, 31));
        put(94, input.ConsumeIntegral<std::uint32_t>() >> input.ConsumeIntegralInRange<unsigned>(16, 31));
        file += header;
        if (input.ConsumeBool()) file += std::string("TRAILER!!!\0\0\0\0", 14);
        file.append(input.ConsumeIntegralInRange<std::size_t>(0, 200), '\0');
    }
    (void)tessera::boot::check_initrd("fuzz", std::as_bytes(std::span(file)));
    (void)tessera::boot::check_initrd("fuzz", std::as_bytes(std::span(data, size)));
    return 0;
}
