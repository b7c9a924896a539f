// The two ways to configuration space: mechanism #1 at ports 0xCF8 to 0xCFF [PCI 3.2.2.3.2], which shares its
// address ports with the reset register at 0xCF9 as chip sets do, and the memory-mapped ECAM [PCIE 7.2.2].
#pragma once

#include <span>

#include "base/result.h"
#include "base/types.h"
#include "bus/io_device.h"
#include "devices/pci/pci_bus.h"
#include "snapshot/state_visitor.h"

namespace tessera::pci {

inline constexpr u64 kConfigPortsBase = 0xcf8;
inline constexpr u64 kConfigPortCount = 8;  // CONFIG_ADDRESS, CONFIG_DATA
inline constexpr u64 kResetRegisterOffset = 1;
inline constexpr u64 kConfigDataOffset = 4;
// CONFIG_ADDRESS: enable, bus, device, function, register; the others read as zero.
inline constexpr u32 kAddressBits = 0x80ff'fffc;
inline constexpr u32 kAddressEnable = 0x8000'0000;

class ConfigPorts final : public IoDevice {
public:
    // Byte accesses to 0xCF9 are `reset_register`'s, at its offset 0.
    ConfigPorts(PciBus& root, IoDevice& reset_register) : root_(root), reset_register_(reset_register) {}

    IoStatus read(u64 offset, std::span<std::byte> out) override;
    IoStatus write(u64 offset, std::span<const std::byte> in) override;
    // Not the reset register, which has a reset() of its own, nor the functions.
    void reset() { state_ = {}; }

    void visit_state(StateVisitor& v) { visit(v, state_); }
    Status load(StateVisitor& v);

private:
    struct State {
        u32 address = 0;
    };
    static void visit(StateVisitor& v, State& s);
    [[nodiscard]] u16 register_at(u64 offset) const;
    [[nodiscard]] u8 bus() const { return static_cast<u8>(state_.address >> 16); }
    [[nodiscard]] Slot slot() const;

    State state_;
    PciBus& root_;
    IoDevice& reset_register_;
};

static_assert(Snapshotable<ConfigPorts>);

// All 256 buses, one MiB each. Accesses of one, two and four bytes that do not leave their double word
// [PCIE 7.2.2.1].
class Ecam final : public IoDevice {
public:
    static constexpr u64 kSize = 256 * kMiB;

    explicit Ecam(PciBus& root) : root_(root) {}
    IoStatus read(u64 offset, std::span<std::byte> out) override;
    IoStatus write(u64 offset, std::span<const std::byte> in) override;

private:
    PciBus& root_;
};

}  // namespace tessera::pci
