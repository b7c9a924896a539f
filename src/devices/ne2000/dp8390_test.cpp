// The chip alone, on a board of 64 KiB of RAM, against its data sheet.
#include "devices/ne2000/dp8390.h"

#include <algorithm>
#include <array>
#include <gtest/gtest.h>
#include <vector>

#include "devices/ne2000/frame_check.h"
#include "devices/testing/device_rig.h"

namespace tessera::ne2000 {
namespace {

using Bytes = std::vector<u8>;

// Ports of page 0, restated.
constexpr unsigned kCr = 0;
constexpr unsigned kPstart = 1;
constexpr unsigned kPstop = 2;
constexpr unsigned kBnry = 3;
constexpr unsigned kTpsr = 4;
constexpr unsigned kTsr = 4;
constexpr unsigned kTbcr0 = 5;
constexpr unsigned kTbcr1 = 6;
constexpr unsigned kFifo = 6;
constexpr unsigned kIsr = 7;
constexpr unsigned kRsar0 = 8;
constexpr unsigned kRsar1 = 9;
constexpr unsigned kRbcr0 = 10;
constexpr unsigned kRbcr1 = 11;
constexpr unsigned kRcr = 12;
constexpr unsigned kRsr = 12;
constexpr unsigned kTcr = 13;
constexpr unsigned kCntr0 = 13;
constexpr unsigned kDcr = 14;
constexpr unsigned kCntr1 = 14;
constexpr unsigned kImr = 15;
constexpr unsigned kCntr2 = 15;

struct TestBoard final : ChipBoard {
    std::array<u8, 0x10000> memory{};
    unsigned wanted = 0;
    void read_memory(u16 address, std::span<u8> out) override {
        u16 at = address;
        for (u8& byte : out) byte = memory[at++];
    }
    void write_memory(u16 address, std::span<const u8> in) override {
        u16 at = address;
        for (const u8 byte : in) memory[at++] = byte;
    }
    void work_wanted() override { ++wanted; }
};

struct Dp8390Test : testing::Test {
    TestBoard board;
    testing_rig::RecordingSink wires;
    Dp8390 chip{board, IrqLine(wires, 0)};
    static constexpr std::array<u8, 6> kOurs = {0x02, 0x11, 0x22, 0x33, 0x44, 0x55};

    void out(unsigned reg, unsigned value) { chip.write_register(reg, static_cast<u8>(value)); }
    u8 in(unsigned reg) { return chip.read_register(reg); }
    void page(unsigned number) { out(kCr, 0x22 | number << 6); }

    // As the data sheet's initialisation has it: ring from page 46h up to 80h, started.
    void start(unsigned rcr = 0x04, unsigned dcr = 0x48) {
        out(kCr, 0x21);
        out(kDcr, dcr);
        out(kRbcr0, 0);
        out(kRbcr1, 0);
        out(kRcr, rcr);
        out(kTcr, 0x02);
        out(kPstart, 0x46);
        out(kPstop, 0x80);
        out(kBnry, 0x46);
        out(kIsr, 0xff);
        out(kImr, 0x7f);
        out(kCr, 0x61);
        for (unsigned n = 0; n < 6; ++n) out(1 + n, kOurs[n]);
        for (unsigned n = 0; n < 8; ++n) out(8 + n, 0);
        out(7, 0x47);
        out(kCr, 0x22);
        out(kTcr, 0);
    }
    u8 current() {
        page(1);
        const u8 value = in(7);
        page(0);
        return value;
    }
    static Bytes frame(std::size_t size, std::span<const u8> to = kOurs) {
        Bytes bytes(size);
        std::ranges::copy(to, bytes.begin());
        for (std::size_t n = 6; n < size; ++n) bytes[n] = static_cast<u8>(n * 7);
        return bytes;
    }
    void remote(unsigned command, unsigned address, unsigned count) {
        out(kRsar0, address & 0xff);
        out(kRsar1, address >> 8);
        out(kRbcr0, count & 0xff);
        out(kRbcr1, count >> 8);
        out(kCr, 0x02 | command);
    }
};

TEST(FrameCheckTest, IsEthernets) {
    // The sum every CRC-32 of this polynomial is known by.
    const Bytes digits = {'1', '2', '3', '4', '5', '6', '7', '8', '9'};
    EXPECT_EQ(check_sequence(check_add(kCheckStart, digits)), 0xcbf43926);
    // 01:00:5e:00:00:01, all hosts: what drivers compute for it.
    const Bytes hosts = {0x01, 0x00, 0x5e, 0x00, 0x00, 0x01};
    u32 sum = ~u32{0};
    for (const u8 byte : hosts)
        for (unsigned bit = 0; bit < 8; ++bit) {
            const bool one = ((sum >> 31) ^ (byte >> bit & 1)) != 0;
            sum = (sum << 1) ^ (one ? 0x04c11db7 : 0);
        }
    EXPECT_EQ(multicast_hash(hosts), sum >> 26);
}

// --- Power-on, commands ---

TEST_F(Dp8390Test, ResetStateIsTheDataSheets) {
    EXPECT_EQ(in(kCr), 0x21);
    EXPECT_EQ(in(kIsr), 0x80);
    out(kCr, 0xa1);
    EXPECT_EQ(in(15), 0) << "IMR";
    EXPECT_EQ(in(14), 0x84) << "DCR: LAS";
    EXPECT_EQ(in(13), 0xe0) << "TCR: no loopback";
}

TEST_F(Dp8390Test, RstIsNoInterruptAndEndsWithStart) {
    out(kImr, 0xff);
    EXPECT_FALSE(wires.levels[0]);
    out(kIsr, 0xff);
    EXPECT_EQ(in(kIsr), 0x80) << "writing it has no effect";
    out(kCr, 0x22);
    EXPECT_EQ(in(kIsr), 0);
    out(kCr, 0x21);
    EXPECT_EQ(in(kIsr), 0x80);
}

TEST_F(Dp8390Test, NeitherStartNorStopKeepsTheState) {
    out(kCr, 0x22);
    out(kCr, 0x60);
    EXPECT_EQ(in(kCr), 0x62);
    out(kCr, 0x21);
    out(kCr, 0x20);
    EXPECT_EQ(in(kCr), 0x21);
}

TEST_F(Dp8390Test, Page2ShowsWhatPage0Takes) {
    start(0x1c, 0x49);
    out(kTpsr, 0x40);
    page(2);
    EXPECT_EQ(in(1), 0x46);
    EXPECT_EQ(in(2), 0x80);
    EXPECT_EQ(in(4), 0x40);
    EXPECT_EQ(in(12), 0xdc);
    EXPECT_EQ(in(14), 0xc9);
    EXPECT_EQ(in(15), 0x7f);
    for (const unsigned reg : {3U, 5U, 6U, 7U}) {
        out(reg, 0x5a);
        EXPECT_EQ(in(reg), 0x5a) << reg;
    }
    out(1, 0x34);
    out(2, 0x12);
    page(0);
    EXPECT_EQ(in(1), 0x34) << "CLDA";
    EXPECT_EQ(in(2), 0x12);
    EXPECT_EQ(in(kBnry), 0x46);
}

TEST_F(Dp8390Test, Page1HoldsAddressesAndCurr) {
    page(1);
    for (unsigned n = 1; n < 16; ++n) out(n, 0x10 + n);
    for (unsigned n = 1; n < 16; ++n) EXPECT_EQ(in(n), 0x10 + n);
}

// --- Reception ---

TEST_F(Dp8390Test, APacketIsStoredWithHeaderAndCheckSequence) {
    start();
    const Bytes sent = frame(60);
    chip.receive(sent);
    EXPECT_EQ(in(kIsr), 0x01);
    EXPECT_TRUE(wires.levels[0]);
    EXPECT_EQ(in(kRsr), 0x01);
    EXPECT_EQ(board.memory[0x4700], 0x01) << "status";
    EXPECT_EQ(board.memory[0x4701], 0x48) << "next packet";
    EXPECT_EQ(board.memory[0x4702], 64) << "bytes, with the check sequence";
    EXPECT_EQ(board.memory[0x4703], 0);
    EXPECT_TRUE(std::ranges::equal(sent, std::span(board.memory).subspan(0x4704, 60)));
    const u32 check = check_sequence(check_add(kCheckStart, sent));
    for (unsigned n = 0; n < 4; ++n) EXPECT_EQ(board.memory[0x4704 + 60 + n], (check >> 8 * n) & 0xff);
    EXPECT_EQ(current(), 0x48);
    out(kIsr, 0x01);
    EXPECT_FALSE(wires.levels[0]);
}

TEST_F(Dp8390Test, PacketsWrapAtPageStop) {
    start();
    page(1);
    out(7, 0x7e);
    page(0);
    out(kBnry, 0x60);
    const Bytes sent = frame(1000);
    chip.receive(sent);
    // 1008 bytes are four pages: 7E, 7F, 46, 47.
    EXPECT_EQ(board.memory[0x7e01], 0x48);
    EXPECT_EQ(current(), 0x48);
    EXPECT_TRUE(std::ranges::equal(std::span(sent).first(508), std::span(board.memory).subspan(0x7e04, 508)));
    EXPECT_TRUE(
        std::ranges::equal(std::span(sent).subspan(508), std::span(board.memory).subspan(0x4600, 492)));
    EXPECT_EQ(board.memory[0x8000], 0);
}

TEST_F(Dp8390Test, PacketsThatFillTheirPagesExactly) {
    start();
    chip.receive(frame(248));
    EXPECT_EQ(current(), 0x48) << "4 + 248 + 4 are one page";
    chip.receive(frame(249));
    EXPECT_EQ(current(), 0x4a);
}

TEST_F(Dp8390Test, AddressesAreFiltered) {
    start(0x00);
    const std::array<u8, 6> other = {0x02, 0x11, 0x22, 0x33, 0x44, 0x56};
    const std::array<u8, 6> all = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    const std::array<u8, 6> group = {0x01, 0x00, 0x5e, 0x00, 0x00, 0x01};
    const auto taken = [&](std::span<const u8> to) {
        const u8 before = current();
        chip.receive(frame(60, to));
        return current() != before;
    };
    EXPECT_TRUE(taken(kOurs));
    EXPECT_FALSE(taken(other));
    EXPECT_FALSE(taken(all));
    EXPECT_FALSE(taken(group));
    out(kRcr, 0x10);
    EXPECT_TRUE(taken(other)) << "PRO";
    EXPECT_FALSE(taken(group));
    out(kRcr, 0x04);
    EXPECT_TRUE(taken(all)) << "AB";
    EXPECT_EQ(in(kRsr), 0x21);
    EXPECT_FALSE(taken(group));
    out(kRcr, 0x08);
    EXPECT_FALSE(taken(group)) << "no bit of MAR";
    const unsigned hash = multicast_hash(group);
    page(1);
    out(8 + hash / 8, 1U << hash % 8);
    page(0);
    EXPECT_TRUE(taken(group)) << "AM";
    EXPECT_FALSE(taken(other));
}

TEST_F(Dp8390Test, RuntsAreRejectedUnlessAccepted) {
    start();
    chip.receive(frame(59));
    EXPECT_EQ(in(kIsr), 0);
    out(kRcr, 0x06);
    chip.receive(frame(59));
    EXPECT_EQ(in(kIsr), 0x01);
    EXPECT_EQ(board.memory[0x4702], 63);
    chip.receive(Bytes(3, 0xff));
    EXPECT_EQ(in(kIsr), 0x01) << "less than an address";
}

TEST_F(Dp8390Test, DamagedFramesAreCountedAndSavedOnRequest) {
    start();
    chip.receive(frame(60), Damage::BadCrc);
    EXPECT_EQ(in(kIsr), 0x04);
    EXPECT_EQ(in(kRsr), 0x02);
    EXPECT_EQ(current(), 0x47);
    chip.receive(frame(60), Damage::Misaligned);
    EXPECT_EQ(in(kRsr), 0x06);
    EXPECT_EQ(in(kCntr0), 1);
    EXPECT_EQ(in(kCntr1), 2);
    EXPECT_EQ(in(kCntr1), 0) << "cleared by reading";
    out(kIsr, 0xff);
    out(kRcr, 0x05);
    chip.receive(frame(60), Damage::BadCrc);
    EXPECT_EQ(current(), 0x48);
    EXPECT_EQ(board.memory[0x4700], 0x02);
    EXPECT_EQ(in(kIsr), 0x04) << "RXE, not PRX";
}

TEST_F(Dp8390Test, TalliesWarnAndStop) {
    start();
    for (unsigned n = 0; n < 127; ++n) chip.receive(frame(60), Damage::BadCrc);
    EXPECT_EQ(in(kIsr) & 0x20, 0);
    chip.receive(frame(60), Damage::BadCrc);
    EXPECT_EQ(in(kIsr) & 0x20, 0x20);
    for (unsigned n = 0; n < 500; ++n) chip.receive(frame(60), Damage::BadCrc);
    EXPECT_EQ(in(kCntr1), 192);
}

TEST_F(Dp8390Test, MonitorModeCountsAndBuffersNothing) {
    start(0x24);
    chip.receive(frame(60));
    EXPECT_EQ(current(), 0x47);
    EXPECT_EQ(in(kRsr) & 0x50, 0x50) << "MPA, DIS";
    EXPECT_EQ(in(kCntr2), 1);
    EXPECT_EQ(in(kIsr) & 1, 0);
}

TEST_F(Dp8390Test, AFullRingKeepsItsPacketsAndSetsOvw) {
    start();
    out(kBnry, 0x4a);  // three pages: one of them is never filled
    page(1);
    out(7, 0x47);
    page(0);
    EXPECT_TRUE(chip.has_room(504));
    EXPECT_FALSE(chip.has_room(505));
    chip.receive(frame(504));
    EXPECT_EQ(current(), 0x49);
    EXPECT_EQ(in(kIsr), 0x01);
    board.memory[0x4a00] = 0x77;
    chip.receive(frame(60));
    EXPECT_EQ(in(kIsr), 0x91) << "RST, OVW";
    EXPECT_EQ(current(), 0x49);
    EXPECT_EQ(board.memory[0x4a00], 0x77);
    EXPECT_EQ(in(kCntr2), 1);
    out(kBnry, 0x50);
    EXPECT_EQ(in(kIsr), 0x11) << "a packet was removed";
    chip.receive(frame(60));
    EXPECT_EQ(current(), 0x4a);
}

TEST_F(Dp8390Test, AnEmptyRingWhoseBoundaryIsCurrTakesAllButAPage) {
    start();
    page(1);
    out(7, 0x46);
    page(0);
    EXPECT_TRUE(chip.has_room(56 * 256 + 248));
    EXPECT_FALSE(chip.has_room(57 * 256 + 248));
}

TEST_F(Dp8390Test, TheOverflowProcedureRecovers) {
    start();
    out(kBnry, 0x49);
    chip.receive(frame(60));
    chip.receive(frame(60));
    EXPECT_EQ(in(kIsr) & 0x90, 0x90);
    out(kCr, 0x21);
    out(kRbcr0, 0);
    out(kRbcr1, 0);
    out(kTcr, 0x02);
    out(kCr, 0x22);
    EXPECT_FALSE(chip.listening()) << "in loopback";
    out(kBnry, 0x47);
    out(kIsr, 0x10);
    out(kTcr, 0);
    EXPECT_TRUE(chip.listening());
    EXPECT_EQ(in(kIsr), 0x01);
    chip.receive(frame(60));
    EXPECT_EQ(current(), 0x49);
}

TEST_F(Dp8390Test, RingsThatMakeNoSenseStayInMemory) {
    for (const unsigned start_page : {0U, 0x46U, 0xffU})
        for (const unsigned stop_page : {0U, 0x46U, 0x47U, 0xffU})
            for (const unsigned curr : {0U, 0x46U, 0xfeU, 0xffU}) {
                start();
                out(kPstart, start_page);
                out(kPstop, stop_page);
                page(1);
                out(7, curr);
                page(0);
                for (unsigned n = 0; n < 20; ++n) chip.receive(frame(1514));
            }
    SUCCEED();
}

TEST_F(Dp8390Test, WordsForBigEndianHosts) {
    start(0x04, 0x4b);  // WTS, BOS
    const Bytes sent = frame(61);
    chip.receive(sent);
    EXPECT_EQ(board.memory[0x4700], 0x01);
    EXPECT_EQ(board.memory[0x4701], 0x48);
    EXPECT_EQ(board.memory[0x4702], 0) << "the count's bytes trade places";
    EXPECT_EQ(board.memory[0x4703], 65);
    for (unsigned n = 0; n < 61; ++n) EXPECT_EQ(board.memory[(0x4704 + n) ^ 1], sent[n]) << n;
}

// --- Remote DMA ---

TEST_F(Dp8390Test, RemoteReadAndWrite) {
    start();
    remote(0x10, 0x5000, 3);
    for (const u8 value : Bytes{1, 2, 3}) {
        EXPECT_EQ(in(kIsr) & 0x40, 0);
        EXPECT_TRUE(chip.write_data(std::span(&value, 1)));
    }
    EXPECT_EQ(in(kIsr) & 0x40, 0x40);
    const u8 fourth = 4;
    EXPECT_FALSE(chip.write_data(std::span(&fourth, 1)));
    EXPECT_EQ(board.memory[0x5003], 0);
    EXPECT_EQ(in(8), 0x03) << "CRDA";
    EXPECT_EQ(in(9), 0x50);
    out(kIsr, 0x40);
    remote(0x08, 0x5001, 2);
    u8 value = 0;
    EXPECT_TRUE(chip.read_data(std::span(&value, 1)));
    EXPECT_EQ(value, 2);
    EXPECT_FALSE(chip.write_data(std::span(&value, 1))) << "it is a read";
    EXPECT_TRUE(chip.read_data(std::span(&value, 1)));
    EXPECT_EQ(value, 3);
    EXPECT_EQ(in(kIsr) & 0x40, 0x40);
    EXPECT_FALSE(chip.read_data(std::span(&value, 1)));
}

TEST_F(Dp8390Test, NoBytesAreCompleteAtOnce) {
    start();
    remote(0x08, 0x4000, 0);
    EXPECT_EQ(in(kIsr), 0x40);
    EXPECT_TRUE(wires.levels[0]);
}

TEST_F(Dp8390Test, AbortEndsATransfer) {
    start();
    remote(0x08, 0x4000, 10);
    u8 value = 0;
    EXPECT_TRUE(chip.read_data(std::span(&value, 1)));
    out(kCr, 0x22);
    EXPECT_FALSE(chip.read_data(std::span(&value, 1)));
    EXPECT_EQ(in(kIsr) & 0x40, 0);
}

TEST_F(Dp8390Test, OddCountsInWordModeEndWithAWord) {
    start(0x04, 0x49);
    board.memory[0x5000] = 1;
    board.memory[0x5001] = 2;
    board.memory[0x5002] = 3;
    remote(0x08, 0x5000, 3);
    std::array<u8, 2> word{};
    EXPECT_TRUE(chip.wide());
    EXPECT_TRUE(chip.read_data(word));
    EXPECT_TRUE(chip.read_data(word));
    EXPECT_EQ(word[0], 3);
    EXPECT_EQ(in(kIsr) & 0x40, 0x40);
}

TEST_F(Dp8390Test, RemoteReadsFollowTheRing) {
    start();
    board.memory[0x7fff] = 0xaa;
    board.memory[0x4600] = 0xbb;
    remote(0x08, 0x7fff, 2);
    u8 value = 0;
    EXPECT_TRUE(chip.read_data(std::span(&value, 1)));
    EXPECT_EQ(value, 0xaa);
    EXPECT_TRUE(chip.read_data(std::span(&value, 1)));
    EXPECT_EQ(value, 0xbb);
}

TEST_F(Dp8390Test, SendPacketTakesOneOffTheRing) {
    start(0x04, 0x58);  // AR
    page(1);
    out(7, 0x46);
    page(0);
    const Bytes sent = frame(60);
    chip.receive(sent);
    chip.receive(frame(300));
    out(kIsr, 0xff);
    out(kRbcr1, 0x0f);
    out(kCr, 0x1a);
    Bytes got;
    u8 value = 0;
    while (chip.read_data(std::span(&value, 1))) got.push_back(value);
    ASSERT_EQ(got.size(), 64U) << "the count of the packet at the boundary";
    EXPECT_EQ(got[1], 0x47) << "its header first";
    EXPECT_TRUE(std::ranges::equal(std::span(got).subspan(4), sent));
    EXPECT_EQ(in(kBnry), 0x47) << "the boundary moved on";
    EXPECT_EQ(in(kIsr) & 0x40, 0x40);
}

TEST_F(Dp8390Test, WithoutAutoInitializeThereIsNoSendPacket) {
    start(0x04, 0x48);
    chip.receive(frame(60));
    out(kRbcr0, 5);
    out(kCr, 0x1a);
    u8 value = 0;
    EXPECT_FALSE(chip.read_data(std::span(&value, 1)));
}

// --- Transmission ---

TEST_F(Dp8390Test, TransmissionIsReportedWhenItHasLeft) {
    start();
    for (unsigned n = 0; n < 60; ++n) board.memory[0x4000 + n] = static_cast<u8>(n);
    out(kTpsr, 0x40);
    out(kTbcr0, 60);
    out(kTbcr1, 0);
    EXPECT_FALSE(chip.transmission());
    board.wanted = 0;
    out(kCr, 0x26);
    EXPECT_EQ(board.wanted, 1U);
    EXPECT_EQ(in(kCr), 0x26);
    EXPECT_EQ(in(kIsr), 0);
    ASSERT_EQ(chip.transmission(), 60);
    Bytes bytes(60);
    chip.read_transmission(bytes);
    EXPECT_EQ(bytes[59], 59);
    chip.transmitted();
    EXPECT_EQ(in(kCr), 0x22);
    EXPECT_EQ(in(kTsr), 0x03);
    EXPECT_EQ(in(kIsr), 0x02);
    EXPECT_EQ(in(5), 0) << "collisions";
    EXPECT_TRUE(wires.levels[0]);
}

TEST_F(Dp8390Test, StopTakesATransmissionBack) {
    start();
    out(kTbcr0, 60);
    out(kCr, 0x26);
    out(kCr, 0x22);
    EXPECT_EQ(in(kCr), 0x26) << "only the chip clears TXP";
    out(kCr, 0x21);
    EXPECT_EQ(in(kCr), 0x21);
    EXPECT_FALSE(chip.transmission());
    EXPECT_EQ(in(kIsr) & 0x0a, 0) << "the driver sends it again";
    out(kCr, 0x25);
    EXPECT_FALSE(chip.transmission()) << "stopped";
}

TEST_F(Dp8390Test, AnotherStationTurnsTheTransmitterOffAndOn) {
    start(0x08);
    const auto group_with = [](unsigned hash) {
        std::array<u8, 6> address = {1, 0, 0, 0, 0, 0};
        for (unsigned n = 0; multicast_hash(address) != hash; ++n) {
            address[4] = static_cast<u8>(n);
            address[5] = static_cast<u8>(n >> 8);
        }
        return address;
    };
    page(1);
    out(15, 0xc0);  // bits 62 and 63
    page(0);
    out(kTcr, 0x08);
    chip.receive(frame(60, group_with(62)));
    out(kTbcr0, 60);
    out(kCr, 0x26);
    EXPECT_FALSE(chip.transmission());
    chip.receive(frame(60, group_with(63)));
    EXPECT_TRUE(chip.transmission());
}

// --- Loopback [DP8390D 11.0], with the results its tables list ---

struct LoopbackTest : Dp8390Test {
    void loop(unsigned tcr, const Bytes& bytes) {
        start(0x00, 0x40);
        for (std::size_t n = 0; n < bytes.size(); ++n)
            board.memory[(0x4000 + n) % board.memory.size()] = bytes[n];
        out(kTpsr, 0x40);
        out(kTbcr0, bytes.size() & 0xff);
        out(kTbcr1, static_cast<unsigned>(bytes.size() >> 8));
        out(kTcr, tcr);
        out(kCr, 0x26);
    }
    static Bytes with_check(Bytes bytes) {
        const u32 check = check_sequence(check_add(kCheckStart, bytes));
        for (unsigned n = 0; n < 4; ++n) bytes.push_back(static_cast<u8>(check >> 8 * n));
        return bytes;
    }
};

TEST_F(LoopbackTest, TheThreePaths) {
    struct Row {
        unsigned tcr;
        unsigned tsr;
    };
    for (const Row& row : {Row{0x02, 0x53}, Row{0x04, 0x43}, Row{0x06, 0x03}}) {
        loop(row.tcr, frame(60));
        EXPECT_EQ(in(kTsr), row.tsr) << row.tcr;
        EXPECT_EQ(in(kRsr), 0x02) << "with the transmitter's check sequence";
        EXPECT_EQ(in(kIsr), 0x02) << "PTX alone";
        EXPECT_EQ(current(), 0x47) << "nothing is stored";
        EXPECT_FALSE(chip.transmission()) << "nothing leaves";
    }
}

TEST_F(LoopbackTest, CheckAndAddressLogic) {
    loop(0x03, with_check(frame(60)));
    EXPECT_EQ(in(kRsr), 0x01) << "ours, good";
    Bytes bad = with_check(frame(60));
    bad.back() ^= 1;
    loop(0x03, bad);
    EXPECT_EQ(in(kRsr), 0x02) << "ours, bad";
    const std::array<u8, 6> other = {0x02, 0, 0, 0, 0, 1};
    bad = with_check(frame(60, other));
    bad.back() ^= 1;
    loop(0x03, bad);
    EXPECT_EQ(in(kRsr), 0x01) << "not ours: the check sequence is not looked at";
}

TEST_F(LoopbackTest, TheFifoHoldsTheEndOfTheFrame) {
    const Bytes sent = frame(60);
    loop(0x02, sent);
    const u32 check = check_sequence(check_add(kCheckStart, sent));
    // 64 bytes fill the FIFO evenly; the count overwrites the first three.
    const Bytes expected = {64,
                            0,
                            0,
                            sent[59],
                            static_cast<u8>(check),
                            static_cast<u8>(check >> 8),
                            static_cast<u8>(check >> 16),
                            static_cast<u8>(check >> 24)};
    for (const u8 value : expected) EXPECT_EQ(in(kFifo), value);
    EXPECT_EQ(in(kFifo), 64) << "round again";
    out(kTcr, 0);
    EXPECT_EQ(in(kFifo), 0) << "only in loopback";
}

TEST_F(LoopbackTest, InWordModeHalfOfEachWordIsSent) {
    start(0x00, 0x41);
    const Bytes sent = with_check(frame(57));
    for (std::size_t n = 0; n < sent.size(); ++n) board.memory[0x4001 + 2 * n] = sent[n];
    out(kTpsr, 0x40);
    out(kTbcr0, static_cast<unsigned>(2 * sent.size()));
    out(kTcr, 0x03);
    out(kCr, 0x26);
    EXPECT_EQ(in(kRsr), 0x01);
    // 61 bytes: locations 0 to 4 end the frame.
    for (unsigned n = 0; n < 5; ++n) EXPECT_EQ(in(kFifo), sent[56 + n]) << n;
    EXPECT_EQ(in(kFifo), 61);
    EXPECT_EQ(in(kFifo), 0);
}

TEST_F(LoopbackTest, AnyLength) {
    for (const std::size_t size : {0, 1, 3, 5, 6, 255, 256, 257, 65535}) {
        loop(0x02, Bytes(size, 0x5a));
        EXPECT_EQ(in(kIsr), 0x02) << size;
        EXPECT_EQ(in(kCr), 0x22) << size;
    }
}

}  // namespace
}  // namespace tessera::ne2000
