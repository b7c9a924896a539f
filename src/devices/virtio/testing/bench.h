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
#include <vector>

#include "base/assert.h"
#include "base/types.h"
#include "bus/queued_device.h"
#include "devices/testing/device_rig.h"
#include "devices/virtio/core.h"
#include "devices/virtio/testing/driver_port.h"
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
