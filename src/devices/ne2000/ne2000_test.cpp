// The boards: what is around the chip, and the cable.
#include "devices/ne2000/ne2000.h"

#include <algorithm>
#include <array>
#include <gtest/gtest.h>
#include <vector>

#include "devices/ne2000/ne2000_rig.h"
#include "devices/testing/device_suite.h"

TESSERA_JOIN_DEVICE_SUITE(Ne2000Isa, tessera::ne2000::IsaRig);
TESSERA_JOIN_DEVICE_SUITE(Rtl8029As, tessera::ne2000::PciRig);

namespace tessera::ne2000 {
namespace {

using Bytes = std::vector<u8>;

constexpr std::array<u8, 6> kMac = {0x52, 0x54, 0x00, 0x12, 0x34, 0x56};

template <typename Rig>
struct CardTest : testing::Test {
    Rig rig;
    Ne2000& card() {
        if constexpr (requires { rig.device.card(); })
            return rig.device.card();
        else
            return rig.device;
    }
    u32 in(u64 port, std::size_t width = 1) {
        std::array<std::byte, 4> data{};
        EXPECT_EQ(card().read(port, std::span(data).first(width)), IoStatus::Ok);
        u32 value = 0;
        std::memcpy(&value, data.data(), data.size());
        return value;
    }
    // What the worker was asked for.
    void work() { rig.worker.work(card()); }
    void out(u64 port, u32 value, std::size_t width = 1) {
        std::array<std::byte, 4> data{};
        std::memcpy(data.data(), &value, data.size());
        EXPECT_EQ(card().write(port, std::span<const std::byte>(data).first(width)), IoStatus::Ok);
    }
    void remote(unsigned command, unsigned address, unsigned count) {
        out(0, 0x22);
        out(8, address & 0xff);
        out(9, address >> 8);
        out(10, count & 0xff);
        out(11, count >> 8);
        out(0, 0x02 | command);
    }
    void start(unsigned dcr = 0x49) {
        out(0, 0x21);
        out(14, dcr);
        out(12, 0x04);
        out(13, 0);
        out(1, 0x46);
        out(2, 0x80);
        out(3, 0x46);
        out(7, 0xff);
        out(15, 0x3f);
        out(0, 0x61);
        for (unsigned n = 0; n < 6; ++n) out(1 + n, kMac[n]);
        out(7, 0x47);
        out(0, 0x22);
    }
    u32 current() {
        out(0, 0x62);
        const u32 value = in(7);
        out(0, 0x22);
        return value;
    }
    void transmit(const Bytes& frame, unsigned count = 0) {
        remote(0x10, 0x4000, static_cast<unsigned>(frame.size() + 1) & ~1U);
        for (std::size_t n = 0; n < frame.size(); n += 2)
            out(0x10, frame[n] | (n + 1 < frame.size() ? u32{frame[n + 1]} << 8 : 0), 2);
        const auto size = count != 0 ? count : static_cast<unsigned>(frame.size());
        out(4, 0x40);
        out(5, size & 0xff);
        out(6, size >> 8);
        out(0, 0x26);
        work();
    }
    static Bytes frame(std::size_t size) {
        Bytes bytes(size);
        std::ranges::copy(kMac, bytes.begin());
        for (std::size_t n = 6; n < size; ++n) bytes[n] = static_cast<u8>(n);
        return bytes;
    }
};

struct Ne2000Test : CardTest<IsaRig> {};
struct Rtl8029AsTest : CardTest<PciRig> {
    Rtl8029AsTest() { EXPECT_TRUE(rig.attached); }
};

TEST_F(Ne2000Test, TheStationRomHoldsEachByteTwiceAndTheMark) {
    start(0x48);
    remote(0x08, 0, 32);
    Bytes rom;
    for (unsigned n = 0; n < 32; ++n) rom.push_back(static_cast<u8>(in(0x10)));
    for (unsigned n = 0; n < 6; ++n) {
        EXPECT_EQ(rom[2 * n], kMac[n]);
        EXPECT_EQ(rom[2 * n + 1], kMac[n]);
    }
    for (unsigned n = 28; n < 32; ++n) EXPECT_EQ(rom[n], 0x57);
    remote(0x10, 0, 1);
    out(0x10, 0xee);
    remote(0x08, 0, 1);
    EXPECT_EQ(in(0x10), kMac[0]) << "a ROM";
}

TEST_F(Ne2000Test, RamIsFrom4000hTo7fffh) {
    start(0x48);
    const auto poke = [&](unsigned at, u32 value) {
        remote(0x10, at, 1);
        out(0x10, value);
        remote(0x08, at, 1);
        return in(0x10);
    };
    EXPECT_EQ(poke(0x4000, 0x12), 0x12U);
    EXPECT_EQ(poke(0x7fff, 0x34), 0x34U);
    EXPECT_EQ(poke(0x8000, 0x56), 0xffU);
    EXPECT_EQ(poke(0xffff, 0x56), 0xffU);
    EXPECT_EQ(poke(0x3fff, 0x56), 0x57U) << "the ROM again";
}

TEST_F(Ne2000Test, TheDataPortTakesBytesWordsAndDoubleWords) {
    start(0x49);
    remote(0x10, 0x4000, 8);
    out(0x10, 0x04030201, 4);
    out(0x10, 0x0605, 2);
    out(0x10, 0x07, 1);
    EXPECT_EQ(in(7) & 0x40, 0x40U) << "a byte is a word's cycle";
    remote(0x08, 0x4000, 8);
    EXPECT_EQ(in(0x10, 2), 0x0201U);
    EXPECT_EQ(in(0x10, 4), 0x06050403U);
    EXPECT_EQ(in(0x10, 1), 0x07U);
    EXPECT_EQ(in(0x10, 4), 0xffffffffU) << "nothing left";
    out(14, 0x48);
    remote(0x08, 0x4000, 3);
    EXPECT_EQ(in(0x10, 2), 0x0201U) << "two cycles of a byte";
    EXPECT_EQ(in(0x17), 0x03U) << "the port answers at eight addresses";
}

TEST_F(Ne2000Test, ReadingTheResetPortResetsTheChip) {
    start();
    EXPECT_EQ(in(7) & 0x80, 0U);
    (void)in(0x1f);
    EXPECT_EQ(in(7) & 0x80, 0x80U);
    EXPECT_EQ(in(0), 0x21U);
    start();
    out(0x18, 0);
    EXPECT_EQ(in(7) & 0x80, 0U) << "a write ends it";
}

TEST_F(Ne2000Test, AFrameGoesOut) {
    start();
    transmit(frame(61));
    ASSERT_EQ(rig.cable.sent.size(), 1U);
    EXPECT_EQ(rig.cable.sent[0].size(), 12U + 61U);
    EXPECT_TRUE(std::ranges::all_of(std::span(rig.cable.sent[0]).first(12), [](u8 b) { return b == 0; }));
    EXPECT_TRUE(std::ranges::equal(std::span(rig.cable.sent[0]).subspan(12), frame(61)));
    EXPECT_EQ(in(7), 0x02U | 0x40U);
    EXPECT_EQ(in(4), 0x03U);
    EXPECT_TRUE(rig.wires.levels[3]);
}

TEST_F(Ne2000Test, ABusyBackendHoldsTheFrameUp) {
    start();
    rig.cable.room = 0;
    transmit(frame(60));
    EXPECT_EQ(in(0), 0x26U) << "under way";
    EXPECT_EQ(in(7) & 2, 0U);
    card().transmit_ready();
    work();
    EXPECT_EQ(in(0), 0x26U);
    rig.cable.room = 1;
    card().transmit_ready();
    work();
    EXPECT_EQ(rig.cable.sent.size(), 1U);
    EXPECT_EQ(in(7) & 2, 2U);
}

TEST_F(Ne2000Test, ResetForgetsAFrameThatHasNotLeft) {
    start();
    rig.cable.room = 0;
    transmit(frame(60));
    (void)in(0x1f);
    rig.cable.room = 10;
    card().transmit_ready();
    work();
    EXPECT_TRUE(rig.cable.sent.empty());
    start();
    transmit(frame(60));
    EXPECT_EQ(rig.cable.sent.size(), 1U);
}

TEST_F(Ne2000Test, WhatIsNoFrameLeavesAndArrivesNowhere) {
    start();
    for (const unsigned size : {1U, 13U, 1519U, 0x4000U, 0xffffU}) {
        out(7, 0xff);
        transmit(frame(60), size);
        EXPECT_EQ(in(7) & 2, 2U) << size;
    }
    EXPECT_TRUE(rig.cable.sent.empty());
    transmit(frame(60), 1518);
    EXPECT_EQ(rig.cable.sent.size(), 1U);
}

TEST_F(Ne2000Test, TheGuestsOwnCheckSequence) {
    start();
    out(13, 0x01);
    Bytes bytes = frame(60);
    const u32 check = check_sequence(check_add(kCheckStart, bytes));
    for (unsigned n = 0; n < 4; ++n) bytes.push_back(static_cast<u8>(check >> 8 * n));
    transmit(bytes);
    ASSERT_EQ(rig.cable.sent.size(), 1U);
    EXPECT_EQ(rig.cable.sent[0].size(), 12U + 60U) << "taken off again";
    bytes.back() ^= 1;
    transmit(bytes);
    EXPECT_EQ(rig.cable.sent.size(), 1U) << "no receiver would take it";
}

TEST_F(Ne2000Test, FramesArriveAndAreRead) {
    start();
    rig.cable.arrive(frame(100));
    work();
    EXPECT_EQ(in(7), 0x01U);
    EXPECT_TRUE(rig.wires.levels[3]);
    remote(0x08, 0x4700, 104);
    EXPECT_EQ(in(0x10, 4), 0x00684801U) << "status, next, bytes with the check sequence";
    for (unsigned n = 0; n < 100; n += 2) EXPECT_EQ(in(0x10, 2), frame(100)[n] | u32{frame(100)[n + 1]} << 8);
}

TEST_F(Ne2000Test, ShortFramesArePadded) {
    start();
    Bytes arp = frame(42);
    rig.cable.arrive(arp);
    work();
    remote(0x08, 0x4700, 68);
    EXPECT_EQ(in(0x10, 4) >> 16, 64U);
    for (unsigned n = 0; n < 42; n += 2) (void)in(0x10, 2);
    for (unsigned n = 42; n < 60; n += 2) EXPECT_EQ(in(0x10, 2), 0U);
}

TEST_F(Ne2000Test, AStoppedCardHearsNothing) {
    rig.cable.arrive(frame(60));
    work();
    EXPECT_TRUE(rig.cable.waiting.empty());
    start();
    EXPECT_EQ(current(), 0x47U);
    EXPECT_EQ(in(7), 0U);
}

TEST_F(Ne2000Test, AFullRingHoldsTheSenderUp) {
    start();
    out(15, 0);  // a driver that polls
    // 57 pages are free, one stays so: 9 frames of 6 pages each.
    for (unsigned n = 0; n < 20; ++n) rig.cable.arrive(frame(1514));
    work();
    EXPECT_EQ(rig.cable.waiting.size(), 11U);
    EXPECT_EQ(in(7), 0x01U) << "no overflow";
    out(3, 0x52);
    work();
    EXPECT_EQ(rig.cable.waiting.size(), 9U) << "two more";
    EXPECT_EQ(rig.cable.dropped, 0U);
}

TEST_F(Ne2000Test, FramesWaitForTheDriverToAcknowledge) {
    start();
    for (unsigned n = 0; n < 20; ++n) rig.cable.arrive(frame(60));
    work();
    EXPECT_EQ(rig.cable.waiting.size(), 12U) << "eight at once";
    work();
    EXPECT_EQ(rig.cable.waiting.size(), 12U);
    out(3, 0x4e);
    work();
    EXPECT_EQ(rig.cable.waiting.size(), 12U) << "read, not acknowledged";
    out(7, 0x01);
    work();
    EXPECT_EQ(rig.cable.waiting.size(), 4U);
    EXPECT_EQ(in(7), 0x01U);
    rig.clock.advance(Ne2000::kPatienceNs);
    work();
    EXPECT_EQ(rig.cable.waiting.size(), 0U) << "not for ever";
    EXPECT_EQ(rig.cable.dropped, 0U);
}

TEST_F(Ne2000Test, AfterASecondTheFrameIsLostAndSaidSo) {
    start();
    out(15, 0);
    for (unsigned n = 0; n < 12; ++n) rig.cable.arrive(frame(1514));
    work();
    EXPECT_EQ(rig.cable.waiting.size(), 3U);
    rig.clock.advance(Ne2000::kPatienceNs);
    work();
    EXPECT_TRUE(rig.cable.waiting.empty());
    EXPECT_EQ(rig.cable.dropped, 3U);
    EXPECT_EQ(in(7), 0x91U) << "OVW, RST";
    EXPECT_EQ(in(15), 3U) << "missed";
    out(3, 0x60);
    out(7, 0xff);
    rig.cable.arrive(frame(60));
    work();
    EXPECT_EQ(in(7), 0x01U) << "goes on";
}

TEST_F(Ne2000Test, AFrameThatWantsWorkIsNotForThisCard) {
    start();
    NetHeader partial;
    partial.flags = NetHeader::kNeedsChecksum;
    partial.checksum_start = 14;
    rig.cable.arrive(frame(60), partial);
    NetHeader segmented;
    segmented.gso_type = NetHeader::kGsoTcp4;
    rig.cable.arrive(frame(60), segmented);
    rig.cable.arrive(frame(1519));
    rig.cable.arrive(frame(6));
    rig.cable.arrive({});
    work();
    EXPECT_TRUE(rig.cable.waiting.empty());
    EXPECT_EQ(in(7), 0U);
}

TEST_F(Ne2000Test, ATurnIsBounded) {
    start();
    Bytes foreign = frame(60);
    foreign[0] = 0x02;
    for (unsigned n = 0; n < 100; ++n) rig.cable.arrive(foreign);
    EXPECT_TRUE(card().service(0));
    EXPECT_GE(rig.cable.waiting.size(), 60U);
}

TEST_F(Ne2000Test, ARestoredCardGoesOn) {
    start();
    rig.cable.room = 0;
    transmit(frame(60));
    const auto state = testing_rig::saved(rig);
    IsaRig copy;
    ASSERT_TRUE(testing_rig::load(copy, state));
    copy.worker.work(copy.device);
    EXPECT_EQ(copy.cable.sent.size(), 1U) << "the frame was still to be sent";
}

// A second reading of the driver every system has: what it looks at to find this card.
TEST_F(Ne2000Test, WhatDriversProbe) {
    (void)in(0x1f);
    out(0, 0x61);
    const u32 kept = in(13);
    out(13, 0xff);
    out(0, 0x20);
    (void)in(13);
    EXPECT_EQ(in(13), 0U) << "a counter is cleared by reading";
    out(0, 0x61);
    out(13, kept);
    out(0, 0x21);
    EXPECT_EQ(in(7) & 0x80, 0x80U);
    out(15, 0x50);
    out(10, 0);
    out(11, 0);
    out(0, 0x0a);
    EXPECT_TRUE(rig.wires.levels[3]) << "an interrupt to be found by";
}

TEST_F(Ne2000Test, PortsBeyondAndWidths) {
    std::array<std::byte, 8> data{};
    EXPECT_EQ(card().read(0, data), IoStatus::BadWidth);
    EXPECT_EQ(card().read(0x20, std::span(data).first(1)), IoStatus::NoRegister);
    EXPECT_EQ(card().read(0x1e, std::span(data).first(4)), IoStatus::NoRegister);
    EXPECT_EQ(card().write(0x1d, std::span(data).first(4)), IoStatus::NoRegister);
    out(0, 0x4621, 2);
    EXPECT_EQ(in(0), 0x21U);
    out(0, 0xa1);
    EXPECT_EQ(in(1), 0x46U) << "two cycles: CR, PSTART";
}

// --- RTL8029AS ---

TEST_F(Rtl8029AsTest, ItsIdentity) {
    std::array<std::byte, 4> id{};
    rig.device.read_config(0, id);
    EXPECT_EQ(id, (std::array{std::byte{0xec}, std::byte{0x10}, std::byte{0x29}, std::byte{0x80}}));
    EXPECT_EQ(in(10), 'P');
    EXPECT_EQ(in(11), 'C');
    out(0, 0xe1);
    EXPECT_EQ(in(14), 0x29U);
    EXPECT_EQ(in(15), 0x80U);
}

TEST_F(Rtl8029AsTest, ConfigurationRegistersAreLocked) {
    out(0, 0xe1);
    const u32 before = in(5);
    out(5, ~before);
    EXPECT_EQ(in(5), before);
    out(1, 0xc0);
    out(6, 0x06);
    EXPECT_EQ(in(6) & 0x06, 0x06U);
    out(1, 0x40);
    EXPECT_EQ(in(6) & 0x06, 0U) << "loaded again";
    EXPECT_EQ(in(1), 0U);
}

TEST_F(Rtl8029AsTest, PortsAndInterruptAreTheFunctions) {
    rig.device.config().program_bar(0, 0xc000);
    rig.device.config().enable(pci::Command::Io);
    std::array<std::byte, 1> byte{};
    rig.ports.read(0xc000, byte);
    EXPECT_EQ(byte[0], std::byte{0x21});
    start();
    transmit(frame(60));
    EXPECT_TRUE(rig.device.config().interrupt());
    EXPECT_TRUE(std::ranges::any_of(rig.wires.levels, [](bool high) { return high; }));
    rig.device.reset();
    EXPECT_FALSE(rig.device.config().interrupt());
    EXPECT_FALSE(std::ranges::any_of(rig.wires.levels, [](bool high) { return high; }));
}

TEST_F(Ne2000Test, AnNe2000HasNoSuchRegisters) {
    EXPECT_EQ(in(10), 0U);
    out(0, 0xe1);
    EXPECT_EQ(in(14), 0U);
}

}  // namespace
}  // namespace tessera::ne2000
