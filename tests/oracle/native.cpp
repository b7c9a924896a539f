#include "tests/oracle/native.h"

#include <asm/prctl.h>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

extern "C" {
extern tessera::oracle::Registers tessera_native_in;
extern tessera::oracle::Registers tessera_native_out;
void tessera_native_enter();
void tessera_native_exit();
void tessera_native_leave();
extern tessera::u64 tessera_native_fs;
extern tessera::u64 tessera_native_host_fs;
}

namespace tessera::oracle {

static_assert(offsetof(Registers, rip) == 128 && offsetof(Registers, rflags) == 136 &&
              offsetof(Registers, fp) == 192);
static_assert(sizeof(Registers) <= 1088);

namespace {

bool in_snippet = false;
std::array<u8, 64 * 1024> signal_stack;

constexpr std::array kGregs{REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                            REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
constexpr u32 kXsaveMagic = 0x46505853;  // FP_XSTATE_MAGIC1, in the frame's software-reserved bytes
constexpr std::size_t kXsaveMagicOffset = 464;

// Takes the state at the fault out of the signal frame and sends the thread to tessera_native_leave.
void on_fault(int signal, siginfo_t* /*info*/, void* context) {
    // Whatever is called may need the thread pointer.
    if (in_snippet && tessera_native_fs != 0) asm volatile("wrfsbase %0" : : "r"(tessera_native_host_fs));
    auto& machine = static_cast<ucontext_t*>(context)->uc_mcontext;
    if (!in_snippet) {
        (void)::signal(signal, SIG_DFL);
        return;
    }
    Registers& out = tessera_native_out;
    for (std::size_t i = 0; i < kGregs.size(); ++i) out.gpr[i] = static_cast<u64>(machine.gregs[kGregs[i]]);
    out.rip = static_cast<u64>(machine.gregs[REG_RIP]);
    out.rflags = static_cast<u64>(machine.gregs[REG_EFL]);
    out.vector = static_cast<u32>(machine.gregs[REG_TRAPNO]);
    out.error = static_cast<u32>(machine.gregs[REG_ERR]);
    out.cr2 = static_cast<u64>(machine.gregs[REG_CR2]);
    const u8* frame = reinterpret_cast<const u8*>(machine.fpregs);
    u32 magic = 0;
    std::memcpy(&magic, frame + kXsaveMagicOffset, sizeof(magic));
    std::memcpy(&out.fp, frame, magic == kXsaveMagic ? sizeof(out.fp) : out.fp.legacy.size());
    std::memset(out.fp.legacy.data() + kXsaveMagicOffset, 0, 48);
    machine.gregs[REG_RIP] = reinterpret_cast<greg_t>(&tessera_native_leave);
    machine.gregs[REG_EFL] = 0x202;
}

volatile u64 begun = 0, seen_begun = 0;
void (*stop_others)() = nullptr;

// Twice in one and the same run: it will not end.
void on_tick(int /*signal*/, siginfo_t* /*info*/, void* context) {
    const bool stuck = begun == seen_begun;
    seen_begun = begun;
    if (!stuck) return;
    if (!in_snippet) {
        if (stop_others != nullptr) stop_others();
        return;
    }
    auto& machine = static_cast<ucontext_t*>(context)->uc_mcontext;
    tessera_native_out.vector = kStopped;
    machine.gregs[REG_RIP] = reinterpret_cast<greg_t>(&tessera_native_leave);
    machine.gregs[REG_EFL] = 0x202;
}

u8* map_at(u64 address, u64 size, int protection) {
    void* at = ::mmap(reinterpret_cast<void*>(address), size, protection,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    return at == MAP_FAILED ? nullptr : static_cast<u8*>(at);
}

}  // namespace

std::span<u8> native_data() {
    return {reinterpret_cast<u8*>(kDataBase), kDataSize};
}
std::span<u8> native_read_only() {
    return {reinterpret_cast<u8*>(kReadOnlyBase), 4096};
}
std::span<u8> native_code() {
    return {reinterpret_cast<u8*>(kCodeBase), kCodeSize};
}
bool native_has_fs() {
    constexpr unsigned long kFsgsbase = 2;  // [Documentation/x86/x86_64/fsgs]
    return (::getauxval(AT_HWCAP2) & kFsgsbase) != 0;
}

bool native_setup() {
    static bool done = false;
    if (done) return true;
    if (map_at(kDataBase, kDataSize, PROT_READ | PROT_WRITE) == nullptr ||
        map_at(kReadOnlyBase, 4096, PROT_READ | PROT_WRITE) == nullptr ||
        map_at(kCodeBase, kCodeSize, PROT_READ | PROT_WRITE | PROT_EXEC) == nullptr) {
        std::perror("oracle: mmap of the test areas");
        return false;
    }
    for (std::size_t i = 0; i < 4096; ++i) native_read_only()[i] = static_cast<u8>(i * 37 + 11);
    if (::mprotect(native_read_only().data(), 4096, PROT_READ) != 0) return false;
    if (native_has_fs()) {
        asm volatile("rdfsbase %0" : "=r"(tessera_native_host_fs));
        tessera_native_fs = kFsBase;
    }
    if (::syscall(SYS_arch_prctl, ARCH_SET_GS, kGsBase) != 0) {
        std::perror("oracle: arch_prctl(ARCH_SET_GS)");
        return false;
    }
    const stack_t stack{.ss_sp = signal_stack.data(), .ss_flags = 0, .ss_size = signal_stack.size()};
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    if (::sigaltstack(&stack, nullptr) != 0) return false;
    for (const int s : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP})
        if (::sigaction(s, &action, nullptr) != 0) return false;
    done = true;
    return true;
}

void native_set_code(std::span<const u8> pages) {
    const auto exit = reinterpret_cast<u64>(&tessera_native_exit);
    std::memcpy(native_code().data(), pages.data(), kCodeSize);
    std::memcpy(reinterpret_cast<void*>(kExitSlot), &exit, sizeof(exit));
}

void native_watch(void (*stop)()) {
    stop_others = stop;
    struct sigaction action = {};
    action.sa_sigaction = on_tick;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
    (void)::sigaction(SIGPROF, &action, nullptr);
    constexpr timeval kTick{.tv_sec = 0, .tv_usec = 50'000};
    const itimerval every{.it_interval = kTick, .it_value = kTick};
    (void)::setitimer(ITIMER_PROF, &every, nullptr);
}
void native_begin() {
    begun = begun + 1;
}

void native_run(const Registers& in, Registers& out) {
    std::memcpy(&tessera_native_in, &in, sizeof(in));
    tessera_native_out.vector = kFinished;
    tessera_native_out.error = 0;
    tessera_native_out.rip = 0;
    in_snippet = true;
    tessera_native_enter();
    in_snippet = false;
    std::memcpy(&out, &tessera_native_out, sizeof(out));
}

}  // namespace tessera::oracle
