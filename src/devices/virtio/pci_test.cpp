#include "devices/virtio/pci.h"

#include <gtest/gtest.h>

#include "devices/virtio/testing/echo_device.h"

namespace tessera::virtio {
namespace {

using PinBench = Bench<EchoKit, OverPci<PciInterrupts::Pin>, RingKind::Split>;
using MessageBench = Bench<EchoKit, OverPci<PciInterrupts::Messages>, RingKind::Split>;

// [VIRTIO-1.2 4.1.4]: cfg_type 1 to 5.
struct Capability {
    u8 at;
    u32 offset;
    u32 length;
};
template <typename B>
std::optional<Capability> find(B& bench, u8 type) {
    auto& parts = bench.parts;
    for (auto at = static_cast<u8>(parts.in(0x34, 1)); at != 0; at = static_cast<u8>(parts.in(at + 1U, 1)))
        if (parts.in(at, 1) == 9 && parts.in(at + 3U, 1) == type)
            return Capability{.at = at, .offset = parts.in(at + 8U, 4), .length = parts.in(at + 12U, 4)};
    return std::nullopt;
}

TEST(VirtioPciTest, IsAModernDeviceByItsNumbers) {
    PinBench bench;
    EXPECT_EQ(bench.parts.in(0, 4), 0x1043'1af4U);  // 1040h + 3, console
    EXPECT_GE(bench.parts.in(8, 1), 1U);
    EXPECT_GE(bench.parts.in(0x2e, 2), 0x40U);
    EXPECT_EQ(bench.parts.in(0x3d, 1), 1U);
}

TEST(VirtioPciTest, AllStructuresAreInTheFirstBar) {
    PinBench bench;
    for (const u8 type : {u8{1}, u8{2}, u8{3}, u8{4}}) {
        const auto found = find(bench, type);
        ASSERT_TRUE(found) << int{type};
        EXPECT_EQ(bench.parts.in(found->at + 4U, 1), 0U);
        EXPECT_LE(found->offset + found->length, Pci::kBarSize);
        EXPECT_EQ(found->offset % 4, 0U);
    }
    EXPECT_EQ(find(bench, 1)->length, 56U);
    EXPECT_EQ(find(bench, 4)->length, EchoDevice::kConfigSize);
    EXPECT_EQ(bench.parts.in(find(bench, 2)->at + 16U, 4), 4U);  // notify multiplier
    EXPECT_TRUE(find(bench, 5));
}

// [VIRTIO-1.2 4.1.4.9]
TEST(VirtioPciTest, RegistersAreReachedThroughConfigurationSpace) {
    PinBench bench;
    const u8 at = find(bench, 5)->at;
    bench.port.set_status(3);
    bench.parts.out(at + 4U, 1, 0);
    bench.parts.out(at + 8U, 4, 20);
    bench.parts.out(at + 12U, 4, 1);
    EXPECT_EQ(bench.parts.in(at + 16U, 1), 3U);
    bench.parts.out(at + 16U, 1, 0);
    EXPECT_EQ(bench.port.status(), 0);
    // Elsewhere, or oddly wide: nothing is there.
    for (const u32 length : {0U, 3U, 8U, ~0U}) {
        bench.parts.out(at + 12U, 4, length);
        EXPECT_EQ(bench.parts.in(at + 16U, 4), ~u32{0});
        bench.parts.out(at + 16U, 4, 0xffff'ffff);
    }
    bench.parts.out(at + 12U, 4, 4);
    bench.parts.out(at + 8U, 4, 0xffff'fffc);
    EXPECT_EQ(bench.parts.in(at + 16U, 4), ~u32{0});
    bench.parts.out(at + 8U, 4, 0);
    bench.parts.out(at + 4U, 1, 1);
    EXPECT_EQ(bench.parts.in(at + 16U, 4), ~u32{0});
    EXPECT_EQ(bench.port.status(), 0);
}

// What rings without the bus has to be what a driver finds through the capability [VIRTIO-1.2 4.1.4.4].
TEST(VirtioPciTest, ADoorbellIsWhereTheNotifyStructureSays) {
    PinBench bench;
    const auto notify = find(bench, 2);
    ASSERT_TRUE(notify);
    for (const unsigned queue : {0U, 1U}) {
        const Doorbell bell = Pci::doorbell(queue);
        EXPECT_EQ(bell.address, notify->offset + 4U * queue);
        EXPECT_EQ(bell.width, 2U);
        EXPECT_FALSE(bell.value);
    }
}

TEST(VirtioPciTest, TheIsrTellsOnceAndLowersThePin) {
    PinBench bench;
    ASSERT_TRUE(bench.start());
    ASSERT_TRUE(bench.works());
    EXPECT_TRUE(bench.wires.levels[5]);
    EXPECT_TRUE(bench.port.interrupted());
    EXPECT_FALSE(bench.wires.levels[5]);
    EXPECT_FALSE(bench.port.interrupted());
}

TEST(VirtioPciTest, EachQueueHasItsMessage) {
    MessageBench bench;
    ASSERT_TRUE(bench.start());
    ASSERT_TRUE(bench.works());
    ASSERT_FALSE(bench.parts.uplink.messages.empty());
    EXPECT_EQ(bench.parts.uplink.messages.back(), (pci::RecordingUplink::Message{0xfee0'0000, 1}));
    bench.core().config_changed();
    EXPECT_EQ(bench.parts.uplink.messages.back().data, 0U);
    EXPECT_TRUE(bench.wires.edges.empty());
}

// [VIRTIO-1.2 4.1.5.1.2.1]
TEST(VirtioPciTest, VectorsBeyondTheTableReadBackAsNone) {
    MessageBench bench;
    bench.port.select(0);
    const auto write = [&](u64 at, u16 value) {
        (void)bench.device.registers().write(at, std::bit_cast<std::array<std::byte, 2>>(value));
        std::array<std::byte, 2> data{};
        (void)bench.device.registers().read(at, data);
        return std::bit_cast<u16>(data);
    };
    for (const u64 at : {u64{16}, u64{26}}) {
        EXPECT_EQ(write(at, 2), 2);
        EXPECT_EQ(write(at, 3), 0xffff) << "two queues and the configuration have three";
        EXPECT_EQ(write(at, 0x7fff), 0xffff);
        EXPECT_EQ(write(at, 0xffff), 0xffff);
    }
}

TEST(VirtioPciTest, WithoutAVectorThereIsNoInterrupt) {
    MessageBench bench;
    ASSERT_TRUE(bench.start());
    bench.port.select(0);
    const std::array<std::byte, 2> none{std::byte{0xff}, std::byte{0xff}};
    (void)bench.device.registers().write(26, none);
    const std::size_t before = bench.parts.uplink.messages.size();
    ASSERT_TRUE(bench.works());
    EXPECT_EQ(bench.parts.uplink.messages.size(), before);
}

TEST(VirtioPciTest, OnlyABusMasterTouchesMemory) {
    PinBench bench;
    ASSERT_TRUE(bench.start());
    bench.parts.out(pci::kCommand, 2, 0x0002);
    const auto id = bench.queue().add(EchoKit::request(PinBench::kBuffers));
    bench.kick();
    ASSERT_TRUE(bench.run());
    EXPECT_FALSE(bench.queue().take());
    bench.parts.out(pci::kCommand, 2, 0x0006);
    ASSERT_TRUE(bench.run());
    const auto used = bench.queue().take();
    ASSERT_TRUE(used) << "the kick is not forgotten";
    EXPECT_EQ(used->id, *id);
}

TEST(VirtioPciTest, ItsResetIsThatOfTheDeviceToo) {
    MessageBench bench;
    ASSERT_TRUE(bench.start());
    bench.device.reset();
    EXPECT_EQ(bench.port.status(), 0);
    EXPECT_FALSE(bench.device.msix().enabled());
    EXPECT_FALSE(bench.device.config().bus_master());
}

}  // namespace
}  // namespace tessera::virtio
