#include "backends/net/confine/system_call_filter.h"

#include <array>
#include <cstddef>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <span>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <vector>

namespace tessera::net {

namespace {

// What moves frames and bytes, keeps memory, tells time, and ends.
constexpr std::array kAlways{
    SYS_read,           SYS_write,       SYS_readv,      SYS_writev,          SYS_recvfrom,
    SYS_sendto,         SYS_recvmsg,     SYS_sendmsg,    SYS_recvmmsg,        SYS_sendmmsg,
    SYS_close,          SYS_shutdown,    SYS_accept4,    SYS_epoll_create1,   SYS_epoll_wait,
    SYS_epoll_pwait,    SYS_epoll_ctl,   SYS_poll,       SYS_ppoll,           SYS_clock_gettime,
    SYS_gettimeofday,   SYS_munmap,      SYS_mremap,     SYS_madvise,         SYS_brk,
    SYS_futex,          SYS_getrandom,   SYS_getpid,     SYS_gettid,          SYS_rt_sigreturn,
    SYS_rt_sigprocmask, SYS_exit,        SYS_exit_group, SYS_restart_syscall, SYS_getsockopt,
    SYS_setsockopt,     SYS_getsockname, SYS_fstat,      SYS_newfstatat,      SYS_tgkill,
    SYS_rt_sigaction,   SYS_sigaltstack, SYS_fcntl};

constexpr std::array kToWait{SYS_wait4, SYS_exit_group, SYS_sigaltstack, SYS_restart_syscall,
                             SYS_rt_sigreturn};

class Program {
public:
    void add(u16 code, u32 value, u8 if_true = 0, u8 if_false = 0) {
        code_.push_back({.code = code, .jt = if_true, .jf = if_false, .k = value});
    }
    void load(std::size_t offset) { add(BPF_LD | BPF_W | BPF_ABS, static_cast<u32>(offset)); }
    void load_argument(std::size_t number) {  // its lower half: little-endian
        load(offsetof(seccomp_data, args) + number * sizeof(u64));
    }
    void allow_if(long call) {
        add(BPF_JMP | BPF_JEQ | BPF_K, static_cast<u32>(call), 0, 1);
        add(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    }
    // The rest of the rule, `size` instructions long, is for this call only.
    void begin(long call, u8 size) { add(BPF_JMP | BPF_JEQ | BPF_K, static_cast<u32>(call), 0, size); }
    void verdict(u32 action) { add(BPF_RET | BPF_K, action); }
    bool install() {
        const sock_fprog program{.len = static_cast<unsigned short>(code_.size()), .filter = code_.data()};
        return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
    }

private:
    std::vector<sock_filter> code_;
};

constexpr u32 kRefuse = SECCOMP_RET_ERRNO | 1;  // EPERM

// socket(): the Internet's streams and datagrams (with echo among them); no raw ones, no other families.
void allow_internet_sockets(Program& program) {
    constexpr u32 kTypeMask = 0xff;  // beside SOCK_NONBLOCK and SOCK_CLOEXEC
    program.begin(SYS_socket, 9);
    program.load_argument(0);
    program.add(BPF_JMP | BPF_JEQ | BPF_K, AF_INET, 1, 0);
    program.add(BPF_JMP | BPF_JEQ | BPF_K, AF_INET6, 0, 5);
    program.load_argument(1);
    program.add(BPF_ALU | BPF_AND | BPF_K, kTypeMask);
    program.add(BPF_JMP | BPF_JEQ | BPF_K, SOCK_STREAM, 1, 0);
    program.add(BPF_JMP | BPF_JEQ | BPF_K, SOCK_DGRAM, 0, 1);
    program.verdict(SECCOMP_RET_ALLOW);
    program.verdict(kRefuse);
    program.allow_if(SYS_connect);
}

// Memory that is not executable.
void allow_data_memory(Program& program, long call) {
    program.begin(call, 4);
    program.load_argument(2);
    program.add(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 1, 0);
    program.verdict(SECCOMP_RET_ALLOW);
    program.verdict(kRefuse);
}

}  // namespace

bool filter_system_calls(Needs needs) {
    Program program;
    program.load(offsetof(seccomp_data, arch));
    program.add(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0);
    program.verdict(SECCOMP_RET_KILL_PROCESS);
    program.load(offsetof(seccomp_data, nr));
    if (needs == Needs::Waiting) {
        for (const long call : kToWait) program.allow_if(call);
    } else {
        for (const long call : kAlways) program.allow_if(call);
        allow_data_memory(program, SYS_mmap);
        program.load(offsetof(seccomp_data, nr));
        allow_data_memory(program, SYS_mprotect);
        program.load(offsetof(seccomp_data, nr));
    }
    if (needs == Needs::Sockets) allow_internet_sockets(program);
    // Refused rather than deadly: a C library that asks for something new gets an error, as from an old
    // kernel.
    program.verdict(kRefuse);
    return program.install();
}

}  // namespace tessera::net
