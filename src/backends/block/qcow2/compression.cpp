#include "backends/block/qcow2/compression.h"

#include <zlib.h>
#include <zstd.h>

namespace tessera::block::qcow2 {

namespace {

// Raw deflate with a window of 4 KiB, which is what readers of the format allow for.
constexpr int kWindowBits = -12;
constexpr int kMemoryLevel = 9;

bool inflate_cluster(std::span<const u8> in, std::span<u8> out) {
    z_stream stream{};
    // zlib does not write to its input.
    stream.next_in = const_cast<u8*>(in.data());
    stream.avail_in = static_cast<uInt>(in.size());
    stream.next_out = out.data();
    stream.avail_out = static_cast<uInt>(out.size());
    if (inflateInit2(&stream, kWindowBits) != Z_OK) return false;
    const int result = inflate(&stream, Z_FINISH);
    const bool full = stream.avail_out == 0;
    (void)inflateEnd(&stream);
    // Z_BUF_ERROR with a full buffer: the stream would go on past the cluster.
    return full && (result == Z_STREAM_END || result == Z_BUF_ERROR || result == Z_OK);
}

// Whole frames at once: that needs no window, whatever size a frame's header asks for.
bool unpack_frames(std::span<const u8> in, std::span<u8> out) {
    while (!out.empty()) {
        const std::size_t frame = ZSTD_findFrameCompressedSize(in.data(), in.size());
        if (ZSTD_isError(frame) != 0 || frame == 0 || frame > in.size()) return false;
        const std::size_t written = ZSTD_decompress(out.data(), out.size(), in.data(), frame);
        if (ZSTD_isError(written) != 0 || written > out.size()) return false;
        in = in.subspan(frame);
        out = out.subspan(written);
    }
    return true;
}

std::optional<std::vector<u8>> deflate_cluster(std::span<const u8> in) {
    std::vector<u8> out(in.size());
    z_stream stream{};
    if (deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, kWindowBits, kMemoryLevel,
                     Z_DEFAULT_STRATEGY) != Z_OK)
        return std::nullopt;
    stream.next_in = const_cast<u8*>(in.data());
    stream.avail_in = static_cast<uInt>(in.size());
    stream.next_out = out.data();
    stream.avail_out = static_cast<uInt>(out.size());
    const int result = deflate(&stream, Z_FINISH);
    const u64 length = out.size() - stream.avail_out;
    (void)deflateEnd(&stream);
    if (result != Z_STREAM_END) return std::nullopt;
    out.resize(length);
    return out;
}

std::optional<std::vector<u8>> pack_frame(std::span<const u8> in) {
    std::vector<u8> out(in.size());
    const std::size_t length =
        ZSTD_compress(out.data(), out.size(), in.data(), in.size(), ZSTD_CLEVEL_DEFAULT);
    if (ZSTD_isError(length) != 0) return std::nullopt;
    out.resize(length);
    return out;
}

}  // namespace

bool decompress(Compression type, std::span<const u8> in, std::span<u8> out) {
    return type == Compression::Zstd ? unpack_frames(in, out) : inflate_cluster(in, out);
}

std::optional<std::vector<u8>> compress(Compression type, std::span<const u8> in) {
    auto out = type == Compression::Zstd ? pack_frame(in) : deflate_cluster(in);
    if (out && out->size() >= in.size()) return std::nullopt;
    return out;
}

}  // namespace tessera::block::qcow2
