// virtio over PCI [VIRTIO-1.2 4.1]: a function with the structures a modern driver looks for in BAR 0, and
// MSI-X in BAR 1. Leaves out the legacy and transitional interfaces.
#pragma once

#include <span>
#include <vector>

#include "bus/doorbell.h"
#include "bus/io_device.h"
#include "devices/pci/config_space.h"
#include "devices/pci/msix.h"
#include "devices/pci/pci_function.h"
#include "devices/virtio/core.h"
#include "devices/virtio/pci_regs.h"

namespace tessera::virtio {

class Pci final : public pci::PciFunction,
                  private IoDevice,
                  private TransportPort,
                  private pci::ConfigWatcher {
public:
    static constexpr unsigned kRegistersBar = 0;
    static constexpr u64 kBarSize = 0x4000;
    static constexpr u64 kCommonOffset = 0x0000;
    static constexpr u64 kIsrOffset = 0x1000;
    static constexpr u64 kDeviceOffset = 0x2000;
    static constexpr u64 kNotifyOffset = 0x3000;
    static constexpr u32 kNotifyMultiplier = 4;

    Pci(Device& device, MemoryMap& memory, QueueKicker& kicker);

    [[nodiscard]] pci::ConfigSpace& config() override { return config_; }
    void read_config(u16 offset, std::span<std::byte> out) override;
    void write_config(u16 offset, std::span<const std::byte> in) override;
    // Requests in flight may go on for a while: Core::draining().
    void reset() override;

    [[nodiscard]] Core& core() { return core_; }
    [[nodiscard]] IoDevice& registers() { return *this; }  // BAR 0
    [[nodiscard]] pci::Msix& msix() { return msix_; }      // BAR 1
    // In BAR kRegistersBar, as drivers write it; they may write 32 bits as well.
    [[nodiscard]] static Doorbell doorbell(unsigned queue) {
        return {.address = kNotifyOffset + u64{queue} * kNotifyMultiplier, .width = sizeof(u16)};
    }

    void visit_state(StateVisitor& v);
    Status load(StateVisitor& v);

private:
    // What the transport itself remembers.
    struct Vectors {
        u16 config = kNoVector;
        std::vector<u16> queues;
    };

    // BAR 0.
    IoStatus read(u64 offset, std::span<std::byte> out) override;
    IoStatus write(u64 offset, std::span<const std::byte> in) override;
    IoStatus read_common(u64 offset, std::span<std::byte> out);
    IoStatus write_common(u64 offset, std::span<const std::byte> in);
    [[nodiscard]] u32 common_value(CommonRegister reg);
    [[nodiscard]] u32 queue_value(CommonRegister reg);
    void set_common(CommonRegister reg, u32 value);
    void set_queue(CommonRegister reg, u32 value);
    IoStatus read_isr(u64 offset, std::span<std::byte> out);
    IoStatus notify(u64 offset, std::size_t width);

    void queue_interrupt(unsigned queue) override;
    void config_interrupt() override;
    [[nodiscard]] bool may_access_memory() const override { return config_.bus_master(); }
    void config_written() override;

    void add_structures();
    u8 add_structure(PciStructure kind, u64 offset, u32 length, std::span<const u8> more,
                     std::span<const u8> writable);
    [[nodiscard]] std::size_t window(u32& offset) const;
    [[nodiscard]] bool touches_window(u16 offset, std::size_t width) const;
    [[nodiscard]] Vectors no_vectors() const;
    [[nodiscard]] u16 usable_vector(u32 vector) const;
    void interrupt(InterruptCause cause, u16 vector);
    void sync() { config_.set_interrupt(core_.causes() != Flags<InterruptCause>()); }

    Core core_;
    pci::ConfigSpace config_;
    pci::Msix msix_;
    Vectors vectors_;
    u16 window_ = 0;  // where the configuration access capability is
};

static_assert(Snapshotable<Pci>);

}  // namespace tessera::virtio
