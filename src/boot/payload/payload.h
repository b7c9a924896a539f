// The compressed kernel inside a bzImage: finds it and unpacks it, so that the kernel can be entered without
// the decompressor it brings along. Leaves out bzip2 and LZO. [LINUX-BOOT "payload_offset"]
#pragma once

#include <span>
#include <string_view>

#include "base/result.h"
#include "base/types.h"
#include "boot/bzimage/bzimage.h"
#include "boot/parallel.h"

namespace tessera::boot {

// What a kernel build can choose between, as far as it is unpacked here.
enum class Compression : u8 { Gzip, Xz, Lzma, Lz4, Zstd };

[[nodiscard]] const char* name_of(Compression compression);

// A kernel that unpacks to more than this unpacks itself.
inline constexpr u64 kMostUnpacked = kGiB;

struct KernelPayload {
    Compression compression;
    std::span<const std::byte> data;  // points into the file
    u64 unpacked_size;                // > 0, at most kMostUnpacked and the memory the header asks for
};

// Unsupported: this kernel has to unpack itself, and can (an old boot protocol, another compression).
// InvalidArgument: what the header says cannot be; its own decompressor would fail as well.
[[nodiscard]] Result<KernelPayload> find_payload(std::string_view name, const BzImage& image);

// Unpacks into `out`, which has unpacked_size bytes: a vmlinux, with its relocations behind it. Takes memory
// of its own only in proportion to the format's window, at most 200 MiB. Unsupported: needs more than that.
// Independent pieces (LZ4 has them) are unpacked by `parallel`.
[[nodiscard]] Status unpack(std::string_view name, const KernelPayload& payload, std::span<std::byte> out,
                            const ParallelFor& parallel = one_by_one);

}  // namespace tessera::boot
