#include "vm/host_file.h"

#include <cerrno>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>

namespace tessera {

namespace {

// Reads everything `fd` has into memory of our own: a copy cannot change, shrink or raise SIGBUS under the
// guest.
Result<HostPages> read_all(int fd, const std::string& path, std::size_t size) {
    auto pages = HostPages::create(size);
    if (!pages) return fail(Errc::HostFailure, fmt::format("{}: not enough host memory to read it", path));
    std::size_t done = 0;
    while (done < size) {
        const ssize_t got = read(fd, pages->bytes().data() + done, size - done);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0)
            return fail(Errc::HostFailure,
                        fmt::format("{}: {}", path, std::generic_category().message(errno)));
        if (got == 0)
            return fail(Errc::HostFailure, fmt::format("{}: it became shorter while it was read", path));
        done += static_cast<std::size_t>(got);
    }
    return pages;
}

}  // namespace

Result<std::unique_ptr<HostFile>> HostFile::open(const std::string& path) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        if (errno == ENOENT) return fail(Errc::NotFound, fmt::format("{}: no such file", path));
        return fail(Errc::InvalidArgument,
                    fmt::format("{}: cannot be opened: {}", path, std::generic_category().message(errno)));
    }
    struct stat info{};
    if (fstat(fd, &info) < 0 || !S_ISREG(info.st_mode) || info.st_size <= 0) {
        (void)close(fd);
        const char* what = S_ISDIR(info.st_mode)   ? "is a directory"
                           : S_ISREG(info.st_mode) ? "is empty"
                                                   : "is not a regular file";
        return fail(Errc::InvalidArgument, fmt::format("{}: {}; name a file", path, what));
    }
    auto bytes = read_all(fd, path, static_cast<std::size_t>(info.st_size));
    (void)close(fd);
    if (!bytes) return std::unexpected(std::move(bytes.error()));
    return std::unique_ptr<HostFile>(new HostFile(path, *std::move(bytes)));
}

}  // namespace tessera
