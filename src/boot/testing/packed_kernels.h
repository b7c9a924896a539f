// Synthetic bzImages with a compressed kernel in them, and what they unpack to. Compressed by the formats'
// own libraries; offsets are restated from the specifications.
#pragma once

#include <cstdlib>
#include <lz4.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include "boot/payload/payload.h"
#include "boot/testing/kernel_files.h"

namespace tessera::boot {

inline Bytes pack_gzip(const Bytes& plain) {
    z_stream stream{};
    Bytes out(plain.size() + 1024);
    if (deflateInit2(&stream, 9, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY) != Z_OK) std::abort();
    stream.next_in = reinterpret_cast<u8*>(const_cast<std::byte*>(plain.data()));
    stream.avail_in = static_cast<uInt>(plain.size());
    stream.next_out = reinterpret_cast<u8*>(out.data());
    stream.avail_out = static_cast<uInt>(out.size());
    if (deflate(&stream, Z_FINISH) != Z_STREAM_END) std::abort();
    out.resize(stream.total_out);
    deflateEnd(&stream);
    return out;
}

// As the kernel's build has it: the x86 filter before LZMA2, CRC-32.
inline Bytes pack_xz(const Bytes& plain, u32 dictionary = 1 << 20) {
    lzma_options_lzma options{};
    lzma_lzma_preset(&options, 6);
    options.dict_size = dictionary;
    std::array<lzma_filter, 3> filters{{{.id = LZMA_FILTER_X86, .options = nullptr},
                                        {.id = LZMA_FILTER_LZMA2, .options = &options},
                                        {.id = LZMA_VLI_UNKNOWN, .options = nullptr}}};
    Bytes out(lzma_stream_buffer_bound(plain.size()));
    std::size_t at = 0;
    if (lzma_stream_buffer_encode(filters.data(), LZMA_CHECK_CRC32, nullptr,
                                  reinterpret_cast<const u8*>(plain.data()), plain.size(),
                                  reinterpret_cast<u8*>(out.data()), &at, out.size()) != LZMA_OK)
        std::abort();
    out.resize(at);
    return out;
}

inline Bytes pack_lzma(const Bytes& plain) {
    lzma_options_lzma options{};
    lzma_lzma_preset(&options, 6);
    options.dict_size = 1 << 20;
    lzma_stream stream = LZMA_STREAM_INIT;
    if (lzma_alone_encoder(&stream, &options) != LZMA_OK) std::abort();
    Bytes out(plain.size() + 1024);
    stream.next_in = reinterpret_cast<const u8*>(plain.data());
    stream.avail_in = plain.size();
    stream.next_out = reinterpret_cast<u8*>(out.data());
    stream.avail_out = out.size();
    if (lzma_code(&stream, LZMA_FINISH) != LZMA_STREAM_END) std::abort();
    out.resize(stream.total_out);
    lzma_end(&stream);
    return out;
}

inline Bytes pack_lz4(const Bytes& plain) {
    constexpr std::size_t kBlock = 8 << 20;
    Bytes out;
    poke<u32>(out, 0, 0x184c'2102);
    for (std::size_t at = 0; at < plain.size(); at += kBlock) {
        const auto size = static_cast<int>(std::min(kBlock, plain.size() - at));
        Bytes block(static_cast<std::size_t>(LZ4_compressBound(size)));
        const int got =
            LZ4_compress_default(reinterpret_cast<const char*>(plain.data() + at),
                                 reinterpret_cast<char*>(block.data()), size, static_cast<int>(block.size()));
        poke<u32>(out, out.size(), static_cast<u32>(got));
        out.insert(out.end(), block.begin(), block.begin() + got);
    }
    return out;
}

inline Bytes pack_zstd(const Bytes& plain) {
    Bytes out(ZSTD_compressBound(plain.size()));
    out.resize(ZSTD_compress(out.data(), out.size(), plain.data(), plain.size(), 3));
    return out;
}

// What stands in a bzImage: all but gzip are followed by their unpacked size.
inline Bytes pack(Compression compression, const Bytes& plain) {
    Bytes out;
    switch (compression) {
        case Compression::Gzip: return pack_gzip(plain);
        case Compression::Xz: out = pack_xz(plain); break;
        case Compression::Lzma: out = pack_lzma(plain); break;
        case Compression::Lz4: out = pack_lz4(plain); break;
        case Compression::Zstd: out = pack_zstd(plain); break;
    }
    poke<u32>(out, out.size(), static_cast<u32>(plain.size()));
    return out;
}

// make_bzimage() with `payload` 0x300 bytes into its protected-mode part, and memory for `init_size` bytes.
inline Bytes make_packed_bzimage(const Bytes& payload, u32 init_size = 16 << 20) {
    constexpr u32 kAt = 0x300;
    Bytes file = make_bzimage();
    const std::size_t size = (kAt + payload.size() + 15) / 16 * 16;
    file.resize(1024 + size);
    std::memcpy(file.data() + 1024 + kAt, payload.data(), payload.size());
    poke<u32>(file, 0x1f4, static_cast<u32>(size / 16));       // syssize
    poke<u32>(file, 0x248, kAt);                               // payload_offset
    poke<u32>(file, 0x24c, static_cast<u32>(payload.size()));  // payload_length
    poke<u32>(file, 0x260, init_size);
    return file;
}

// An unpacked kernel as make_elf() has it, linked at 16 MiB, with a table of relocations behind it:
// 64-bit: a 64-bit address at +0x100, a negated offset at +0x200, a 32-bit address at +0x300;
// 32-bit: an address at +0x300.
inline Bytes make_vmlinux(bool is64 = true) {
    Bytes file = make_elf({.is64 = is64, .address = 0x1000000});
    const auto put32 = [&](u32 value) { poke<u32>(file, file.size(), value); };
    if (is64) {
        poke<u64>(file, 0x1100, 0xffff'ffff'8100'0010);
        poke<u32>(file, 0x1200, 0x7000'0000);
        poke<u32>(file, 0x1300, 0x8100'0020);
        for (const u32 word : {0U, 0x8100'0100U, 0U, 0x8100'0200U, 0U, 0x8100'0300U}) put32(word);
    } else {
        poke<u32>(file, 0x1300, 0xc100'0020);
        for (const u32 word : {0U, 0xc100'0300U}) put32(word);
    }
    return file;
}

}  // namespace tessera::boot
