// Rows that are the kernel's work: system calls, page faults, processes, a pipe between two of them, both
// processors.
#include <cerrno>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "row.h"

namespace tessera::guestbench {
namespace {

constexpr u64 kRight = 0x600d;

// --- syscall: getppid, which does nothing
// ------------------------------------------------------------------------------

constexpr u64 kCalls = 256;
long parent = 0;

bool syscall_prepare() {
    parent = syscall(SYS_getppid);
    return true;
}

u64 syscall_round() {
    u64 right = 0;
    for (u64 i = 0; i < kCalls; ++i) right += syscall(SYS_getppid) == parent ? 1 : 0;
    return right;
}

// --- fault: fresh anonymous pages, written to
// --------------------------------------------------------------------------

constexpr std::size_t kPage = 4096;
constexpr u64 kFaults = 256;  // 1 MiB: too little for a huge page

u64 fault_round() {
    void* address =
        mmap(nullptr, kFaults * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (address == MAP_FAILED) return 0;
    volatile u8* pages = static_cast<u8*>(address);
    u64 right = 0;
    for (u64 i = 0; i < kFaults; ++i) {
        right += pages[i * kPage + 1] == 0 ? 1 : 0;
        pages[i * kPage] = 1;
    }
    return munmap(address, kFaults * kPage) == 0 ? right : 0;
}

// --- fork, spawn
// -----------------------------------------------------------------------------------------------------

u64 wait_for(pid_t child) {
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child) return 0;
    return WIFEXITED(status) && WEXITSTATUS(status) == 42 ? kRight : static_cast<u64>(status);
}

u64 fork_round() {
    const pid_t child = fork();
    if (child == 0) _exit(42);
    return wait_for(child);
}

// A whole new program: this one, which ends at once.
u64 spawn_round() {
    const pid_t child = fork();
    if (child == 0) {
        execl("/proc/self/exe", "guestbench", "--exit", "42", static_cast<char*>(nullptr));
        _exit(1);
    }
    return wait_for(child);
}

// --- pingpong: a byte to another process and back
// ---------------------------------------------------------------------

constexpr int kTrips = 32;
int to_child[2], to_parent[2];
pid_t echo = -1;
cpu_set_t allowed;

[[noreturn]] void echo_all() {
    u8 byte = 0;
    while (read(to_child[0], &byte, 1) == 1) {
        byte = static_cast<u8>(byte + 1);
        if (write(to_parent[1], &byte, 1) != 1) break;
    }
    _exit(42);
}

bool pingpong_prepare() {
    // Both on one processor: with two, the row would measure how long an idle one takes to wake up.
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return false;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    if (sched_setaffinity(0, sizeof one, &one) != 0) return false;
    if (pipe(to_child) != 0 || pipe(to_parent) != 0) return false;
    echo = fork();
    if (echo == 0) {
        (void)close(to_child[1]);
        (void)close(to_parent[0]);
        echo_all();
    }
    (void)close(to_child[0]);
    (void)close(to_parent[1]);
    return echo > 0;
}

u64 pingpong_round() {
    u64 right = 0;
    for (int i = 0; i < kTrips; ++i) {
        const u8 sent = static_cast<u8>(i);
        u8 got = 0;
        if (write(to_child[1], &sent, 1) != 1 || read(to_parent[0], &got, 1) != 1) return 0;
        right += got == sent + 1 ? 1 : 0;
    }
    return right;
}

void pingpong_finish() {
    (void)close(to_child[1]);
    (void)close(to_parent[0]);
    if (echo > 0) (void)waitpid(echo, nullptr, 0);
    (void)sched_setaffinity(0, sizeof allowed, &allowed);
}

constexpr Row kRows[] = {
    {"syscall", "call", kCalls, kCalls, syscall_round, syscall_prepare},
    {"fault", "fault", kFaults, kFaults, fault_round},
    {"fork", "fork", 1, kRight, fork_round},
    {"spawn", "spawn", 1, kRight, spawn_round},
    {"pingpong", "trip", kTrips, kTrips, pingpong_round, pingpong_prepare, pingpong_finish},
    {.name = "busy_1",
     .unit = "round",
     .work = 1,
     .expected = kMarkExpected,
     .round = mark_round,
     .processes = 1},
    {.name = "busy_2",
     .unit = "round",
     .work = 1,
     .expected = kMarkExpected,
     .round = mark_round,
     .processes = 2},
};

}  // namespace

std::span<const Row> system_rows() {
    return kRows;
}

}  // namespace tessera::guestbench
