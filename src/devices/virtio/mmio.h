// virtio over MMIO, version 2 [VIRTIO-1.2 4.2]: registers and one level interrupt. Leaves out the legacy
// interface and shared memory regions (there are none: their lengths read all ones).
#pragma once

#include <span>
#include <utility>

#include "bus/doorbell.h"
#include "bus/io_device.h"
#include "bus/irq_line.h"
#include "devices/virtio/core.h"
#include "devices/virtio/mmio_regs.h"

namespace tessera::virtio {

class Mmio final : public IoDevice, private TransportPort {
public:
    static constexpr u64 kSize = 0x200;
    static constexpr u32 kVendor = 0x5453'5345;  // "ESST"

    Mmio(Device& device, MemoryMap& memory, QueueKicker& kicker, IrqLine irq)
        : irq_(std::move(irq)), core_(device, memory, kicker) {
        core_.connect(*this);
    }

    // Registers are 32 bits wide and aligned; the device's own may be read in any width.
    IoStatus read(u64 offset, std::span<std::byte> out) override;
    IoStatus write(u64 offset, std::span<const std::byte> in) override;

    [[nodiscard]] Core& core() { return core_; }
    [[nodiscard]] static Doorbell doorbell(unsigned queue) {
        return {.address = static_cast<u64>(MmioRegister::QueueNotify), .width = sizeof(u32), .value = queue};
    }

    // Requests in flight may go on for a while: Core::draining().
    void reset();
    void visit_state(StateVisitor& v) { core_.visit_state(v); }
    Status load(StateVisitor& v);

private:
    void queue_interrupt(unsigned queue) override;
    void config_interrupt() override;
    [[nodiscard]] bool read_register(u64 offset, u32& value);
    [[nodiscard]] u32 read_queue(MmioRegister reg);
    [[nodiscard]] bool write_register(u64 offset, u32 value);
    void write_queue(MmioRegister reg, u32 value);
    void sync() { irq_.set(core_.causes() != Flags<InterruptCause>()); }

    IrqLine irq_;
    Core core_;
};

static_assert(Snapshotable<Mmio>);

}  // namespace tessera::virtio
