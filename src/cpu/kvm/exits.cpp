// What a vCPU does about each of KVM's exits. [LINUX-KVM api 5]
#include <algorithm>
#include <chrono>
#include <fmt/format.h>
#include <sys/ioctl.h>

#include "bus/apic_page.h"
#include "cpu/kvm/dirty_log.h"
#include "cpu/kvm/kernel_apic.h"
#include "cpu/kvm/kvm_cpu.h"
#include "cpu/x86/host_cpu.h"

namespace tessera::kvm {

namespace {

[[nodiscard]] std::string describe_entry_failure(const kvm_run& run) {
    return fmt::format("KVM cannot enter the guest: hardware reason {:#x} on processor {}",
                       u64{run.fail_entry.hardware_entry_failure_reason}, u32{run.fail_entry.cpu});
}

}  // namespace

std::optional<Exit> KvmCpu::answer(u64& steps) {
    const ExitKind kind = kind_of_exit(run_->exit_reason);
    using Clock = std::chrono::steady_clock;
    const auto begin = parts_.time_exits ? Clock::now() : Clock::time_point();
    const auto exit = answer_reason(steps);
    const auto at = static_cast<unsigned>(kind);
    ++exits_.count[at];
    if (parts_.time_exits)
        exits_.ns[at] += static_cast<u64>(std::chrono::nanoseconds(Clock::now() - begin).count());
    return exit;
}

std::optional<Exit> KvmCpu::answer_reason(u64& steps) {
    switch (run_->exit_reason) {
        case KVM_EXIT_IO: answer_io(); return std::nullopt;
        case KVM_EXIT_MMIO: answer_mmio(); return std::nullopt;
        case KVM_EXIT_X86_RDMSR: answer_rdmsr(); return std::nullopt;
        case KVM_EXIT_X86_WRMSR: answer_wrmsr(); return std::nullopt;
        case KVM_EXIT_HLT: activity_ = x86::Activity::Halted; return std::nullopt;
        case KVM_EXIT_INTR:
        case KVM_EXIT_IRQ_WINDOW_OPEN:
        case KVM_EXIT_SET_TPR: return std::nullopt;
        case KVM_EXIT_DEBUG:
            if (steps != kForever) --steps;
            return std::nullopt;
        case KVM_EXIT_DIRTY_RING_FULL: return make_room();
        case KVM_EXIT_SHUTDOWN:
            activity_ = x86::Activity::Shutdown;
            registers_.keep_activity(activity_);
            return Exit{ExitReason::Shutdown};
        case KVM_EXIT_IOAPIC_EOI:
            if (parts_.split != nullptr) parts_.split->end_of_interrupt(run_->eoi.vector);
            return std::nullopt;
        case KVM_EXIT_INTERNAL_ERROR: return interpret(steps);
        case KVM_EXIT_FAIL_ENTRY: return give_up(describe_entry_failure(*run_));
        default:
            return give_up(fmt::format("KVM left the guest for reason {}, which is not known here",
                                       u32{run_->exit_reason}));
    }
}

void KvmCpu::answer_io() {
    io_pending_ = true;
    auto* data = reinterpret_cast<std::byte*>(run_.get()) + run_->io.data_offset;
    const u16 port = run_->io.port;
    const std::size_t size = run_->io.size;
    for (u32 i = 0; i < run_->io.count; ++i) {
        const std::span bytes(data + i * size, size);
        if (run_->io.direction == KVM_EXIT_IO_OUT) {
            parts_.world.ports.write(port, bytes);
        } else {
            parts_.world.ports.read(port, bytes);
        }
    }
}

void KvmCpu::answer_mmio() {
    io_pending_ = true;
    auto* data = reinterpret_cast<std::byte*>(&run_->mmio.data[0]);
    const std::span bytes(data, std::min<std::size_t>(run_->mmio.len, sizeof run_->mmio.data));
    const u64 address = run_->mmio.phys_addr;
    const bool write = run_->mmio.is_write != 0;
    const bool apic = own_apic() && interrupts_->owns_page(address & ~kApicPageOffset);
    if (apic && write)
        write_apic_page(*interrupts_, address, bytes);
    else if (apic)
        read_apic_page(*interrupts_, address, bytes);
    else if (write)
        parts_.world.mmio.write(address, bytes);
    else
        parts_.world.mmio.read(address, bytes);
}

// What the kernel does not know is #GP to the guest, unless our own local APIC does.
void KvmCpu::answer_rdmsr() {
    io_pending_ = true;
    u64 value = 0;
    const bool known = own_apic() && interrupts_->read_msr(run_->msr.index, value) == MsrResult::Ok;
    run_->msr.data = value;
    run_->msr.error = known ? 0 : 1;
}

void KvmCpu::answer_wrmsr() {
    io_pending_ = true;
    run_->msr.error = own_apic() && write_msr(run_->msr.index, run_->msr.data) ? 0 : 1;
}

// The kernel lets this vCPU in again only when its ring has room.
std::optional<Exit> KvmCpu::make_room() {
    if (parts_.dirty == nullptr) return give_up("KVM speaks of a dirty ring that it was not asked for");
    if (const Status made = parts_.dirty->make_room(index_); !made) return give_up(made.error().message);
    return std::nullopt;
}

std::optional<Exit> KvmCpu::interpret(u64& steps) {
    static const std::string missing = missing_host_features();
    if (!missing.empty())
        return give_up(
            fmt::format("KVM cannot execute an instruction of the guest's (internal error {}), and our "
                        "interpreter cannot either: "
                        "this processor lacks {}",
                        u32{run_->internal.suberror}, missing));
    const x86::State before = get(Extent::Registers);
    if (!failure_.empty()) return Exit{ExitReason::Failed};
    x86::State now = before;
    bool alive = true;
    if (own_apic()) {
        alive = parts_.interpreter.step(index_, now, *interrupts_);
    } else {
        KernelApic apic(vcpu_.get());
        alive = parts_.interpreter.step(index_, now, apic);
    }
    put_changes(before, now);
    if (steps != kForever) --steps;
    if (!alive) return Exit{ExitReason::Shutdown};
    return std::nullopt;
}

}  // namespace tessera::kvm
