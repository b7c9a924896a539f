#include "backends/net/confine/confine.h"

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <fmt/format.h>
#include <grp.h>
#include <iterator>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sched.h>
#include <string_view>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <system_error>
#include <unistd.h>

#include "backends/net/confine/system_call_filter.h"

namespace tessera::net {

namespace {

class Report {
public:
    void done(std::string_view name, std::string detail) {
        layers_.push_back({.name = std::string(name), .applied = true, .detail = std::move(detail)});
    }
    // After a system call failed.
    void refused(std::string_view name, std::string_view what) {
        layers_.push_back({.name = std::string(name),
                           .applied = false,
                           .detail = fmt::format("{}: {}", what, std::generic_category().message(errno))});
    }
    std::vector<Layer> take() { return std::move(layers_); }

private:
    std::vector<Layer> layers_;
};

bool write_file(const char* path, std::string_view text) {
    const int fd = ::open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return false;
    const bool written = ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
    const int error = errno;
    (void)::close(fd);
    errno = error;
    return written;
}

// Root outside is nobody inside: what it may do by being root is gone with the identity.
void leave_root(Report& report) {
    constexpr uid_t kNobody = 65534;
    if (geteuid() != 0) return;
    if (setgroups(0, nullptr) < 0 || setresgid(kNobody, kNobody, kNobody) < 0 ||
        setresuid(kNobody, kNobody, kNobody) < 0) {
        report.refused("identity", "cannot become nobody");
        return;
    }
    (void)prctl(PR_SET_DUMPABLE, 1);  // so that /proc/self is ours; taken back below
    report.done("identity", "nobody");
}

bool enter_namespaces(Report& report) {
    const uid_t user = geteuid();
    const gid_t group = getegid();
    constexpr int kWanted =
        CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;
    if (unshare(kWanted) < 0) {
        report.refused("namespaces", "the host permits no user namespaces");
        return false;
    }
    if (!write_file("/proc/self/setgroups", "deny") ||
        !write_file("/proc/self/uid_map", fmt::format("0 {} 1", user)) ||
        !write_file("/proc/self/gid_map", fmt::format("0 {} 1", group))) {
        report.refused("namespaces", "cannot map the user");
        return false;
    }
    report.done("namespaces", "user, mount, PID, IPC, UTS, cgroup");
    return true;
}

void empty_root(Report& report) {
    constexpr unsigned long kFlags = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    const char* const place = "/proc";  // any directory: it is covered
    if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) < 0 ||
        mount("none", place, "tmpfs", kFlags | MS_RDONLY, "size=4k,nr_inodes=2,mode=0555") < 0 ||
        chdir(place) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 ||
        chdir("/") < 0)
        report.refused("empty root", "cannot make one");
    else
        report.done("empty root", "no files");
}

void limit_resources(Report& report) {
    const auto limit = [](__rlimit_resource which, rlim_t value) {
        rlimit now{};
        if (getrlimit(which, &now) < 0) return false;
        const rlim_t most = value < now.rlim_max ? value : now.rlim_max;
        const rlimit wanted{.rlim_cur = most, .rlim_max = most};
        return setrlimit(which, &wanted) == 0;
    };
    constexpr rlim_t kFiles = 4096;
    if (limit(RLIMIT_NOFILE, kFiles) && limit(RLIMIT_CORE, 0) && limit(RLIMIT_FSIZE, 0) &&
        limit(RLIMIT_NPROC, 0))
        report.done("limits", "4096 descriptors, no core, no files, no processes");
    else
        report.refused("limits", "cannot set them");
}

void drop_capabilities(Report& report) {
    for (int capability = 0; prctl(PR_CAPBSET_READ, capability) >= 0; ++capability)
        (void)prctl(PR_CAPBSET_DROP, capability);
    (void)prctl(PR_SET_SECUREBITS, SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP_LOCKED |
                                       SECBIT_KEEP_CAPS_LOCKED);
    __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    std::array<__user_cap_data_struct, 2> none{};
    if (syscall(SYS_capset, &header, none.data()) < 0)
        report.refused("capabilities", "cannot drop them");
    else
        report.done("capabilities", "none");
}

// The first process of a PID namespace is the child of the one that asked for it. The parent is left with
// nothing but waiting.
void split(bool own_pids) {
    const pid_t child = fork();
    if (child == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        return;
    }
    if (child < 0) {
        if (!own_pids) return;  // one process then
        _exit(1);
    }
    Report nobody_reads;
    (void)syscall(SYS_close_range, 0U, ~0U, 0U);
    drop_capabilities(nobody_reads);
    (void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    (void)filter_system_calls(Needs::Waiting);
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
}

// [LINUX-LANDLOCK]: no access to files at all, no signals and no abstract sockets of others. Numbers of our
// own, as the build host's headers may be older than the kernel.
void restrict_files(Report& report) {
    struct Ruleset {
        u64 files;
        u64 net;
        u64 scoped;
    };
    constexpr u32 kAskVersion = 1;
    const long version = syscall(SYS_landlock_create_ruleset, nullptr, 0UL, kAskVersion);
    if (version < 1) {
        report.refused("landlock", "not in this kernel");
        return;
    }
    constexpr std::array<u64, 6> kFileRights{0, 0x1fff, 0x3fff, 0x7fff, 0x7fff, 0xffff};
    const auto known = static_cast<std::size_t>(version < 5 ? version : 5);
    const Ruleset rules{.files = kFileRights[known], .net = 0, .scoped = version >= 6 ? u64{3} : u64{0}};
    const std::size_t size = version >= 6 ? sizeof rules : version >= 4 ? 16 : 8;
    const long fd = syscall(SYS_landlock_create_ruleset, &rules, size, 0U);
    if (fd < 0 || syscall(SYS_landlock_restrict_self, fd, 0U) < 0)
        report.refused("landlock", "cannot restrict");
    else
        report.done("landlock", fmt::format("no files (ABI {})", version));
    if (fd >= 0) (void)::close(static_cast<int>(fd));
}

}  // namespace

std::vector<Layer> confine(Needs needs) {
    Report report;
    leave_root(report);
    const bool namespaces = enter_namespaces(report);
    split(namespaces);
    if (namespaces) empty_root(report);
    limit_resources(report);
    drop_capabilities(report);
    (void)prctl(PR_SET_DUMPABLE, 0);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        report.refused("no new privileges", "cannot be set");
    else
        report.done("no new privileges", "set");
    restrict_files(report);
    if (filter_system_calls(needs))
        report.done("system calls", "allow-list");
    else
        report.refused("system calls", "no filter");
    return report.take();
}

std::string describe(const std::vector<Layer>& layers) {
    std::string text;
    for (const Layer& layer : layers)
        fmt::format_to(std::back_inserter(text), "{}: {}{}\n", layer.name,
                       layer.applied ? "" : "NOT APPLIED, ", layer.detail);
    return text;
}

}  // namespace tessera::net
