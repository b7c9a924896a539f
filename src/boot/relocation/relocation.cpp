#include "boot/relocation/relocation.h"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>
#include <vector>

#include "boot/bytes.h"

namespace tessera::boot {

namespace {

constexpr std::size_t kWord = 4;

std::unexpected<Error> damaged(std::string_view name, std::string_view what) {
    return fail(
        Errc::InvalidArgument,
        fmt::format("{}: the kernel's relocations are damaged: {}; copy the kernel again", name, what));
}

// Where the bytes of the image are, to change them by the addresses they are linked at.
class Patcher {
public:
    Patcher(std::span<std::byte> file, const ElfImage& image)
        : file_(file),
          image_(image),
          segment_(&image.segments.front()),
          // What the kernel maps its memory at: virtual less physical address of its text.
          base_(segment_->virtual_address - segment_->address),
          sign_extends_(image.elf_class == ElfClass::Elf64) {}

    template <typename T>
    [[nodiscard]] bool add(u32 place, u64 distance) {
        const u64 linear =
            sign_extends_ ? static_cast<u64>(static_cast<s64>(static_cast<s32>(place))) : place;
        const u64 address = sign_extends_ ? linear - base_ : static_cast<u32>(linear - base_);
        std::byte* at = find(address, sizeof(T));
        if (at == nullptr) return false;
        T value = 0;
        std::memcpy(&value, at, sizeof value);
        value = static_cast<T>(value + static_cast<T>(distance));
        std::memcpy(at, &value, sizeof value);
        return true;
    }

private:
    [[nodiscard]] static bool holds(const ElfSegment& segment, u64 address, u64 size) {
        const u64 offset = address - segment.address;
        return address >= segment.address && offset < segment.bytes.size() &&
               segment.bytes.size() - offset >= size;
    }
    std::byte* find(u64 address, u64 size) {
        // Places come in order: mostly it is the segment of the one before.
        if (!holds(*segment_, address, size)) {
            const auto it = std::ranges::find_if(
                image_.segments, [&](const ElfSegment& segment) { return holds(segment, address, size); });
            if (it == image_.segments.end()) return nullptr;
            segment_ = &*it;
        }
        const auto offset = segment_->bytes.data() - std::span<const std::byte>(file_).data();
        return file_.data() + offset + (address - segment_->address);
    }

    std::span<std::byte> file_;
    const ElfImage& image_;
    const ElfSegment* segment_;
    u64 base_;
    bool sign_extends_;
};

template <typename T>
Status apply(std::string_view name, Patcher& patcher, std::span<const std::byte> places, u64 distance) {
    for (std::size_t at = 0; at < places.size(); at += kWord) {
        const u32 place = get_le<u32>(places, at);
        if (!patcher.add<T>(place, distance))
            return damaged(name, fmt::format("{:#x} lies outside of the kernel", place));
    }
    return {};
}

}  // namespace

Result<RelocationTable> find_relocations(std::string_view name, std::span<const std::byte> file,
                                         const ElfImage& image) {
    const auto table = file.subspan(std::min<u64>(image.contents_end, file.size()));
    if (table.empty()) return fail(Errc::NotFound, fmt::format("{}: the kernel has no relocations", name));
    if (table.size() % kWord != 0 || get_le<u32>(table, 0) != 0)
        return damaged(name, "the table does not begin");
    std::vector<std::span<const std::byte>> lists;
    std::size_t begin = kWord;
    for (std::size_t at = kWord; at <= table.size(); at += kWord) {
        if (at < table.size() && get_le<u32>(table, at) != 0) continue;
        if (lists.size() == 3) return damaged(name, "the table has too many parts");
        lists.push_back(table.subspan(begin, at - begin));
        begin = at + kWord;
    }
    if (image.elf_class == ElfClass::Elf32) {
        if (lists.size() != 1) return damaged(name, "a 32-bit kernel's table has one part");
        return RelocationTable{.add64 = {}, .subtract32 = {}, .add32 = lists[0]};
    }
    if (lists.size() == 2) return RelocationTable{.add64 = lists[0], .subtract32 = {}, .add32 = lists[1]};
    if (lists.size() != 3) return damaged(name, "a 64-bit kernel's table has two or three parts");
    return RelocationTable{.add64 = lists[0], .subtract32 = lists[1], .add32 = lists[2]};
}

Status relocate(std::string_view name, std::span<std::byte> file, const ElfImage& image,
                const RelocationTable& table, u64 distance) {
    Patcher patcher(file, image);
    if (auto status = apply<u32>(name, patcher, table.add32, distance); !status) return status;
    if (auto status = apply<u32>(name, patcher, table.subtract32, u64{0} - distance); !status) return status;
    return apply<u64>(name, patcher, table.add64, distance);
}

}  // namespace tessera::boot
