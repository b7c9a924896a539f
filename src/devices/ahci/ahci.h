// A serial ATA host bus adapter [AHCI 1.3.1] as a PCI function: up to 32 ports, each with a drive on it.
// GAP: port multipliers, command completion coalescing, enclosures, staggered spin-up, hot plug, links that
// save power by themselves, BIST.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "base/flags.h"
#include "base/result.h"
#include "base/types.h"
#include "bus/io_device.h"
#include "bus/queued_device.h"
#include "devices/ahci/ahci_regs.h"
#include "devices/ahci/port.h"
#include "devices/ata/drive.h"
#include "devices/pci/config_space.h"
#include "devices/pci/msi.h"
#include "devices/pci/pci_function.h"
#include "memory/memory_map.h"
#include "snapshot/state_visitor.h"

namespace tessera::ahci {

inline constexpr u32 kClassCode = 0x01'06'01;  // serial ATA, AHCI 1.0 [PCI appendix D.2]
inline constexpr unsigned kAbar = 5;
inline constexpr u64 kAbarSize = 0x2000;  // room for 32 ports, a power of two

class Ahci final : public pci::PciFunction, public IoDevice, public QueuedDevice, private PortHost {
public:
    struct Ids {
        u16 vendor;
        u16 device;
    };
    // Port n has drive n. The drives stay the caller's. Queue n of the QueuedDevice is port n.
    Ahci(Ids ids, std::span<ata::Drive* const> drives, MemoryMap& memory, QueueKicker& kicker);

    pci::ConfigSpace& config() override { return config_; }
    void write_config(u16 offset, std::span<const std::byte> in) override;
    void reset() override;

    // ABAR. Double words, and quad words where two of them are one register; smaller pieces read and write as
    // part of theirs.
    IoStatus read(u64 offset, std::span<std::byte> out) override;
    IoStatus write(u64 offset, std::span<const std::byte> in) override;

    [[nodiscard]] bool service(unsigned queue) override;
    void run_backend() override;
    [[nodiscard]] bool draining() const override;
    // Requests the backends have. A snapshot is taken when there are none.
    [[nodiscard]] unsigned in_flight() const;
    // Kicks may have been lost: after load(), when the machine goes on.
    void resume();

    void visit_state(StateVisitor& v);
    Status load(StateVisitor& v);

private:
    struct State {
        Flags<Ghc> ghc = Ghc::AhciEnable;
        u32 is = 0;
        Flags<Bohc> bohc;
        u8 announced = 0;  // a message was sent for what is pending
    };
    static constexpr unsigned kFirstPortField = 100;

    [[nodiscard]] bool may_access_memory() const override { return config_.bus_master(); }
    void kick(const Port& port) override;
    void completed(Slot& slot) override;
    void drained() override;

    static void visit(StateVisitor& v, State& s);
    [[nodiscard]] u32 read_word(u64 offset) const;
    void write_word(u64 offset, u32 value);
    void write_ghc(Flags<Ghc> value);
    void write_bohc(Flags<Bohc> value);
    [[nodiscard]] static bool bits_are_commands(u64 offset);
    void reset_ports();
    void connect_links();
    // Outputs are a function of state: the pin, and a message for what is new.
    void sync();

    QueueKicker& kicker_;
    pci::ConfigSpace config_;
    pci::Msi msi_{config_, 1};
    std::vector<std::unique_ptr<Port>> ports_;
    State state_;
    Completions completions_;
};

static_assert(Snapshotable<Ahci>);

}  // namespace tessera::ahci
