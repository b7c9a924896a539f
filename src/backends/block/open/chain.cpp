#include "backends/block/open/chain.h"

#include <algorithm>
#include <filesystem>
#include <fmt/format.h>

#include "backends/block/raw/raw_source.h"

namespace tessera::block {

namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMostFiles = 32;  // in a chain

// Whether the two files are in one directory, after symbolic links.
bool are_neighbours(const fs::path& one, const fs::path& other) {
    std::error_code failed;
    const fs::path first = fs::canonical(one, failed);
    if (failed) return false;
    const fs::path second = fs::canonical(other, failed);
    return !failed && first.parent_path() == second.parent_path();
}

}  // namespace

Result<std::optional<Chain::Backing>> Chain::backing_of(const std::string& image,
                                                        const qcow2::Header& header) const {
    if (header.backing_name.empty()) return std::nullopt;
    fs::path path = header.backing_name;
    if (path.is_relative()) path = fs::path(image).parent_path() / path;
    const auto refuse = [&](std::string_view why) {
        return fail(Errc::InvalidArgument,
                    fmt::format("disk '{}' has the backing file '{}', {}", image, path.string(), why));
    };
    if (options_.backing == BackingPolicy::Off) return refuse("and backing=off was said");
    std::string format = header.backing_format;
    if (format.empty() && options_.backing_format)
        format = *options_.backing_format == DiskFormat::Raw ? "raw" : "qcow2";
    if (format.empty())
        return refuse("but does not say its format; add backing_format=raw or backing_format=qcow2");
    if (format != "raw" && format != "qcow2")
        return refuse("in a format other than raw and qcow2, which cannot be read");
    if (options_.backing == BackingPolicy::Auto) {
        // A raw backing file shows the guest any file of ours that the image chose to name.
        if (format == "raw")
            return refuse(
                "as raw, which shows the guest whatever is in it; add backing=on if you trust the image");
        if (!are_neighbours(image, path))
            return refuse("which is not in the image's own directory; add backing=on if you trust the image");
    }
    return Backing{.path = path.string(), .format = format == "raw" ? DiskFormat::Raw : DiskFormat::Qcow2};
}

Result<std::unique_ptr<Source>> Chain::open_backing(const std::string& image, const qcow2::Header& header) {
    const auto looked = backing_of(image, header);
    if (!looked) return std::unexpected(looked.error());
    const std::optional<Backing>& backing = *looked;
    if (!backing) return nullptr;
    auto file = HostFile::open(
        backing->path,
        {.access = FileAccess::ReadOnly, .cache = options_.cache, .engine = DiskEngine::Threads}, log_);
    if (!file)
        return fail(file.error().code,
                    fmt::format("the backing file of disk '{}': {}", image, file.error().message));
    return open_source(*std::move(file), backing->format);
}

Result<std::unique_ptr<Source>> Chain::open_source(std::unique_ptr<HostFile> file, DiskFormat format) {
    if (format == DiskFormat::Raw) return std::make_unique<RawSource>(std::move(file));
    return open_image(std::move(file), FileAccess::ReadOnly);
}

Result<std::unique_ptr<qcow2::Image>> Chain::open_image(std::unique_ptr<HostFile> file, FileAccess access) {
    if (std::ranges::find(seen_, file->identity()) != seen_.end())
        return fail(Errc::CorruptState,
                    fmt::format("disk '{}' is its own backing file in the end", file->name()));
    if (seen_.size() >= kMostFiles)
        return fail(
            Errc::Unsupported,
            fmt::format("disk '{}' is the {}th of a chain of backing files; commit or convert some of them",
                        file->name(), seen_.size() + 1));
    seen_.push_back(file->identity());
    const auto header = qcow2::read_header(*file);
    if (!header) return std::unexpected(header.error());
    auto backing = open_backing(file->name(), *header);
    if (!backing) return std::unexpected(std::move(backing.error()));
    return qcow2::Image::open(std::move(file), *std::move(backing),
                              {.writable = access == FileAccess::ReadWrite}, log_);
}

}  // namespace tessera::block
