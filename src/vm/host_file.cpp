#include "vm/host_file.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <fcntl.h>
#include <fmt/format.h>
#include <span>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>

#include "vm/host_threads.h"

namespace tessera {

namespace {

constexpr std::size_t kPiece = 2 * kMiB;  // that threads read at the same time
constexpr int kEnded = -1;

// 0, an errno, or kEnded.
int read_piece(int fd, std::span<std::byte> to, std::size_t offset) {
    std::size_t done = 0;
    while (done < to.size()) {
        const ssize_t got = pread(fd, to.data() + done, to.size() - done, static_cast<off_t>(offset + done));
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return got < 0 ? errno : kEnded;
        done += static_cast<std::size_t>(got);
    }
    return 0;
}

}  // namespace

Result<std::unique_ptr<HostFile>> HostFile::open(const std::string& path) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        if (errno == ENOENT) return fail(Errc::NotFound, fmt::format("{}: no such file", path));
        return fail(Errc::InvalidArgument,
                    fmt::format("{}: cannot be opened: {}", path, std::generic_category().message(errno)));
    }
    std::unique_ptr<HostFile> file(new HostFile(path, fd));
    struct stat info{};
    if (fstat(fd, &info) < 0 || !S_ISREG(info.st_mode) || info.st_size <= 0) {
        const char* what = S_ISDIR(info.st_mode)   ? "is a directory"
                           : S_ISREG(info.st_mode) ? "is empty"
                                                   : "is not a regular file";
        return fail(Errc::InvalidArgument, fmt::format("{}: {}; name a file", path, what));
    }
    return file;
}

HostFile::~HostFile() {
    (void)close(fd_);
}

Result<HostPages> HostFile::read() const {
    struct stat info{};
    if (fstat(fd_, &info) < 0 || info.st_size <= 0)
        return fail(Errc::InvalidArgument, fmt::format("{}: is empty now; copy it again", path_));
    const auto size = static_cast<std::size_t>(info.st_size);
    auto pages = HostPages::create(size);
    if (!pages) return fail(Errc::HostFailure, fmt::format("{}: not enough host memory to read it", path_));
    std::atomic<int> error = 0;
    run_parallel((size + kPiece - 1) / kPiece, [&](std::size_t n) {
        const std::size_t begin = n * kPiece;
        const int wrong =
            read_piece(fd_, pages->bytes().subspan(begin, std::min(kPiece, size - begin)), begin);
        if (wrong != 0) error = wrong;
    });
    if (error == kEnded)
        return fail(Errc::HostFailure, fmt::format("{}: it became shorter while it was read", path_));
    if (error != 0)
        return fail(Errc::HostFailure, fmt::format("{}: {}", path_, std::generic_category().message(error)));
    return pages;
}

}  // namespace tessera
