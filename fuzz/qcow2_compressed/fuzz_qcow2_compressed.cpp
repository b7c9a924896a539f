// Hostile compressed clusters, and clusters that are compressed and unpacked again.
#include <algorithm>
#include <cstdlib>
#include <span>
#include <vector>

#include "backends/block/qcow2/compression.h"

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer fixes this name.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using tessera::block::qcow2::Compression;
    if (size == 0) return 0;
    const auto type = (data[0] & 1) == 0 ? Compression::Zlib : Compression::Zstd;
    const std::size_t cluster = std::size_t{512} << (data[0] >> 1) % 13;
    const std::span<const std::uint8_t> in(data + 1, size - 1);
    std::vector<std::uint8_t> out(cluster);
    (void)tessera::block::qcow2::decompress(type, in, out);
    if (const auto packed = tessera::block::qcow2::compress(type, in)) {
        std::vector<std::uint8_t> back(in.size());
        if (packed->size() >= in.size() || !tessera::block::qcow2::decompress(type, *packed, back) ||
            !std::equal(in.begin(), in.end(), back.begin()))
            std::abort();
    }
    return 0;
}
