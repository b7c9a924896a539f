// The tests every virtio device joins through its kit (bench.h), over every transport and with both rings:
//
//     TESSERA_JOIN_HOSTILE_DRIVER_SUITE(Rng, tessera::virtio_rng::RngKit);
//
// A driver that does everything a driver can do wrong. The device lives, takes a bounded time, tells that it
// needs a reset where nothing else helps, and works again after one. One test for each class of bugs that
// other monitors had.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <gtest/gtest.h>
#include <initializer_list>
#include <span>
#include <thread>
#include <vector>

#include "bus/io_bus.h"
#include "bus/io_device.h"
#include "bus/lock.h"
#include "devices/pci/pci_rig.h"
#include "devices/testing/device_suite.h"
#include "devices/virtio/testing/bad_chains.h"
#include "devices/virtio/testing/bench.h"

namespace tessera::virtio {

template <typename B>
class HostileDriverSuite : public testing::Test {};

TYPED_TEST_SUITE_P(HostileDriverSuite);

TYPED_TEST_P(HostileDriverSuite, AGoodDriverIsServed) {
    TypeParam bench;
    ASSERT_TRUE(bench.start());
    // More than once around the ring.
    for (unsigned i = 0; i < 3 * TypeParam::kSize; ++i) {
        ASSERT_TRUE(bench.works()) << i;
        bench.kit.refresh();
    }
    EXPECT_TRUE(bench.port.interrupted());
}

TYPED_TEST_P(HostileDriverSuite, EveryRingFeatureAloneWorks) {
    for (const u64 without : {feature_bit(kFeatureEventIndex), feature_bit(kFeatureIndirect),
                              feature_bit(kFeatureEventIndex) | feature_bit(kFeatureIndirect), u64{0}}) {
        TypeParam bench;
        ASSERT_TRUE(bench.start(without));
        EXPECT_TRUE(bench.works());
    }
}

TYPED_TEST_P(HostileDriverSuite, VersionOneIsDemandedAndUnknownFeaturesAreRefused) {
    TypeParam bench;
    EXPECT_FALSE(bench.negotiate(feature_bit(kFeatureVersion1)));
    bench.port.set_status(0);
    bench.port.set_status(3);
    bench.port.set_driver_features(bench.port.device_features() | u64{1} << 62);
    bench.port.set_status(11);
    EXPECT_EQ(bench.port.status() & 8, 0);
    bench.port.set_status(15);
    EXPECT_EQ(bench.port.status() & 4, 0) << "no driver is ready without an agreement";
    EXPECT_TRUE(bench.start());
}

// C2
TYPED_TEST_P(HostileDriverSuite, BadChainsAreDefined) {
    for (const BadChain& chain : bad_chains()) {
        if (chain.rings ==
            (TypeParam::kKind == RingKind::Split ? BadChain::Rings::PackedOnly : BadChain::Rings::SplitOnly))
            continue;
        TypeParam bench;
        ASSERT_TRUE(bench.start());
        bench.kit.prepare(bench.ram, kBuffer);
        chain.write(bench.queue());
        bench.kick();
        EXPECT_TRUE(bench.run()) << chain.name;
        if (chain.expected == Expected::NeedsReset) {
            EXPECT_TRUE(bench.needs_reset()) << chain.name;
            EXPECT_TRUE(bench.port.interrupted()) << chain.name;
        }
        EXPECT_TRUE(bench.start()) << chain.name;
        EXPECT_TRUE(bench.works()) << chain.name;
    }
}

// C2: without the feature, the flag makes a chain malformed.
TYPED_TEST_P(HostileDriverSuite, IndirectHasToBeAgreedOn) {
    TypeParam bench;
    ASSERT_TRUE(bench.start(feature_bit(kFeatureIndirect)));
    bench.kit.prepare(bench.ram, kBuffer);
    table(bench.queue(), bench.queue().table_of(0), kNext, 1);
    bench.kick();
    EXPECT_TRUE(bench.run());
    EXPECT_TRUE(bench.needs_reset());
}

// C1
TYPED_TEST_P(HostileDriverSuite, QueueRegistersAreFrozenOnceEnabled) {
    TypeParam bench;
    ASSERT_TRUE(bench.start());
    for (const u32 size : std::initializer_list<u32>{0, 1, 3, 32769, 65535})
        for (const u64 address : {u64{0}, u64{1}, BenchRam::kHole, ~u64{0}}) {
            bench.port.set_up(TypeParam::KitType::kRequestQueue, static_cast<u16>(size), address, address,
                              address);
            bench.kick();
            EXPECT_TRUE(bench.run());
        }
    bench.port.set_enabled(TypeParam::KitType::kRequestQueue, 0);
    EXPECT_TRUE(bench.port.enabled(TypeParam::KitType::kRequestQueue));
    bench.port.set_driver_features(0);
    EXPECT_FALSE(bench.needs_reset());
    EXPECT_TRUE(bench.works());
}

// C1, C2
TYPED_TEST_P(HostileDriverSuite, BadRingsNeedAReset) {
    struct Place {
        u32 size;
        u64 descriptors;
        u64 driver;
        u64 device;
    };
    const u64 at = TypeParam::kQueues;
    const std::vector<Place> places = {
        {0, at, at + 0x2000, at + 0x3000},
        {512, at, at + 0x8000, at + 0xc000},
        {32768, at, at + 0x2000, at + 0x3000},
        {65535, at, at + 0x2000, at + 0x3000},
        {16, BenchRam::kHole, at + 0x2000, at + 0x3000},
        {16, at, BenchRam::kHole, at + 0x3000},
        {16, at, at + 0x2000, BenchRam::kRom},
        {16, ~u64{15}, at + 0x2000, at + 0x3000},
        {16, at, ~u64{3}, at + 0x3000},
        {16, at + 8, at + 0x2000, at + 0x3000},
        {16, at, at + 0x2001, at + 0x3000},
        {16, at, at + 0x2000, at + 0x3002},
        {16, BenchRam::kSecondBase - 16, at + 0x2000, at + 0x3000},  // not one piece
    };
    for (const Place& place : places) {
        TypeParam bench;
        ASSERT_TRUE(bench.negotiate());
        bench.port.set_up(TypeParam::KitType::kRequestQueue, static_cast<u16>(place.size), place.descriptors,
                          place.driver, place.device);
        bench.port.set_enabled(TypeParam::KitType::kRequestQueue, 1);
        bench.port.set_status(15);
        bench.kick();
        EXPECT_TRUE(bench.run());
        EXPECT_TRUE(bench.needs_reset()) << place.size << ' ' << place.descriptors;
        EXPECT_TRUE(bench.start());
        EXPECT_TRUE(bench.works());
    }
}

// A split queue's size is a power of two; a packed one's need not be.
TYPED_TEST_P(HostileDriverSuite, OddSizesAreForPackedRings) {
    TypeParam bench;
    ASSERT_TRUE(bench.negotiate());
    const u64 at = TypeParam::kQueues;
    bench.port.set_up(TypeParam::KitType::kRequestQueue, 3, at, at + 0x2000, at + 0x3000);
    bench.port.set_enabled(TypeParam::KitType::kRequestQueue, 1);
    bench.port.set_status(15);
    EXPECT_EQ(bench.needs_reset(), TypeParam::kKind == RingKind::Split);
}

// C3
TYPED_TEST_P(HostileDriverSuite, SelectorsOutOfRangeSelectNothing) {
    TypeParam bench;
    ASSERT_TRUE(bench.start());
    const u32 count = bench.core().queue_count();
    for (const u32 queue : {count, count + 1, u32{0x7fff}, u32{0xffff}, u32{0x7fff'ffff}, u32{0xffff'ffff}}) {
        bench.port.select(queue);
        bench.port.sweep();
        const auto narrow = static_cast<u16>(queue);
        EXPECT_EQ(bench.port.most(narrow), 0);
        bench.port.set_up(narrow, 16, 0, 0, 0);
        bench.port.set_enabled(narrow, 1);
        EXPECT_FALSE(bench.port.enabled(narrow));
        bench.port.notify(narrow);
        EXPECT_TRUE(bench.run());
    }
    EXPECT_TRUE(bench.start());
    EXPECT_TRUE(bench.works());
}

// C4
TYPED_TEST_P(HostileDriverSuite, EveryRegisterTakesEveryWidth) {
    TypeParam bench;
    bench.port.sweep();
    EXPECT_TRUE(bench.run());
    ASSERT_TRUE(bench.start());
    bench.port.sweep();
    EXPECT_TRUE(bench.run());
    EXPECT_TRUE(bench.start());
    EXPECT_TRUE(bench.works());
}

// C6: a full ring of the longest chains takes a bounded number of turns.
TYPED_TEST_P(HostileDriverSuite, AFullRingIsWorkedOffInTurns) {
    TypeParam bench;
    ASSERT_TRUE(bench.start());
    std::vector<Segment> segments;
    for (u64 i = 0; i < GuestQueue::kTableEntries; ++i)
        segments.push_back({.address = kBuffer, .length = 0xffff, .writable = true});
    while (bench.queue().add_indirect(segments)) {
    }
    bench.kick();
    EXPECT_TRUE(bench.run());
}

TYPED_TEST_P(HostileDriverSuite, NothingHappensBeforeTheDriverIsReady) {
    TypeParam bench;
    ASSERT_TRUE(bench.negotiate());
    bench.set_up_queues();
    bench.kit.prepare(bench.ram, kBuffer);
    (void)bench.queue().add(TypeParam::KitType::request(kBuffer));
    bench.kick();
    EXPECT_TRUE(bench.run());
    EXPECT_FALSE(bench.queue().take().has_value());
    EXPECT_FALSE(bench.port.interrupted());
}

// Registers on a bus, and how often anybody came by.
class WatchedRegisters final : public IoDevice {
public:
    explicit WatchedRegisters(IoDevice& inner) : inner_(inner) {}
    IoStatus read(u64 offset, std::span<std::byte> out) override {
        ++accesses;
        return inner_.read(offset, out);
    }
    IoStatus write(u64 offset, std::span<const std::byte> in) override {
        ++accesses;
        return inner_.write(offset, in);
    }
    unsigned accesses = 0;

private:
    IoDevice& inner_;
};

// C5: rings, tables and buffers at the device's own registers, and at another's.
TYPED_TEST_P(HostileDriverSuite, RegistersAreNoMemory) {
    constexpr u64 kOwn = BenchRam::kHole;
    constexpr u64 kOthers = BenchRam::kHole + 0x1'0000;
    constexpr u64 kBytes = 0x1000;
    struct Use {
        const char* name;
        void (*write)(GuestQueue& q, u64 at);
    };
    const std::vector<Use> uses = {
        {"written to", [](GuestQueue& q, u64 at) { one(q, at, 64, kWrite); }},
        {"read from", [](GuestQueue& q, u64 at) { one(q, at, 64, 0); }},
        {"a table", [](GuestQueue& q, u64 at) { one(q, at, 32, kIndirect); }},
        {"behind a good buffer",
         [](GuestQueue& q, u64 at) {
             q.raw(1, at, 64, kWrite, 0);
             q.raw(0, kBuffer, 16, kNext | kWrite, 1);
             q.raw_available(0);
         }},
        {"across their beginning", [](GuestQueue& q, u64 at) { one(q, at - 8, 64, kWrite); }}};
    for (const u64 at : {kOwn, kOwn + 0x50, kOthers, kOthers + kBytes - 8})
        for (std::size_t use = 0; use < uses.size() + 3; ++use) {
            TypeParam bench;
            WatchedRegisters own(bench.port.registers());
            pci::OneRegister counter;
            WatchedRegisters others(counter);
            NullLock lock;
            IoBus bus;
            ASSERT_TRUE(bus.add("own", kOwn, kBytes, own, lock));
            ASSERT_TRUE(bus.add("others", kOthers, kBytes, others, lock));
            if (use < uses.size()) {
                ASSERT_TRUE(bench.start());
                bench.kit.prepare(bench.ram, kBuffer);
                uses[use].write(bench.queue(), at);
            } else {
                // The ring's three areas, in turn.
                ASSERT_TRUE(bench.negotiate());
                const u64 good = TypeParam::kQueues;
                const std::size_t area = use - uses.size();
                bench.port.set_up(TypeParam::KitType::kRequestQueue, 16, area == 0 ? at & ~u64{15} : good,
                                  area == 1 ? at & ~u64{3} : good + 0x2000,
                                  area == 2 ? at & ~u64{3} : good + 0x3000);
                bench.port.set_enabled(TypeParam::KitType::kRequestQueue, 1);
                bench.port.set_status(15);
            }
            bench.kick();
            EXPECT_TRUE(bench.run());
            EXPECT_TRUE(bench.needs_reset()) << use << " at " << at;
            EXPECT_EQ(own.accesses + others.accesses, 0U) << use << " at " << at;
            EXPECT_TRUE(bench.start());
            EXPECT_TRUE(bench.works());
        }
}

// C9: whatever is under way. What was in flight touches no ring of a device that says it is reset.
TYPED_TEST_P(HostileDriverSuite, ResetsAtAnyMomentOfRequestsInFlight) {
    constexpr unsigned kResets = 1000;
    constexpr std::size_t kRing = GuestQueue::kTables;  // descriptors and both areas
    TypeParam bench;
    testing_rig::SeededChoices choices(9);
    const auto complete = [&] {
        if constexpr (requires { bench.kit.complete_some(choices); }) bench.kit.complete_some(choices);
    };
    if constexpr (requires { bench.kit.hold_back(true); }) bench.kit.hold_back(true);
    const u64 ring = TypeParam::kQueues + TypeParam::KitType::kRequestQueue * GuestQueue::kBytes;
    for (unsigned resets = 0; resets < kResets; ++resets) {
        if (choices.below(4) != 0) (void)bench.start();
        for (u64 n = choices.below(8); n != 0 && !bench.queues.empty(); --n) {
            const u64 at = TypeParam::kBuffers + n * 8 * kKiB;
            bench.kit.prepare(bench.ram, at);
            (void)bench.queue().add(TypeParam::KitType::request(at));
            bench.kick();
            // None, some or all of what is to be done.
            if (choices.coin()) (void)bench.core().service(TypeParam::KitType::kRequestQueue);
            if (choices.coin()) complete();
            if (choices.below(8) == 0) bench.kit.stimulate(choices);
        }
        if (choices.coin())
            bench.device.reset();
        else
            bench.port.set_status(0);
        if (bench.port.status() != 0) continue;
        const auto seen = bench.ram.bytes().subspan(ring, kRing);
        const std::vector<std::byte> before(seen.begin(), seen.end());
        complete();
        ASSERT_TRUE(bench.run());
        ASSERT_TRUE(std::ranges::equal(before, seen)) << "after reset " << resets;
    }
    if constexpr (requires { bench.kit.hold_back(false); }) bench.kit.hold_back(false);
    bench.kit.refresh();
    ASSERT_TRUE(bench.start());
    EXPECT_TRUE(bench.works());
}

// C9, C10: another CPU writes the rings while the device works.
TYPED_TEST_P(HostileDriverSuite, RingsThatChangeMeanwhileDoNoHarm) {
#if __has_feature(thread_sanitizer)
    // A guest that writes what a device reads is a race by intention; what it must not do, the other
    // sanitizers see.
    GTEST_SKIP() << "races by intention";
#endif
    TypeParam bench;
    std::atomic<bool> stop = false;
    std::thread racer([&] {
        testing_rig::SeededChoices choices(1);
        while (!stop.load(std::memory_order_relaxed)) {
            const u64 where = TypeParam::kQueues + 2 * choices.below(GuestQueue::kBytes / 2);
            std::atomic_ref<u16>(*reinterpret_cast<u16*>(bench.ram.at(where)))
                .store(static_cast<u16>(choices.bits()), std::memory_order_relaxed);
        }
    });
    for (unsigned i = 0; i < 300; ++i) {
        if (i % 20 == 0) (void)bench.start();
        (void)bench.works();
    }
    stop.store(true);
    racer.join();
    EXPECT_TRUE(bench.start());
    EXPECT_TRUE(bench.works());
}

REGISTER_TYPED_TEST_SUITE_P(HostileDriverSuite, AGoodDriverIsServed, EveryRingFeatureAloneWorks,
                            VersionOneIsDemandedAndUnknownFeaturesAreRefused, BadChainsAreDefined,
                            IndirectHasToBeAgreedOn, QueueRegistersAreFrozenOnceEnabled, BadRingsNeedAReset,
                            OddSizesAreForPackedRings, SelectorsOutOfRangeSelectNothing,
                            EveryRegisterTakesEveryWidth, AFullRingIsWorkedOffInTurns,
                            NothingHappensBeforeTheDriverIsReady, RegistersAreNoMemory,
                            ResetsAtAnyMomentOfRequestsInFlight, RingsThatChangeMeanwhileDoNoHarm);

template <typename Kit>
using EveryBench =
    testing::Types<Bench<Kit, OverMmio, RingKind::Split>, Bench<Kit, OverMmio, RingKind::Packed>,
                   Bench<Kit, OverPci<PciInterrupts::Pin>, RingKind::Split>,
                   Bench<Kit, OverPci<PciInterrupts::Pin>, RingKind::Packed>,
                   Bench<Kit, OverPci<PciInterrupts::Messages>, RingKind::Split>,
                   Bench<Kit, OverPci<PciInterrupts::Messages>, RingKind::Packed>>;

}  // namespace tessera::virtio

// At file scope; the kit by its full name. The shared suites of all chips come along.
#define TESSERA_JOIN_HOSTILE_DRIVER_SUITE(Name, Kit)                                     \
    namespace tessera::virtio {                                                          \
    INSTANTIATE_TYPED_TEST_SUITE_P(Name, HostileDriverSuite, EveryBench<Kit>);           \
    }                                                                                    \
    namespace tessera::testing_rig {                                                     \
    INSTANTIATE_TYPED_TEST_SUITE_P(Name, DeviceSuite, tessera::virtio::EveryBench<Kit>); \
    }                                                                                    \
    static_assert(true, "takes the semicolon")
