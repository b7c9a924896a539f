#include "boot/direct_kernel.h"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>
#include <memory>
#include <new>

#include "base/assert.h"
#include "base/size_text.h"
#include "boot/board.h"
#include "boot/bzimage/bzimage.h"
#include "boot/kernel_loading.h"
#include "boot/kernel_place.h"
#include "boot/payload/payload.h"
#include "boot/relocation/relocation.h"

namespace tessera::boot {

namespace {

// A vmlinux begins with headers, then comes the kernel: at these offsets, by its linker script.
constexpr u64 kUsualOffset64 = 2 * kMiB;
constexpr u64 kUsualOffset32 = 4 * kKiB;

using Scratch = std::unique_ptr<std::byte[]>;

// Where the kernel is unpacked to: guest memory at `address`, so that little is to be moved, or memory of our
// own.
struct Room {
    std::span<std::byte> bytes;
    u64 address = 0;  // 0: our own
    Scratch own;
};

Result<Scratch> make_scratch(const BootFile& file, u64 size) {
    Scratch scratch(new (std::nothrow) std::byte[size]);
    if (scratch == nullptr)
        return fail(Errc::HostFailure,
                    fmt::format("{}: not enough host memory to unpack its {}", file.name, size_text(size)));
    return scratch;
}

Result<Room> make_room(const BootFile& file, const std::vector<E820Entry>& map, MemoryMap& memory,
                       u64 kernel_begin, u64 offset, u64 size) {
    const u64 address = kernel_begin - offset;
    const MemoryRegion* region = memory.find(address);
    if (address >= kHighMemoryBase && is_usable(map, address, size) && region != nullptr &&
        region->size - (address - region->base) >= size)
        return Room{.bytes = {region->at(address), size}, .address = address, .own = {}};
    auto own = make_scratch(file, size);
    if (!own) return std::unexpected(std::move(own.error()));
    Room room{.bytes = {}, .own = *std::move(own)};
    room.bytes = {room.own.get(), size};
    return room;
}

// The segments of a file that was unpacked into guest memory at `file_address`, moved one after the other to
// where they belong. False if one would overwrite another that is still to be moved; nothing has happened
// then.
class Mover {
public:
    Mover(std::span<std::byte> file, u64 file_address, const ElfImage& image, u64 begin)
        : file_(file), file_address_(file_address), image_(image), begin_(begin) {}

    [[nodiscard]] bool is_possible() const {
        const auto& segments = image_.segments;
        for (std::size_t n = 0; n < segments.size(); ++n) {
            if (to(segments[n]) < file_address_) return false;
            if (n + 1 < segments.size() && end(segments[n]) > from(segments[n + 1])) return false;
        }
        return true;
    }
    // The caller has checked the kernel's whole range to be in `region`.
    void move(const MemoryRegion& region) const {
        u64 zero_from = file_address_;
        for (const ElfSegment& segment : image_.segments) {
            std::byte* target = region.at(to(segment));
            if (target != segment.bytes.data())
                std::memmove(target, segment.bytes.data(), segment.bytes.size());
        }
        // What is no kernel: headers, gaps, relocations, places that were moved from.
        const u64 file_end = file_address_ + file_.size();
        for (const ElfSegment& segment : image_.segments) {
            clear(region, zero_from, std::min(to(segment), file_end));
            zero_from = end(segment);
        }
        clear(region, zero_from, file_end);
    }

private:
    [[nodiscard]] u64 from(const ElfSegment& segment) const {
        return file_address_ +
               static_cast<u64>(segment.bytes.data() - std::span<const std::byte>(file_).data());
    }
    [[nodiscard]] u64 to(const ElfSegment& segment) const {
        return begin_ + (segment.address - image_.begin());
    }
    [[nodiscard]] u64 end(const ElfSegment& segment) const { return to(segment) + segment.bytes.size(); }
    static void clear(const MemoryRegion& region, u64 begin, u64 end) {
        if (begin < end) std::memset(region.at(begin), 0, end - begin);
    }

    std::span<std::byte> file_;
    u64 file_address_;
    const ElfImage& image_;
    u64 begin_;
};

class DirectLoader {
public:
    DirectLoader(const BootFile& file, const DirectStart& start, const std::vector<E820Entry>& map,
                 MemoryMap& memory)
        : file_(file), start_(start), map_(map), memory_(memory) {}

    Result<LoadedKernel> load(KernelEntry wanted, u64 initrd_size) {
        const auto header = parse_bzimage(file_.name, file_.bytes);
        if (!header) return std::unexpected(header.error());
        const auto payload = find_payload(file_.name, *header);
        if (!payload) return std::unexpected(payload.error());
        const u64 needed_end = header->load_address + header->init_size;
        if (!is_usable(map_, header->load_address, header->init_size))
            return memory_too_small(file_, header->load_address, needed_end, map_);
        limit_ = placement_limit(*header, initrd_size);

        // The header says all but whether there are relocations.
        const ElfClass guess = header->has_entry64 ? ElfClass::Elf64 : ElfClass::Elf32;
        const u64 begin = place({.elf_class = guess,
                                 .begin = header->load_address,
                                 .size = header->init_size,
                                 .alignment = header->alignment,
                                 .relocations = true})
                              .begin;
        auto room =
            make_room(file_, map_, memory_, begin, guess == ElfClass::Elf64 ? kUsualOffset64 : kUsualOffset32,
                      payload->unpacked_size);
        if (!room) return std::unexpected(std::move(room.error()));
        if (auto status = unpack(file_.name, *payload, room->bytes, start_.parallel); !status)
            return std::unexpected(std::move(status.error()));
        return enter(*header, *std::move(room), wanted);
    }

private:
    [[nodiscard]] KernelPlace place(const KernelShape& shape) const {
        return place_kernel(shape, start_.random, limit_);
    }
    [[nodiscard]] u64 placement_limit(const BzImage& header, u64 initrd_size) const {
        if (start_.fixed_physical) return 0;
        u64 limit = low_ram_end(map_);
        if (initrd_size != 0) limit = std::min(limit, header.initrd_address_max + 1);
        return limit - std::min(limit, (initrd_size + kPageMask) & ~kPageMask);
    }

    Result<LoadedKernel> enter(const BzImage& header, Room room, KernelEntry wanted) {
        const auto image = parse_elf(file_.name, room.bytes);
        if (!image) return std::unexpected(image.error());
        const bool is64 = image->elf_class == ElfClass::Elf64;
        if (wanted == KernelEntry::Pvh)
            return no_such_entry(file_, "PVH (its vmlinux may have, given as the kernel)");
        if (wanted == KernelEntry::Linux64 && !is64) return no_such_entry(file_, "64-bit");
        if (wanted == KernelEntry::Linux32 && is64) return no_such_entry(file_, "32-bit");
        if (!is_inside(*image, image->entry)) return entry_outside(file_, image->entry);
        const u64 size = std::max(header.init_size, image->end() - image->begin());
        if (image->begin() < kHighMemoryBase || !is_usable(map_, image->begin(), size))
            return memory_too_small(file_, image->begin(), image->begin() + size, map_);
        auto relocations = find_relocations(file_.name, room.bytes, *image);
        if (!relocations && relocations.error().code != Errc::NotFound)
            return std::unexpected(std::move(relocations.error()));
        const KernelPlace final_place = place({.elf_class = image->elf_class,
                                               .begin = image->begin(),
                                               .size = size,
                                               .alignment = header.alignment,
                                               .relocations = relocations.has_value()});
        if (final_place.virtual_offset != 0)
            if (auto status =
                    relocate(file_.name, room.bytes, *image, *relocations, final_place.virtual_offset);
                !status)
                return std::unexpected(std::move(status.error()));
        if (auto status = settle(std::move(room), *image, final_place.begin, size); !status)
            return std::unexpected(std::move(status.error()));
        return LoadedKernel{
            .entry = is64 ? KernelEntry::Linux64 : KernelEntry::Linux32,
            .entry_address = final_place.begin + (image->entry - image->begin()),
            .begin = final_place.begin,
            .end = final_place.begin + size,
            .setup_header = header.setup_header,
            .boot_protocol = header.version,
            .initrd_address_max = header.initrd_address_max,
            .initrd_above_4g = header.initrd_above_4g && is64,
            .cmdline_max = header.cmdline_max,
            .randomised = final_place.random,
            .virtual_offset = final_place.virtual_offset,
        };
    }

    // Brings the segments from where they were unpacked to where they run.
    Status settle(Room room, const ElfImage& image, u64 begin, u64 size) {
        if (room.address != 0) {
            const MemoryRegion* region = memory_.find(room.address);
            const Mover mover(room.bytes, room.address, image, begin);
            if (region == memory_.find(begin) && region->size - (begin - region->base) >= size &&
                mover.is_possible()) {
                mover.move(*region);
                memory_.changed_in_host(std::min(room.address, begin), size + room.bytes.size());
                return {};
            }
        }
        return load_from_copy(std::move(room), image, begin);
    }

    // For kernels that are laid out in another way than Linux is.
    Status load_from_copy(Room room, const ElfImage& image, u64 begin) {
        std::span<std::byte> file = room.bytes;
        if (room.address != 0) {
            auto own = make_scratch(file_, room.bytes.size());
            if (!own) return std::unexpected(std::move(own.error()));
            room.own = *std::move(own);
            file = {room.own.get(), room.bytes.size()};
            std::ranges::copy(room.bytes, file.begin());
            std::ranges::fill(room.bytes, std::byte{0});
            memory_.changed_in_host(room.address, room.bytes.size());
        }
        for (const ElfSegment& segment : image.segments) {
            const auto offset = static_cast<u64>(segment.bytes.data() - room.bytes.data());
            load_segment(memory_, begin + (segment.address - image.begin()),
                         file.subspan(offset, segment.bytes.size()));
        }
        return {};
    }

    const BootFile& file_;
    const DirectStart& start_;
    const std::vector<E820Entry>& map_;
    MemoryMap& memory_;
    u64 limit_ = 0;
};

}  // namespace

Result<LoadedKernel> load_direct(const BootFile& file, const DirectStart& start, KernelEntry entry,
                                 u64 initrd_size, const std::vector<E820Entry>& map, MemoryMap& memory) {
    return DirectLoader(file, start, map, memory).load(entry, initrd_size);
}

}  // namespace tessera::boot
