// The compressed kernel in a bzImage, damaged or made up, and what follows from an unpacked one: placing,
// relocating, loading, in 64 MiB.
#include <fuzzer/FuzzedDataProvider.h>

#include "boot/testing/fuzz_rig.h"
#include "boot/testing/packed_kernels.h"

namespace {

using namespace tessera;        // NOLINT(google-build-using-namespace)
using namespace tessera::boot;  // NOLINT(google-build-using-namespace)

constexpr std::array kAll{Compression::Gzip, Compression::Xz, Compression::Lzma, Compression::Lz4,
                          Compression::Zstd};

void overwrite_some(Bytes& bytes, FuzzedDataProvider& input) {
    while (!bytes.empty() && input.remaining_bytes() > 8 && input.ConsumeBool()) {
        const auto at = input.ConsumeIntegralInRange<std::size_t>(0, bytes.size() - 1);
        bytes[at] = static_cast<std::byte>(input.ConsumeIntegral<u8>());
    }
}

Bytes consume(FuzzedDataProvider& input, std::size_t most) {
    const auto raw = input.ConsumeBytes<u8>(input.ConsumeIntegralInRange<std::size_t>(0, most));
    Bytes bytes(raw.size());
    if (!raw.empty()) std::memcpy(bytes.data(), raw.data(), raw.size());
    return bytes;
}

// A stream that is made up but for its magic, or a good one damaged.
Bytes make_payload(FuzzedDataProvider& input) {
    const auto compression = input.PickValueInArray(kAll);
    Bytes payload = pack(compression, consume(input, 4096));
    if (input.ConsumeBool()) {
        const Bytes made_up = consume(input, 4096);
        payload.resize(std::min<std::size_t>(payload.size(), 6));
        payload.insert(payload.end(), made_up.begin(), made_up.end());
        poke<u32>(payload, payload.size(), input.ConsumeIntegralInRange<u32>(0, 2 << 20));
    } else {
        overwrite_some(payload, input);
    }
    return payload;
}

void unpack_any(FuzzedDataProvider& input) {
    const Bytes file =
        make_packed_bzimage(make_payload(input), input.ConsumeIntegralInRange<u32>(0, 1 << 20));
    const auto image = parse_bzimage("fuzz", file);
    if (!image) return;
    const auto payload = find_payload("fuzz", *image);
    if (!payload) return;
    if (payload->unpacked_size == 0 || payload->unpacked_size > image->init_size) std::abort();
    Bytes out(payload->unpacked_size);
    const auto status = unpack("fuzz", *payload, out);
    if (!status && status.error().message.empty()) std::abort();
}

void enter_any(FuzzedDataProvider& input) {
    static GuestMemory memory(64 * kMiB);
    Bytes vmlinux = make_vmlinux(input.ConsumeBool());
    const Bytes more = consume(input, 64);
    vmlinux.insert(vmlinux.end(), more.begin(), more.end());
    overwrite_some(vmlinux, input);
    const Bytes file =
        make_packed_bzimage(pack(Compression::Lz4, vmlinux), input.ConsumeIntegralInRange<u32>(0, 70 << 20));
    Bytes initrd(input.ConsumeIntegralInRange<std::size_t>(0, 3 * kMiB));
    if (initrd.size() > 1) poke_text(initrd, 0, "\x1f\x8b");
    const std::array<u64, 2> random{input.ConsumeIntegral<u64>(), input.ConsumeIntegral<u64>()};
    const std::string cmdline = input.ConsumeRandomLengthString(100);
    BootRequest request{.kernel = {.name = "fuzz", .bytes = file},
                        .initrd = {},
                        .cmdline = cmdline,
                        .board = pc_board(1),
                        .random_seed = {},
                        .direct = DirectStart{.random = random}};
    if (initrd.size() > 1) request.initrd = BootFile{.name = "initrd", .bytes = initrd};
    boot_and_check(request, memory);
}

}  // namespace

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer fixes this name.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    FuzzedDataProvider input(data, size);
    if (input.ConsumeBool())
        unpack_any(input);
    else
        enter_any(input);
    return 0;
}
