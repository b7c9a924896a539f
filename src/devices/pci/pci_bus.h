// A PCI bus with its functions: who answers configuration accesses, where BARs appear, which interrupt line a
// pin reaches. The host bridge's bus is the root; bridges bring theirs along.
//
// Threads: functions are attached while the machine is put together. Configuration accesses are made with one
// lock, that of the configuration ports and ECAM, held by the caller; the function's own lock is taken
// inside.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/types.h"
#include "bus/io_bus.h"
#include "bus/irq_line.h"
#include "bus/lock.h"
#include "bus/message_sink.h"
#include "devices/pci/pci_function.h"

namespace tessera::pci {

// What surrounds a host bridge.
struct PciSurroundings {
    IoBus& ports;
    IoBus& memory;
    MessageSink& messages;
    // Pins are the board's kInterruptLines PCI interrupt lines, each shared by many: set_level() comes once
    // for each holder. Called with the function's lock held; takes its own.
    IrqSink& interrupts;
};
inline constexpr unsigned kInterruptLines = 8;

struct Slot {
    u8 device;  // 0-31
    u8 function = 0;

    [[nodiscard]] unsigned index() const { return device * kFunctionsPerDevice + function; }
    friend bool operator==(const Slot&, const Slot&) = default;
};

// [PCI 2.2.6], and the board's own wiring of the root bus: device d's INTA# is line d, INTB# line d + 1, and
// so on round the eight lines. The firmware tables say the same.
[[nodiscard]] constexpr unsigned interrupt_line_of(unsigned device, unsigned pin) {
    return (device + pin) % kInterruptLines;
}

class PciBus;

// The bus's view of the bridge it hangs from.
class PciBridgeSide {
public:
    PciBridgeSide() = default;
    PciBridgeSide(const PciBridgeSide&) = delete;
    PciBridgeSide& operator=(const PciBridgeSide&) = delete;
    virtual ~PciBridgeSide() = default;
    // The bus on its other side.
    [[nodiscard]] virtual PciBus& secondary() = 0;
    // Whether accesses to all of [address, address + size) get through to the bus.
    [[nodiscard]] virtual bool forwards_down(BarKind kind, u64 address, u64 size) const = 0;
    // Whether the bus's functions may write to memory. Thread-safe.
    [[nodiscard]] virtual bool forwards_up() const = 0;
    // Firmware wrote the registers of its configuration space.
    virtual void firmware_configured() = 0;
};

class PciBus {
public:
    explicit PciBus(const PciSurroundings& around) : around_(around) {}
    PciBus(const PciBus&) = delete;
    PciBus& operator=(const PciBus&) = delete;
    ~PciBus() = default;

    // --- Building.

    // Function 0 of a device comes first. `name` is for people: traces, errors. All stay the caller's. An
    // error names who sits there already. `bridge`: the function's other face, when it is one.
    Status attach(std::string name, Slot slot, PciFunction& function, Lock& lock,
                  PciBridgeSide* bridge = nullptr);
    // The lowest device number from `first` to 31 that nobody has.
    [[nodiscard]] std::optional<u8> free_device(u8 first) const;
    // For a bridge's bus: its way up. `self` is the bridge, in `slot` of `parent`.
    void connect(PciBus& parent, Slot slot, PciBridgeSide& self);

    // --- Configuration accesses, as they arrive at the root. Where no function answers: all ones, and writes
    // go nowhere [PCI 3.2.2.3.4].
    void read_config(u8 bus, Slot slot, u16 offset, std::span<std::byte> out);
    void write_config(u8 bus, Slot slot, u16 offset, std::span<const std::byte> in);

    // --- For firmware and bridges; no CPU runs, or the configuration lock is held.
    struct Seat {
        std::string name;
        Slot slot;
        PciFunction* function;
        Lock* lock;
        PciBridgeSide* bridge;
        std::unique_ptr<PciUplink> uplink;
        std::array<std::optional<IoBus::RangeId>, kBarCount + 1> ranges;
    };
    [[nodiscard]] std::span<const std::unique_ptr<Seat>> seats() const { return seats_; }
    // The interrupt line of pin 0-3 (INTA# to INTD#) of a device on this bus.
    [[nodiscard]] unsigned interrupt_line(u8 device, unsigned pin) const;
    // The windows to this bus changed: places every BAR below anew.
    void place_bars_again();
    // RST# on this bus.
    void reset_functions();

private:
    class Uplink;

    [[nodiscard]] Seat* find(u8 bus, Slot slot);
    [[nodiscard]] bool reachable(BarKind kind, u64 address, u64 size) const;
    [[nodiscard]] bool may_write_memory() const;

    PciSurroundings around_;
    PciBus* parent_ = nullptr;
    PciBridgeSide* bridge_ = nullptr;
    Slot bridge_slot_{.device = 0};
    std::vector<std::unique_ptr<Seat>> seats_;  // in the order they were attached
    std::array<Seat*, std::size_t{kDevicesPerBus} * kFunctionsPerDevice> by_slot_{};
};

}  // namespace tessera::pci
