#include "boot/kernel.h"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>
#include <limits>

#include "base/assert.h"
#include "boot/board.h"
#include "boot/bytes.h"
#include "boot/bzimage/bzimage.h"
#include "boot/bzimage/setup_header.h"
#include "boot/elf/elf_image.h"
#include "boot/kernel_loading.h"

namespace tessera::boot {

namespace {

// Files people give by mistake, by what stands at an offset.
struct KnownFormat {
    u64 offset;
    std::string_view magic;
    std::string_view hint;
};
using namespace std::string_view_literals;
constexpr KnownFormat kKnownFormats[] = {
    {0, "\x1f\x8b"sv, "gzip-compressed; decompress it first (gunzip), or give the bzImage"},
    {0, "\x28\xb5\x2f\xfd"sv, "zstd-compressed; decompress it first (unzstd), or give the bzImage"},
    {0,
     "\xfd"
     "7zXZ\0"sv,
     "xz-compressed; decompress it first (unxz), or give the bzImage"},
    {0, "BZh"sv, "bzip2-compressed; decompress it first (bunzip2), or give the bzImage"},
    {0, "\x04\x22\x4d\x18"sv, "lz4-compressed; decompress it first (lz4 -d), or give the bzImage"},
    {0, "\x02\x21\x4c\x18"sv, "lz4-compressed; decompress it first (lz4 -d), or give the bzImage"},
    {0, "\x5d\0\0"sv, "lzma-compressed; decompress it first (unlzma), or give the bzImage"},
    {0, "070701"sv, "a cpio archive; an initramfs goes with the initrd option"},
    {0, "070702"sv, "a cpio archive; an initramfs goes with the initrd option"},
    {0, "!<arch>\n"sv, "a Debian package or ar archive; unpack it (dpkg -x) and give its boot/vmlinuz"},
    {0, "#!"sv, "a script"},
    {0, "QFI\xfb"sv, "a qcow2 disk image, not a kernel"},
    {0x38, "ARM\x64"sv, "an arm64 Image; an x86 kernel is needed"},
    {0x24, "\x18\x28\x6f\x01"sv, "an ARM zImage; an x86 kernel is needed"},
    {0x38, "RSC\x05"sv, "a RISC-V Image; an x86 kernel is needed"},
    {0, "\x27\x05\x19\x56"sv, "a U-Boot image; give the bzImage it was made from"},
    {0, "\xd0\x0d\xfe\xed"sv, "a flattened device tree or FIT image"},
    {0x8001, "CD001"sv, "a CD image; give the kernel in it"},
    {0, "MZ"sv, "an EFI application or Windows program without a Linux boot header"},
    {0x1fe, "\x55\xaa"sv, "a boot sector or disk image, not a kernel"},
};

std::unexpected<Error> unknown_format(const BootFile& file) {
    if (file.bytes.empty())
        return fail(Errc::InvalidArgument, fmt::format("{}: the kernel file is empty", file.name));
    for (const KnownFormat& known : kKnownFormats)
        if (has_text(file.bytes, known.offset, known.magic))
            return fail(Errc::InvalidArgument,
                        fmt::format("{}: not a bzImage or ELF kernel: this is {}", file.name, known.hint));
    return fail(
        Errc::InvalidArgument,
        fmt::format("{}: not a bzImage: no Linux boot header (55 AA at 0x1fe, \"HdrS\" at 0x202), and not an "
                    "ELF file; give an x86 kernel such as /boot/vmlinuz or a vmlinux",
                    file.name));
}

void load(MemoryMap& memory, u64 address, std::span<const std::byte> bytes) {
    const bool loaded = memory.write(address, bytes);
    TESSERA_ASSERT(loaded, "the range was checked to be usable memory");
}

}  // namespace

std::unexpected<Error> memory_too_small(const BootFile& file, u64 begin, u64 end,
                                        const std::vector<E820Entry>& map) {
    const u64 have = low_ram_end(map);
    if (begin < kHighMemoryBase || end > kPciHoleBase)
        return fail(Errc::Unsupported,
                    fmt::format("{}: wants memory {:#x}-{:#x}, but a kernel can only be loaded between "
                                "1 MiB and 3 GiB",
                                file.name, begin, end - 1));
    return fail(
        Errc::InvalidArgument,
        fmt::format("{}: memory too small: the kernel needs {:#x}-{:#x}, the machine's memory ends at {:#x}; "
                    "give it at least {} MiB",
                    file.name, begin, end - 1, have, (end + kMiB - 1) / kMiB));
}

std::unexpected<Error> no_such_entry(const BootFile& file, std::string_view entry) {
    return fail(Errc::Unsupported, fmt::format("{}: the kernel has no {} entry", file.name, entry));
}

std::unexpected<Error> entry_outside(const BootFile& file, u64 address) {
    return fail(Errc::InvalidArgument,
                fmt::format("{}: damaged ELF file: its entry {:#x} lies in none of its segments", file.name,
                            address));
}

bool is_inside(const ElfImage& image, u64 address) {
    return std::ranges::any_of(image.segments, [&](const ElfSegment& segment) {
        return address >= segment.address && address < segment.end();
    });
}

void load_segment(MemoryMap& memory, u64 address, std::span<const std::byte> bytes) {
    const auto is_zero = [](std::span<const std::byte> page) {
        return page.front() == std::byte{0} &&
               std::memcmp(page.data(), page.data() + 1, page.size() - 1) == 0;
    };
    std::size_t begin = 0;  // of what is to be written
    for (std::size_t at = 0; at < bytes.size();) {
        const std::size_t size = std::min(kPageSize - ((address + at) & kPageMask), bytes.size() - at);
        if (is_zero(bytes.subspan(at, size))) {
            if (begin != at) load(memory, address + begin, bytes.subspan(begin, at - begin));
            begin = at + size;
        }
        at += size;
    }
    if (begin != bytes.size()) load(memory, address + begin, bytes.subspan(begin));
}

namespace {

Result<LoadedKernel> load_bzimage(const BootFile& file, KernelEntry wanted, const std::vector<E820Entry>& map,
                                  MemoryMap& memory) {
    const auto image = parse_bzimage(file.name, file.bytes);
    if (!image) return std::unexpected(image.error());
    if (wanted == KernelEntry::Pvh)
        return no_such_entry(file, "PVH (that is in the vmlinux a bzImage is made from)");
    if (wanted == KernelEntry::Linux64 && !image->has_entry64) return no_such_entry(file, "64-bit");
    const u64 begin = image->load_address;
    const u64 end = begin + image->init_size;
    if (!is_usable(map, begin, image->init_size)) return memory_too_small(file, begin, end, map);
    load(memory, begin, image->protected_mode);
    const bool use64 = image->has_entry64 && wanted != KernelEntry::Linux32;
    return LoadedKernel{
        .entry = use64 ? KernelEntry::Linux64 : KernelEntry::Linux32,
        .entry_address = begin + (use64 ? linux_header::kEntry64Offset : 0),
        .begin = begin,
        .end = end,
        .setup_header = image->setup_header,
        .boot_protocol = image->version,
        .initrd_address_max = image->initrd_address_max,
        .initrd_above_4g = image->initrd_above_4g && use64,
        .cmdline_max = image->cmdline_max,
        .randomised = false,  // that is for its decompressor to do
        .virtual_offset = 0,
    };
}

Result<LoadedKernel> load_elf(const BootFile& file, KernelEntry wanted, const std::vector<E820Entry>& map,
                              MemoryMap& memory) {
    const auto image = parse_elf(file.name, file.bytes);
    if (!image) return std::unexpected(image.error());
    for (const ElfSegment& segment : image->segments)
        if (segment.address < kHighMemoryBase || segment.end() > kPciHoleBase ||
            !is_usable(map, segment.address, segment.memory_size))
            return memory_too_small(file, segment.address, segment.end(), map);

    const bool is64 = image->elf_class == ElfClass::Elf64;
    KernelEntry entry = wanted;
    if (entry == KernelEntry::Auto)
        entry = image->pvh_entry ? KernelEntry::Pvh : is64 ? KernelEntry::Linux64 : KernelEntry::Linux32;
    if (entry == KernelEntry::Pvh && !image->pvh_entry) return no_such_entry(file, "PVH");
    if (entry == KernelEntry::Linux64 && !is64) return no_such_entry(file, "64-bit");
    if (entry == KernelEntry::Linux32 && is64) return no_such_entry(file, "32-bit");

    const u64 address = entry == KernelEntry::Pvh ? image->pvh_entry.value_or(0) : image->entry;
    if (!is_inside(*image, address)) return entry_outside(file, address);
    for (const ElfSegment& segment : image->segments) load_segment(memory, segment.address, segment.bytes);
    constexpr u16 kVmlinuxProtocol = 0x020f;
    constexpr u64 kLongestCommandLine = 2047;  // COMMAND_LINE_SIZE of x86 Linux, less the zero
    const bool pvh = entry == KernelEntry::Pvh;
    return LoadedKernel{
        .entry = entry,
        .entry_address = address,
        .begin = image->begin(),
        .end = image->end(),
        .setup_header = {},
        .boot_protocol = pvh ? u16{0} : kVmlinuxProtocol,
        // A 32-bit Linux reaches its initrd through its lowmem mapping.
        .initrd_address_max = entry == KernelEntry::Linux32 ? linux_header::kInitrdAddrMaxBefore203
                                                            : std::numeric_limits<u32>::max(),
        .initrd_above_4g = false,
        .cmdline_max = kLongestCommandLine,
        .randomised = false,
        .virtual_offset = 0,
    };
}

}  // namespace

Result<LoadedKernel> load_kernel(const BootFile& file, KernelEntry entry, const std::vector<E820Entry>& map,
                                 MemoryMap& memory) {
    if (looks_like_bzimage(file.bytes)) return load_bzimage(file, entry, map, memory);
    if (looks_like_elf(file.bytes)) return load_elf(file, entry, map, memory);
    return unknown_format(file);
}

}  // namespace tessera::boot
