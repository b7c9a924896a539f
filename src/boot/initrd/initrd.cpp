#include "boot/initrd/initrd.h"

#include <algorithm>
#include <fmt/format.h>
#include <optional>

#include "boot/bytes.h"

namespace tessera::boot {

namespace {

using namespace std::string_view_literals;

struct Magic {
    u64 offset;
    std::string_view bytes;
};
// Compressed archives, by the two bytes Linux looks at, and file systems it takes as a RAM disk's contents.
constexpr Magic kAccepted[] = {
    {0, "\x1f\x8b"sv},            // gzip
    {0, "\x1f\x9e"sv},            // gzip, old
    {0, "BZ"sv},                  // bzip2
    {0, "\x5d\0"sv},              // lzma
    {0, "\xfd\x37"sv},            // xz
    {0, "\x89\x4c"sv},            // lzo
    {0, "\x02\x21"sv},            // lz4
    {0, "\x28\xb5"sv},            // zstd
    {1024 + 56, "\x53\xef"sv},    // ext2
    {0, "hsqs"sv},                // squashfs
    {0, "\x45\x3d\xcd\x28"sv},    // cramfs
    {512, "\x45\x3d\xcd\x28"sv},  // cramfs, shifted
    {0, "-rom1fs-"sv},            // romfs
    {1024 + 16, "\x7f\x13"sv},    // minix
    {1024 + 16, "\x8f\x13"sv},    // minix
};

constexpr std::string_view kCpioMagic = "070701";
constexpr std::string_view kCpioMagicWithChecksum = "070702";
constexpr u64 kCpioHeader = 110;
constexpr u64 kCpioFileSize = 54;
constexpr u64 kCpioNameSize = 94;
constexpr u64 kLongestName = 4096;

constexpr u64 align4(u64 value) {
    return (value + 3) & ~u64{3};
}

bool is_cpio(std::span<const std::byte> file, u64 offset) {
    return has_text(file, offset, kCpioMagic) || has_text(file, offset, kCpioMagicWithChecksum);
}

// Eight hexadecimal digits.
std::optional<u32> hex_field(std::span<const std::byte> file, u64 offset) {
    const auto digits = slice(file, offset, 8);
    if (!digits) return std::nullopt;
    u32 value = 0;
    for (const std::byte digit : *digits) {
        const auto c = std::to_integer<u8>(digit);
        const auto lower = static_cast<u8>(c | 0x20);
        if (c >= '0' && c <= '9') {
            value = value << 4 | (c - u32{'0'});
        } else if (lower >= 'a' && lower <= 'f') {
            value = value << 4 | (lower - u32{'a'} + 10);
        } else {
            return std::nullopt;
        }
    }
    return value;
}

std::unexpected<Error> cut(std::string_view name, std::span<const std::byte> file, u64 offset) {
    return fail(Errc::InvalidArgument,
                fmt::format("{}: truncated: the cpio entry at {:#x} goes beyond the file's end "
                            "({:#x}); copy or build the initrd again",
                            name, offset, file.size()));
}

// Walks the archives and the zeros between them up to the file's end or something else (a compressed
// archive).
Status walk_cpio(std::string_view name, std::span<const std::byte> file) {
    for (u64 at = 0; is_cpio(file, at);) {
        const auto file_size = hex_field(file, at + kCpioFileSize);
        const auto name_size = hex_field(file, at + kCpioNameSize);
        if (file.size() - at < kCpioHeader) return cut(name, file, at);
        if (!file_size || !name_size || *name_size == 0 || *name_size > kLongestName)
            return fail(Errc::InvalidArgument,
                        fmt::format("{}: damaged: no cpio entry at {:#x}; copy or build the "
                                    "initrd again",
                                    name, at));
        const u64 data = align4(at + kCpioHeader + *name_size);
        if (data > file.size() || *file_size > file.size() - data) return cut(name, file, at);
        const bool trailer = has_text(file, at + kCpioHeader, "TRAILER!!!\0"sv);
        at = std::min<u64>(align4(data + *file_size), file.size());
        if (!trailer) continue;
        while (at < file.size() && file[at] == std::byte{0}) ++at;
    }
    return {};
}

}  // namespace

Status check_initrd(std::string_view name, std::span<const std::byte> file) {
    if (file.empty()) return fail(Errc::InvalidArgument, fmt::format("{}: the initrd file is empty", name));
    if (is_cpio(file, 0)) return walk_cpio(name, file);
    for (const Magic& magic : kAccepted)
        if (has_text(file, magic.offset, magic.bytes)) return {};
    const bool kernel = has_text(file, 0x202, "HdrS") || has_text(file, 0, "\x7f\x45LF");
    return fail(Errc::InvalidArgument,
                fmt::format("{}: not an initrd{}; give a cpio archive (cpio -o -H newc), plain or compressed",
                            name, kernel ? " but a kernel" : ""));
}

}  // namespace tessera::boot
