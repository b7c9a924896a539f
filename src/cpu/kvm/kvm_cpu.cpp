#include "cpu/kvm/kvm_cpu.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <system_error>
#include <unistd.h>
#include <utility>

#include "cpu/kvm/cpuid.h"

namespace tessera::kvm {

namespace {

// Brings a thread out of KVM_RUN. Ignored by processes that have no handler for it, so that one that comes
// late does no harm.
constexpr int kKickSignal = SIGURG;

void install_kick_signal() {
    static const bool installed = [] {
        struct sigaction before{};
        (void)sigaction(kKickSignal, nullptr, &before);
        if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) return true;
        struct sigaction action{};
        action.sa_handler = [](int) {};
        return sigaction(kKickSignal, &action, nullptr) == 0;
    }();
    (void)installed;
}

// Gives the thread's number.
pid_t let_kick_signal_in() {
    thread_local const pid_t thread = [] {
        sigset_t set;
        (void)sigemptyset(&set);
        (void)sigaddset(&set, kKickSignal);
        (void)pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
        return static_cast<pid_t>(syscall(SYS_gettid));
    }();
    return thread;
}

}  // namespace

void KvmCpu::Unmap::operator()(kvm_run* run) const {
    (void)munmap(run, size);
}

Result<std::unique_ptr<KvmCpu>> KvmCpu::create(VmParts& parts, unsigned index, File vcpu,
                                               std::span<const kvm_cpuid_entry2> cpuid) {
    install_kick_signal();
    void* run = mmap(nullptr, parts.host.run_size(), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu.get(), 0);
    if (run == MAP_FAILED) return call_failed("mmap of a vCPU");
    Run area(static_cast<kvm_run*>(run), Unmap{parts.host.run_size()});
    if (auto status = set_cpuid(vcpu.get(), cpuid); !status)
        return std::unexpected(std::move(status.error()));
    auto registers = VcpuState::create(parts.host, vcpu.get());
    if (!registers) return std::unexpected(std::move(registers.error()));
    return std::unique_ptr<KvmCpu>(
        new KvmCpu(parts, index, std::move(vcpu), std::move(area), *std::move(registers)));
}

KvmCpu::KvmCpu(VmParts& parts, unsigned index, File vcpu, Run run, VcpuState registers)
    : parts_(parts),
      index_(index),
      vcpu_(std::move(vcpu)),
      run_(std::move(run)),
      registers_(std::move(registers)) {}

// --- From any thread

// Order: the wish first, then the look for a thread to interrupt; the vCPU's thread does it the other way
// around. So either it sees the wish, or it is seen.
void KvmCpu::kick() {
    kicked_.store(true);
    interrupt_thread();
}

void KvmCpu::wake() {
    if (parts_.vm.irqchip() == Irqchip::Kernel || woken_.exchange(true)) return;
    interrupt_thread();
}

void KvmCpu::interrupt_thread() {
    const pid_t thread = in_guest_.load();
    if (thread == 0) return;
    // It may be just before KVM_RUN, or just behind it: then the next one returns at once, for nothing.
    __atomic_store_n(&run_->immediate_exit, u8{1}, __ATOMIC_RELEASE);
    (void)syscall(SYS_tgkill, getpid(), thread, kKickSignal);
}

// --- State, while nobody is in run()

x86::State KvmCpu::state() const {
    return get(Extent::Whole);
}

void KvmCpu::set_state(const x86::State& state) {
    put(state, Extent::Whole);
}

x86::State KvmCpu::get(Extent extent) const {
    auto state = registers_.read(extent);
    if (!state) {
        failure_ = state.error().message;
        return {};
    }
    if (own_apic()) state->activity = activity_;
    state->msr.tsc_offset = tsc_offset();
    return *std::move(state);
}

s64 KvmCpu::tsc_offset() const {
    const auto offset = registers_.tsc_offset();
    return offset ? static_cast<s64>(*offset + tsc_less_.value_or(0)) : 0;
}

void KvmCpu::put(const x86::State& state, Extent extent) {
    activity_ = state.activity;
    x86::State kernels = state;
    if (own_apic()) kernels.activity = x86::Activity::Running;
    auto status = registers_.write(kernels, extent);
    if (!status) {
        failure_ = status.error().message;
        return;
    }
    say_again(state);
    tsc_less_ = parts_.world.tsc.processor_offset().value_or(0);
    place_tsc(static_cast<u64>(state.msr.tsc_offset) - *tsc_less_);
}

void KvmCpu::put_changes(const x86::State& before, const x86::State& after) {
    activity_ = after.activity;
    x86::State from = before;
    x86::State to = after;
    if (own_apic()) from.activity = to.activity = x86::Activity::Running;
    if (auto status = registers_.update(from, to); !status) {
        failure_ = status.error().message;
        return;
    }
    say_again(after);
    if (after.msr.tsc_offset != before.msr.tsc_offset)
        place_tsc(static_cast<u64>(after.msr.tsc_offset) - tsc_less_.value_or(0));
}

// What KVM said, when the guest was left, about a state that it has no more.
void KvmCpu::say_again(const x86::State& state) {
    run_->if_flag = (state.rflags & x86::eflags::kIf) != 0 ? 1 : 0;
    run_->ready_for_interrupt_injection = 0;
}

// --- The loop

Exit KvmCpu::give_up(std::string why) {
    failure_ = std::move(why);
    return {ExitReason::Failed};
}

// The guest's TSC is the processor's and `offset`. Some hosts cannot move it: what counts is what they have
// afterwards, and our own local APIC has to know it for its deadlines.
void KvmCpu::place_tsc(u64 offset) {
    const u64 less = tsc_less_.value_or(0);
    const auto before = registers_.tsc_offset();
    if (before && *before == offset && tsc_told_ == offset + less) return;
    const auto status = registers_.set_tsc_offset(offset);
    if (!status && status.error().code != Errc::Unsupported) {
        failure_ = status.error().message;
        return;
    }
    const u64 told = registers_.tsc_offset().value_or(offset) + less;
    tsc_told_ = told;
    if (own_apic() && interrupts_ != nullptr) interrupts_->set_tsc_offset(static_cast<s64>(told));
}

// Guest time stood still while the VM was paused: its TSC is the processor's less more than before.
void KvmCpu::follow_time() {
    const auto less = parts_.world.tsc.processor_offset();
    if (!less) return;
    if (tsc_less_ != less) {
        const auto offset = registers_.tsc_offset();
        const u64 before = tsc_less_.value_or(0);
        tsc_less_ = less;
        if (offset) place_tsc(*offset + before - *less);
    }
    if (parts_.world.clock != nullptr && parts_.clock_set_for.exchange(*less + 1) != *less + 1)
        (void)parts_.vm.set_clock(parts_.world.clock->now_ns());
}

void KvmCpu::single_step(bool on) {
    if (stepping_ == on) return;
    stepping_ = on;
    kvm_guest_debug debug{};
    if (on) debug.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP;
    if (ioctl(vcpu_.get(), KVM_SET_GUEST_DEBUG, &debug) < 0)
        failure_ = call_failed("KVM_SET_GUEST_DEBUG").error().message;
}

Exit KvmCpu::enter(u64 steps) {
    thread_ = let_kick_signal_in();
    follow_time();
    single_step(steps != kForever);
    for (;;) {
        if (!failure_.empty()) return {ExitReason::Failed};
        if (const auto exit = go(steps)) {
            settle();
            return *exit;
        }
    }
}

// One entry into the guest, and the answer to what ended it.
std::optional<Exit> KvmCpu::go(u64& steps) {
    if (kicked_.exchange(false)) return Exit{ExitReason::Kicked};
    if (own_apic()) {
        if (const auto exit = take_inputs()) return exit;
    } else if (registers_.kept_activity() == x86::Activity::Shutdown) {
        return Exit{ExitReason::Shutdown};
    } else if (!take_external()) {
        return Exit{ExitReason::Failed};
    }
    if (steps == 0) return Exit{ExitReason::Debug};
    if (!enter_kernel()) return failure_.empty() ? std::nullopt : std::optional(Exit{ExitReason::Failed});
    if (own_apic()) {
        // The kernel had CR8 meanwhile.
        if (const u8 cr8 = static_cast<u8>(run_->cr8); cr8 != interrupts_->cr8()) interrupts_->set_cr8(cr8);
    }
    return answer(steps);
}

// False: nothing to be answered.
bool KvmCpu::enter_kernel() {
    // Others may still be about to write it, for the time before.
    __atomic_store_n(&run_->immediate_exit, u8{0}, __ATOMIC_RELAXED);
    in_guest_.store(thread_);
    if (kicked_.load() || woken_.load()) {
        in_guest_.store(0);
        return false;
    }
    const int result = ioctl(vcpu_.get(), KVM_RUN, 0);
    const int error = errno;
    in_guest_.store(0);
    if (result == 0) {
        io_pending_ = false;
        return true;
    }
    if (error == EINTR || error == EAGAIN) {
        io_pending_ = false;
        ++exits_.count[static_cast<unsigned>(ExitKind::Interrupted)];
        return false;
    }
    failure_ = fmt::format("KVM_RUN: {}", std::generic_category().message(error));
    return false;
}

// An access's answer is taken by the kernel when it is entered the next time, and it may have more of the
// same instruction's to ask.
void KvmCpu::settle() {
    u64 none = 1;
    constexpr int kMostPieces = 1 << 16;  // a REP OUTS asks for each page's worth
    for (int i = 0; io_pending_ && i < kMostPieces; ++i) {
        __atomic_store_n(&run_->immediate_exit, u8{1}, __ATOMIC_RELAXED);
        io_pending_ = false;
        if (ioctl(vcpu_.get(), KVM_RUN, 0) == 0) (void)answer(none);
    }
}

}  // namespace tessera::kvm
