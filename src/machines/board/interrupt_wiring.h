// The wires between interrupt controllers, as PC boards have them.
#pragma once

#include <optional>

#include "bus/irq_line.h"
#include "bus/lock.h"
#include "devices/acpi_pm/acpi_pm.h"
#include "devices/ioapic/ioapic.h"
#include "devices/lapic/apic_fabric.h"
#include "devices/pic8259/pic8259.h"

namespace tessera {

// An ISA interrupt reaches the 8259A pair and the I/O APIC; the guest masks one of them. The timer's, ISA 0,
// is pin 2 of the I/O APIC [MP 1.4 3.6.2]; the tables of src/boot say the same.
class IsaInterrupts final : public IrqSink {
public:
    IsaInterrupts(IrqSink& pic, IrqSink& io_apic) : pic_(pic), io_apic_(io_apic) {}
    void set_level(unsigned pin, bool high) override {
        pic_.set_level(pin, high);
        io_apic_.set_level(pin == 0 ? 2 : pin, high);
    }

private:
    IrqSink& pic_;
    IrqSink& io_apic_;
};

// The 8259s' inputs: where PCI interrupt lines are routed to an input that an ISA device drives as well, it
// is high when either is.
class PicInputs {
public:
    explicit PicInputs(IrqSink& pic) : pic_(pic) {}
    [[nodiscard]] IrqSink& isa() { return isa_; }
    [[nodiscard]] IrqSink& pci() { return pci_; }

private:
    class Side final : public IrqSink {
    public:
        explicit Side(PicInputs& inputs) : inputs_(inputs) {}
        void set_level(unsigned pin, bool high) override {
            if (pin >= kPins) return;
            levels = static_cast<u16>(high ? levels | 1U << pin : levels & ~(1U << pin));
            inputs_.drive(pin);
        }
        u16 levels = 0;

    private:
        PicInputs& inputs_;
    };
    static constexpr unsigned kPins = 16;
    void drive(unsigned pin) { pic_.set_level(pin, ((isa_.levels | pci_.levels) >> pin & 1) != 0); }

    IrqSink& pic_;
    Side isa_{*this};
    Side pci_{*this};
};

// The way to an interrupt controller of the board for devices that have a lock of their own.
class LockedPins final : public IrqSink {
public:
    LockedPins(IrqSink& pins, Lock& board) : pins_(pins), board_(board) {}
    void set_level(unsigned pin, bool high) override {
        const LockGuard guard(board_);
        pins_.set_level(pin, high);
    }

private:
    IrqSink& pins_;
    Lock& board_;
};

// The real-time clock's interrupt is also the ACPI hardware's RTC alarm [ACPI 6.5 4.8.2.4].
class RtcAlarm final : public IrqSink {
public:
    RtcAlarm(IrqSink& isa, acpi_pm::AcpiPm& acpi_pm) : isa_(isa), acpi_pm_(acpi_pm) {}
    void set_level(unsigned pin, bool high) override {
        isa_.set_level(pin, high);
        if (high) acpi_pm_.rtc_alarm();
    }

private:
    IrqSink& isa_;
    acpi_pm::AcpiPm& acpi_pm_;
};

// Local APICs tell the I/O APIC of the end of an interrupt, and fetch vectors from the 8259A pair: on the
// CPUs' threads, hence under the board's lock.
class ApicToBoard final : public EoiSink, public PicAcknowledge {
public:
    ApicToBoard(ioapic::IoApic& io_apic, pic8259::Pic8259Pair& pic, Lock& board)
        : io_apic_(io_apic), pic_(pic), board_(board) {}
    void end_of_interrupt(u8 vector) override {
        const LockGuard guard(board_);
        io_apic_.end_of_interrupt(vector);
    }
    std::optional<u8> acknowledge_interrupt() override {
        const LockGuard guard(board_);
        // Another CPU, or a mask, may have taken the request since this CPU saw the wire high.
        if (!pic_.requests()) return std::nullopt;
        return pic_.acknowledge();
    }

private:
    ioapic::IoApic& io_apic_;
    pic8259::Pic8259Pair& pic_;
    Lock& board_;
};

}  // namespace tessera
