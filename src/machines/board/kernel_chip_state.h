// The states of the interrupt chips in the two forms they have: our chips' and that of KVM's chips in the
// kernel. Pure conversions: who moves a board from one to the other is kernel_chips.h.
//
// What does not survive the way into the kernel and back, because KVM has no place for it:
//
//   local APIC   initial count of a timer that has run out or was stopped (reads 0 afterwards); errors not
//   yet
//                shown by a write to ESR; fractions of a count of the timer; LDR as it was before x2APIC
//                mode; periods under 200 us run at that period meanwhile; interrupts by ExtINT messages
//   I/O APIC     pins programmed with another polarity than the board's wires have (KVM ignores polarity)
//   8259A pair   ICW1's LTIM and SNGL, ICW3 other than the PC's, ICW4's buffered modes, the low bits of ICW2,
//                edges hidden under ELCR's level mode
//   8254         BCD counting; the phase of counters 1 and 2 in modes 2 and 3, and, while it stands in the
//                kernel, of counter 0; a counter that waits for its count runs from 65536; port 61h's bits 2,
//                3; a one-shot of counter 0 that the guest began in the kernel begins anew on the way back
//   all          version numbers: the local APIC's version register is its chip's
//
// GAP: KVM's local APICs have no LINT pins but for LINT0 in ExtINT mode; a LINT0 in fixed mode is dead there.
#pragma once

#include <optional>

#include "base/types.h"
#include "cpu/kvm/linux_kvm.h"
#include "devices/ioapic/ioapic.h"
#include "devices/lapic/lapic.h"
#include "devices/pic8259/pic8259.h"
#include "devices/pit8254/pit8254.h"

namespace tessera {

// One moment by two clocks.
struct KernelMoment {
    u64 guest_ns = 0;   // Clock::now_ns()
    s64 kernel_ns = 0;  // CLOCK_MONOTONIC, by which KVM's 8254 counts
};

// --- Local APIC

struct KernelLocalApic {
    kvm_lapic_state page{};  // in the form of KVM_X2APIC_API_USE_32BIT_IDS
    u64 apic_base = 0;       // IA32_APIC_BASE: set before the page
    u64 tsc_deadline = 0;    // IA32_TSC_DEADLINE: set after the page
};

// What is in `saved.registers.events` has no place there: it is to be sent again.
[[nodiscard]] KernelLocalApic to_kernel(const lapic::Lapic::Saved& saved, u32 apic_id, u64 now_ns);
// What only the outside knows.
struct AroundLocalApic {
    u64 now_ns = 0;
    u8 pins = 0;         // LINT0 and LINT1
    u64 tsc_offset = 0;  // the CPU's
};
// KVM has taken in what its timer had (take_timer_interrupts).
[[nodiscard]] lapic::Lapic::Saved from_kernel(const KernelLocalApic& kernel, const AroundLocalApic& around);

// --- I/O APIC

[[nodiscard]] kvm_ioapic_state to_kernel(const ioapic::IoApic::State& state);
// `levels` are those of its wires.
[[nodiscard]] ioapic::IoApic::State from_kernel(const kvm_ioapic_state& kernel, u32 levels);

// --- 8259A pair

struct KernelPic {
    kvm_pic_state master{};
    kvm_pic_state slave{};
};
[[nodiscard]] KernelPic to_kernel(const pic8259::Pic8259Pair::State& state);
// `lines` are the levels of its wires.
[[nodiscard]] pic8259::Pic8259Pair::State from_kernel(const KernelPic& kernel, u16 lines);

// --- 8254

enum class HpetLegacy : u8 { Off, On };

[[nodiscard]] kvm_pit_state2 to_kernel(const pit8254::Pit8254::State& state, const KernelMoment& now,
                                       HpetLegacy legacy);
// What was given to the kernel, and when. A counter the guest has not touched since then goes on where our
// chip would be.
struct KernelPitStay {
    pit8254::Pit8254::State before;
    kvm_pit_state2 given{};  // as KVM_GET_PIT2 said right after
    s64 since_ns = 0;        // KernelMoment::kernel_ns when the counters began there
};
// Without `stay` every counter begins anew.
[[nodiscard]] pit8254::Pit8254::State from_kernel(const kvm_pit_state2& kernel, const KernelMoment& now,
                                                  const KernelPitStay* stay);
// How long it is from here to the nearest rise of counter 0 in the kernel, before or after: it comes when it
// likes to within microseconds. Nothing: nobody knows.
[[nodiscard]] std::optional<u64> distance_to_kernel_tick(const kvm_pit_state2& kernel,
                                                         const KernelPitStay& stay, s64 kernel_ns);

}  // namespace tessera
