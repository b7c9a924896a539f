#include "boot/payload/payload.h"

#include <array>
#include <atomic>
#include <fmt/format.h>
#include <limits>
#include <lz4.h>
#include <lzma.h>
#include <optional>
#include <vector>
#include <zlib.h>
#include <zstd.h>

#include "base/assert.h"
#include "boot/bytes.h"

namespace tessera::boot {

namespace {

constexpr u64 kDecoderMemory = 200 * kMiB;
constexpr u16 kFirstWithInitSize = 0x020a;
constexpr std::size_t kSizeField = 4;  // the unpacked size, behind the compressed data

using namespace std::string_view_literals;
struct Format {
    std::string_view magic;
    Compression compression;
};
constexpr std::array kFormats{
    Format{"\x1f\x8b"sv, Compression::Gzip},
    Format{"\xfd"
           "7zXZ\0"sv,
           Compression::Xz},
    Format{"\x5d\0\0"sv, Compression::Lzma},
    Format{"\x02\x21\x4c\x18"sv, Compression::Lz4},
    Format{"\x28\xb5\x2f\xfd"sv, Compression::Zstd},
};

std::unexpected<Error> unsupported(std::string_view name, std::string_view why) {
    return fail(Errc::Unsupported, fmt::format("{}: its kernel cannot be unpacked here: {}", name, why));
}

std::unexpected<Error> damaged(std::string_view name, std::string_view what) {
    return fail(
        Errc::InvalidArgument,
        fmt::format("{}: the compressed kernel in it is damaged: {}; copy the kernel again", name, what));
}

const u8* input(std::span<const std::byte> bytes) {
    return reinterpret_cast<const u8*>(bytes.data());
}
u8* output(std::span<std::byte> bytes) {
    return reinterpret_cast<u8*>(bytes.data());
}

enum class Outcome : u8 { Done, Damaged, TooMuchMemory };

Outcome exactly(u64 got, std::span<const std::byte> out) {
    return got == out.size() ? Outcome::Done : Outcome::Damaged;
}

// [RFC 1952]
Outcome unpack_gzip(std::span<const std::byte> data, std::span<std::byte> out) {
    constexpr int kGzipOnly = 16 + MAX_WBITS;
    z_stream stream{};
    if (inflateInit2(&stream, kGzipOnly) != Z_OK) return Outcome::TooMuchMemory;
    stream.next_in = const_cast<u8*>(input(data));  // zlib reads only
    stream.avail_in = static_cast<uInt>(data.size());
    stream.next_out = output(out);
    stream.avail_out = static_cast<uInt>(out.size());
    const int result = inflate(&stream, Z_FINISH);
    const u64 got = out.size() - stream.avail_out;
    (void)inflateEnd(&stream);
    return result == Z_STREAM_END ? exactly(got, out) : Outcome::Damaged;
}

// [XZ file format 1.1]; the kernel's own build uses the x86 filter and CRC-32.
Outcome unpack_xz(std::span<const std::byte> data, std::span<std::byte> out) {
    u64 memory = kDecoderMemory;
    std::size_t in_at = 0;
    std::size_t out_at = 0;
    const lzma_ret result = lzma_stream_buffer_decode(&memory, 0, nullptr, input(data), &in_at, data.size(),
                                                      output(out), &out_at, out.size());
    if (result == LZMA_MEMLIMIT_ERROR || result == LZMA_MEM_ERROR) return Outcome::TooMuchMemory;
    return result == LZMA_OK ? exactly(out_at, out) : Outcome::Damaged;
}

// [LZMA SDK lzma.txt], the format of lzma(1)
Outcome unpack_lzma(std::span<const std::byte> data, std::span<std::byte> out) {
    lzma_stream stream = LZMA_STREAM_INIT;
    if (lzma_alone_decoder(&stream, kDecoderMemory) != LZMA_OK) return Outcome::TooMuchMemory;
    stream.next_in = input(data);
    stream.avail_in = data.size();
    stream.next_out = output(out);
    stream.avail_out = out.size();
    lzma_ret result = lzma_code(&stream, LZMA_FINISH);
    // The mark of the end may take a call of its own, with no room left.
    if (result == LZMA_OK && stream.avail_out == 0) result = lzma_code(&stream, LZMA_FINISH);
    const u64 got = out.size() - stream.avail_out;
    lzma_end(&stream);
    if (result == LZMA_MEMLIMIT_ERROR || result == LZMA_MEM_ERROR) return Outcome::TooMuchMemory;
    return result == LZMA_STREAM_END ? exactly(got, out) : Outcome::Damaged;
}

struct Lz4Block {
    std::span<const std::byte> from;
    std::span<std::byte> to;
};

// Blocks but the last are full: where each goes is known beforehand. Nothing: they do not fit together.
std::optional<std::vector<Lz4Block>> lz4_blocks(std::span<const std::byte> data, std::span<std::byte> out) {
    constexpr u64 kBlock = 8 * kMiB;
    std::vector<Lz4Block> blocks;
    u64 done = 0;
    for (u64 at = 4; at != data.size();) {
        const auto size = read_le<u32>(data, at);
        if (!size || *size == 0 || *size > static_cast<u32>(LZ4_COMPRESSBOUND(kBlock))) return std::nullopt;
        const auto block = slice(data, at + 4, *size);
        if (!block || done == out.size()) return std::nullopt;
        const u64 room = std::min<u64>(kBlock, out.size() - done);
        blocks.push_back({.from = *block, .to = out.subspan(done, room)});
        done += room;
        at += 4 + block->size();
    }
    if (done != out.size()) return std::nullopt;
    return blocks;
}

bool unpack_block(const Lz4Block& block) {
    return LZ4_decompress_safe(reinterpret_cast<const char*>(block.from.data()),
                               reinterpret_cast<char*>(block.to.data()), static_cast<int>(block.from.size()),
                               static_cast<int>(block.to.size())) == static_cast<int>(block.to.size());
}

// [LZ4 frame format 1.6.3 "Legacy frame"]: independent blocks of 8 MiB, each behind its size.
Outcome unpack_lz4(std::span<const std::byte> data, std::span<std::byte> out, const ParallelFor& parallel) {
    const auto blocks = lz4_blocks(data, out);
    if (!blocks) return Outcome::Damaged;
    std::atomic<bool> whole = true;
    parallel(blocks->size(), [&](std::size_t n) {
        if (!unpack_block((*blocks)[n])) whole = false;
    });
    return whole ? Outcome::Done : Outcome::Damaged;
}

// [RFC 8878]
Outcome unpack_zstd(std::span<const std::byte> data, std::span<std::byte> out) {
    const std::size_t got = ZSTD_decompress(out.data(), out.size(), data.data(), data.size());
    return ZSTD_isError(got) != 0 ? Outcome::Damaged : exactly(got, out);
}

Outcome unpack_by(Compression compression, std::span<const std::byte> data, std::span<std::byte> out,
                  const ParallelFor& parallel) {
    switch (compression) {
        case Compression::Gzip: return unpack_gzip(data, out);
        case Compression::Xz: return unpack_xz(data, out);
        case Compression::Lzma: return unpack_lzma(data, out);
        case Compression::Lz4: return unpack_lz4(data, out, parallel);
        case Compression::Zstd: return unpack_zstd(data, out);
    }
    return Outcome::Damaged;
}

}  // namespace

const char* name_of(Compression compression) {
    switch (compression) {
        case Compression::Gzip: return "gzip";
        case Compression::Xz: return "xz";
        case Compression::Lzma: return "lzma";
        case Compression::Lz4: return "lz4";
        case Compression::Zstd: return "zstd";
    }
    return "";
}

Result<KernelPayload> find_payload(std::string_view name, const BzImage& image) {
    if (image.version < kFirstWithInitSize || image.payload_size == 0)
        return unsupported(name, "its header does not say where it is");
    const auto whole = slice(image.protected_mode, image.payload_offset, image.payload_size);
    if (!whole || whole->size() <= kSizeField)
        return damaged(
            name, fmt::format("the header puts {} bytes at {:#x}, the image has {:#x}", image.payload_size,
                              image.payload_offset, image.protected_mode.size()));
    const u64 unpacked = get_le<u32>(*whole, whole->size() - kSizeField);
    for (const Format& format : kFormats) {
        if (!has_text(*whole, 0, format.magic)) continue;
        if (unpacked > kMostUnpacked) return unsupported(name, "it is too large");
        // The kernel's decompressor works in this memory.
        if (unpacked == 0 || unpacked > image.init_size)
            return damaged(name, fmt::format("it is to unpack to {} bytes, and has memory for {}", unpacked,
                                             image.init_size));
        // In gzip's format the size is a part of the stream [RFC 1952 2.3.1].
        const bool inside = format.compression == Compression::Gzip;
        return KernelPayload{.compression = format.compression,
                             .data = whole->first(whole->size() - (inside ? 0 : kSizeField)),
                             .unpacked_size = unpacked};
    }
    return unsupported(name, "it is compressed in another way than gzip, xz, lzma, lz4 or zstd");
}

Status unpack(std::string_view name, const KernelPayload& payload, std::span<std::byte> out,
              const ParallelFor& parallel) {
    TESSERA_ASSERT(out.size() == payload.unpacked_size, "the caller made the room find_payload asked for");
    static_assert(kMostUnpacked <= std::numeric_limits<int>::max());
    switch (unpack_by(payload.compression, payload.data, out, parallel)) {
        case Outcome::Done: return {};
        case Outcome::TooMuchMemory:
            return unsupported(
                name, fmt::format("its {} format asks for too much memory", name_of(payload.compression)));
        case Outcome::Damaged: break;
    }
    return damaged(
        name, fmt::format("it is no whole {} stream of {} bytes", name_of(payload.compression), out.size()));
}

}  // namespace tessera::boot
