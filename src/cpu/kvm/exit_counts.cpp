#include "cpu/kvm/exit_counts.h"

#include <string_view>

#include "cpu/kvm/linux_kvm.h"

namespace tessera::kvm {

namespace {

constexpr std::array<std::string_view, kExitKinds> kNames{
    "port I/O",
    "MMIO",
    "MSR",
    "HLT",
    "interrupt window",
    "signal",
    "end of interrupt",
    "for the interpreter",
    "debug",
    "log of written pages",
    "shutdown",
    "other",
};

}  // namespace

ExitKind kind_of_exit(u32 kvm_reason) {
    switch (kvm_reason) {
        case KVM_EXIT_IO: return ExitKind::PortIo;
        case KVM_EXIT_MMIO: return ExitKind::Mmio;
        case KVM_EXIT_X86_RDMSR:
        case KVM_EXIT_X86_WRMSR: return ExitKind::Msr;
        case KVM_EXIT_HLT: return ExitKind::Halt;
        case KVM_EXIT_IRQ_WINDOW_OPEN: return ExitKind::InterruptWindow;
        case KVM_EXIT_INTR: return ExitKind::Interrupted;
        case KVM_EXIT_IOAPIC_EOI: return ExitKind::EndOfInterrupt;
        case KVM_EXIT_INTERNAL_ERROR: return ExitKind::Interpreted;
        case KVM_EXIT_DEBUG: return ExitKind::Debug;
        case KVM_EXIT_DIRTY_RING_FULL: return ExitKind::DirtyRing;
        case KVM_EXIT_SHUTDOWN: return ExitKind::Shutdown;
        default: return ExitKind::Other;
    }
}

void ExitCounts::statistics(std::vector<Statistic>& out) const {
    for (unsigned i = 0; i < kExitKinds; ++i)
        if (count[i] != 0)
            out.push_back(
                {.name = kNames[i], .value = count[i], .unit = Statistic::Unit::Exits, .whole = ns[i]});
}

}  // namespace tessera::kvm
