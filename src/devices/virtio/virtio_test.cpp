#include <condition_variable>
#include <gtest/gtest.h>
#include <mutex>
#include <thread>

#include "devices/virtio/testing/echo_device.h"
#include "devices/virtio/testing/hostile_driver_suite.h"

namespace tessera::virtio {
namespace {

template <typename B>
struct VirtioTest : testing::Test {
    // A request with a reply; the id it was given.
    std::optional<u16> send(u32 bytes = 8) {
        const std::vector<Segment> pieces = {{kBuffer, bytes, false}, {kBuffer + 0x1000, bytes, true}};
        const auto id = bench.queue().add(pieces);
        bench.kick();
        return id;
    }
    B bench;
};
TYPED_TEST_SUITE(VirtioTest, EveryBench<EchoKit>);

TYPED_TEST(VirtioTest, OffersTheRingsFeatures) {
    // INDIRECT_DESC 28, EVENT_IDX 29, VERSION_1 32, RING_PACKED 34 [VIRTIO-1.2 6], and its own 3.
    EXPECT_EQ(this->bench.port.device_features(), 0x5'3000'0008U);
}

TYPED_TEST(VirtioTest, TellsWhatItWroteAndWhere) {
    ASSERT_TRUE(this->bench.start());
    *this->bench.ram.at(kBuffer) = std::byte{0x5a};
    const auto id = this->send();
    ASSERT_TRUE(this->bench.run());
    const auto used = this->bench.queue().take();
    ASSERT_TRUE(used);
    EXPECT_EQ(used->id, *id);
    EXPECT_EQ(used->length, 8U);
    EXPECT_EQ(*this->bench.ram.at(kBuffer + 0x1000), std::byte{0x5a});
    EXPECT_FALSE(this->bench.queue().take());
}

TYPED_TEST(VirtioTest, FeaturesAreFrozenOnceAgreed) {
    ASSERT_TRUE(this->bench.negotiate());
    this->bench.port.set_driver_features(0);
    this->bench.port.set_status(15);
    EXPECT_EQ(this->bench.port.status(), 15);
    EXPECT_TRUE(this->bench.core().negotiated(kFeatureVersion1));
}

TYPED_TEST(VirtioTest, ADriverClearsNoStatusBitButAll) {
    ASSERT_TRUE(this->bench.start());
    this->bench.port.set_status(1);
    EXPECT_EQ(this->bench.port.status(), 15);
    this->bench.port.set_status(64);
    EXPECT_EQ(this->bench.port.status(), 15) << "NEEDS_RESET is the device's";
    this->bench.port.set_status(128);
    EXPECT_EQ(this->bench.port.status(), 0x8f);
    this->bench.port.set_status(0);
    EXPECT_EQ(this->bench.port.status(), 0);
}

TYPED_TEST(VirtioTest, AFailedDriverIsNotServed) {
    ASSERT_TRUE(this->bench.start());
    this->bench.port.set_status(128);
    (void)this->send();
    ASSERT_TRUE(this->bench.run());
    EXPECT_FALSE(this->bench.queue().take());
}

TYPED_TEST(VirtioTest, InterruptsCanBeTurnedOff) {
    for (const u64 without : {u64{0}, feature_bit(kFeatureEventIndex)}) {
        ASSERT_TRUE(this->bench.start(without));
        (void)this->bench.queue().want_interrupts();
        (void)this->send();
        ASSERT_TRUE(this->bench.run());
        EXPECT_TRUE(this->bench.port.interrupted());
        this->bench.queue().stop_interrupts();
        (void)this->send();
        ASSERT_TRUE(this->bench.run());
        EXPECT_FALSE(this->bench.port.interrupted());
        while (this->bench.queue().take()) {
        }
        EXPECT_FALSE(this->bench.queue().want_interrupts());
        (void)this->send();
        ASSERT_TRUE(this->bench.run());
        EXPECT_TRUE(this->bench.port.interrupted());
    }
}

TYPED_TEST(VirtioTest, ManyBuffersMakeOneInterrupt) {
    ASSERT_TRUE(this->bench.start());
    const auto interrupts = [this] {
        if constexpr (requires { this->bench.parts.uplink; })
            if (this->bench.device.msix().enabled()) return 2 * this->bench.parts.uplink.messages.size();
        return this->bench.wires.edges.size();
    };
    const std::size_t before = interrupts();
    const std::vector<Segment> pieces = {{kBuffer, 8, false}, {kBuffer + 0x1000, 8, true}};
    for (int i = 0; i < 4; ++i) ASSERT_TRUE(this->bench.queue().add(pieces));
    this->bench.kick();
    ASSERT_TRUE(this->bench.run());
    EXPECT_TRUE(this->bench.port.interrupted());
    EXPECT_EQ(interrupts() - before, 2U) << "up and down again, or one message";
}

TYPED_TEST(VirtioTest, KicksAreWantedAgainWhenTheQueueIsEmpty) {
    for (const u64 without : {u64{0}, feature_bit(kFeatureEventIndex)}) {
        ASSERT_TRUE(this->bench.start(without));
        const std::vector<Segment> pieces = {{kBuffer, 8, false}};
        ASSERT_TRUE(this->bench.queue().add(pieces));
        EXPECT_TRUE(this->bench.queue().kick_wanted());
        this->bench.kick();
        ASSERT_TRUE(this->bench.run());
        ASSERT_TRUE(this->bench.queue().add(pieces));
        EXPECT_TRUE(this->bench.queue().kick_wanted());
        if (without == 0) {
            ASSERT_TRUE(this->bench.queue().add(pieces));
            EXPECT_FALSE(this->bench.queue().kick_wanted()) << "the device was told already";
        }
    }
}

TYPED_TEST(VirtioTest, ConfigurationChangesAreToldAndNumbered) {
    ASSERT_TRUE(this->bench.start());
    const u8 before = this->bench.core().config_generation();
    this->bench.core().config_changed();
    EXPECT_NE(this->bench.core().config_generation(), before);
    EXPECT_TRUE(this->bench.port.interrupted());
}

TYPED_TEST(VirtioTest, ConfigurationEndsWhereItEnds) {
    std::array<std::byte, 8> data{};
    auto& port = this->bench.port;
    EXPECT_EQ(port.read_config(4, data), IoStatus::Ok);
    EXPECT_EQ(port.read_config(5, data), IoStatus::NoRegister);
    EXPECT_EQ(port.read_config(12, std::span(data).first(1)), IoStatus::NoRegister);
    EXPECT_EQ(port.write_config(11, std::span(data).first(2)), IoStatus::NoRegister);
    data[0] = std::byte{9};
    EXPECT_EQ(port.write_config(11, std::span(data).first(1)), IoStatus::Ok);
    EXPECT_EQ(this->bench.kit.device.config[11], std::byte{9});
}

// [VIRTIO-1.2 2.4.2]
TYPED_TEST(VirtioTest, AResetIsCompleteWhenNothingIsInFlight) {
    ASSERT_TRUE(this->bench.start());
    this->bench.kit.device.slow = true;
    (void)this->send();
    ASSERT_TRUE(this->bench.run());
    ASSERT_EQ(this->bench.kit.device.held.size(), 1U);
    this->bench.port.set_status(0);
    EXPECT_NE(this->bench.port.status(), 0);
    EXPECT_TRUE(this->bench.core().draining());
    this->bench.kicker.wake();
    ASSERT_TRUE(this->bench.run());
    EXPECT_EQ(this->bench.port.status(), 0);
    EXPECT_FALSE(this->bench.queue().take()) << "what was in flight is gone";
    this->bench.kit.device.slow = false;
    ASSERT_TRUE(this->bench.start());
    EXPECT_TRUE(this->bench.works());
}

// Drivers over MMIO do not wait for it.
TYPED_TEST(VirtioTest, ADriverThatDoesNotWaitForTheResetIsServedLater) {
    ASSERT_TRUE(this->bench.start());
    this->bench.kit.device.slow = true;
    (void)this->send();
    ASSERT_TRUE(this->bench.run());
    const unsigned starts = this->bench.kit.device.starts;
    this->bench.port.set_status(0);
    this->bench.port.set_status(3);
    this->bench.port.set_driver_features(this->bench.negotiated);
    this->bench.port.set_status(11);
    this->bench.set_up_queues();
    this->bench.port.set_status(15);
    this->bench.kit.device.slow = false;
    const auto id = this->send();
    EXPECT_TRUE(this->bench.kicker.kicks == 0) << "no work before the old one is gone";
    EXPECT_EQ(this->bench.kit.device.starts, starts);
    this->bench.kicker.wake();
    ASSERT_TRUE(this->bench.run());
    EXPECT_EQ(this->bench.kit.device.starts, starts + 1);
    const auto used = this->bench.queue().take();
    ASSERT_TRUE(used);
    EXPECT_EQ(used->id, *id);
}

TYPED_TEST(VirtioTest, ARestoredDeviceGoesOn) {
    ASSERT_TRUE(this->bench.start());
    for (int i = 0; i < 20; ++i) ASSERT_TRUE(this->bench.works());
    const auto before = testing_rig::saved(this->bench);
    this->bench.device.reset();
    ASSERT_TRUE(testing_rig::load(this->bench, before));
    ASSERT_TRUE(this->bench.queue().add(EchoKit::request(kBuffer)));
    this->bench.core().resume();
    ASSERT_TRUE(this->bench.run());
    EXPECT_TRUE(this->bench.queue().take()) << "the kick before the snapshot is not lost";
    EXPECT_TRUE(this->bench.works());
}

TYPED_TEST(VirtioTest, WhatADeviceWritesIsToldToWhoeverKeepsCode) {
    struct Observer final : CodeWriteObserver {
        void on_code_write(u64 address, u64 size) override { told.emplace_back(address, size); }
        std::vector<std::pair<u64, u64>> told;
    } observer;
    this->bench.ram.map.set_code_observer(&observer);
    ASSERT_TRUE(this->bench.start());
    (void)this->send();
    ASSERT_TRUE(this->bench.run());
    EXPECT_EQ(observer.told, (std::vector<std::pair<u64, u64>>{{kBuffer + 0x1000, 8}}));
    this->bench.ram.map.set_code_observer(nullptr);
}

// Does a device's work on a thread of its own, with its lock held, as a machine does.
class ThreadedKicker final : public QueueKicker {
public:
    void kick(unsigned queue) override {
        const std::lock_guard guard(mutex_);
        kicks_ |= u64{1} << queue;
        changed_.notify_one();
    }
    void wake() override {}
    void start(Core& core, std::mutex& device) {
        thread_ = std::thread([this, &core, &device] {
            for (;;) {
                {
                    std::unique_lock guard(mutex_);
                    changed_.wait(guard, [&] { return kicks_ != 0 || ended_; });
                    if (ended_) return;
                    kicks_ = 0;
                }
                const std::lock_guard guard(device);
                while (core.service(0)) {
                }
            }
        });
    }
    void end() {
        {
            const std::lock_guard guard(mutex_);
            ended_ = true;
        }
        changed_.notify_one();
        thread_.join();
    }

private:
    std::mutex mutex_;
    std::condition_variable changed_;
    u64 kicks_ = 0;
    bool ended_ = false;
    std::thread thread_;
};

// The interrupt the driver's thread waits for.
class WaitedLine final : public IrqSink {
public:
    void set_level(unsigned /*pin*/, bool high) override {
        const std::lock_guard guard(mutex_);
        high_ = high;
        changed_.notify_one();
    }
    void wait() {
        std::unique_lock guard(mutex_);
        changed_.wait(guard, [&] { return high_; });
    }

private:
    std::mutex mutex_;
    std::condition_variable changed_;
    bool high_ = false;
};

// A driver that kicks only when asked to and sleeps until the interrupt: a single kick or interrupt lost, and
// this never ends. All widths of the pause between two requests come by.
void nothing_is_lost(RingKind kind, bool event_index) {
    BenchRam ram;
    WaitedLine line;
    ThreadedKicker kicker;
    EchoDevice device;
    std::mutex lock;
    Mmio chip(device, ram.map, kicker, IrqLine(line, 0));
    const auto out = [&](u64 offset, u32 value) {
        const std::lock_guard guard(lock);
        EXPECT_EQ(chip.write(offset, std::bit_cast<std::array<std::byte, 4>>(value)), IoStatus::Ok);
    };
    u64 features = feature_bit(kFeatureVersion1);
    if (event_index) features |= feature_bit(kFeatureEventIndex);
    if (kind == RingKind::Packed) features |= feature_bit(kFeaturePackedRing);
    out(0x70, 3);
    out(0x20, static_cast<u32>(features));
    out(0x24, 1);
    out(0x20, static_cast<u32>(features >> 32));
    out(0x70, 11);
    GuestQueue queue(ram, 0x1'0000, 16, kind, event_index);
    out(0x38, 16);
    out(0x80, static_cast<u32>(queue.descriptors()));
    out(0x90, static_cast<u32>(queue.driver()));
    out(0xa0, static_cast<u32>(queue.device()));
    out(0x44, 1);
    out(0x70, 15);
    kicker.start(chip.core(), lock);

    const std::vector<Segment> pieces = {{kBuffer, 8, true}};
    testing_rig::SeededChoices choices(1);
    constexpr unsigned kRequests = 20'000;
    unsigned sent = 0;
    for (unsigned done = 0; done < kRequests;) {
        const u64 burst = 1 + choices.below(6);
        for (u64 i = 0; i < burst && sent < kRequests && queue.add(pieces); ++i) ++sent;
        if (queue.kick_wanted()) out(0x50, 0);
        const auto drain = [&] {
            while (queue.take()) ++done;
        };
        drain();
        if (done == sent || choices.below(4) != 0) continue;
        // Sleep until something is used. It may have been before interrupts were on.
        if (!queue.want_interrupts()) line.wait();
        queue.stop_interrupts();
        out(0x64, 3);
        drain();
    }
    kicker.end();
    EXPECT_EQ(sent, kRequests);
}

TEST(VirtioThreadsTest, NoKickAndNoInterruptIsLost) {
    for (const RingKind kind : {RingKind::Split, RingKind::Packed})
        for (const bool event_index : {false, true}) nothing_is_lost(kind, event_index);
}

}  // namespace
}  // namespace tessera::virtio

TESSERA_JOIN_HOSTILE_DRIVER_SUITE(VirtioEcho, tessera::virtio::EchoKit);
