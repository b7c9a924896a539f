#include "boot/elf/elf_image.h"

#include <algorithm>
#include <fmt/format.h>
#include <limits>

#include "boot/bytes.h"

namespace tessera::boot {

namespace {

// Offsets of the fields we read, for both classes [ELF 1-3, 2-2].
struct Layout {
    u64 header_size, entry, phoff, phentsize, phnum, shoff, shentsize, shnum;
    u64 program_header_size, p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align;
    u64 word;  // bytes of an address
};
constexpr Layout kElf32 = {52, 0x18, 0x1c, 0x2a, 0x2c, 0x20, 0x2e, 0x30, 32, 4, 8, 12, 16, 20, 28, 4};
constexpr Layout kElf64 = {64, 0x18, 0x20, 0x36, 0x38, 0x28, 0x3a, 0x3c, 56, 8, 16, 24, 32, 40, 48, 8};

constexpr u16 kTypeExecutable = 2;
constexpr u16 kMachine386 = 3;
constexpr u16 kMachineAmd64 = 62;
constexpr u32 kSegmentLoad = 1;
constexpr u32 kSegmentNote = 4;
constexpr u32 kXenNotePhys32Entry = 18;
constexpr u16 kMaxProgramHeaders = 128;

// An address; the caller has checked the size of what it is in.
u64 word_at(std::span<const std::byte> bytes, u64 offset, const Layout& layout) {
    return layout.word == 8 ? get_le<u64>(bytes, offset) : get_le<u32>(bytes, offset);
}

std::unexpected<Error> damaged(std::string_view name, std::string_view what) {
    return fail(Errc::InvalidArgument,
                fmt::format("{}: damaged ELF file: {}; copy or build the kernel again", name, what));
}

// The entry in a note segment, if this one has it [ELF 2-4 "Note Section"]. Broken notes are no notes.
std::optional<u32> find_pvh_entry(std::span<const std::byte> notes, u64 alignment) {
    const u64 mask = alignment == 8 ? 7 : 3;
    for (u64 at = 0;;) {
        const auto name_size = read_le<u32>(notes, at);
        const auto desc_size = read_le<u32>(notes, at + 4);
        const auto type = read_le<u32>(notes, at + 8);
        if (!name_size || !desc_size || !type) return std::nullopt;
        const u64 name = at + 12;
        const u64 desc = (name + *name_size + mask) & ~mask;
        const bool is_xen = *name_size == 4 && has_text(notes, name, std::string_view("Xen\0", 4));
        if (is_xen && *type == kXenNotePhys32Entry) {
            if (*desc_size == 8 &&
                read_le<u64>(notes, desc).value_or(~u64{0}) > std::numeric_limits<u32>::max())
                return std::nullopt;
            return *desc_size == 4 || *desc_size == 8 ? read_le<u32>(notes, desc) : std::nullopt;
        }
        at = (desc + *desc_size + mask) & ~mask;
    }
}

class Reader {
public:
    Reader(std::string_view name, std::span<const std::byte> file, ElfClass elf_class)
        : name_(name), file_(file), layout_(elf_class == ElfClass::Elf64 ? kElf64 : kElf32) {
        image_.elf_class = elf_class;
    }

    Result<ElfImage> read() {
        if (file_.size() < layout_.header_size) return damaged(name_, "the file ends inside its header");
        image_.entry = word_at(file_, layout_.entry, layout_);
        const u64 table = word_at(file_, layout_.phoff, layout_);
        const u16 entry_size = get_le<u16>(file_, layout_.phentsize);
        const u16 count = get_le<u16>(file_, layout_.phnum);
        if (count == 0)
            return fail(Errc::InvalidArgument,
                        fmt::format("{}: an ELF file without program headers is no kernel (an "
                                    "object file or module?)",
                                    name_));
        if (entry_size < layout_.program_header_size || count > kMaxProgramHeaders)
            return damaged(name_, fmt::format("{} program headers of {} bytes", count, entry_size));
        const auto headers = slice(file_, table, u64{count} * entry_size);
        if (!headers) return damaged(name_, "the program headers lie beyond the file's end");
        image_.contents_end = std::max(table + headers->size(), section_headers_end());
        for (u64 n = 0; n < count; ++n)
            if (auto status = add(headers->subspan(n * entry_size, entry_size)); !status)
                return std::unexpected(status.error());
        if (auto status = check(); !status) return std::unexpected(status.error());
        return std::move(image_);
    }

private:
    // Sections are nobody's business here, but what lies behind them is. 0: there are none.
    u64 section_headers_end() {
        const u64 offset = word_at(file_, layout_.shoff, layout_);
        const u64 size = u64{get_le<u16>(file_, layout_.shnum)} * get_le<u16>(file_, layout_.shentsize);
        if (offset == 0 || size == 0) return 0;
        return slice(file_, offset, size) ? offset + size : file_.size();
    }

    Status add(std::span<const std::byte> header) {
        const u32 type = get_le<u32>(header, 0);
        if (type != kSegmentLoad && type != kSegmentNote) return {};
        const u64 offset = word_at(header, layout_.p_offset, layout_);
        const u64 file_size = word_at(header, layout_.p_filesz, layout_);
        const u64 memory_size = word_at(header, layout_.p_memsz, layout_);
        const u64 address = word_at(header, layout_.p_paddr, layout_);
        const auto bytes = slice(file_, offset, file_size);
        if (!bytes)
            return fail(
                Errc::InvalidArgument,
                fmt::format(
                    "{}: truncated: a segment takes {:#x} bytes from offset {:#x}, the file has {:#x}; "
                    "copy the kernel again",
                    name_, file_size, offset, file_.size()));
        image_.contents_end = std::max(image_.contents_end, offset + file_size);
        if (type == kSegmentNote) {
            if (!image_.pvh_entry)
                image_.pvh_entry = find_pvh_entry(*bytes, word_at(header, layout_.p_align, layout_));
            return {};
        }
        if (file_size > memory_size) return damaged(name_, "a segment is smaller in memory than in the file");
        if (memory_size == 0) return {};
        if (address + (memory_size - 1) < address || address + memory_size == 0)
            return damaged(
                name_, fmt::format("a segment at {:#x} of {:#x} bytes wraps around", address, memory_size));
        image_.segments.push_back({.address = address,
                                   .virtual_address = word_at(header, layout_.p_vaddr, layout_),
                                   .bytes = *bytes,
                                   .memory_size = memory_size});
        return {};
    }

    Status check() {
        if (image_.segments.empty()) return damaged(name_, "nothing to load in it");
        std::ranges::sort(image_.segments, {}, &ElfSegment::address);
        for (std::size_t n = 1; n < image_.segments.size(); ++n)
            if (image_.segments[n].address < image_.segments[n - 1].end())
                return damaged(name_, fmt::format("segments overlap at {:#x}", image_.segments[n].address));
        return {};
    }

    std::string_view name_;
    std::span<const std::byte> file_;
    const Layout& layout_;
    ElfImage image_{};
};

}  // namespace

bool looks_like_elf(std::span<const std::byte> file) {
    return has_text(file, 0,
                    "\x7f"
                    "ELF");
}

Result<ElfImage> parse_elf(std::string_view name, std::span<const std::byte> file) {
    if (!looks_like_elf(file)) return fail(Errc::InvalidArgument, fmt::format("{}: not an ELF file", name));
    const auto elf_class = read_le<u8>(file, 4);
    const auto data = read_le<u8>(file, 5);
    const auto type = read_le<u16>(file, 0x10);
    const auto machine = read_le<u16>(file, 0x12);
    if (!elf_class || !data || !type || !machine) return damaged(name, "the file ends inside its header");
    const bool is64 = *elf_class == 2 && *machine == kMachineAmd64;
    // GNU ld -m elf32_x86_64 and some boot images: 64-bit machine in the 32-bit class.
    const bool is32 = *elf_class == 1 && (*machine == kMachine386 || *machine == kMachineAmd64);
    if (*data != 1 || (!is64 && !is32))
        return fail(Errc::Unsupported,
                    fmt::format("{}: an ELF file for another processor (machine {}, class {}); an "
                                "x86 kernel is needed",
                                name, *machine, *elf_class));
    if (*type != kTypeExecutable)
        return fail(Errc::InvalidArgument,
                    fmt::format("{}: an ELF file but not an executable (type {}); of a kernel "
                                "build give vmlinux or arch/x86/boot/bzImage",
                                name, *type));
    return Reader(name, file, is64 ? ElfClass::Elf64 : ElfClass::Elf32).read();
}

}  // namespace tessera::boot
