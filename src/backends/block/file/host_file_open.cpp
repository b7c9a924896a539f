// Opening: what kind of file it is, who else uses it, which way it is read and written.
#include <cerrno>
#include <cstdlib>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>

#include "backends/block/file/host_file.h"

namespace tessera::block {

namespace {

std::string reason(int error) {
    return std::generic_category().message(error);
}

bool is_uncached(CacheMode cache) {
    return cache == CacheMode::None || cache == CacheMode::DirectSync;
}

int open_flags(const HostFileOptions& options) {
    // O_NONBLOCK: a FIFO must not hold us before we have seen that it is one.
    int flags = O_CLOEXEC | O_NONBLOCK | (options.access == FileAccess::ReadOnly ? O_RDONLY : O_RDWR);
    if (is_uncached(options.cache)) flags |= O_DIRECT;
    if (options.cache == CacheMode::DirectSync) flags |= O_DSYNC;
    return flags;
}

}  // namespace

Result<std::unique_ptr<HostFile>> HostFile::open(const std::string& path, const HostFileOptions& options,
                                                 BlockLog& log) {
    const int fd = ::open(path.c_str(), open_flags(options));
    if (fd < 0) {
        const int error = errno;
        if (error == ENOENT)
            return fail(Errc::NotFound, fmt::format("disk '{}': there is no such file", path));
        if (error == EINVAL && is_uncached(options.cache))
            return fail(
                Errc::Unsupported,
                fmt::format("disk '{}': its file system has no direct I/O; use cache=writeback", path));
        if ((error == EACCES || error == EROFS || error == EPERM) && options.access == FileAccess::ReadWrite)
            return fail(Errc::HostFailure,
                        fmt::format("disk '{}': {}; to use it without writing, add ro", path, reason(error)));
        return fail(Errc::HostFailure, fmt::format("disk '{}': {}", path, reason(error)));
    }
    return adopt(fd, path, options, log);
}

Result<std::unique_ptr<HostFile>> HostFile::create(const std::string& path, BlockLog& log) {
    const int fd = ::open(path.c_str(), O_CLOEXEC | O_RDWR | O_CREAT | O_EXCL, 0644);
    if (fd < 0) {
        const int error = errno;
        return fail(Errc::HostFailure,
                    error == EEXIST
                        ? fmt::format("'{}' exists already; remove it or choose another name", path)
                        : fmt::format("cannot create '{}': {}", path, reason(error)));
    }
    return adopt(fd, path, {}, log);
}

Result<std::unique_ptr<HostFile>> HostFile::temporary(BlockLog& log) {
    const char* wanted = std::getenv("TMPDIR");  // NOLINT(concurrency-mt-unsafe): nothing here sets it
    const std::string folder = wanted != nullptr && *wanted != 0 ? wanted : "/var/tmp";
    int fd = ::open(folder.c_str(), O_CLOEXEC | O_RDWR | O_TMPFILE, 0600);
    if (fd < 0) {  // some file systems have no O_TMPFILE
        std::string path = folder + "/tessera-XXXXXX";
        fd = mkostemp(path.data(), O_CLOEXEC);
        if (fd < 0)
            return fail(
                Errc::HostFailure,
                fmt::format("cannot create a temporary file in '{}': {}; name another folder by TMPDIR",
                            folder, reason(errno)));
        (void)unlink(path.c_str());
    }
    return adopt(fd, folder + "/(temporary)", {.cache = CacheMode::Unsafe}, log);
}

Result<std::unique_ptr<HostFile>> HostFile::adopt(int fd, const std::string& path,
                                                  const HostFileOptions& options, BlockLog& log) {
    std::unique_ptr<HostFile> file(new HostFile(fd, path, options, log));
    for (const auto step : {&HostFile::examine, &HostFile::lock, &HostFile::start_engine})
        if (auto done = (file.get()->*step)(); !done) return std::unexpected(std::move(done.error()));
    return file;
}

Status HostFile::examine() {
    struct stat about{};
    if (fstat(fd_, &about) < 0)
        return fail(Errc::HostFailure, fmt::format("disk '{}': {}", name_, reason(errno)));
    identity_ = {about.st_dev, about.st_ino};
    physical_block_ = about.st_blksize >= 4096 ? 4096 : kSectorSize;
    if (S_ISREG(about.st_mode)) {
        size_ = static_cast<u64>(about.st_size);
    } else if (S_ISBLK(about.st_mode)) {
        block_device_ = true;
        identity_ = {~u64{0}, about.st_rdev};
        u64 size = 0;
        int logical = 0;
        unsigned physical = 0;
        if (ioctl(fd_, BLKGETSIZE64, &size) < 0 || ioctl(fd_, BLKSSZGET, &logical) < 0)
            return fail(Errc::HostFailure,
                        fmt::format("disk '{}': cannot learn the device's size: {}", name_, reason(errno)));
        if (ioctl(fd_, BLKPBSZGET, &physical) < 0) physical = static_cast<unsigned>(logical);
        size_ = size;
        logical_block_ = static_cast<u32>(logical);
        physical_block_ = physical;
    } else {
        return fail(Errc::InvalidArgument,
                    fmt::format("disk '{}': this is neither a file nor a block device", name_));
    }
    if (is_uncached(options_.cache)) find_direct_alignment();
    return {};
}

void HostFile::find_direct_alignment() {
    memory_alignment_ = std::max(4096U, logical_block_);
    offset_alignment_ = block_device_ ? logical_block_ : 4096U;
#ifdef STATX_DIOALIGN
    struct statx about{};
    if (statx(fd_, "", AT_EMPTY_PATH, STATX_DIOALIGN, &about) == 0 &&
        (about.stx_mask & STATX_DIOALIGN) != 0 && about.stx_dio_mem_align != 0 &&
        about.stx_dio_offset_align != 0) {
        memory_alignment_ = std::max(about.stx_dio_mem_align, u32{kSectorSize});
        offset_alignment_ = std::max(about.stx_dio_offset_align, u32{kSectorSize});
    }
#endif
}

// Open file description locks: they end with the descriptor, also when we are killed, and two disks of one
// process exclude each other too.
Status HostFile::lock() {
    if (options_.lock == FileLock::None) return {};
    struct flock range{};
    range.l_type = static_cast<short>(read_only() ? F_RDLCK : F_WRLCK);
    range.l_whence = SEEK_SET;
    if (fcntl(fd_, F_OFD_SETLK, &range) == 0) return {};
    const int error = errno;
    if (error == EAGAIN || error == EACCES)
        return fail(
            Errc::HostFailure,
            fmt::format("disk '{}' is in use: another virtual machine (or disk tool) {} it; stop that one{}",
                        name_, read_only() ? "writes to" : "holds",
                        read_only() ? "" : ", or open it in both with ro"));
    log_.say(fmt::format("disk '{}' cannot be locked against other writers: {}", name_, reason(error)));
    return {};
}

Status HostFile::start_engine() {
    if (options_.engine == DiskEngine::Threads) return {};
    // Buffered I/O is answered from the page cache, or has to wait inside the kernel, where io_uring has a
    // thread wait for it as we would, and one more to hear of it.
    if (options_.engine == DiskEngine::Auto && !is_direct()) return {};
    uring_ = UringEngine::create(*this, fd_);
    if (uring_ == nullptr && options_.engine == DiskEngine::IoUring)
        return fail(
            Errc::Unsupported,
            fmt::format("disk '{}': this host does not allow io_uring (a container's seccomp filter, or "
                        "kernel.io_uring_disabled); use engine=threads",
                        name_));
    return {};
}

}  // namespace tessera::block
