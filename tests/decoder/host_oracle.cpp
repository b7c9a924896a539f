// The one-instruction sandbox: registers are loaded, the bytes are jumped to, and whatever signal ends it
// leads back.
#include "tests/decoder/host_oracle.h"

#include <array>
#include <asm/hwcap2.h>
#include <cpuid.h>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <ucontext.h>

extern "C" {
// Written by enter, read by the handler; the names are the assembly's.
void* tessera_host_target;
u_int64_t tessera_host_stack;
u_int64_t tessera_host_fs_base;
void tessera_host_enter();
void tessera_host_leave();
}

// FS is put back because a probe may be WRFSBASE. The non-canonical number in every register makes nearly all
// accesses #GP or #SS at once.
asm(R"(
    .text
    .globl tessera_host_enter, tessera_host_leave
tessera_host_enter:
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, tessera_host_stack(%rip)
    rdfsbase %rax
    mov %rax, tessera_host_fs_base(%rip)
    movabs $0x8000123456785670, %rax
    mov %rax, %rbx
    mov %rax, %rcx
    mov %rax, %rdx
    mov %rax, %rsi
    mov %rax, %rdi
    mov %rax, %rbp
    mov %rax, %r8
    mov %rax, %r9
    mov %rax, %r10
    mov %rax, %r11
    mov %rax, %r12
    mov %rax, %r13
    mov %rax, %r14
    mov %rax, %r15
    mov %rax, %rsp
    jmp *tessera_host_target(%rip)
tessera_host_leave:
    cld
    fninit
    mov tessera_host_fs_base(%rip), %rax
    wrfsbase %rax
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    ret
)");

namespace tessera::x86::test {

namespace {

constexpr size_t kPage = 4096;
constexpr size_t kSignalStack = 65536;
// Nothing else is mapped within reach of a 32-bit displacement.
constexpr u64 kCodeAddress = 0x2000'0000'0000;
constexpr std::array<int, 5> kSignals = {SIGSEGV, SIGILL, SIGTRAP, SIGBUS, SIGFPE};

struct Stop {
    int signal = 0;
    u64 address = 0;
    u64 fault = 0;
};
Stop last_stop;
bool running = false;

void on_signal(int signal, siginfo_t* info, void* context) {
    auto* user = static_cast<ucontext_t*>(context);
    auto& registers = user->uc_mcontext.gregs;
    if (!running) std::_Exit(125);  // our own bug, not the probe's
    running = false;
    last_stop = {signal, static_cast<u64>(registers[REG_RIP]), reinterpret_cast<u64>(info->si_addr)};
    registers[REG_RIP] = reinterpret_cast<greg_t>(&tessera_host_leave);
    registers[REG_RSP] = static_cast<greg_t>(tessera_host_stack);
    registers[REG_EFL] = 0x202;
}

}  // namespace

bool HostOracle::available() {
    unsigned a = 0;
    unsigned b = 0;
    unsigned c = 0;
    unsigned d = 0;
    if (__get_cpuid(0, &a, &b, &c, &d) == 0) return false;
    return b == signature_AMD_ebx && d == signature_AMD_edx && c == signature_AMD_ecx &&
           (getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE) != 0;
}

HostOracle::HostOracle() {
    // NOLINTNEXTLINE(performance-no-int-to-ptr): an address chosen by number.
    void* mapped = mmap(reinterpret_cast<void*>(kCodeAddress), 2 * kPage, PROT_NONE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (mapped == MAP_FAILED || mprotect(mapped, kPage, PROT_READ | PROT_WRITE | PROT_EXEC) != 0) {
        std::perror("mapping the probe's page");
        std::abort();
    }
    page_ = static_cast<u8*>(mapped);
    std::memset(page_, 0xcc, kPage);
    signal_stack_ = static_cast<u8*>(std::malloc(kSignalStack));
    stack_t stack{};
    stack.ss_sp = signal_stack_;
    stack.ss_size = kSignalStack;
    sigaltstack(&stack, nullptr);
    struct sigaction action{};
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    for (const int signal : kSignals) sigaction(signal, &action, nullptr);
}

HostOracle::~HostOracle() {
    for (const int signal : kSignals) (void)::signal(signal, SIG_DFL);
    stack_t stack{};
    stack.ss_flags = SS_DISABLE;
    sigaltstack(&stack, nullptr);
    std::free(signal_stack_);
    munmap(page_, 2 * kPage);
}

HostVerdict HostOracle::probe(std::span<const u8> bytes) {
    // What an earlier, longer probe left before these bytes must not be executable by a short backward jump.
    if (start_ != 0) std::memset(page_ + start_, 0xcc, kPage - start_);
    start_ = kPage - bytes.size();
    std::memcpy(page_ + start_, bytes.data(), bytes.size());
    tessera_host_target = page_ + start_;
    running = true;
    tessera_host_enter();
    if (last_stop.signal == SIGILL) return HostVerdict::Undefined;
    const bool at_start = last_stop.address == code_address();
    const bool wants_next_page = last_stop.fault == kCodeAddress + kPage;
    if (last_stop.signal == SIGSEGV && at_start && wants_next_page) return HostVerdict::Incomplete;
    return HostVerdict::Accepted;
}

u64 HostOracle::stop_address() const {
    return last_stop.address;
}
int HostOracle::stop_signal() const {
    return last_stop.signal;
}
u64 HostOracle::fault_address() const {
    return last_stop.fault;
}
u64 HostOracle::code_address() const {
    return kCodeAddress + start_;
}

}  // namespace tessera::x86::test
