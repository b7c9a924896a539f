#include "boot/bzimage/bzimage.h"

#include <algorithm>
#include <bit>
#include <fmt/format.h>

#include "boot/board.h"
#include "boot/bytes.h"
#include "boot/bzimage/setup_header.h"

namespace tessera::boot {

namespace {

using namespace linux_header;  // NOLINT(google-build-using-namespace): the offsets, in this one file

constexpr u64 kSmallestAlignment = 4 * kKiB;
constexpr u64 kBiggestAlignment = kGiB;

// A header field, or what it is before the protocol version that brought it.
template <typename T>
T field(std::span<const std::byte> file, u16 version, u16 since, std::size_t offset, T before) {
    return version >= since ? read_le<T>(file, offset).value_or(before) : before;
}

std::unexpected<Error> truncated(std::string_view name, u64 have, u64 need) {
    return fail(
        Errc::InvalidArgument,
        fmt::format("{}: truncated: the file has {} bytes, its header announces {}; copy the kernel again",
                    name, have, need));
}

// Size of the protected-mode part [LINUX-BOOT "syssize"].
Result<u64> payload_size(std::string_view name, std::span<const std::byte> file, u16 version, u64 start) {
    if (start >= file.size()) return truncated(name, file.size(), start + 1);
    const u64 present = file.size() - start;
    // Before 2.04 the field had 16 bits and could not say the truth.
    if (version < 0x0204) return present;
    const u64 announced = u64{read_le<u32>(file, kSysSize).value_or(0)} * 16;
    if (announced == 0)
        return fail(Errc::InvalidArgument,
                    fmt::format("{}: the kernel header says the kernel is empty (syssize 0)", name));
    // The size is rounded up to paragraphs; a file may end inside the last one. What follows it is a
    // signature.
    if (announced > present + 15) return truncated(name, file.size(), start + announced);
    return std::min(announced, present);
}

}  // namespace

bool looks_like_bzimage(std::span<const std::byte> file) {
    return read_le<u16>(file, kBootFlag) == kBootFlagValue && read_le<u32>(file, kHeader) == kHeaderMagic;
}

Result<BzImage> parse_bzimage(std::string_view name, std::span<const std::byte> file) {
    if (file.size() < kVersion + 2) return truncated(name, file.size(), kVersion + 2);
    if (!looks_like_bzimage(file))
        return fail(
            Errc::InvalidArgument,
            fmt::format("{}: not a bzImage: no Linux boot header (55 AA at 0x1fe, \"HdrS\" at 0x202)", name));
    const u16 version = get_le<u16>(file, kVersion);
    if (version < 0x0200)
        return fail(Errc::Unsupported, fmt::format("{}: boot protocol {}.{:02}, 2.00 or newer is needed",
                                                   name, version >> 8, version & 0xff));
    const u64 header_end = kHeader + get_le<u8>(file, kJump + 1);
    if (header_end < kCode32Start || header_end > file.size())
        return fail(Errc::InvalidArgument,
                    fmt::format("{}: the kernel header ends at {:#x}, which cannot be; the file "
                                "is damaged, copy the kernel again",
                                name, header_end));
    // Fields beyond the header's own end are code: they count as absent.
    const auto header = file.first(header_end);
    const u8 load_flags = field<u8>(header, version, 0x0200, kLoadFlags, 0);
    if ((load_flags & kLoadedHigh) == 0)
        return fail(
            Errc::Unsupported,
            fmt::format("{}: a zImage, which wants to run below 640 KiB; build a bzImage instead", name));

    // For historical reasons 0 means 4.
    const u8 setup_sectors = get_le<u8>(file, kSetupSects);
    const u64 start = (u64{setup_sectors == 0 ? u8{4} : setup_sectors} + 1) * kSectorSize;
    const auto size = payload_size(name, file, version, start);
    if (!size) return std::unexpected(size.error());

    BzImage image{
        .setup_header = file.subspan(kSetupSects, std::min<u64>(header_end, kHeaderLimit) - kSetupSects),
        .protected_mode = file.subspan(start, *size),
        .version = version,
        .has_entry64 = (field<u16>(header, version, 0x020c, kXLoadFlags, 0) & kXlfKernel64) != 0,
        .initrd_above_4g =
            (field<u16>(header, version, 0x020c, kXLoadFlags, 0) & kXlfCanBeLoadedAbove4G) != 0,
        .load_address = kHighMemoryBase,
        .init_size = *size,
        .initrd_address_max = field<u32>(header, version, 0x0203, kInitrdAddrMax, kInitrdAddrMaxBefore203),
        .cmdline_max = field<u32>(header, version, 0x0206, kCmdlineSize, kCmdlineSizeBefore206),
        .alignment = 0,
        .payload_offset = field<u32>(header, version, 0x0208, kPayloadOffset, 0),
        .payload_size = field<u32>(header, version, 0x0208, kPayloadLength, 0),
    };
    if (image.has_entry64 && *size <= kEntry64Offset)
        return truncated(name, file.size(), start + kEntry64Offset + 1);
    image.load_address = field<u64>(header, version, 0x020a, kPrefAddress, kHighMemoryBase);
    // Between 2.05 and 2.09 a relocatable kernel has an alignment but no address of its own.
    const u32 alignment = field<u32>(header, version, 0x0205, kKernelAlignment, 0);
    if (field<u8>(header, version, 0x0205, kRelocatableKernel, 0) != 0) {
        if (!std::has_single_bit(alignment) || alignment < kSmallestAlignment ||
            alignment > kBiggestAlignment)
            return fail(
                Errc::InvalidArgument,
                fmt::format("{}: the header's kernel alignment is {:#x}, which cannot be", name, alignment));
        image.alignment = alignment;
        if (version < 0x020a) image.load_address = (kHighMemoryBase + alignment - 1) & ~u64{alignment - 1};
    }
    // [LINUX-BOOT "init_size"]; a header that asks for less than its own image is corrected.
    image.init_size = std::max<u64>(field<u32>(header, version, 0x020a, kInitSize, 0), *size);
    if (image.load_address < kHighMemoryBase || image.load_address >= kPciHoleBase ||
        image.init_size > kPciHoleBase - image.load_address)
        return fail(Errc::Unsupported,
                    fmt::format("{}: wants to run at {:#x} with {:#x} bytes, outside of the memory "
                                "between 1 MiB and 3 GiB",
                                name, image.load_address, image.init_size));
    return image;
}

}  // namespace tessera::boot
