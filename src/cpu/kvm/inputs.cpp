// A vCPU's interrupt inputs, where our own local APIC is the vCPU's.
#include <cerrno>
#include <sys/ioctl.h>

#include "cpu/kvm/kernel_irqchip.h"
#include "cpu/kvm/kvm_cpu.h"
#include "cpu/kvm/msr_index.h"

namespace tessera::kvm {

std::optional<Exit> KvmCpu::take_inputs() {
    using x86::Activity;
    woken_.store(false);  // what comes from now on sets it again
    const CpuInterrupts::Events events = interrupts_->take_events();
    // GAP: SMI (no SMM).
    if (events.init) do_init();
    if (activity_ == Activity::WaitForSipi) {
        if (!events.sipi) return Exit{ExitReason::WaitForSipi};
        do_sipi(*events.sipi);
    }
    if (activity_ == Activity::Shutdown) return Exit{ExitReason::Shutdown};
    if (events.nmi) {
        if (const Status raised = raise_nmi(vcpu_.get()); !raised) return give_up(raised.error().message);
        activity_ = Activity::Running;
    }
    if (activity_ == Activity::Halted) {
        if (run_->if_flag == 0 || !interrupts_->interrupt_pending()) return Exit{ExitReason::Halted};
        activity_ = Activity::Running;
    }
    inject();
    run_->cr8 = interrupts_->cr8();
    return failure_.empty() ? std::nullopt : std::optional(Exit{ExitReason::Failed});
}

void KvmCpu::inject() {
    if (run_->ready_for_interrupt_injection != 0 && interrupts_->interrupt_pending()) {
        if (const auto vector = interrupts_->acknowledge()) {
            kvm_interrupt interrupt{.irq = *vector};
            if (ioctl(vcpu_.get(), KVM_INTERRUPT, &interrupt) < 0)
                failure_ = call_failed("KVM_INTERRUPT").error().message;
            run_->ready_for_interrupt_injection = 0;
        }
    }
    run_->request_interrupt_window = interrupts_->interrupt_pending() ? 1 : 0;
}

// What the kernel has taken from us and not delivered is part of no state of its own, but it goes into the
// vCPU's before the guest runs again.
bool KvmCpu::take_external() {
    woken_.store(false);
    if (parts_.split == nullptr) return true;
    if (run_->ready_for_interrupt_injection != 0) {
        if (!external_ && parts_.split->external_interrupt()) external_ = parts_.split->acknowledge();
        if (external_) {
            const kvm_interrupt interrupt{.irq = *external_};
            run_->ready_for_interrupt_injection = 0;
            if (ioctl(vcpu_.get(), KVM_INTERRUPT, &interrupt) == 0)
                external_.reset();
            else if (errno != EEXIST)  // the one before is still there
                failure_ = call_failed("KVM_INTERRUPT").error().message;
        }
    }
    run_->request_interrupt_window = external_ || parts_.split->external_interrupt() ? 1 : 0;
    return failure_.empty();
}

// [SDM 3A 9.4.4] The bootstrap processor starts over, others wait for a SIPI.
void KvmCpu::do_init() {
    x86::State begin = x86::init_state(state());
    begin.activity = interrupts_->is_bootstrap() ? x86::Activity::Running : x86::Activity::WaitForSipi;
    interrupts_->init_reset();
    set_state(begin);
}

void KvmCpu::do_sipi(u8 page) {
    x86::State begin = state();
    begin.seg[x86::Cs].selector = static_cast<u16>(page << 8);
    begin.seg[x86::Cs].base = u64{page} << 12;
    begin.rip = 0;
    begin.activity = x86::Activity::Running;
    set_state(begin);
}

// The TSC goes on from elsewhere, and IA32_TSC_ADJUST says by how much it was moved [SDM 3B 18.17.3].
void KvmCpu::move_tsc(u64 distance, u64 adjust) {
    const auto offset = registers_.tsc_offset();
    if (!offset) return;
    place_tsc(*offset + distance);
    (void)write_vcpu_msr(vcpu_.get(), kMsrTscAdjust, adjust);
}

// True: taken.
bool KvmCpu::write_msr(u32 index, u64 value) {
    if (index == kMsrTsc || index == kMsrTscAdjust) {
        const auto adjust = read_vcpu_msr(vcpu_.get(), kMsrTscAdjust);
        const auto tsc = read_vcpu_msr(vcpu_.get(), kMsrTsc);
        if (!adjust || !tsc) return false;
        const u64 distance = value - (index == kMsrTsc ? *tsc : *adjust);
        move_tsc(distance, *adjust + distance);
        return true;
    }
    if (interrupts_->write_msr(index, value) != MsrResult::Ok) return false;
    if (index != kMsrApicBase) return true;
    // The kernel's CPUID goes by it.
    u64 base = 0;
    return interrupts_->read_msr(kMsrApicBase, base) == MsrResult::Ok &&
           write_vcpu_msr(vcpu_.get(), kMsrApicBase, base).has_value();
}

}  // namespace tessera::kvm
