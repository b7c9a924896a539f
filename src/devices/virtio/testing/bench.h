// A virtio device on the bench: guest memory, a transport, a driver that can set it up. The device itself
// comes from a kit, so that every device is tested over every transport with every ring.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <concepts>
#include <cstring>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "base/types.h"
#include "bus/irq_line.h"
#include "devices/pci/pci_rig.h"
#include "devices/testing/device_rig.h"
#include "devices/virtio/core.h"
#include "devices/virtio/mmio.h"
#include "devices/virtio/pci.h"
#include "devices/virtio/testing/guest_queue.h"
#include "devices/virtio/testing/guest_ram.h"

namespace tessera::virtio {

// Remembers what is to be done, and does it when asked.
class BenchKicker final : public QueueKicker {
public:
    void kick(unsigned queue) override { kicks |= u64{1} << queue; }
    void wake() override { woken.store(true); }

    // Until nothing is left, but not forever: returns false if the device never has enough.
    bool run(QueuedDevice& core) {
        for (unsigned round = 0; round < 100'000; ++round) {
            if (woken.exchange(false)) {
                core.run_backend();
            } else if (kicks != 0) {
                const auto queue = static_cast<unsigned>(std::countr_zero(kicks));
                kicks &= kicks - 1;
                if (core.service(queue)) kicks |= u64{1} << queue;
            } else {
                return true;
            }
        }
        return false;
    }
    u64 kicks = 0;
    std::atomic<bool> woken = false;
};

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

// A kit brings `device` and what it needs, is made without arguments, and says what a good request is:
//     struct BlkKit {
//         Backend backend;
//         Blk device{backend, ...};
//         static constexpr u16 kRequestQueue = 0;       // the queue hostile tests use
//         static std::vector<Segment> request(u64 at);   // a good one in up to 8 KiB of RAM at `at`
//         void prepare(BenchRam& ram, u64 at);           // fills in what the device is to read
//         void stimulate(testing_rig::Choices&);         // something happens at the backend
//         void refresh();                                // what was used up is there again
//         // What is behind the device, see device_rig.h.
//         void copy_surroundings(const BlkKit& from);
//         bool same_surroundings(const BlkKit& other) const;  // may be left out
//         u64 seen() const;                                   // what came of it so far; may be left out
//         // May be left out: a good request of any queue.
//         std::vector<Segment> any_request(BenchRam&, u64 at, unsigned queue, testing_rig::Choices&);
//     };
template <typename Kit, typename Transport, RingKind Kind>
struct Bench {
    using KitType = Kit;
    static constexpr RingKind kKind = Kind;
    static constexpr u64 kQueues = 0x1'0000;    // the rings, GuestQueue::kBytes each, up to 8
    static constexpr u64 kBuffers = 0x10'0000;  // requests' memory, 8 KiB each
    static constexpr u16 kSize = 16;            // entries of the queues
    static constexpr auto kKeptByReset = [] {
        if constexpr (requires { Kit::kKeptByReset; })
            return Kit::kKeptByReset;
        else
            return std::array<unsigned, 0>{};
    }();

    BenchRam ram;
    BenchKicker kicker;
    testing_rig::RecordingSink wires;
    Kit kit = make_kit();
    typename Transport::Parts parts{kit.device, ram.map, kicker, wires};
    typename Transport::Chip& device = parts.chip;
    typename Transport::Port port{parts, wires};
    std::vector<std::unique_ptr<GuestQueue>> queues;

    Bench() {
        if constexpr (requires { kit.plug_in(); }) kit.plug_in();
    }
    Bench(const Bench&) = delete;
    Bench& operator=(const Bench&) = delete;
    ~Bench() = default;

    [[nodiscard]] Core& core() { return device.core(); }
    [[nodiscard]] unsigned queue_count() { return std::min(core().queue_count(), 8U); }

    // [VIRTIO-1.2 3.1.1] steps 1 to 6; false if the device did not agree.
    bool negotiate(u64 without = 0) {
        port.set_status(0);
        (void)run();
        port.set_status(1);
        port.set_status(3);
        u64 features = port.device_features() & ~without;
        if (Kind == RingKind::Split) features &= ~feature_bit(kFeaturePackedRing);
        port.set_driver_features(features);
        negotiated = features;
        port.set_status(11);
        return (port.status() & 8) != 0;
    }
    void set_up_queues() {
        queues.clear();
        for (u16 i = 0; i < queue_count(); ++i) {
            const u64 base = kQueues + i * GuestQueue::kBytes;
            std::memset(ram.at(base), 0, GuestQueue::kBytes);
            queues.push_back(std::make_unique<GuestQueue>(
                ram, base, kSize, Kind, (negotiated & feature_bit(kFeatureEventIndex)) != 0));
            port.set_up(i, kSize, queues[i]->descriptors(), queues[i]->driver(), queues[i]->device());
            port.set_enabled(i, 1);
        }
    }
    bool start(u64 without = 0) {
        if (!negotiate(without)) return false;
        set_up_queues();
        port.set_status(15);
        return (port.status() & 0x4f) == 0x0f && run();
    }
    bool run() { return kicker.run(core()); }
    [[nodiscard]] GuestQueue& queue() { return *queues[Kit::kRequestQueue]; }
    void kick() { port.notify(Kit::kRequestQueue); }
    [[nodiscard]] bool needs_reset() { return (port.status() & 64) != 0; }

    // Whether a good request is answered.
    bool works() {
        kit.prepare(ram, kBuffers);
        const auto id = queue().add(Kit::request(kBuffers));
        if (!id) return false;
        kick();
        if (!run()) return false;
        for (unsigned i = 0; i < 4 * kSize; ++i) {
            const auto used = queue().take();
            if (!used) break;
            if (used->id == *id) return true;
        }
        return false;
    }

    // For the shared suites and fuzz targets: a driver, mostly sane.
    u64 poke(testing_rig::Choices& choices) {
        switch (choices.below(16)) {
            case 0:
                if (choices.below(4) == 0) (void)start();
                break;
            case 1:
            case 2: scribble(choices); break;
            case 3:
            case 4:
            case 5:
                if (!queues.empty()) add_any(choices);
                break;
            case 6: return port.interrupted() ? 1 : 0;
            case 7: kit.stimulate(choices); break;
            case 8:
                if (!queues.empty()) (void)works();
                break;
            case 9:
                if constexpr (requires { kit.any_request(ram, kBuffers, 0, choices); }) {
                    if (!queues.empty()) ask(choices);
                    break;
                }
                [[fallthrough]];
            default: return port.poke(choices);
        }
        if (!run()) TESSERA_ASSERT(false, "a device finds an end");
        if constexpr (requires { kit.seen(); }) return kit.seen();
        return 0;
    }

    u64 negotiated = 0;

    // Memory and the driver.
    void copy_memory(Bench& from) {
        std::ranges::copy(from.ram.bytes(), ram.bytes().begin());
        wires.levels = from.wires.levels;
        if constexpr (requires { port.copy_surroundings(from.port); }) port.copy_surroundings(from.port);
        negotiated = from.negotiated;
        queues.clear();
        for (const auto& queue : from.queues) queues.push_back(std::make_unique<GuestQueue>(ram, *queue));
    }
    // And what is behind the device.
    void copy_surroundings(Bench& from) {
        copy_memory(from);
        kit.copy_surroundings(from.kit);
        kicker.kicks = from.kicker.kicks;
        kicker.woken.store(from.kicker.woken.load());
    }
    void end_what_a_snapshot_ends() {
        if constexpr (requires { kit.end_what_a_snapshot_ends(); }) kit.end_what_a_snapshot_ends();
    }
    [[nodiscard]] bool same_surroundings(Bench& other) {
        if constexpr (requires { kit.same_surroundings(other.kit); })
            if (!kit.same_surroundings(other.kit)) return false;
        return std::ranges::equal(ram.bytes(), other.ram.bytes());
    }

private:
    // Some devices need the guest's memory while they are built.
    Kit make_kit() {
        if constexpr (std::constructible_from<Kit, BenchRam&>)
            return Kit(ram);
        else
            return Kit();
    }
    // A word somewhere in the rings.
    void scribble(testing_rig::Choices& choices) {
        const u64 at = kQueues + choices.below(queue_count()) * GuestQueue::kBytes;
        const std::array<u64, 4> areas{0, GuestQueue::kDriverArea, GuestQueue::kDeviceArea,
                                       GuestQueue::kTables};
        const u16 value = static_cast<u16>(choices.bits());
        std::memcpy(ram.at(at + areas[choices.below(4)] + 2 * choices.below(128)), &value, sizeof value);
    }
    // A few good requests of any queue.
    void ask(testing_rig::Choices& choices) {
        for (u64 n = choices.below(4); n <= 4; ++n) {
            const u64 queue = choices.below(queues.size());
            const u64 at = kBuffers + choices.below(16) * 8 * kKiB;
            (void)queues[queue]->add(kit.any_request(ram, at, static_cast<unsigned>(queue), choices));
            port.notify(static_cast<u16>(queue));
        }
    }
    void add_any(testing_rig::Choices& choices) {
        GuestQueue& q = *queues[choices.below(queues.size())];
        std::vector<Segment> segments;
        u64 at = kBuffers + choices.below(16) * 8 * kKiB;
        kit.prepare(ram, at);
        const u64 readable = choices.below(3);
        const u64 all = 1 + choices.below(4);
        for (u64 i = 0; i < all; ++i) {
            const auto length = static_cast<u32>(choices.coin() ? 16 : choices.below(3000));
            segments.push_back({.address = choices.below(40) == 0 ? choices.bits() : at,
                                .length = length,
                                .writable = i >= readable});
            at += length;
        }
        if (choices.coin())
            (void)q.add(segments);
        else
            (void)q.add_indirect(segments);
        port.notify(static_cast<u16>(choices.below(queues.size())));
        if (choices.coin())
            while (q.take()) {
            }
    }
};

}  // namespace tessera::virtio
