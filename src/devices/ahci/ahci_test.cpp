#include "devices/ahci/ahci.h"

#include <array>
#include <atomic>
#include <gtest/gtest.h>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "devices/ahci/ahci_rig.h"
#include "devices/testing/device_suite.h"

TESSERA_JOIN_DEVICE_SUITE(Ahci, tessera::ahci::AhciRig);

namespace tessera::ahci {
namespace {

constexpr u32 kGood = 0x50;
constexpr u32 kAborted = 0x0451;

struct AhciTest : testing::Test {
    // What a disk has at a sector.
    [[nodiscard]] std::vector<u8> sector(u64 lba, unsigned count = 1, unsigned disk = 0) {
        const auto all = std::span(rig.disks.at(disk).bytes).subspan(lba * 512, std::size_t{count} * 512);
        return {all.begin(), all.end()};
    }
    [[nodiscard]] std::vector<u8> memory(u64 address, std::size_t bytes) const {
        std::vector<u8> copy(bytes);
        std::memcpy(copy.data(), rig.ram.at(address), bytes);
        return copy;
    }
    void fill(u64 address, std::size_t bytes, u8 value) const {
        std::memset(rig.ram.at(address), value, bytes);
    }
    [[nodiscard]] Order read_order(u64 lba, u16 count) const {
        return {.command = 0x25,
                .lba = lba,
                .count = count,
                .regions = {{.address = rig.data(), .bytes = count * 512U}}};
    }
    AhciRig rig;
};

// --- Registers ---

TEST_F(AhciTest, ItIsASerialAtaControllerWithAhci) {
    std::array<std::byte, 4> data{};
    rig.device.read_config(0x08, data);
    EXPECT_EQ(data[1], std::byte{1}) << "AHCI";
    EXPECT_EQ(data[2], std::byte{6}) << "serial ATA";
    EXPECT_EQ(data[3], std::byte{1}) << "mass storage";
    EXPECT_EQ(rig.in(0x10), 0x0001'0301U) << "1.3.1";
    EXPECT_EQ(rig.in(0x0c), 7U) << "three ports";
    const u32 cap = rig.in(0x00);
    EXPECT_EQ(cap & 0x1f, 2U) << "number of ports, less one";
    EXPECT_EQ(cap >> 8 & 0x1f, 31U) << "slots, less one";
    EXPECT_EQ(cap >> 20 & 0xf, 3U) << "6 Gbit/s";
    EXPECT_NE(cap & 1U << 30, 0U) << "native command queuing";
    EXPECT_NE(cap & 1U << 31, 0U) << "64-bit addresses";
    EXPECT_NE(cap & 1U << 18, 0U) << "AHCI only";
    EXPECT_NE(rig.in(0x04) & 1U << 31, 0U) << "AHCI is on";
    rig.out(0x04, 0);
    EXPECT_NE(rig.in(0x04) & 1U << 31, 0U) << "and cannot be switched off";
}

TEST_F(AhciTest, APortComesUpWithItsDisk) {
    EXPECT_EQ(rig.px(0x28), 0x133U) << "present, third generation, active";
    EXPECT_EQ(rig.px(0x20) & 0x80, 0x80U) << "busy until its first FIS is received";
    rig.start();
    EXPECT_EQ(rig.px(0x20), 0x0150U) << "ready, diagnostics passed";
    EXPECT_EQ(rig.px(0x24), 0x0000'0101U) << "a disk's signature";
    EXPECT_EQ(rig.fis(0x40, 0), 0x34) << "a register FIS";
    EXPECT_EQ(rig.fis(0x40, 12), 1) << "count";
    EXPECT_EQ(rig.px(0x18) & 0xc011, 0xc011U) << "running";
}

TEST_F(AhciTest, PortsThereAreNotReadZero) {
    for (unsigned port = 3; port < 32; ++port)
        for (u64 reg = 0; reg < 0x80; reg += 4) {
            rig.set_px(reg, ~0U, port);
            EXPECT_EQ(rig.px(reg, port), 0U);
        }
    EXPECT_TRUE(rig.run());
}

TEST_F(AhciTest, AddressesAreAligned) {
    rig.set_px(0x00, ~0U);
    rig.set_px(0x08, ~0U);
    EXPECT_EQ(rig.px(0x00), 0xffff'fc00U) << "command lists, 1 KiB";
    EXPECT_EQ(rig.px(0x08), 0xffff'ff00U) << "received FISes, 256 bytes";
}

TEST_F(AhciTest, AccessesOfAnyWidth) {
    rig.set_px(0x14, 0);
    EXPECT_EQ(rig.device.write(0x114, std::array{std::byte{0x41}}), IoStatus::Ok);
    EXPECT_EQ(rig.px(0x14), 0x41U) << "a byte leaves its neighbours alone";
    std::array<std::byte, 8> wide{};
    EXPECT_EQ(rig.device.read(0x110, wide), IoStatus::Ok);
    EXPECT_EQ(wide[4], std::byte{0x41});
    EXPECT_EQ(rig.device.read(0x112, std::span(wide).first(4)), IoStatus::Unaligned);
    EXPECT_EQ(rig.device.read(0x110, std::span(wide).first(3)), IoStatus::BadWidth);
    for (u64 offset = 0; offset < kAbarSize; ++offset)
        for (const std::size_t width : {1, 2, 4, 8}) {
            (void)rig.device.read(offset, std::span(wide).first(width));
            (void)rig.device.write(offset, std::span(wide).first(width));
        }
    EXPECT_TRUE(rig.run());
}

TEST_F(AhciTest, OwnershipIsHandedToTheSystem) {
    EXPECT_EQ(rig.in(0x24), 1U);
    rig.out(0x28, 2);
    EXPECT_EQ(rig.in(0x28), 0xaU) << "owned, and changed";
    rig.out(0x28, 0xa);
    EXPECT_EQ(rig.in(0x28), 2U) << "the change is cleared by writing one";
}

// --- Commands ---

TEST_F(AhciTest, ReadsByDma) {
    rig.start();
    EXPECT_EQ(rig.command(read_order(7, 3)), kGood);
    EXPECT_EQ(memory(rig.data(), 1536), sector(7, 3));
    EXPECT_EQ(rig.px(0x38), 0U);
    EXPECT_EQ(rig.px(0x10), 1U) << "a register FIS came";
    EXPECT_EQ(rig.get32(4), 3U * 512) << "bytes moved";
    EXPECT_EQ(rig.fis(0x40, 0), 0x34);
    EXPECT_EQ(rig.fis(0x40, 1), 0x40) << "with an interrupt";
}

TEST_F(AhciTest, WritesByDmaFromManyPieces) {
    rig.start();
    fill(rig.data(), 1024, 0xa5);
    const u64 from = rig.data();
    const Order order{.command = 0x35,
                      .lba = 100,
                      .count = 2,
                      .regions = {{from, 2}, {from + 2, 508}, {from + 510, 6, true}, {from + 516, 508}}};
    EXPECT_EQ(rig.command(order), kGood);
    EXPECT_EQ(sector(100, 2), std::vector<u8>(1024, 0xa5));
    EXPECT_EQ(rig.px(0x10), 0x21U) << "register FIS, and a region that asked for an interrupt";
    EXPECT_EQ(rig.disks[0].log.back(), "write 100 2");
}

TEST_F(AhciTest, MorePiecesThanARequestTakes) {
    rig.start();
    // 1024 bytes of two-byte pieces, and one whose pieces never meet a sector's border.
    Order order{.command = 0x25, .lba = 0, .count = 4};
    for (u64 n = 0; n < 1022; ++n) order.regions.push_back({.address = rig.data() + 2 * n, .bytes = 2});
    order.regions.push_back({.address = rig.data() + 2044, .bytes = 4});
    // The table is longer than the rig's: let it run over the next ones.
    EXPECT_EQ(rig.command(order), kGood);
    EXPECT_EQ(memory(rig.data(), 2048), sector(0, 4));
    EXPECT_GT(rig.disks[0].submitted, 1U);
    EXPECT_EQ(rig.get32(4), 2048U);
}

TEST_F(AhciTest, PioReadsEndWithTheSetup) {
    rig.start();
    EXPECT_EQ(rig.command({.command = 0x20, .lba = 9, .count = 2, .regions = {{rig.data(), 1024}}}), kGood);
    EXPECT_EQ(memory(rig.data(), 1024), sector(9, 2));
    EXPECT_EQ(rig.px(0x10), 2U) << "a PIO setup FIS and no register FIS";
    EXPECT_EQ(rig.fis(0x20, 0), 0x5f);
    EXPECT_EQ(rig.fis(0x20, 15), 0x50) << "the status at the end";
    EXPECT_EQ(rig.fis(0x20, 17), 2) << "blocks of 512 bytes";
}

TEST_F(AhciTest, CommandsOfAllSlotsRunInTurn) {
    rig.start();
    for (unsigned slot = 0; slot < 32; ++slot) {
        Order order = read_order(slot, 1);
        order.regions[0].address += u64{slot} * 512;
        rig.put(order, slot);
    }
    rig.issue(~0U);
    EXPECT_TRUE(rig.run());
    EXPECT_EQ(rig.px(0x38), 0U);
    EXPECT_EQ(memory(rig.data(), 16384), sector(0, 32));
}

TEST_F(AhciTest, NothingRunsUntilThePortIsStarted) {
    rig.start();
    rig.set_px(0x18, 0x16);
    rig.put(read_order(0, 1));
    rig.issue(1);
    EXPECT_TRUE(rig.run());
    EXPECT_EQ(rig.px(0x38), 0U) << "the register takes nothing";
    EXPECT_EQ(rig.disks[0].submitted, 0U);
}

TEST_F(AhciTest, CommandsWaitForBusMastering) {
    rig.start();
    rig.master(false);
    rig.put(read_order(0, 1));
    rig.issue(1);
    EXPECT_TRUE(rig.run());
    EXPECT_EQ(rig.px(0x38), 1U);
    rig.master(true);
    EXPECT_TRUE(rig.run());
    EXPECT_EQ(rig.px(0x38), 0U);
}

// --- Queued commands ---

TEST_F(AhciTest, QueuedCommandsEndInAnyOrder) {
    rig.start();
    rig.disks[0].hold = true;
    for (unsigned tag = 0; tag < 32; ++tag) rig.put_queued(false, tag, 1, tag);
    rig.issue_queued(~0U);
    EXPECT_TRUE(rig.run());
    EXPECT_EQ(rig.px(0x38), 0U) << "accepted";
    EXPECT_EQ(rig.px(0x34), ~0U) << "all under way";
    EXPECT_EQ(rig.px(0x10), 0U);
    EXPECT_EQ(rig.fis(0x00, 0), 0x41) << "a DMA setup FIS";
    EXPECT_TRUE(rig.disks[0].finish_one([](std::size_t count) { return count - 1; }));
    EXPECT_TRUE(rig.run());
    EXPECT_EQ(rig.px(0x34), 0x7fff'ffffU);
    EXPECT_EQ(rig.px(0x10), 8U) << "a set device bits FIS";
    EXPECT_EQ(rig.get32(rig.kFises + 0x58 + 4), 0x8000'0000U) << "with the tag's bit";
    rig.disks[0].finish_all();
    EXPECT_TRUE(rig.run());
    EXPECT_EQ(rig.px(0x34), 0U);
    for (unsigned tag = 0; tag < 32; ++tag)
        EXPECT_EQ(memory(rig.data() + u64{tag} * 0x1000, 512), sector(tag));
}

TEST_F(AhciTest, AQueuedErrorIsFoundInTheLog) {
    rig.start();
    rig.disks[0].hold = true;
    rig.put_queued(false, 3, 1, 5);
    rig.put_queued(false, 40, 1, 9);
    rig.issue_queued(1U << 5 | 1U << 9);
    EXPECT_TRUE(rig.run());
    rig.disks[0].fail_with = BlockStatus::IoError;
    EXPECT_TRUE(rig.disks[0].finish_one([](std::size_t) { return std::size_t{1}; }));
    EXPECT_TRUE(rig.run());
    EXPECT_NE(rig.px(0x10) & 1U << 30, 0U) << "task file error";
    EXPECT_EQ(rig.px(0x20) & 0xff01, 0x4001U) << "uncorrectable";
    EXPECT_EQ(rig.px(0x34), 1U << 5 | 1U << 9) << "none of them is done";
    rig.set_px(0x18, 0x16);
    EXPECT_NE(rig.px(0x18) & 0x8000, 0U) << "the list runs until the other request is gone";
    rig.disks[0].fail_with = BlockStatus::Ok;
    rig.disks[0].hold = false;
    rig.disks[0].finish_all();
    EXPECT_TRUE(rig.run());
    EXPECT_EQ(rig.px(0x18) & 0x8000, 0U);
    rig.restart();
    EXPECT_EQ(rig.command(read_order(0, 1)), kAborted) << "first the log is to be read";
    rig.restart();
    rig.put_queued(false, 3, 1, 5);
    rig.issue_queued(1U << 5);
    EXPECT_TRUE(rig.run());
    EXPECT_EQ(rig.px(0x20) & 0xff01, 0x0401U) << "queued ones are aborted as well";
    EXPECT_EQ(rig.px(0x10), 0x4000'0008U) << "which is an error of the drive's, not of the link's";
    rig.restart();
    EXPECT_EQ(rig.command({.command = 0x2f, .lba = 0x10, .count = 1, .regions = {{rig.data(), 512}}}), kGood);
    const auto log = memory(rig.data(), 512);
    EXPECT_EQ(log[0], 9) << "the tag";
    EXPECT_EQ(log[3], 0x40) << "uncorrectable";
    EXPECT_EQ(log[4], 40) << "where";
    EXPECT_EQ(std::accumulate(log.begin(), log.end(), u8{0}), 0) << "checksum";
    EXPECT_EQ(rig.command(read_order(0, 1)), kGood);
}

TEST_F(AhciTest, AnOrdinaryCommandAmongQueuedOnesEndsThemAll) {
    rig.start();
    rig.disks[0].hold = true;
    rig.put_queued(true, 3, 1, 1);
    rig.put(read_order(0, 1), 0);
    rig.issue_queued(2);
    EXPECT_TRUE(rig.run());
    rig.issue(1);
    EXPECT_TRUE(rig.run());
    EXPECT_EQ(rig.px(0x20), kAborted);
    rig.disks[0].finish_all();
    EXPECT_TRUE(rig.run());
    EXPECT_EQ(rig.px(0x34), 2U);
}

TEST_F(AhciTest, ATagThatIsNotTheSlotIsAProtocolError) {
    rig.start();
    rig.put_queued(false, 3, 1, 5);
    const u64 header = 160;  // slot 5
    rig.put32(224, rig.get32(header));
    rig.put32(224 + 8, rig.get32(header + 8));
    rig.issue_queued(1U << 7);
    EXPECT_TRUE(rig.run());
    EXPECT_NE(rig.px(0x10) & 1U << 27, 0U) << "interface fatal error";
    EXPECT_EQ(rig.disks[0].submitted, 0U);
}

// --- Errors ---

TEST_F(AhciTest, AFailedCommandHaltsThePortUntilItIsRestarted) {
    rig.start();
    rig.disks[0].fail_with = BlockStatus::IoError;
    EXPECT_EQ(rig.command(read_order(5, 1)) & 0xffff, 0x4051U);
    EXPECT_EQ(rig.px(0x38), 1U) << "the failed command's bit stays";
    EXPECT_EQ(rig.px(0x10), 0x4000'0001U);
    EXPECT_EQ(rig.fis(0x40, 4), 5) << "where";
    rig.disks[0].fail_with = BlockStatus::Ok;
    rig.put(read_order(6, 1), 1);
    rig.issue(2);
    EXPECT_TRUE(rig.run());
    EXPECT_EQ(rig.px(0x38), 3U) << "halted";
    rig.restart();
    EXPECT_EQ(rig.px(0x38), 0U);
    EXPECT_EQ(rig.command(read_order(6, 1)), kGood);
}

TEST_F(AhciTest, AddressesThatAreNoMemoryAreHostBusErrors) {
    constexpr u32 kHostBusFatal = 1U << 29;
    const auto is_refused = [&](const char* what) {
        EXPECT_TRUE(rig.run()) << what;
        EXPECT_NE(rig.px(0x10) & kHostBusFatal, 0U) << what;
        rig.set_px(0x00, 0);
        rig.set_px(0x08, 0x400);
        rig.restart();
        EXPECT_EQ(rig.command(read_order(0, 1)), kGood) << what;
    };
    for (const u64 bad :
         {virtio::BenchRam::kHole, virtio::BenchRam::kSecondBase + virtio::BenchRam::kSecondSize,
          u64{0xffff'ffff'ffff'ff80}, u64{0xfee0'0000}}) {
        rig.start();
        Order order = read_order(1, 1);
        order.regions[0].address = bad;
        rig.put(order);
        rig.issue(1);
        is_refused("data");
        rig.put(read_order(1, 1));
        rig.put32(8, static_cast<u32>(bad));
        rig.put32(12, static_cast<u32>(bad >> 32));
        rig.issue(1);
        is_refused("table");
        rig.set_px(0x00, static_cast<u32>(virtio::BenchRam::kHole));
        rig.issue(1);
        is_refused("list");
        rig.put(read_order(1, 1));
        rig.set_px(0x08, static_cast<u32>(virtio::BenchRam::kHole));
        rig.issue(1);
        is_refused("received FISes");
    }
}

TEST_F(AhciTest, TooShortAListIsAnOverflow) {
    rig.start();
    Order order = read_order(0, 2);
    order.regions[0].bytes = 512;
    rig.put(order);
    rig.issue(1);
    EXPECT_TRUE(rig.run());
    EXPECT_NE(rig.px(0x10) & 1U << 24, 0U) << "overflow";
    rig.restart();
    order.regions.clear();
    rig.put(order);
    rig.issue(1);
    EXPECT_TRUE(rig.run());
    EXPECT_NE(rig.px(0x10) & 1U << 24, 0U);
}

TEST_F(AhciTest, FramesThatAreNoneAreRefused) {
    rig.start();
    for (const u32 first : {0U, 1U, 17U, 31U}) {  // lengths
        rig.put(read_order(0, 1));
        rig.put32(0, first | 1U << 16);
        rig.issue(1);
        EXPECT_TRUE(rig.run());
        EXPECT_NE(rig.px(0x10) & 1U << 27, 0U) << first;
        rig.restart();
    }
    for (const unsigned type : {0x00, 0x34, 0x39, 0x46, 0x58, 0xff}) {
        rig.put(read_order(0, 1));
        *rig.ram.at(rig.table(0)) = static_cast<std::byte>(type);
        rig.issue(1);
        EXPECT_TRUE(rig.run());
        EXPECT_NE(rig.px(0x10) & 1U << 27, 0U) << type;
        rig.restart();
    }
    EXPECT_EQ(rig.disks[0].submitted, 0U);
}

// --- Resets ---

TEST_F(AhciTest, SoftwareReset) {
    rig.start();
    EXPECT_EQ(rig.command({.command = 0xc6, .count = 8}), kGood) << "set multiple mode";
    rig.put({});
    rig.put32(0, 0x0505);  // with R and C
    *rig.ram.at(rig.table(0) + 1) = std::byte{0};
    *rig.ram.at(rig.table(0) + 15) = std::byte{4};
    rig.issue(1);
    EXPECT_TRUE(rig.run());
    EXPECT_EQ(rig.px(0x38), 0U);
    rig.put32(0, 5);
    *rig.ram.at(rig.table(0) + 15) = std::byte{0};
    std::memset(rig.ram.at(rig.kFises), 0xee, 256);
    rig.issue(1);
    EXPECT_TRUE(rig.run());
    EXPECT_EQ(rig.px(0x38), 0U);
    EXPECT_EQ(rig.px(0x20), 0x0150U);
    EXPECT_EQ(rig.fis(0x40, 0), 0x34) << "the signature";
    EXPECT_EQ(rig.px(0x24), 0x101U);
}

TEST_F(AhciTest, LinkResetWaitsForWhatIsInFlight) {
    rig.start();
    rig.disks[0].hold = true;
    fill(rig.data(), 512, 0xee);
    rig.put(read_order(7, 1));
    rig.issue(1);
    EXPECT_TRUE(rig.run());
    rig.set_px(0x18, 0x16);
    rig.set_px(0x2c, 0x301);
    EXPECT_EQ(rig.px(0x28) & 0xf, 1U);
    rig.set_px(0x2c, 0x300);
    EXPECT_NE(rig.px(0x28) & 0xf, 3U) << "not while the old request may write to memory";
    EXPECT_NE(rig.px(0x18) & 0x8000, 0U);
    rig.disks[0].finish_all();
    EXPECT_TRUE(rig.run());
    EXPECT_EQ(rig.px(0x28), 0x133U);
    EXPECT_EQ(rig.px(0x20), 0x0150U);
    EXPECT_EQ(rig.px(0x18) & 0x8000, 0U);
    EXPECT_NE(rig.px(0x30) & 1U << 26, 0U) << "exchanged";
    EXPECT_EQ(rig.px(0x10) & 1U, 0U) << "nothing is told of the old command";
}

TEST_F(AhciTest, AnOfflineLinkComesBackWhenNothingIsInFlight) {
    rig.start();
    rig.disks[0].hold = true;
    rig.put(read_order(7, 1));
    rig.issue(1);
    EXPECT_TRUE(rig.run());
    rig.set_px(0x18, 0x16);
    rig.set_px(0x2c, 0x304);
    EXPECT_EQ(rig.px(0x28), 4U) << "offline";
    rig.set_px(0x2c, 0x300);
    rig.disks[0].finish_all();
    EXPECT_TRUE(rig.run());
    EXPECT_EQ(rig.px(0x28), 0x133U);
    rig.disks[0].hold = false;
    rig.set_px(0x18, 0x17);
    EXPECT_EQ(rig.command(read_order(7, 1)), kGood);
}

TEST_F(AhciTest, LinksSleepOnRequest) {
    rig.start();
    rig.set_px(0x18, 0x2000'0017);
    EXPECT_EQ(rig.px(0x28), 0x233U) << "partial";
    rig.set_px(0x18, 0x6000'0017);
    EXPECT_EQ(rig.px(0x28), 0x633U) << "slumber";
    EXPECT_EQ(rig.command(read_order(7, 1)), kGood);
    EXPECT_EQ(rig.px(0x28), 0x133U) << "a command wakes it";
    rig.set_px(0x2c, 0x300);
    rig.set_px(0x18, 0x6000'0017);
    EXPECT_EQ(rig.px(0x28), 0x133U) << "forbidden";
    rig.set_px(0x2c, 0x310);
    EXPECT_EQ(rig.px(0x28), 0x113U) << "limited to the first generation";
}

TEST_F(AhciTest, CommandListOverrideClearsBusy) {
    rig.start();
    Order order = read_order(1, 1);
    order.regions[0].address = virtio::BenchRam::kHole;
    EXPECT_EQ(rig.command(order) & 0x80, 0x80U);
    rig.set_px(0x18, 0x1f);
    EXPECT_EQ(rig.px(0x20) & 0x80, 0x80U) << "not while the list runs";
    rig.set_px(0x18, 0x16);
    rig.set_px(0x18, 0x1e);
    EXPECT_EQ(rig.px(0x20) & 0x80, 0U);
    EXPECT_EQ(rig.px(0x18) & 8, 0U);
    rig.restart();
    EXPECT_EQ(rig.command(read_order(1, 1)), kGood);
}

TEST_F(AhciTest, ControllerResetWaitsForWhatIsInFlight) {
    rig.start();
    rig.start(1);
    rig.disks[1].hold = true;
    Order order = read_order(7, 1);
    order.regions[0].address = rig.data(1);
    rig.put(order, 0, 1);
    rig.issue(1, 1);
    EXPECT_TRUE(rig.run());
    rig.out(0x04, 0x8000'0001);
    EXPECT_EQ(rig.in(0x04), 0x8000'0001U);
    EXPECT_TRUE(rig.device.draining());
    rig.out(0x04, 0x8000'0002);
    EXPECT_EQ(rig.in(0x04), 0x8000'0001U) << "nothing is taken";
    rig.disks[1].finish_all();
    EXPECT_TRUE(rig.run());
    EXPECT_EQ(rig.in(0x04), 0x8000'0000U);
    EXPECT_FALSE(rig.device.draining());
    EXPECT_EQ(rig.px(0x28, 1), 0x133U);
    EXPECT_EQ(rig.px(0x14), 0U);
    EXPECT_EQ(rig.px(0x00, 1), rig.base(1)) << "the lists' places stay";
}

TEST_F(AhciTest, AThousandResetsWithRequestsInFlight) {
    testing_rig::SeededChoices choices(3);
    rig.start();
    for (unsigned round = 0; round < 1000; ++round) {
        rig.disks[0].hold = true;
        const auto count = static_cast<unsigned>(1 + choices.below(32));
        for (unsigned tag = 0; tag < count; ++tag) rig.put_queued(choices.coin(), tag, 1, tag);
        rig.issue_queued(count == 32 ? ~0U : (1U << count) - 1);
        if (choices.coin()) (void)rig.run();
        for (u64 n = choices.below(count + 1); n != 0; --n)
            (void)rig.disks[0].finish_one([&](std::size_t held) { return choices.below(held); });
        switch (choices.below(4)) {
            case 0: rig.out(0x04, 0x8000'0001); break;
            case 1: rig.set_px(0x18, 0x16); break;
            case 2:
                rig.set_px(0x18, 0x16);
                rig.set_px(0x2c, 1);
                rig.set_px(0x2c, 0);
                break;
            default: rig.device.reset(); break;
        }
        if (choices.coin()) (void)rig.run();
        rig.disks[0].hold = false;
        rig.disks[0].finish_all();
        ASSERT_TRUE(rig.run());
        ASSERT_EQ(rig.device.in_flight(), 0U);
        ASSERT_FALSE(rig.device.draining());
        rig.master(true);
        rig.start();
        ASSERT_EQ(rig.command(read_order(1, 1)), kGood) << "round " << round;
    }
}

// C10: another CPU writes lists, tables and regions while the controller works.
TEST_F(AhciTest, TablesThatChangeMeanwhileDoNoHarm) {
#if __has_feature(thread_sanitizer)
    GTEST_SKIP() << "races by intention";
#endif
    constexpr unsigned kSlots = 8;
    std::atomic<bool> stop = false;
    std::thread racer([&] {
        testing_rig::SeededChoices choices(1);
        while (!stop.load(std::memory_order_relaxed)) {
            // The command list, or the beginning of a slot's table: FIS, packet, a few regions.
            const u64 where = choices.coin() ? choices.below(16 * kSlots) * 2
                                             : AhciRig::table(static_cast<unsigned>(choices.below(kSlots))) +
                                                   choices.below(0x60) * 2;
            std::atomic_ref<u16>(*reinterpret_cast<u16*>(rig.ram.at(where)))
                .store(static_cast<u16>(choices.bits()), std::memory_order_relaxed);
        }
    });
    for (unsigned round = 0; round < 500; ++round) {
        if (round % 4 == 0) rig.restart();
        if (round % 50 == 0) {
            rig.device.reset();
            rig.start();
        }
        for (unsigned slot = 0; slot < kSlots; ++slot) rig.put(read_order(slot, 2), slot);
        rig.set_px(0x38, (1U << kSlots) - 1);
        EXPECT_TRUE(rig.run());
    }
    stop.store(true);
    racer.join();
    rig.device.reset();
    EXPECT_TRUE(rig.run());
    rig.start();
    EXPECT_EQ(rig.command(read_order(1, 1)), kGood);
}

// --- Interrupts ---

TEST_F(AhciTest, ThePinFollowsWhatIsPending) {
    rig.start();
    (void)rig.command(read_order(0, 1));
    EXPECT_TRUE(rig.wires.levels[5]);
    EXPECT_EQ(rig.in(0x08), 1U);
    rig.out(0x08, 1);
    EXPECT_TRUE(rig.wires.levels[5]) << "the port still has its cause";
    rig.set_px(0x10, 1);
    rig.out(0x08, 1);
    EXPECT_FALSE(rig.wires.levels[5]);
    rig.set_px(0x14, 0);
    (void)rig.command(read_order(0, 1));
    EXPECT_FALSE(rig.wires.levels[5]) << "not enabled";
    EXPECT_EQ(rig.px(0x10), 1U);
    rig.set_px(0x14, 1);
    EXPECT_TRUE(rig.wires.levels[5]);
    rig.out(0x04, 0x8000'0000);
    EXPECT_FALSE(rig.wires.levels[5]) << "not enabled at all";
}

TEST_F(AhciTest, MessagesComeOnceForEachCause) {
    u16 msi = 0;
    std::array<std::byte, 4> data{};
    rig.device.read_config(0x34, std::span(data).first(1));
    for (u16 at = std::to_integer<u8>(data[0]); at != 0; at = std::to_integer<u8>(data[1])) {
        rig.device.read_config(at, std::span(data).first(2));
        if (data[0] == std::byte{5}) msi = at;
    }
    ASSERT_NE(msi, 0);
    const auto put = [&](unsigned offset, u32 value) {
        rig.device.write_config(static_cast<u16>(msi + offset),
                                std::bit_cast<std::array<std::byte, 4>>(value));
    };
    put(4, 0xfee0'0000);
    put(12, 0x41);
    rig.device.write_config(static_cast<u16>(msi + 2), std::array{std::byte{1}, std::byte{0}});
    rig.start();
    rig.start(1);
    rig.uplink.messages.clear();
    (void)rig.command(read_order(0, 1));
    EXPECT_EQ(rig.uplink.messages.size(), 1U);
    Order order = read_order(0, 1);
    order.regions[0].address = rig.data(1);
    (void)rig.command(order, 1);
    EXPECT_EQ(rig.uplink.messages.size(), 2U) << "another port";
    rig.set_px(0x10, 1);
    rig.out(0x08, 1);
    EXPECT_EQ(rig.uplink.messages.size(), 3U) << "one port is left";
    rig.set_px(0x10, 1, 1);
    rig.out(0x08, 2);
    EXPECT_EQ(rig.uplink.messages.size(), 3U);
    EXPECT_FALSE(rig.wires.levels[5]);
}

// --- The CD drive ---

struct AhciCdTest : AhciTest {
    static constexpr unsigned kPort = 2;
    AhciCdTest() {
        rig.start(kPort);
        (void)packet({0x00}, 0);
        rig.restart(kPort);  // the unit attention was an error
    }
    u32 packet(std::vector<u8> cdb, u32 bytes, u16 features = 1, u64 limit = 0) {
        cdb.resize(12);
        Order order{
            .command = 0xa0, .lba = limit << 8, .features = features, .device = 0, .packet = std::move(cdb)};
        if (bytes != 0) order.regions.push_back({.address = rig.data(kPort), .bytes = bytes});
        return rig.command(order, kPort);
    }
};

TEST_F(AhciCdTest, ItHasAPacketDevicesSignature) {
    EXPECT_EQ(rig.px(0x24, kPort), 0xeb14'0101U);
    EXPECT_EQ(rig.px(0x24, 0), 0xffff'ffffU) << "of a port that was not started";
}

TEST_F(AhciCdTest, IdentifiesItself) {
    const Order order{.command = 0xa1, .regions = {{rig.data(kPort), 512}}};
    EXPECT_EQ(rig.command(order, kPort), kGood);
    const auto words = memory(rig.data(kPort), 512);
    EXPECT_EQ(words[0] | words[1] << 8, 0x85c0);
    EXPECT_EQ(std::string(words.begin() + 54, words.begin() + 68), "eTssre aDCR-MO");
    EXPECT_EQ(std::accumulate(words.begin(), words.end(), u8{0}), 0);
    EXPECT_EQ(rig.command({.command = 0xec}, kPort), kAborted) << "it is no disk";
    EXPECT_EQ(rig.fis(0x40, 5, kPort), 0x14) << "and says so";
    EXPECT_EQ(rig.fis(0x40, 6, kPort), 0xeb);
}

TEST_F(AhciCdTest, ReadsBlocksByDmaAndPio) {
    for (const u16 features : {u16{1}, u16{0}}) {
        fill(rig.data(kPort), 4096, 0);
        EXPECT_EQ(packet({0x28, 0, 0, 0, 0, 3, 0, 0, 2}, 4096, features, 2048), kGood);
        EXPECT_EQ(memory(rig.data(kPort), 4096), sector(12, 8, 2));
        EXPECT_EQ(rig.fis(0x40, 12, kPort), 3) << "command is done";
    }
    EXPECT_EQ(rig.fis(0x20, 0, kPort), 0x5f);
    EXPECT_EQ(rig.fis(0x20, 17, kPort), 8) << "blocks of 2048 bytes";
}

TEST_F(AhciCdTest, ErrorsHaveASenseKey) {
    EXPECT_EQ(packet({0x28, 0, 0, 1, 0, 0, 0, 0, 1}, 2048), 0x5051U) << "illegal request";
    rig.restart(kPort);
    EXPECT_EQ(packet({0x03, 0, 0, 0, 18}, 18), kGood);
    EXPECT_EQ(memory(rig.data(kPort), 14)[12], 0x21) << "out of range";
    rig.disks[2].fail_with = BlockStatus::IoError;
    EXPECT_EQ(packet({0x28, 0, 0, 0, 0, 0, 0, 0, 1}, 2048), 0x3051U) << "medium error";
    rig.restart(kPort);
    EXPECT_EQ(packet({0x03, 0, 0, 0, 18}, 18), kGood);
    EXPECT_EQ(memory(rig.data(kPort), 14)[12], 0x11);
}

TEST_F(AhciCdTest, RepliesAreNoLongerThanTheirPlace) {
    fill(rig.data(kPort), 64, 0xee);
    EXPECT_EQ(packet({0x12, 0, 0, 0, 5}, 36), kGood);
    EXPECT_EQ(rig.get32(rig.base(kPort) + 4), 5U);
    EXPECT_EQ(rig.get8(rig.data(kPort) + 5), 0xee);
    (void)packet({0x12, 0, 0, 0, 36}, 8);
    EXPECT_NE(rig.px(0x10, kPort) & 1U << 24, 0U) << "overflow";
    EXPECT_EQ(rig.get8(rig.data(kPort) + 8), 0xee);
}

TEST_F(AhciCdTest, APacketWithoutACommandIsRefused) {
    Order order{.command = 0xa0, .regions = {{rig.data(kPort), 512}}};
    rig.put(order, 0, kPort);
    rig.issue(1, kPort);
    EXPECT_TRUE(rig.run());
    EXPECT_NE(rig.px(0x10, kPort) & 1U << 27, 0U);
}

}  // namespace
}  // namespace tessera::ahci
