#include "backends/block/open/format.h"

#include <array>
#include <cstring>
#include <fmt/format.h>
#include <string_view>

namespace tessera::block {

namespace {

struct Magic {
    u64 offset;
    std::string_view bytes;
    const char* name;
};

using std::string_view_literals::operator""sv;

constexpr std::array<Magic, 9> kMagics{{
    {0, "QFI\xfb"sv, "qcow2"},
    {0, "QED\0"sv, "qed"},
    {0, "KDMV"sv, "vmdk"},
    {0, "COWD"sv, "vmdk"},
    {0, "# Disk DescriptorFile"sv, "vmdk"},
    {0, "vhdxfile"sv, "vhdx"},
    {0, "conectix"sv, "vhd"},
    {0, "WithoutFreeSpace"sv, "parallels"},
    {0x40, "\x7f\x10\xda\xbe"sv, "vdi"},
}};

bool has_qcow2_name(const std::string& name) {
    return name.ends_with(".qcow2") || name.ends_with(".qcow");
}

}  // namespace

std::string magic_of(BlockFile& file) {
    std::array<u8, 128> head{};
    if (file.read(0, std::span(head)) != BlockStatus::Ok) return {};
    for (const Magic& magic : kMagics)
        if (std::memcmp(std::span(head).subspan(magic.offset).data(), magic.bytes.data(),
                        magic.bytes.size()) == 0)
            return magic.name;
    return {};
}

Result<DiskFormat> choose_format(BlockFile& file, std::optional<DiskFormat> wanted) {
    const std::string& name = file.name();
    const std::string magic = magic_of(file);
    if (wanted == DiskFormat::Qcow2 || (!wanted && has_qcow2_name(name))) {
        if (magic == "qcow2") return DiskFormat::Qcow2;
        return fail(
            Errc::InvalidArgument,
            wanted ? fmt::format("disk '{}': this is not a qcow2 image, as format=qcow2 says", name)
                   : fmt::format("disk '{}': this is not a qcow2 image, as its name says; if it is a plain "
                                 "disk, rename it",
                                 name));
    }
    if (wanted == DiskFormat::Raw) {
        // What the guest writes here would be believed when the disk is opened without a format.
        if (has_qcow2_name(name) && !file.read_only())
            return fail(
                Errc::InvalidArgument,
                fmt::format("disk '{}': a plain disk that a guest can write must not have a name that makes "
                            "it a qcow2 image; rename it, or add ro",
                            name));
        return DiskFormat::Raw;
    }
    if (magic == "qcow2")
        return fail(
            Errc::InvalidArgument,
            fmt::format("disk '{}' begins like a qcow2 image: say format=qcow2 if you trust it to be one, or "
                        "format=raw if a guest uses it as a plain disk",
                        name));
    if (!magic.empty())
        return fail(
            Errc::InvalidArgument,
            fmt::format("disk '{}' begins like a {} image, which cannot be read; say format=raw if a guest "
                        "uses it as a plain disk",
                        name, magic));
    return DiskFormat::Raw;
}

}  // namespace tessera::block
