// The PC's interrupt controller: two 8259A, the second on IR2 of the first, with the edge/level control
// registers of PCI chipsets. Leaves out: MCS-80/85 mode.
#pragma once

#include <utility>

#include "base/result.h"
#include "base/types.h"
#include "bus/io_device.h"
#include "bus/irq_line.h"
#include "devices/pic8259/pic8259_chip.h"
#include "snapshot/state_visitor.h"

namespace tessera::pic8259 {

// As an IrqSink its pins are the ISA interrupts 0-15; pin 2 is the cascade and cannot be driven from outside.
class Pic8259Pair final : public IrqSink {
public:
    static constexpr u64 kPortCount = 2;  // of each of the three ranges
    static constexpr u64 kMasterBase = 0x20;
    static constexpr u64 kSlaveBase = 0xa0;
    static constexpr u64 kElcrBase = 0x4d0;

    // `intr` is the master's INT: to the CPU, or to LINT0 of the local APICs.
    explicit Pic8259Pair(IrqLine intr) : intr_(std::move(intr)) {}

    // The three ranges for the port bus. Widths other than a byte are refused.
    [[nodiscard]] IoDevice& master_ports() { return master_ports_; }
    [[nodiscard]] IoDevice& slave_ports() { return slave_ports_; }
    [[nodiscard]] IoDevice& elcr_ports() { return elcr_ports_; }

    void set_level(unsigned pin, bool high) override;

    // INTR. An acknowledge without it is answered with a spurious vector, as the chip does.
    [[nodiscard]] bool requests() const { return intr_.is_high(); }
    // The INTA cycles: puts the interrupt in service and returns its vector.
    u8 acknowledge();

    // Power-on. The pins' levels come from outside and stay.
    void reset();
    void visit_state(StateVisitor& v);
    Status load(StateVisitor& v);

    struct State {
        Chip::State master;
        Chip::State slave;
        u16 lines = 0;   // levels of the 16 pins
        u8 cascade = 0;  // the slave's INT as the master last saw it
    };
    [[nodiscard]] State state() const {
        return {.master = master_.state(), .slave = slave_.state(), .lines = lines_, .cascade = cascade_};
    }
    // Refuses what no 8259A pair can be. INTR has its new level afterwards; its other end is not told.
    Status restore(const State& state);

private:
    enum class Range : u8 { Master, Slave, Elcr };

    class Ports final : public IoDevice {
    public:
        Ports(Pic8259Pair& pair, Range range) : pair_(pair), range_(range) {}
        IoStatus read(u64 offset, std::span<std::byte> out) override;
        IoStatus write(u64 offset, std::span<const std::byte> in) override;

    private:
        Pic8259Pair& pair_;
        const Range range_;
    };

    static void visit(StateVisitor& v, State& s);
    [[nodiscard]] static bool valid(const State& s);
    [[nodiscard]] u8 master_lines() const;
    [[nodiscard]] u8 slave_lines() const { return static_cast<u8>(lines_ >> 8); }
    u8 read_port(Range range, unsigned offset);
    void write_port(Range range, unsigned offset, u8 value);
    // Carries the slave's INT to the master and the master's to the wire.
    void sync();

    Chip master_;
    Chip slave_;
    u16 lines_ = 0;   // State::lines
    u8 cascade_ = 0;  // State::cascade
    IrqLine intr_;
    Ports master_ports_{*this, Range::Master};
    Ports slave_ports_{*this, Range::Slave};
    Ports elcr_ports_{*this, Range::Elcr};
};

static_assert(Snapshotable<Pic8259Pair>);

}  // namespace tessera::pic8259
