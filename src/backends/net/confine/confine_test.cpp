// A confined process tries what it must not be able to do.
#include "backends/net/confine/confine.h"

#include <arpa/inet.h>
#include <cerrno>
#include <csignal>
#include <fcntl.h>
#include <functional>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace tessera::net {
namespace {

// Runs `attempt` confined, in a process of its own; its return value is the process's exit code.
int confined(Needs needs, const std::function<int()>& attempt) {
    const pid_t child = fork();
    if (child == 0) {
        (void)confine(needs);
        _exit(attempt());
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

// 0: the attempts all failed; otherwise the number of the first that did not.
int forbidden(std::initializer_list<std::function<bool()>> attempts) {
    int number = 0;
    for (const auto& attempt : attempts) {
        ++number;
        if (attempt()) return number;
    }
    return 0;
}

TEST(ConfineTest, NoFileCanBeOpenedOrMade) {
    EXPECT_EQ(confined(Needs::Sockets,
                       [] {
                           return forbidden({
                               [] { return open("/etc/passwd", O_RDONLY) >= 0; },
                               [] { return open("/", O_RDONLY) >= 0; },
                               [] { return open("/proc/self/mem", O_RDWR) >= 0; },
                               [] { return open("x", O_CREAT | O_WRONLY, 0600) >= 0; },
                               [] { return syscall(SYS_openat2, AT_FDCWD, "/", nullptr, 0) >= 0; },
                               [] { return mkdir("/d", 0700) == 0; },
                               [] { return unlink("/etc/hostname") == 0; },
                               [] { return chdir("/") == 0; },
                               [] { return syscall(SYS_memfd_create, "x", 0) >= 0; },
                           });
                       }),
              0);
}

TEST(ConfineTest, NoPrivilegeCanBeGained) {
    EXPECT_EQ(confined(Needs::Sockets,
                       [] {
                           return forbidden({
                               [] { return mount("none", "/", "tmpfs", 0, nullptr) == 0; },
                               [] { return syscall(SYS_unshare, 0x10000000) == 0; },
                               [] { return setuid(0) == 0; },
                               [] { return chroot("/") == 0; },
                               [] { return ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) == 0; },
                               [] { return syscall(SYS_bpf, 0, nullptr, 0) == 0; },
                               [] { return syscall(SYS_io_uring_setup, 1, nullptr) == 0; },
                               [] { return syscall(SYS_userfaultfd, 0) >= 0; },
                               [] { return syscall(SYS_perf_event_open, nullptr, 0, -1, -1, 0) >= 0; },
                               [] { return syscall(SYS_keyctl, 0, 0) >= 0; },
                           });
                       }),
              0);
}

TEST(ConfineTest, NoProgramNoProcessNoSignalNoCode) {
    EXPECT_EQ(
        confined(Needs::Sockets,
                 [] {
                     return forbidden({
                         [] {
                             execl("/bin/true", "true", nullptr);
                             return false;
                         },
                         [] { return syscall(SYS_fork) >= 0; },
                         [] { return syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0) >= 0; },
                         [] { return kill(getppid(), 0) == 0; },
                         [] { return kill(1, SIGTERM) == 0; },
                         [] {
                             return mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS,
                                         -1, 0) != MAP_FAILED;
                         },
                         [] {
                             void* page = mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
                             return page == MAP_FAILED || mprotect(page, 4096, PROT_READ | PROT_EXEC) == 0;
                         },
                         [] {
                             rlimit files{.rlim_cur = 10'000, .rlim_max = 10'000};
                             return setrlimit(RLIMIT_NOFILE, &files) == 0;
                         },
                     });
                 }),
        0);
}

TEST(ConfineTest, OnlyInternetSocketsAndOnlyWhenNeeded) {
    const auto other_sockets = [] {
        return forbidden({
            [] { return socket(AF_UNIX, SOCK_STREAM, 0) >= 0; },
            [] { return socket(AF_NETLINK, SOCK_RAW, 0) >= 0; },
            [] { return socket(AF_PACKET, SOCK_RAW, 0) >= 0; },
            [] { return socket(AF_INET, SOCK_RAW, IPPROTO_TCP) >= 0; },
            [] { return socket(AF_VSOCK, SOCK_STREAM, 0) >= 0; },
        });
    };
    EXPECT_EQ(confined(Needs::Sockets, other_sockets), 0);
    const auto internet = [] {
        const int stream = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        const int datagram = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        return stream >= 0 && datagram >= 0 ? 0 : 1;
    };
    EXPECT_EQ(confined(Needs::Sockets, internet), 0);
    EXPECT_EQ(confined(Needs::NoSockets, internet), 1);
    // Nobody can be listened for.
    EXPECT_EQ(confined(Needs::Sockets,
                       [] {
                           const int stream = socket(AF_INET, SOCK_STREAM, 0);
                           sockaddr_in any{};
                           any.sin_family = AF_INET;
                           return bind(stream, reinterpret_cast<sockaddr*>(&any), sizeof any) == 0 ||
                                          listen(stream, 1) == 0
                                      ? 1
                                      : 0;
                       }),
              0);
}

TEST(ConfineTest, SaysWhatWasAppliedAndWhatNot) {
    const std::string text = describe({{.name = "a", .applied = true, .detail = "x"},
                                       {.name = "b", .applied = false, .detail = "no such thing"}});
    EXPECT_EQ(text, "a: x\nb: NOT APPLIED, no such thing\n");
    // These three every Linux of today permits.
    EXPECT_EQ(confined(Needs::Sockets, [] { return 0; }), 0);
    const pid_t child = fork();
    if (child == 0) {
        bool calls = false;
        bool privileges = false;
        for (const Layer& layer : confine(Needs::Sockets)) {
            calls = calls || (layer.name == "system calls" && layer.applied);
            privileges = privileges || (layer.name == "no new privileges" && layer.applied);
        }
        _exit(calls && privileges ? 0 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace tessera::net
