// The board of `pc` and `microvm`: chips and wires as a BoardDescription lists them, around CPUs.
// Wiring only: what a chip does is in src/devices, what the firmware tables say in src/boot.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "boot/board.h"
#include "boot/boot_linux.h"
#include "bus/io_bus.h"
#include "cpu/x86/cpuid.h"
#include "devices/acpi_pm/acpi_pm.h"
#include "devices/hpet/hpet.h"
#include "devices/i8042/i8042.h"
#include "devices/ioapic/ioapic.h"
#include "devices/lapic/lapic.h"
#include "devices/lapic/lapic_fabric.h"
#include "devices/pic8259/pic8259.h"
#include "devices/pit8254/pit8254.h"
#include "devices/port92/port92.h"
#include "devices/reset_control/a20_gate.h"
#include "devices/reset_control/reset_control.h"
#include "devices/rtc_mc146818/rtc_mc146818.h"
#include "machines/board/engines.h"
#include "machines/board/interrupt_wiring.h"
#include "machines/board/ne2000_part.h"
#include "machines/board/pci_part.h"
#include "machines/board/pci_serial.h"
#include "machines/board/sata_part.h"
#include "machines/board/serial_port.h"
#include "machines/board/virtio_part.h"
#include "machines/machine.h"
#include "memory/memory_map.h"
#include "vm/guest_ram.h"
#include "vm/host_file.h"
#include "vm/vm.h"

namespace tessera {

// What CPUID says to the bootstrap processor, of leaf and subleaf 0.
using CpuidOfGuest = std::function<x86::CpuidResult(u32 leaf)>;
// The software CPU's.
[[nodiscard]] CpuidOfGuest soft_cpuid(const MachineConfig& config);

// What firmware is to tell about the machine `config` asks for: the board's parts list, with the CPUs as
// CPUID describes them.
[[nodiscard]] boot::BoardDescription describe_board(const MachineConfig& config, const CpuidOfGuest& cpuid);

class Board final : public Machine {
public:
    // Builds everything; power_on() loads the kernel.
    static Result<std::unique_ptr<Board>> create(Vm& vm, const MachineConfig& config,
                                                 boot::BoardDescription description, EngineKind engine);

    [[nodiscard]] std::span<Cpu* const> cpus() override { return engines_->cpus(); }
    [[nodiscard]] EngineKind engine() const override { return engines_->engine(); }
    Status use_engine(EngineKind engine) override { return engines_->use(engine); }
    Status on_halt() override;
    Status on_go_on() override;
    Status power_on() override;
    void press_power_button() override;

private:
    // A local APIC and the timer queue that is its alone. Its registers are touched by its CPU's thread only,
    // and its timer only posts into its inbox: there is nothing to lock.
    struct LocalApic {
        NullLock no_lock;
        std::unique_ptr<lapic::Lapic> chip;
    };

    // Hears, beside the legacy timers, which of them drives interrupts 0 and 8.
    class HpetSelect final : public IrqSink {
    public:
        explicit HpetSelect(Board& board) : board_(board) {}
        void set_level(unsigned pin, bool high) override {
            board_.legacy_timers_.select().set_level(pin, high);
            if (board_.engines_ != nullptr) board_.engines_->select_hpet(high);
        }

    private:
        Board& board_;
    };
    // Local APICs in the kernel in front of our other chips.
    class SplitApics final : public kvm::SplitBoard {
    public:
        explicit SplitApics(Board& board) : board_(board) {}
        void end_of_interrupt(u8 vector) override { board_.apic_to_board_.end_of_interrupt(vector); }
        // All have the wire; the first one's inbox knows its level without a lock.
        [[nodiscard]] bool external_interrupt() override { return board_.apics_.front()->chip->lint(0); }
        std::optional<u8> acknowledge() override { return board_.apic_to_board_.acknowledge_interrupt(); }

    private:
        Board& board_;
    };

    Board(Vm& vm, const MachineConfig& config, boot::BoardDescription description);
    Status open_files();
    Status add_memory();
    Status add_ram(std::string name, u64 base, u64 size, GuestRam& ram, u64 offset);
    void add_local_apics();
    Status add_ports();
    Status add_mmio();
    Status add_pci();
    // Makes config_.io_loop if the caller has none.
    Status need_io_loop();
    Status add_virtio();
    Status add_sata();
    Status add_ne2000();
    Status add_cpus(EngineKind engine);
    Status clear_memory();
    // Empties memory and fills it as firmware and boot loader do.
    Result<boot::StartState> load_kernel();
    Result<boot::StartState> start_kernel(boot::BootRequest& request);
    Status reset_chips();
    void make_level_triggered(std::span<const u8> inputs);
    void preset_cmos(std::span<const boot::CmosByte> values);
    [[nodiscard]] IrqLine isa_line(unsigned irq) { return {isa_, irq}; }

    Vm& vm_;
    MachineConfig config_;
    boot::BoardDescription description_;
    std::unique_ptr<HostFile> kernel_;
    std::unique_ptr<HostFile> initrd_;

    std::vector<std::unique_ptr<GuestRam>> ram_;
    bool noted_ = false;        // config_.on_note was told of the kernel
    bool memory_used_ = false;  // since it was fresh from the host
    MemoryMap memory_;
    IoBus ports_;
    IoBus mmio_;

    MutexLock lock_;  // of every chip below but the local APICs
    HostTimers& timers_;

    // What is switched goes to the kernel's chips while those stand in the place of ours.
    lapic::LapicFabric own_fabric_;
    SwitchedFabric fabric_{own_fabric_};
    std::vector<std::unique_ptr<LocalApic>> apics_;
    ioapic::IoApic io_apic_;
    pic8259::Pic8259Pair pic_;
    SwitchedPins pic_pins_{pic_};
    SwitchedPins io_apic_pins_{io_apic_};
    SplitRoutes io_apic_page_{io_apic_};
    WiredOr pic_inputs_{pic_pins_};         // ISA, PCI
    WiredOr shared_inputs_{io_apic_pins_};  // of the I/O APIC, from pin 16 on: PCI, HPET
    IsaInterrupts isa_{pic_inputs_.first(), io_apic_pins_};
    LegacyTimers legacy_timers_{isa_};
    HpetSelect hpet_select_{*this};
    MessagesToMemory messages_{fabric_, memory_};
    ApicToBoard apic_to_board_{io_apic_, pic_, lock_};
    SplitApics split_apics_{*this};

    NullChar nobody_;
    SerialPort com1_;
    pit8254::Pit8254 pit_;
    A20Latch a20_;
    i8042::I8042 keyboard_controller_;
    port92::Port92 port92_;
    acpi_pm::AcpiPm acpi_pm_;
    RtcAlarm rtc_alarm_{legacy_timers_.old_timers(), acpi_pm_};
    rtc_mc146818::Rtc rtc_;
    hpet::Hpet hpet_;
    reset_control::ResetControl reset_control_;
    std::vector<std::unique_ptr<PciSerial>> pci_serials_;
    std::unique_ptr<PciPart> pci_;  // null: the board has none

    // Last: CPUs go before what they touch.
    std::unique_ptr<Engines> engines_;
    // Behind them all: tells the CPUs what it wrote to memory, until it is gone.
    LockedPins locked_io_apic_{io_apic_pins_, lock_};
    std::unique_ptr<EventLoop> own_io_loop_;
    std::unique_ptr<VirtioPart> virtio_;
    std::unique_ptr<SataPart> sata_;
    std::unique_ptr<Ne2000Part> ne2000_;
};

}  // namespace tessera
