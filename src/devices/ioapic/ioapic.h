// I/O APIC: 24 interrupt pins, each sent to the local APICs as its redirection entry says. Leaves out: the
// serial APIC bus (messages arrive at once, so delivery status always reads idle) and interrupt remapping.
#pragma once

#include <array>

#include "base/flags.h"
#include "base/result.h"
#include "base/types.h"
#include "bus/io_device.h"
#include "bus/irq_line.h"
#include "devices/ioapic/ioapic_regs.h"
#include "devices/lapic/apic_fabric.h"
#include "snapshot/state_visitor.h"

namespace tessera::ioapic {

// MMIO region of kSize bytes, usually at 0xFEC00000. As an IrqSink its pins are 0-23.
class IoApic final : public IoDevice, public IrqSink {
public:
    static constexpr u64 kSize = 0x1000;
    static constexpr u64 kDefaultBase = 0xfec0'0000;

    struct Config {
        u8 id = 0;  // as firmware leaves it in IOAPICID and reports it in its tables
        // Pins the board wires active low, as it tells the guest in its tables (PCI interrupts are).
        // set_level(pin, true) always means "requests"; on these pins it is the low voltage.
        u32 active_low_pins = 0;
    };

    IoApic(const Config& config, ApicFabric& fabric) : config_(config), fabric_(fabric) { reset(); }

    IoStatus read(u64 offset, std::span<std::byte> out) override;
    IoStatus write(u64 offset, std::span<const std::byte> in) override;
    void set_level(unsigned pin, bool high) override;
    // A local APIC's end of a level-triggered interrupt. A pin that still requests is sent again at once.
    void end_of_interrupt(u8 vector);

    // Power-on as firmware leaves it. The pins' levels come from outside and stay.
    void reset();
    void visit_state(StateVisitor& v) { visit(v, state_); }
    Status load(StateVisitor& v);

    using Entry = Flags<Redirection>;

    struct State {
        u8 id = 0;
        u8 select = 0;
        u32 levels = 0;  // what the pins' devices request
        std::array<Entry, kPins> table{};
    };
    [[nodiscard]] const State& state() const { return state_; }
    // Refuses what no I/O APIC can be. Sends nothing.
    Status restore(const State& state);

private:
    static void visit(StateVisitor& v, State& s);
    [[nodiscard]] static bool valid(const State& s);
    [[nodiscard]] u32 read_selected() const;
    void write_selected(u32 value);
    void write_entry(unsigned pin, Entry next);
    // Whether the pin is at the level its entry calls active.
    [[nodiscard]] bool active(unsigned pin) const;
    void deliver_level(unsigned pin);
    void send(unsigned pin);

    const Config config_;
    ApicFabric& fabric_;
    State state_;
};

static_assert(Snapshotable<IoApic>);

}  // namespace tessera::ioapic
