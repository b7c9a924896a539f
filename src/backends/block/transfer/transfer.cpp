#include "backends/block/transfer/transfer.h"

#include <algorithm>
#include <fmt/format.h>
#include <unistd.h>

#include "backends/block/open/chain.h"
#include "backends/block/open/format.h"
#include "backends/block/raw/raw_source.h"

namespace tessera::block {

namespace {

constexpr u64 kPiece = 2 * kMiB;
constexpr u64 kHole = 4 * kKiB;  // bytes; zeroes as long as this are not written

// Where a copy or a commit writes to.
class Target {
public:
    Target() = default;
    Target(const Target&) = delete;
    Target& operator=(const Target&) = delete;
    virtual ~Target() = default;
    virtual BlockStatus write(u64 offset, std::span<const u8> bytes) = 0;
    virtual BlockStatus zero(u64 offset, u64 length) = 0;
    virtual BlockStatus flush() = 0;
    [[nodiscard]] virtual u64 unit() const = 0;  // zeroes are looked for in pieces of this
    [[nodiscard]] virtual u64 size() const = 0;
    virtual Status resize(u64 size) = 0;
};

class RawTarget final : public Target {
public:
    explicit RawTarget(std::unique_ptr<HostFile> file) : file_(std::move(file)) {}
    BlockStatus write(u64 offset, std::span<const u8> bytes) override { return file_->write(offset, bytes); }
    BlockStatus zero(u64 offset, u64 length) override {
        return file_->write_zeroes(offset, length, Unmap::Allowed);
    }
    BlockStatus flush() override { return file_->sync(); }
    [[nodiscard]] u64 unit() const override { return kHole; }
    [[nodiscard]] u64 size() const override { return file_->size(); }
    Status resize(u64 size) override {
        if (file_->resize(size) == BlockStatus::Ok) return {};
        return fail(Errc::HostFailure, fmt::format("disk '{}' cannot be resized", file_->name()));
    }

private:
    std::unique_ptr<HostFile> file_;
};

class Qcow2Target final : public Target {
public:
    Qcow2Target(std::unique_ptr<qcow2::Image> image, bool compress)
        : image_(std::move(image)), compress_(compress) {}
    BlockStatus write(u64 offset, std::span<const u8> bytes) override {
        if (!compress_) return image_->write(offset, bytes);
        // Pieces begin at clusters; the last cluster of a disk may be shorter.
        while (!bytes.empty()) {
            const auto part = bytes.first(std::min<u64>(bytes.size(), unit()));
            std::vector<u8> cluster(part.begin(), part.end());
            cluster.resize(unit());
            if (const auto status = image_->write_compressed(offset, cluster); status != BlockStatus::Ok)
                return status;
            offset += part.size();
            bytes = bytes.subspan(part.size());
        }
        return BlockStatus::Ok;
    }
    BlockStatus zero(u64 offset, u64 length) override { return image_->write_zeroes(offset, length, true); }
    BlockStatus flush() override { return image_->flush(); }
    [[nodiscard]] u64 unit() const override { return image_->header().geometry.cluster(); }
    [[nodiscard]] u64 size() const override { return image_->size(); }
    Status resize(u64 size) override { return image_->resize(size); }

private:
    std::unique_ptr<qcow2::Image> image_;
    const bool compress_;
};

bool is_zero(std::span<const u8> bytes) {
    // The first byte is zero and each other one is as the one before it.
    return bytes.empty() ||
           (bytes[0] == 0 && std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

Error write_error(const std::string& path, BlockStatus status, const BlockLog& log) {
    const std::string why = log.last();
    if (status == BlockStatus::NoSpace)
        return {Errc::HostFailure, fmt::format("'{}': the host's file system is full", path)};
    return {Errc::HostFailure, why.empty() ? fmt::format("'{}' cannot be written", path) : why};
}

// Writes a piece, but not the zeroes in it, which the new disk reads as anyway.
BlockStatus write_sparse(Target& target, u64 offset, std::span<const u8> bytes) {
    const u64 unit = target.unit();
    for (u64 at = 0; at < bytes.size();) {
        u64 end = at;
        const auto unit_at = [&](u64 position) {
            return bytes.subspan(position, std::min<u64>(unit, bytes.size() - position));
        };
        while (end < bytes.size() && !is_zero(unit_at(end))) end += unit_at(end).size();
        if (end > at)
            if (const auto status = target.write(offset + at, bytes.subspan(at, end - at));
                status != BlockStatus::Ok)
                return status;
        at = end;
        while (at < bytes.size() && is_zero(unit_at(at))) at += unit_at(at).size();
    }
    return BlockStatus::Ok;
}

Status copy_all(Source& from, Target& to, const std::string& from_path, const std::string& to_path,
                const Progress& progress, const BlockLog& log) {
    std::vector<u8> buffer(kPiece);
    for (u64 at = 0; at < from.size();) {
        Source::Run run;
        if (from.run_at(at, run) != BlockStatus::Ok)
            return fail(Errc::HostFailure, fmt::format("'{}' cannot be read: {}", from_path, log.last()));
        // Up to a whole piece, so that pieces begin at whole clusters.
        u64 length = std::min(run.length, from.size() - at);
        if (run.kind == Source::Kind::Zero && at % kPiece == 0 && length >= kPiece) {
            length = length == from.size() - at ? length : length / kPiece * kPiece;
        } else {
            length = std::min(kPiece - at % kPiece, from.size() - at);
            const auto piece = std::span(buffer).first(length);
            if (from.read(at, piece) != BlockStatus::Ok)
                return fail(Errc::HostFailure, fmt::format("'{}' cannot be read: {}", from_path, log.last()));
            if (const auto status = write_sparse(to, at, piece); status != BlockStatus::Ok)
                return std::unexpected(write_error(to_path, status, log));
        }
        at += length;
        if (progress) progress(at, from.size());
    }
    if (const auto status = to.flush(); status != BlockStatus::Ok)
        return std::unexpected(write_error(to_path, status, log));
    return {};
}

ChainOptions chain_options(const DiskOptions& options) {
    return {.cache = options.cache,
            .engine = DiskEngine::Threads,
            .backing = options.backing,
            .backing_format = options.backing_format};
}

struct Opened {
    std::unique_ptr<HostFile> file;
    DiskFormat format;
};

Result<Opened> open_file(const DiskOptions& options, FileAccess access, FileLock lock, BlockLog& log) {
    auto file = HostFile::open(
        options.path, {.access = access, .cache = options.cache, .engine = DiskEngine::Threads, .lock = lock},
        log);
    if (!file) return std::unexpected(std::move(file.error()));
    // A command is not a guest: it may look into a plain disk with any name.
    const bool may_be_named_so = options.format == DiskFormat::Raw;
    const auto format =
        may_be_named_so ? Result<DiskFormat>(DiskFormat::Raw) : choose_format(**file, options.format);
    if (!format) return std::unexpected(format.error());
    return Opened{.file = *std::move(file), .format = *format};
}

Result<std::unique_ptr<Target>> make_target(const NewDisk& disk, bool compress, BlockLog& log) {
    if (auto made = create_disk(disk); !made) return std::unexpected(std::move(made.error()));
    auto file = HostFile::open(disk.path, {.engine = DiskEngine::Threads}, log);
    if (!file) return std::unexpected(std::move(file.error()));
    if (disk.format == DiskFormat::Raw) return std::make_unique<RawTarget>(*std::move(file));
    auto image = qcow2::Image::open(*std::move(file), nullptr, {}, log);
    if (!image) return std::unexpected(std::move(image.error()));
    return std::make_unique<Qcow2Target>(*std::move(image), compress);
}

BlockLog::Report quiet() {
    return [](const std::string&) {};
}

}  // namespace

Status create_disk(const NewDisk& disk) {
    BlockLog log(quiet());
    auto file = HostFile::create(disk.path, log);
    if (!file) return std::unexpected(std::move(file.error()));
    Status made;
    if (disk.format == DiskFormat::Qcow2) {
        made = qcow2::create(**file, disk.qcow2);
    } else if ((*file)->resize(disk.qcow2.size) != BlockStatus::Ok ||
               (disk.preallocate &&
                (*file)->write_zeroes(0, disk.qcow2.size, Unmap::No) != BlockStatus::Ok)) {
        made = fail(Errc::HostFailure, log.last());
    }
    if (made && (*file)->sync() != BlockStatus::Ok) made = fail(Errc::HostFailure, log.last());
    if (!made) (void)unlink(disk.path.c_str());
    return made;
}

Result<DiskReport> describe_disk(const DiskOptions& options) {
    BlockLog log(quiet());
    auto opened = open_file(options, FileAccess::ReadOnly, FileLock::None, log);
    if (!opened) return std::unexpected(std::move(opened.error()));
    DiskReport report{.path = options.path,
                      .format = opened->format,
                      .size = (opened->file->size() + kSectorSize - 1) / kSectorSize * kSectorSize,
                      .allocated = opened->file->allocated(),
                      .header = {},
                      .snapshots = {}};
    if (opened->format == DiskFormat::Raw) return report;
    auto header = qcow2::read_header(*opened->file);
    if (!header) return std::unexpected(std::move(header.error()));
    auto snapshots = qcow2::read_snapshots(*opened->file, *header);
    if (!snapshots) return std::unexpected(std::move(snapshots.error()));
    report.header = *std::move(header);
    report.size = report.header.disk_size;
    report.snapshots = std::move(snapshots->snapshots);
    return report;
}

Status copy_disk(Copy copy) {
    BlockLog log(quiet());
    auto opened = open_file(copy.from, FileAccess::ReadOnly, FileLock::Needed, log);
    if (!opened) return std::unexpected(std::move(opened.error()));
    Chain chain(chain_options(copy.from), log);
    auto from = chain.open_source(std::move(opened->file), opened->format);
    if (!from) return std::unexpected(std::move(from.error()));
    copy.to.qcow2.size = (*from)->size();
    auto target = make_target(copy.to, copy.compress, log);
    if (!target) return std::unexpected(std::move(target.error()));
    auto copied = copy_all(**from, **target, copy.from.path, copy.to.path, copy.progress, log);
    if (!copied) (void)unlink(copy.to.path.c_str());
    return copied;
}

Result<qcow2::CheckReport> check_disk(const DiskOptions& options, qcow2::Repair repair,
                                      const Progress& progress) {
    BlockLog log(quiet());
    auto opened =
        open_file(options, repair == qcow2::Repair::No ? FileAccess::ReadOnly : FileAccess::ReadWrite,
                  FileLock::Needed, log);
    if (!opened) return std::unexpected(std::move(opened.error()));
    if (opened->format == DiskFormat::Raw)
        return fail(Errc::Unsupported,
                    fmt::format("disk '{}' is raw: there is nothing to check in it", options.path));
    return qcow2::check(*opened->file, repair, progress);
}

Status resize_disk(const DiskOptions& options, u64 size) {
    BlockLog log(quiet());
    auto opened = open_file(options, FileAccess::ReadWrite, FileLock::Needed, log);
    if (!opened) return std::unexpected(std::move(opened.error()));
    if (opened->format == DiskFormat::Raw) {
        if (opened->file->is_block_device())
            return fail(Errc::Unsupported,
                        fmt::format("disk '{}': a block device keeps its size", options.path));
        if (opened->file->resize(size) != BlockStatus::Ok || opened->file->sync() != BlockStatus::Ok)
            return fail(Errc::HostFailure, log.last());
        return {};
    }
    Chain chain(chain_options(options), log);
    auto image = chain.open_image(std::move(opened->file), FileAccess::ReadWrite);
    if (!image) return std::unexpected(std::move(image.error()));
    return (*image)->resize(size);
}

namespace {

Result<std::unique_ptr<Target>> open_base(const std::string& path, DiskFormat format,
                                          const DiskOptions& options, BlockLog& log) {
    auto file = HostFile::open(path, {.engine = DiskEngine::Threads}, log);
    if (!file) return std::unexpected(std::move(file.error()));
    if (format == DiskFormat::Raw) return std::make_unique<RawTarget>(*std::move(file));
    Chain chain(chain_options(options), log);
    auto image = chain.open_image(*std::move(file), FileAccess::ReadWrite);
    if (!image) return std::unexpected(std::move(image.error()));
    return std::make_unique<Qcow2Target>(*std::move(image), false);
}

Status move_down(qcow2::Image& top, Target& base, const std::string& base_path, const Progress& progress,
                 const BlockLog& log) {
    std::vector<u8> buffer(kPiece);
    for (u64 at = 0; at < top.size();) {
        qcow2::ClusterKind kind = qcow2::ClusterKind::Unallocated;
        u64 length = 0;
        auto status = top.mapping_at(at, kind, length);
        if (status == BlockStatus::Ok && kind != qcow2::ClusterKind::Unallocated) {
            const bool zero = kind == qcow2::ClusterKind::Zero || kind == qcow2::ClusterKind::ZeroAllocated;
            if (!zero) length = std::min<u64>(length, buffer.size());
            const auto piece = std::span(buffer).first(zero ? 0 : length);
            if (!zero) status = top.read(at, piece);
            if (status == BlockStatus::Ok) {
                status = zero ? base.zero(at, length) : base.write(at, piece);
                if (status != BlockStatus::Ok) return std::unexpected(write_error(base_path, status, log));
            }
        }
        if (status != BlockStatus::Ok)
            return fail(Errc::HostFailure, fmt::format("the overlay cannot be read: {}", log.last()));
        at += length;
        if (progress) progress(at, top.size());
    }
    if (const auto status = base.flush(); status != BlockStatus::Ok)
        return std::unexpected(write_error(base_path, status, log));
    return {};
}

}  // namespace

Status commit_disk(const DiskOptions& options, const Progress& progress) {
    BlockLog log(quiet());
    auto opened = open_file(options, FileAccess::ReadWrite, FileLock::Needed, log);
    if (!opened) return std::unexpected(std::move(opened.error()));
    if (opened->format == DiskFormat::Raw)
        return fail(Errc::InvalidArgument,
                    fmt::format("disk '{}' is raw and has no backing file", options.path));
    const auto header = qcow2::read_header(*opened->file);
    if (!header) return std::unexpected(header.error());
    const auto looked = Chain(chain_options(options), log).backing_of(options.path, *header);
    if (!looked) return std::unexpected(looked.error());
    const std::optional<Chain::Backing>& backing = *looked;
    if (!backing)
        return fail(Errc::InvalidArgument,
                    fmt::format("disk '{}' has no backing file to commit to", options.path));
    // What is above is read without what is below: only what it holds itself is asked for.
    auto top = qcow2::Image::open(std::move(opened->file), nullptr, {}, log);
    if (!top) return std::unexpected(std::move(top.error()));
    auto base = open_base(backing->path, backing->format, options, log);
    if (!base) return std::unexpected(std::move(base.error()));
    if ((*base)->size() < (*top)->size())
        if (auto grown = (*base)->resize((*top)->size()); !grown) return grown;
    if (auto moved = move_down(**top, **base, backing->path, progress, log); !moved) return moved;
    if ((*top)->make_empty() != BlockStatus::Ok || (*top)->flush() != BlockStatus::Ok)
        return fail(Errc::HostFailure,
                    fmt::format("everything is in '{}' now, but disk '{}' cannot be emptied: {}",
                                backing->path, options.path, log.last()));
    return {};
}

}  // namespace tessera::block
