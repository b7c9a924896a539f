// How often a vCPU left its guest, why, and what the answers cost.
#pragma once

#include <array>
#include <vector>

#include "base/types.h"
#include "cpu/cpu.h"

namespace tessera::kvm {

// KVM's reasons, with those put together that mean the same to people.
enum class ExitKind : u8 {
    PortIo,
    Mmio,
    Msr,
    Halt,
    InterruptWindow,
    Interrupted,  // a signal: kicked, or an interrupt for our own local APIC
    EndOfInterrupt,
    Interpreted,
    Debug,
    DirtyRing,
    Shutdown,
    Other,
};
inline constexpr unsigned kExitKinds = 12;

[[nodiscard]] ExitKind kind_of_exit(u32 kvm_reason);

struct ExitCounts {
    std::array<u64, kExitKinds> count{};
    std::array<u64, kExitKinds> ns{};  // of the answers, where they are timed

    // Those that happened.
    void statistics(std::vector<Statistic>& out) const;
};

}  // namespace tessera::kvm
