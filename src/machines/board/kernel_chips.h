// Moves a board's interrupt chips into the kernel and back, while no CPU runs: KVM's chips stand in the place
// of ours and hold their state. What is lost on the way is listed in kernel_chip_state.h.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "bus/lock.h"
#include "cpu/kvm/kernel_irqchip.h"
#include "devices/ioapic/ioapic.h"
#include "devices/lapic/lapic.h"
#include "devices/pic8259/pic8259.h"
#include "devices/pit8254/pit8254.h"
#include "machines/board/interrupt_wiring.h"
#include "machines/board/kernel_chip_state.h"
#include "machines/board/kernel_wiring.h"
#include "machines/board/split_routes.h"

namespace tessera {

// The chips of ours, and the wires to them.
struct OwnChips {
    const Clock& clock;
    Lock& lock;  // the board's: of all but the local APICs
    std::vector<lapic::Lapic*> local_apics;
    ioapic::IoApic& io_apic;
    pic8259::Pic8259Pair& pic;
    pit8254::Pit8254& pit;
    LegacyTimers& timers;
    SwitchedPins& pic_pins;
    SwitchedPins& io_apic_pins;
    SwitchedFabric& fabric;
    SplitRoutes& io_apic_page;
};

class KernelChips {
public:
    // The vCPUs' descriptors in the order of the local APICs; they and `vm` live longer than this, which does
    // not move anything yet.
    [[nodiscard]] static Result<std::unique_ptr<KernelChips>> create(const kvm::KernelIrqchip& chips,
                                                                     std::span<const int> vcpus,
                                                                     const OwnChips& ours);
    KernelChips(const KernelChips&) = delete;
    KernelChips& operator=(const KernelChips&) = delete;
    ~KernelChips();

    enum class Start : u8 {
        Running,  // the guest goes on
        PowerOn,  // nobody has programmed anything
    };
    // Ours to the kernel. The vCPUs have their registers and their time already: the timers' deadlines are of
    // the guest's TSC. On failure the chips are still ours.
    [[nodiscard]] Status enter(Start start);
    // The kernel's to ours. The vCPUs' registers are to be read after that, for the way may begin the
    // delivery of an interrupt. `tsc_offsets` are the CPUs' (x86::Msrs::tsc_offset).
    [[nodiscard]] Status leave(std::span<const s64> tsc_offsets);
    [[nodiscard]] bool in_kernel() const { return in_kernel_; }
    // The HPET takes the place of the 8254 and the clock's interrupt, or gives it back. Under the board's
    // lock.
    void select_hpet(bool hpet);

private:
    struct Vcpu {
        int fd = -1;
        kvm_run* run = nullptr;
    };
    KernelChips(const kvm::KernelIrqchip& chips, const OwnChips& ours) : chips_(chips), ours_(ours) {}

    [[nodiscard]] bool all() const { return chips_.kind() == kvm::KernelIrqchip::Kind::Kernel; }
    [[nodiscard]] Status enter_local_apic(std::size_t index);
    [[nodiscard]] Status enter_board(Start start);
    [[nodiscard]] Status send_again(std::size_t index, u32 events);
    [[nodiscard]] Status lower_all_wires() const;
    void silence_ours();
    void drop_late_ticks();

    // `ended` gets what the I/O APIC has not heard yet.
    [[nodiscard]] Result<KernelLocalApic> read_local_apic(std::size_t index, std::vector<u8>& ended) const;
    [[nodiscard]] Status quiet_local_apic(std::size_t index, kvm_lapic_state page) const;
    [[nodiscard]] Status leave_board();
    [[nodiscard]] Result<pit8254::Pit8254::State> take_pit();
    void show_wires();
    [[nodiscard]] KernelMoment now() const;

    const kvm::KernelIrqchip chips_;
    OwnChips ours_;
    std::vector<Vcpu> vcpus_;
    KernelPins pic_pins_{chips_, kPicFirstGsi, kPicInputs};
    KernelPins io_apic_pins_{chips_, kIoApicFirstGsi, kvm::KernelIrqchip::kIoApicPins};
    KernelFabric fabric_{chips_};
    bool in_kernel_ = false;
    std::optional<KernelPitStay> pit_stay_;
    // Sets up the kernel's 8254 beside the guest's start, which does not wait for it.
    std::thread late_ticks_;
    bool late_ticks_drop_ = false;  // asked for
};

}  // namespace tessera
