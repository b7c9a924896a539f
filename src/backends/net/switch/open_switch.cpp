#include "backends/net/switch/open_switch.h"

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fcntl.h>
#include <fmt/format.h>
#include <string_view>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <system_error>

#include "backends/net/switch/switch_server.h"

namespace tessera::net {

namespace {

constexpr int kBacklog = 64;
constexpr int kLockTries = 50;
constexpr long kLockPauseNs = 10'000'000;

std::unexpected<Error> failed(const SwitchOptions& options, std::string_view what, int error) {
    return fail(Errc::HostFailure, fmt::format("--net switch={}: {}: {}", options.name, what,
                                               std::generic_category().message(error)));
}

// A directory that only this user can change.
Result<std::string> directory_of(const SwitchOptions& options) {
    std::string directory = options.directory;
    const char* const set =
        std::getenv("XDG_RUNTIME_DIR");  // NOLINT(concurrency-mt-unsafe): nothing here sets it
    const std::string runtime = set == nullptr ? "" : set;
    if (directory.empty())
        directory = runtime.empty() ? fmt::format("/tmp/tessera-{}", geteuid()) : runtime + "/tessera";
    if (mkdir(directory.c_str(), 0700) < 0 && errno != EEXIST) return failed(options, directory, errno);
    struct stat info{};
    if (lstat(directory.c_str(), &info) < 0) return failed(options, directory, errno);
    if (!S_ISDIR(info.st_mode) || info.st_uid != geteuid() || (info.st_mode & 0077) != 0)
        return fail(
            Errc::HostFailure,
            fmt::format("--net switch={}: {} is not this user's alone; set XDG_RUNTIME_DIR, or chmod 700 it",
                        options.name, directory));
    return directory;
}

struct Address {
    sockaddr_un raw{};
    std::string path;
    [[nodiscard]] const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&raw); }
};

// 0, or the error.
int try_connect(const Address& address, File& socket) {
    socket = File(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!socket.is_open()) return errno;
    return ::connect(socket.get(), address.get(), sizeof address.raw) == 0 ? 0 : errno;
}

// Starts the switch; the lock keeps others from doing so at the same time.
Status start(const SwitchOptions& options, const Address& address) {
    // What is there is the socket of a switch that has ended.
    (void)unlink(address.path.c_str());
    const File listener(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!listener.is_open() || ::bind(listener.get(), address.get(), sizeof address.raw) < 0 ||
        ::listen(listener.get(), kBacklog) < 0)
        return failed(options, address.path, errno);
    const auto process = spawn_with(options.helper_program, kNetSwitchCommand, listener.get());
    if (!process) return std::unexpected(process.error());
    int status = 0;
    while (waitpid(*process, &status, 0) < 0 && errno == EINTR) {  // it goes into the background at once
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return fail(Errc::HostFailure,
                    fmt::format("--net switch={}: {} does not start it; is it the tessera command?",
                                options.name, options.helper_program));
    return {};
}

Result<Far> reach(const SwitchOptions& options) {
    auto directory = directory_of(options);
    if (!directory) return std::unexpected(std::move(directory.error()));
    Address address;
    address.path = fmt::format("{}/switch-{}.sock", *directory, options.name);
    address.raw.sun_family = AF_UNIX;
    if (address.path.size() >= sizeof address.raw.sun_path)
        return failed(options, address.path, ENAMETOOLONG);
    std::memcpy(address.raw.sun_path, address.path.data(), address.path.size());
    Far far;
    if (try_connect(address, far.socket) == 0) return far;

    const std::string lock_path = fmt::format("{}/switch-{}.lock", *directory, options.name);
    const File lock(::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!lock.is_open()) return failed(options, lock_path, errno);
    int tries = 0;
    while (flock(lock.get(), LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK || ++tries == kLockTries) return failed(options, lock_path, errno);
        const timespec pause{.tv_sec = 0, .tv_nsec = kLockPauseNs};
        (void)nanosleep(&pause, nullptr);
    }
    // Somebody else may have been faster.
    int error = try_connect(address, far.socket);
    if (error == 0) return far;
    if (error != ECONNREFUSED && error != ENOENT) return failed(options, address.path, error);
    if (auto started = start(options, address); !started) return std::unexpected(std::move(started.error()));
    error = try_connect(address, far.socket);
    if (error != 0) return failed(options, address.path, error);
    return far;
}

}  // namespace

Result<std::unique_ptr<LinkedNet>> open_switch(const SwitchOptions& options, EventLoop& loop) {
    if (options.helper_program.empty())
        return fail(Errc::InvalidArgument, "network: helper_program must name the tessera command");
    constexpr int kTries = 3;
    for (int attempt = 1;; ++attempt) {
        LinkedNet::Peer peer;
        peer.reach = [options] { return net::reach(options); };
        peer.can_take = {.checksum = true, .tso4 = true, .tso6 = true};
        peer.first_pause_ms = options.restart_pause_ms;
        auto net = LinkedNet::create(loop, std::move(peer));
        // A switch that was just about to end does not answer; the next one does.
        if (net || attempt == kTries) return net;
    }
}

}  // namespace tessera::net
