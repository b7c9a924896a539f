// PCI configuration mechanism #1 [PCI 3.2.2.3.2] with nobody on the bus: what an operating system needs to
// find that out in the regular way. Shares its four address ports with the reset register at 0xCF9, as chip
// sets do. GAP: no functions can be attached; that comes with the host bridge.
#pragma once

#include <span>

#include "base/result.h"
#include "base/types.h"
#include "bus/io_device.h"
#include "snapshot/state_visitor.h"

namespace tessera::pci_config {

inline constexpr u64 kBase = 0xcf8;
inline constexpr u64 kPortCount = 8;  // CONFIG_ADDRESS, CONFIG_DATA
inline constexpr u64 kResetRegisterOffset = 1;
inline constexpr u64 kDataOffset = 4;
// CONFIG_ADDRESS: enable, bus, device, function, register; the others read as zero.
inline constexpr u32 kAddressBits = 0x80ff'fffc;

class PciConfig final : public IoDevice {
public:
    // Byte accesses to 0xCF9 are `reset_register`'s, at its offset 0.
    explicit PciConfig(IoDevice& reset_register) : reset_register_(reset_register) {}

    IoStatus read(u64 offset, std::span<std::byte> out) override;
    IoStatus write(u64 offset, std::span<const std::byte> in) override;
    // Not the reset register, which has a reset() of its own.
    void reset() { state_ = {}; }

    void visit_state(StateVisitor& v) { visit(v, state_); }
    Status load(StateVisitor& v);

private:
    struct State {
        u32 address = 0;
    };
    static void visit(StateVisitor& v, State& s);

    State state_;
    IoDevice& reset_register_;
};

static_assert(Snapshotable<PciConfig>);

}  // namespace tessera::pci_config
