// The transports on the bench, as a driver's transport layer sees them: MMIO, and PCI with pins or messages.
// Places of registers are restated here.
#pragma once

#include <array>
#include <bit>
#include <span>
#include <utility>

#include "base/types.h"
#include "bus/irq_line.h"
#include "bus/queued_device.h"
#include "devices/pci/pci_rig.h"
#include "devices/testing/device_rig.h"
#include "devices/virtio/device.h"
#include "devices/virtio/mmio.h"
#include "devices/virtio/pci.h"
#include "memory/memory_map.h"

namespace tessera::virtio {

// The registers of a transport, as a driver's transport layer sees them.
class DriverPort {
public:
    DriverPort() = default;
    DriverPort(const DriverPort&) = delete;
    DriverPort& operator=(const DriverPort&) = delete;
    virtual ~DriverPort() = default;
    virtual u8 status() = 0;
    virtual void set_status(u8 value) = 0;
    virtual u64 device_features() = 0;
    virtual void set_driver_features(u64 features) = 0;
    virtual u16 most(u16 queue) = 0;
    virtual void set_up(u16 queue, u16 size, u64 descriptors, u64 driver, u64 device) = 0;
    virtual void set_enabled(u16 queue, u16 value) = 0;
    virtual bool enabled(u16 queue) = 0;
    virtual void notify(u16 queue) = 0;
    // Any number there is room for, where a driver selects a queue.
    virtual void select(u32 queue) = 0;
    virtual IoStatus read_config(u64 offset, std::span<std::byte> out) = 0;
    virtual IoStatus write_config(u64 offset, std::span<const std::byte> in) = 0;
    // Whether the device asked for an interrupt since the last call.
    virtual bool interrupted() = 0;
    // Any access a guest can make to the device's registers.
    virtual u64 poke(testing_rig::Choices& choices) = 0;
    // Every register byte, in every width, read and written.
    virtual void sweep() = 0;
    // What a bus would lead accesses to.
    virtual IoDevice& registers() = 0;
};

struct OverMmio {
    class Port;
    using Chip = Mmio;
    struct Parts {
        Parts(Device& device, MemoryMap& memory, QueueKicker& kicker, IrqSink& sink)
            : chip(device, memory, kicker, IrqLine(sink, 5)) {}
        Mmio chip;
    };
};

class OverMmio::Port final : public DriverPort {
public:
    Port(Parts& parts, testing_rig::RecordingSink& sink) : chip_(parts.chip), sink_(sink) {}

    u8 status() override { return static_cast<u8>(in(0x70)); }
    void set_status(u8 value) override { out(0x70, value); }
    u64 device_features() override {
        out(0x14, 0);
        const u64 low = in(0x10);
        out(0x14, 1);
        return low | u64{in(0x10)} << 32;
    }
    void set_driver_features(u64 features) override {
        out(0x24, 0);
        out(0x20, static_cast<u32>(features));
        out(0x24, 1);
        out(0x20, static_cast<u32>(features >> 32));
    }
    u16 most(u16 queue) override {
        out(0x30, queue);
        return static_cast<u16>(in(0x34));
    }
    void set_up(u16 queue, u16 size, u64 descriptors, u64 driver, u64 device) override {
        out(0x30, queue);
        out(0x38, size);
        out(0x80, static_cast<u32>(descriptors));
        out(0x84, static_cast<u32>(descriptors >> 32));
        out(0x90, static_cast<u32>(driver));
        out(0x94, static_cast<u32>(driver >> 32));
        out(0xa0, static_cast<u32>(device));
        out(0xa4, static_cast<u32>(device >> 32));
    }
    void set_enabled(u16 queue, u16 value) override {
        out(0x30, queue);
        out(0x44, value);
    }
    bool enabled(u16 queue) override {
        out(0x30, queue);
        return in(0x44) != 0;
    }
    void notify(u16 queue) override { out(0x50, queue); }
    void select(u32 queue) override { out(0x30, queue); }
    IoStatus read_config(u64 offset, std::span<std::byte> data) override {
        return chip_.read(0x100 + offset, data);
    }
    IoStatus write_config(u64 offset, std::span<const std::byte> data) override {
        return chip_.write(0x100 + offset, data);
    }
    bool interrupted() override {
        if (!sink_.levels[5]) return false;
        out(0x64, in(0x60));
        return true;
    }
    u64 poke(testing_rig::Choices& choices) override {
        return testing_rig::poke_io(chip_, choices.coin() ? Mmio::kSize : 0x100, choices);
    }
    IoDevice& registers() override { return chip_; }
    void sweep() override {
        for (u64 offset = 0; offset < Mmio::kSize + 8; ++offset)
            for (const std::size_t width : {1, 2, 4, 8}) {
                std::array<std::byte, 8> data{};
                (void)chip_.read(offset, std::span(data).first(width));
                data.fill(std::byte{0xff});
                (void)chip_.write(offset, std::span(data).first(width));
            }
    }

private:
    u32 in(u64 offset) {
        std::array<std::byte, 4> data{};
        (void)chip_.read(offset, data);
        return std::bit_cast<u32>(data);
    }
    void out(u64 offset, u32 value) {
        (void)chip_.write(offset, std::bit_cast<std::array<std::byte, 4>>(value));
    }

    Mmio& chip_;
    testing_rig::RecordingSink& sink_;
};

enum class PciInterrupts : u8 { Pin, Messages };

template <PciInterrupts Kind>
struct OverPci {
    class Port;
    using Chip = Pci;
    struct Parts {
        Parts(Device& device, MemoryMap& memory, QueueKicker& kicker, IrqSink& sink)
            : chip(device, memory, kicker) {
            chip.config().connect(uplink, IrqLine(sink, 5));
        }
        // What firmware and the driver's PCI layer do.
        void set_up() {
            out(pci::kCommand, 2, 0x0006);
            if (Kind == PciInterrupts::Pin) return;
            for (u16 at = static_cast<u16>(in(0x34, 1)); at != 0; at = static_cast<u16>(in(at + 1U, 1)))
                if (in(at, 1) == 0x11) out(at + 2U, 2, 0x8000);
            for (u64 vector = 0; vector < chip.msix().vectors(); ++vector) {
                table(16 * vector, 0xfee0'0000);
                table(16 * vector + 4, 0);
                table(16 * vector + 8, static_cast<u32>(vector));
                table(16 * vector + 12, 0);
            }
        }
        [[nodiscard]] u32 in(unsigned offset, std::size_t width) {
            std::array<std::byte, 4> data{};
            chip.read_config(static_cast<u16>(offset), std::span(data).first(width));
            return std::bit_cast<u32>(data);
        }
        void out(unsigned offset, std::size_t width, u32 value) {
            const auto data = std::bit_cast<std::array<std::byte, 4>>(value);
            chip.write_config(static_cast<u16>(offset), std::span(data).first(width));
        }
        void table(u64 offset, u32 value) {
            (void)chip.msix().write(offset, std::bit_cast<std::array<std::byte, 4>>(value));
        }
        pci::RecordingUplink uplink;
        Pci chip;
    };
};

template <PciInterrupts Kind>
class OverPci<Kind>::Port final : public DriverPort {
public:
    Port(Parts& parts, testing_rig::RecordingSink& sink) : parts_(parts), sink_(sink) {}

    u8 status() override { return static_cast<u8>(in(20, 1)); }
    void set_status(u8 value) override {
        out(20, 1, value);
        if (value != 0) return;
        parts_.set_up();
        if (Kind == PciInterrupts::Pin) return;
        // A reset forgets them; a driver sets them up before its queues.
        out(16, 2, 0);
        for (u16 queue = 0; queue < in(18, 2); ++queue) {
            out(22, 2, queue);
            out(26, 2, queue + 1U);
        }
    }
    u64 device_features() override {
        out(0, 4, 0);
        const u64 low = in(4, 4);
        out(0, 4, 1);
        return low | u64{in(4, 4)} << 32;
    }
    void set_driver_features(u64 features) override {
        out(8, 4, 0);
        out(12, 4, static_cast<u32>(features));
        out(8, 4, 1);
        out(12, 4, static_cast<u32>(features >> 32));
    }
    u16 most(u16 queue) override {
        out(22, 2, queue);
        return static_cast<u16>(in(24, 2));
    }
    void set_up(u16 queue, u16 size, u64 descriptors, u64 driver, u64 device) override {
        out(22, 2, queue);
        out(24, 2, size);
        out(32, 4, static_cast<u32>(descriptors));
        out(36, 4, static_cast<u32>(descriptors >> 32));
        out(40, 4, static_cast<u32>(driver));
        out(44, 4, static_cast<u32>(driver >> 32));
        out(48, 4, static_cast<u32>(device));
        out(52, 4, static_cast<u32>(device >> 32));
    }
    void set_enabled(u16 queue, u16 value) override {
        out(22, 2, queue);
        out(28, 2, value);
    }
    bool enabled(u16 queue) override {
        out(22, 2, queue);
        return in(28, 2) != 0;
    }
    void notify(u16 queue) override { out(0x3000 + 4 * u64{queue}, 2, queue); }
    void select(u32 queue) override { out(22, 2, queue); }
    IoStatus read_config(u64 offset, std::span<std::byte> data) override {
        return bar().read(0x2000 + offset, data);
    }
    IoStatus write_config(u64 offset, std::span<const std::byte> data) override {
        return bar().write(0x2000 + offset, data);
    }
    bool interrupted() override {
        if (Kind == PciInterrupts::Messages)
            return std::exchange(seen_, parts_.uplink.messages.size()) != parts_.uplink.messages.size();
        return sink_.levels[5] && in(0x1000, 1) != 0;
    }
    u64 poke(testing_rig::Choices& choices) override {
        switch (choices.below(8)) {
            case 0: return pci::poke_config(parts_.chip, choices);
            case 1: return testing_rig::poke_io(parts_.chip.msix(), parts_.chip.msix().size(), choices);
            case 2: return testing_rig::poke_io(bar(), Pci::kBarSize, choices);
            case 3: parts_.set_up(); return 0;
            default: {
                // Where the registers are.
                constexpr std::array<u64, 4> kPlaces{0, 0x1000, 0x2000, 0x3000};
                std::array<std::byte, 4> data{};
                const u64 at = kPlaces[choices.below(4)] + choices.below(64);
                const auto some = std::span(data).first(std::size_t{1} << choices.below(3));
                if (choices.coin()) return static_cast<u64>(bar().read(at, some));
                data = std::bit_cast<std::array<std::byte, 4>>(static_cast<u32>(choices.bits()));
                return static_cast<u64>(bar().write(at, some));
            }
        }
    }
    IoDevice& registers() override { return bar(); }
    void sweep() override {
        for (u64 offset = 0; offset < Pci::kBarSize + 8; ++offset)
            for (const std::size_t width : {1, 2, 4, 8}) touch(bar(), offset, width);
        for (u64 offset = 0; offset < parts_.chip.msix().size() + 8; ++offset)
            for (const std::size_t width : {1, 2, 4, 8}) touch(parts_.chip.msix(), offset, width);
        for (unsigned offset = 0; offset < 0x1000; ++offset)
            for (const unsigned width : {1U, 2U, 4U})
                if (offset % width == 0) {
                    (void)parts_.in(offset, width);
                    parts_.out(offset, width, ~u32{0});
                }
        parts_.chip.reset();
    }

    void copy_surroundings(const Port& from) {
        parts_.uplink.messages = from.parts_.uplink.messages;
        seen_ = from.seen_;
    }

private:
    [[nodiscard]] IoDevice& bar() { return parts_.chip.registers(); }
    static void touch(IoDevice& region, u64 offset, std::size_t width) {
        std::array<std::byte, 8> data{};
        (void)region.read(offset, std::span(data).first(width));
        data.fill(std::byte{0xff});
        (void)region.write(offset, std::span(data).first(width));
    }
    u32 in(u64 offset, std::size_t width) {
        std::array<std::byte, 4> data{};
        (void)bar().read(offset, std::span(data).first(width));
        return std::bit_cast<u32>(data);
    }
    void out(u64 offset, std::size_t width, u32 value) {
        const auto data = std::bit_cast<std::array<std::byte, 4>>(value);
        (void)bar().write(offset, std::span(data).first(width));
    }

    Parts& parts_;
    testing_rig::RecordingSink& sink_;
    std::size_t seen_ = 0;
};

}  // namespace tessera::virtio
