// The wires between interrupt controllers, as PC boards have them.
#pragma once

#include <array>
#include <cstring>
#include <optional>

#include "bus/irq_line.h"
#include "bus/lock.h"
#include "bus/message_sink.h"
#include "devices/acpi_pm/acpi_pm.h"
#include "devices/ioapic/ioapic.h"
#include "devices/lapic/apic_fabric.h"
#include "devices/pic8259/pic8259.h"
#include "memory/memory_map.h"

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

// Two sets of wires on the same inputs: an input is high when either is.
class WiredOr {
public:
    explicit WiredOr(IrqSink& inputs) : inputs_(inputs) {}
    [[nodiscard]] IrqSink& first() { return first_; }
    [[nodiscard]] IrqSink& second() { return second_; }

private:
    class Side final : public IrqSink {
    public:
        explicit Side(WiredOr& both) : both_(both) {}
        void set_level(unsigned pin, bool high) override {
            if (pin >= kPins) return;
            levels = high ? levels | u32{1} << pin : levels & ~(u32{1} << pin);
            both_.inputs_.set_level(pin, ((both_.first_.levels | both_.second_.levels) >> pin & 1) != 0);
        }
        u32 levels = 0;

    private:
        WiredOr& both_;
    };
    static constexpr unsigned kPins = 32;

    IrqSink& inputs_;
    Side first_{*this};
    Side second_{*this};
};

// Who drives ISA interrupts 0 and 8: the 8254 and the real-time clock, or the HPET in their place
// [HPET 2.3.5].
class LegacyTimers {
public:
    explicit LegacyTimers(IrqSink& isa) : isa_(isa) {}
    [[nodiscard]] IrqSink& old_timers() { return old_; }
    [[nodiscard]] IrqSink& hpet() { return hpet_; }
    // Its only pin is high while the HPET drives them.
    [[nodiscard]] IrqSink& select() { return select_; }
    [[nodiscard]] bool hpet_selected() const { return hpet_selected_; }

private:
    class Side final : public IrqSink {
    public:
        Side(LegacyTimers& timers, bool is_hpet) : timers_(timers), is_hpet_(is_hpet) {}
        void set_level(unsigned pin, bool high) override {
            if (pin >= kPins) return;
            levels = static_cast<u16>(high ? levels | 1U << pin : levels & ~(1U << pin));
            if (timers_.hpet_selected_ == is_hpet_) timers_.isa_.set_level(pin, high);
        }
        u16 levels = 0;

    private:
        LegacyTimers& timers_;
        const bool is_hpet_;
    };
    class Select final : public IrqSink {
    public:
        explicit Select(LegacyTimers& timers) : timers_(timers) {}
        void set_level(unsigned /*pin*/, bool high) override { timers_.connect(high); }

    private:
        LegacyTimers& timers_;
    };
    static constexpr unsigned kPins = 16;

    void connect(bool to_hpet) {
        hpet_selected_ = to_hpet;
        const u16 levels = to_hpet ? hpet_.levels : old_.levels;
        for (const unsigned pin : {0U, 8U}) isa_.set_level(pin, (levels >> pin & 1) != 0);
    }

    IrqSink& isa_;
    Side old_{*this, false};
    Side hpet_{*this, true};
    Select select_{*this};
    bool hpet_selected_ = false;
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

// Message signalled interrupts go to the local APICs; other addresses are memory like any other.
class MessagesToMemory final : public MessageSink {
public:
    MessagesToMemory(ApicFabric& fabric, MemoryMap& memory) : fabric_(fabric), memory_(memory) {}
    void send(u64 address, u32 data) override {
        if (is_msi_address(address)) {
            fabric_.deliver(message_of_msi(address, data));
            return;
        }
        std::array<std::byte, sizeof data> bytes{};
        std::memcpy(bytes.data(), &data, sizeof data);
        (void)memory_.write(address, bytes);  // where there is no RAM, nothing happens
    }

private:
    ApicFabric& fabric_;
    MemoryMap& memory_;
};

}  // namespace tessera
