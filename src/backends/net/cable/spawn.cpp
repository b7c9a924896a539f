#include "backends/net/cable/spawn.h"

#include <array>
#include <cerrno>
#include <csignal>
#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <system_error>

namespace tessera::net {

namespace {

std::unexpected<Error> cannot_start(const std::string& program, int error) {
    return fail(Errc::HostFailure, fmt::format("network: cannot start a helper process ({}): {}", program,
                                               std::generic_category().message(error)));
}

}  // namespace

Result<pid_t> spawn_with(const std::string& program, const char* command, int socket) {
    posix_spawn_file_actions_t files{};
    posix_spawnattr_t attributes{};
    sigset_t none{};
    sigset_t all{};
    (void)sigemptyset(&none);
    (void)sigfillset(&all);
    (void)posix_spawn_file_actions_init(&files);
    (void)posix_spawnattr_init(&attributes);
    constexpr int kTarget = 3;
    (void)posix_spawn_file_actions_adddup2(&files, socket, kTarget);
    (void)posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    (void)posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    (void)posix_spawn_file_actions_addclosefrom_np(&files, kTarget + 1);
    // A group of its own: the terminal's Ctrl-C is not for it. No signal is blocked or ignored.
    (void)posix_spawnattr_setflags(&attributes,
                                   POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    (void)posix_spawnattr_setpgroup(&attributes, 0);
    (void)posix_spawnattr_setsigmask(&attributes, &none);
    (void)posix_spawnattr_setsigdefault(&attributes, &all);

    std::string name = "tessera";
    std::string word = command;
    std::array<char*, 3> arguments{name.data(), word.data(), nullptr};
    std::array<char*, 1> environment{nullptr};
    pid_t process = -1;
    const int error =
        posix_spawn(&process, program.c_str(), &files, &attributes, arguments.data(), environment.data());
    (void)posix_spawn_file_actions_destroy(&files);
    (void)posix_spawnattr_destroy(&attributes);
    if (error != 0) return cannot_start(program, error);
    return process;
}

Result<Far> spawn_helper(const std::string& program, const char* command) {
    std::array<int, 2> pair{-1, -1};
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair.data()) < 0)
        return cannot_start(program, errno);
    Far far{.socket = File(pair[0])};
    const File theirs(pair[1]);
    auto process = spawn_with(program, command, theirs.get());
    if (!process) return std::unexpected(std::move(process.error()));
    far.process = *process;
    return far;
}

void end_process(pid_t process) {
    if (process <= 0) return;
    (void)kill(process, SIGKILL);
    while (waitpid(process, nullptr, 0) < 0 && errno == EINTR) {
    }
}

}  // namespace tessera::net
