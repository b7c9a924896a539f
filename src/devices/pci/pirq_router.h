// From the board's PCI interrupt lines (PIRQA to PIRQH) to the interrupt controllers, as an ISA bridge of
// PCI boards routes them [ICH9 5.8.6]: line n is I/O APIC pin 16 + n, and by the routing registers one of the
// 8259s' inputs.
#pragma once

#include <array>

#include "base/types.h"
#include "bus/irq_line.h"
#include "devices/pci/pci_bus.h"
#include "snapshot/state_visitor.h"

namespace tessera::pci {

// As an IrqSink its pins are the lines; calls for one line are counted, as its holders share it. Everything
// with the interrupt controllers' lock held.
class PirqRouter final : public IrqSink {
public:
    static constexpr unsigned kFirstIoApicPin = 16;
    // [ICH9 13.1.17]: interrupt number, and a bit that turns the routing off.
    static constexpr u8 kDisabled = 0x80;
    static constexpr u8 kRouteBits = 0x8f;

    // `isa` has the 8259s' inputs as pins, as far as PCI drives them.
    PirqRouter(IrqSink& io_apic, IrqSink& isa) : io_apic_(io_apic), isa_(isa) { routes_.fill(kDisabled); }

    void set_level(unsigned line, bool high) override;
    void set_route(unsigned line, u8 value);

    struct State {
        std::array<u16, kInterruptLines> holders{};
    };
    // Under the ids from `id`; used as ConfigSpace::State is. The routes are the bridge's registers.
    static void visit(StateVisitor& v, unsigned id, State& s) {
        for (unsigned line = 0; line < kInterruptLines; ++line)
            v.field(id + line, "pirq_holders", s.holders[line]);
    }
    [[nodiscard]] State state() const { return state_; }
    [[nodiscard]] static bool valid(const State& s);
    // Moves no wire: the routes must be those of the same snapshot.
    void restore(const State& s, const std::array<u8, kInterruptLines>& routes);

private:
    [[nodiscard]] u16 isa_levels() const;
    void drive_isa();

    IrqSink& io_apic_;
    IrqSink& isa_;
    State state_;
    std::array<u8, kInterruptLines> routes_{};
    u16 driven_ = 0;
};

}  // namespace tessera::pci
