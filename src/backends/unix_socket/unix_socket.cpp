#include "backends/unix_socket/unix_socket.h"

#include <cerrno>
#include <cstring>
#include <fmt/format.h>
#include <optional>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <system_error>
#include <unistd.h>
#include <utility>

namespace tessera {

namespace {

constexpr int kBacklog = 64;

std::optional<sockaddr_un> address_of(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.empty() || path.size() >= sizeof address.sun_path || path.contains('\0')) return std::nullopt;
    std::memcpy(address.sun_path, path.data(), path.size());
    return address;
}

const sockaddr* raw(const sockaddr_un& address) {
    return reinterpret_cast<const sockaddr*>(&address);
}

File make_socket() {
    return File(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

std::unexpected<Error> failed(const std::string& option, const std::string& path, std::string_view why) {
    return fail(Errc::InvalidArgument, fmt::format("{}: cannot listen at '{}': {}", option, path, why));
}

// 0 if the path is free now, else what is in the way.
int clear_way(const std::string& path, const sockaddr_un& address) {
    struct stat info{};
    if (lstat(path.c_str(), &info) < 0) return errno == ENOENT ? 0 : errno;
    if (!S_ISSOCK(info.st_mode)) return EEXIST;
    const File probe = make_socket();
    if (!probe.is_open()) return errno;
    if (::connect(probe.get(), raw(address), sizeof address) == 0 || errno == EAGAIN) return EADDRINUSE;
    if (errno != ECONNREFUSED) return errno;
    return unlink(path.c_str()) == 0 || errno == ENOENT ? 0 : errno;
}

}  // namespace

Result<UnixListener> UnixListener::open(const std::string& option, const std::string& path) {
    const auto address = address_of(path);
    if (!address)
        return failed(option, path,
                      fmt::format("a socket's path has 1 to {} bytes", sizeof sockaddr_un::sun_path - 1));
    if (const int error = clear_way(path, *address); error != 0) {
        if (error == EADDRINUSE) return failed(option, path, "another program listens there");
        if (error == EEXIST)
            return failed(option, path,
                          "there is a file that is no socket; remove it or choose another path");
        return failed(option, path, std::generic_category().message(error));
    }
    UnixListener made;
    made.socket_ = make_socket();
    if (!made.socket_.is_open()) return failed(option, path, std::generic_category().message(errno));
    // The name gets the socket's mode: it is never anybody else's, not for a moment.
    if (fchmod(made.socket_.get(), S_IRUSR | S_IWUSR) < 0 ||
        ::bind(made.socket_.get(), raw(*address), sizeof *address) < 0)
        return failed(option, path, std::generic_category().message(errno));
    struct stat info{};
    if (lstat(path.c_str(), &info) == 0) {
        made.path_ = path;
        made.device_ = info.st_dev;
        made.inode_ = info.st_ino;
    }
    if (::listen(made.socket_.get(), kBacklog) < 0)
        return failed(option, path, std::generic_category().message(errno));
    return made;
}

UnixListener& UnixListener::operator=(UnixListener&& other) noexcept {
    if (this == &other) return *this;
    remove();
    socket_ = std::move(other.socket_);
    path_ = std::exchange(other.path_, {});
    device_ = other.device_;
    inode_ = other.inode_;
    return *this;
}

// Somebody else's socket of the same name stays.
void UnixListener::remove() {
    struct stat info{};
    if (path_.empty() || lstat(path_.c_str(), &info) < 0) return;
    if (info.st_dev == device_ && info.st_ino == inode_) (void)unlink(path_.c_str());
    path_.clear();
}

File UnixListener::accept() const {
    return File(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
}

File connect_unix(const std::string& path) {
    const auto address = address_of(path);
    if (!address) return {};
    File socket = make_socket();
    if (!socket.is_open() || ::connect(socket.get(), raw(*address), sizeof *address) < 0) return {};
    return socket;
}

}  // namespace tessera
