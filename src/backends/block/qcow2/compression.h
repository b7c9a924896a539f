// Compressed clusters: one cluster of data in a raw deflate stream or zstd frames. [QCOW2] [RFC 1951] [RFC
// 8878] The input is a stranger's: the output never exceeds one cluster, and no memory is taken by what it
// says.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "backends/block/qcow2/layout.h"

namespace tessera::block::qcow2 {

// Fills `out`. False if the stream is damaged or ends before that. `in` may be longer than the stream.
[[nodiscard]] bool decompress(Compression type, std::span<const u8> in, std::span<u8> out);
// Nothing if it would not become smaller than it is.
[[nodiscard]] std::optional<std::vector<u8>> compress(Compression type, std::span<const u8> in);

}  // namespace tessera::block::qcow2
