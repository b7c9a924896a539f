#include "devices/ata/mmc_drive.h"

#include <gtest/gtest.h>
#include <initializer_list>
#include <vector>

#include "devices/testing/device_rig.h"

namespace tessera::ata {
namespace {

struct MmcDriveTest : testing::Test {
    MmcDriveTest() { (void)run({0x00}); }  // takes the unit attention
    MmcDrive::Answer run(std::initializer_list<unsigned> bytes) { return on(drive, bytes); }
    static MmcDrive::Answer on(MmcDrive& to, std::initializer_list<unsigned> bytes) {
        std::array<u8, 12> cdb{};
        std::size_t n = 0;
        for (const unsigned byte : bytes) cdb.at(n++) = static_cast<u8>(byte);
        return to.execute(cdb);
    }
    // Key, code, qualifier.
    std::array<unsigned, 3> sense(MmcDrive& of) {
        const auto data = on(of, {0x03, 0, 0, 0, 18}).data;
        EXPECT_EQ(data.size(), 18U);
        return {data[2], data[12], data[13]};
    }
    static std::vector<unsigned> bytes(std::span<const u8> data) { return {data.begin(), data.end()}; }
    MmcDrive drive{{.serial = "abc", .disc = Disc::Inserted, .blocks = 1000}};
    MmcDrive empty{{.serial = "abc"}};
};

using Codes = std::array<unsigned, 3>;

TEST_F(MmcDriveTest, AResetIsToldOnce) {
    drive.reset();
    EXPECT_EQ(run({0x12, 0, 0, 0, 36}).key, SenseKey::None) << "INQUIRY has no time for that";
    EXPECT_EQ(run({0x25}).key, SenseKey::UnitAttention);
    EXPECT_EQ(sense(drive), (Codes{6, 0x29, 0}));
    EXPECT_EQ(run({0x25}).key, SenseKey::None);
    EXPECT_EQ(sense(drive), (Codes{0, 0, 0}));
    drive.reset();
    EXPECT_EQ(sense(drive), (Codes{6, 0x29, 0})) << "or by asking for it";
    EXPECT_EQ(run({0x00}).key, SenseKey::None);
}

TEST_F(MmcDriveTest, ItIsACdReader) {
    const auto data = run({0x12, 0, 0, 0, 36}).data;
    ASSERT_EQ(data.size(), 36U);
    EXPECT_EQ(data[0], 5) << "CD or DVD";
    EXPECT_EQ(data[1], 0x80) << "removable";
    EXPECT_EQ(data[4], 31) << "bytes that follow";
    EXPECT_EQ(run({0x12, 0, 0, 0, 5}).data.size(), 5U) << "no more than was asked for";
    EXPECT_EQ(run({0x12, 0, 0, 0, 0}).data.size(), 0U);
    EXPECT_EQ(bytes(run({0x12, 1, 0, 0, 64}).data), (std::vector<unsigned>{5, 0, 0, 3, 0, 0x80, 0x83}));
    EXPECT_EQ(bytes(run({0x12, 1, 0x80, 0, 64}).data), (std::vector<unsigned>{5, 0x80, 0, 3, 'a', 'b', 'c'}));
    EXPECT_EQ(run({0x12, 1, 0x83, 0, 64}).data.size(), 4U + 4 + 8 + 3);
    EXPECT_EQ(run({0x12, 1, 0x99, 0, 64}).key, SenseKey::IllegalRequest);
    EXPECT_EQ(run({0x12, 0, 1, 0, 64}).key, SenseKey::IllegalRequest) << "a page without EVPD";
}

TEST_F(MmcDriveTest, CapacityIsTheLastBlock) {
    EXPECT_EQ(bytes(run({0x25}).data), (std::vector<unsigned>{0, 0, 3, 0xe7, 0, 0, 8, 0}));
}

TEST_F(MmcDriveTest, ReadsStayOnTheDisc) {
    const auto ten = run({0x28, 0, 0, 0, 3, 0xe6, 0, 0, 2});
    EXPECT_EQ(ten.first_block, 998U);
    EXPECT_EQ(ten.blocks, 2U);
    const auto twelve = run({0xa8, 0, 0, 0, 0, 5, 0, 0, 0, 3});
    EXPECT_EQ(twelve.first_block, 5U);
    EXPECT_EQ(twelve.blocks, 3U);
    EXPECT_EQ(run({0x28, 0, 0, 0, 3, 0xe6, 0, 0, 3}).blocks, 0U);
    EXPECT_EQ(sense(drive), (Codes{5, 0x21, 0}));
    EXPECT_EQ(run({0xa8, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff}).key, SenseKey::IllegalRequest);
    EXPECT_EQ(run({0xa8, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1}).key, SenseKey::IllegalRequest);
    EXPECT_EQ(run({0xa8, 0, 0x80, 0, 0, 0, 0x80, 0, 0, 0}).key, SenseKey::IllegalRequest);
    const auto none = run({0x28, 0, 0, 0, 0, 0, 0, 0, 0});
    EXPECT_EQ(none.key, SenseKey::None) << "nothing is not too much";
    EXPECT_EQ(none.blocks, 0U);
}

TEST_F(MmcDriveTest, ReadCdGivesUserData) {
    const auto some = run({0xbe, 2 << 2, 0, 0, 0, 7, 0, 0, 4, 0x10});
    EXPECT_EQ(some.first_block, 7U);
    EXPECT_EQ(some.blocks, 4U);
    EXPECT_EQ(run({0xbe, 1 << 2, 0, 0, 0, 7, 0, 0, 4, 0x10}).key, SenseKey::IllegalRequest) << "audio";
    EXPECT_EQ(run({0xbe, 0, 0, 0, 0, 7, 0, 0, 4, 0xf8}).key, SenseKey::IllegalRequest) << "headers and all";
    EXPECT_EQ(run({0xbe, 0, 0, 0, 0, 7, 0, 0, 4, 0x10, 1}).key, SenseKey::IllegalRequest) << "sub-channels";
}

TEST_F(MmcDriveTest, TableOfContents) {
    const std::vector<unsigned> blocks = {0, 18, 1, 1,    0,    0x14, 1, 0, 0, 0,
                                          0, 0,  0, 0x14, 0xaa, 0,    0, 0, 3, 0xe8};
    EXPECT_EQ(bytes(run({0x43, 0, 0, 0, 0, 0, 0, 0, 64}).data), blocks);
    // Block 0 is at 2 seconds; block 1000 at 15 seconds and 25 frames.
    const std::vector<unsigned> times = {0, 18, 1, 1,    0,    0x14, 1, 0, 0,  0,
                                         2, 0,  0, 0x14, 0xaa, 0,    0, 0, 15, 25};
    EXPECT_EQ(bytes(run({0x43, 2, 0, 0, 0, 0, 0, 0, 64}).data), times);
    const auto lead_out = run({0x43, 0, 0, 0, 0, 0, 0xaa, 0, 64}).data;
    ASSERT_EQ(lead_out.size(), 12U);
    EXPECT_EQ(lead_out[6], 0xaa);
    EXPECT_EQ(run({0x43, 0, 0, 0, 0, 0, 2, 0, 64}).key, SenseKey::IllegalRequest);
    EXPECT_EQ(run({0x43, 0, 1, 0, 0, 0, 0, 0, 64}).data.size(), 12U) << "sessions";
    EXPECT_EQ(run({0x43, 0, 2, 0, 0, 0, 0, 0, 64}).data.size(), 4U + 4 * 11) << "the whole table";
    EXPECT_EQ(run({0x43, 0, 0, 0, 0, 0, 0, 0, 64, 0x40}).data.size(), 12U) << "as old drivers ask";
    EXPECT_EQ(run({0x43, 0, 5, 0, 0, 0, 0, 0, 64}).key, SenseKey::IllegalRequest);
    EXPECT_EQ(run({0x43, 0, 0, 0, 0, 0, 0, 0, 4}).data.size(), 4U);
}

TEST_F(MmcDriveTest, ModePages) {
    const auto page = bytes(run({0x5a, 0, 0x2a, 0, 0, 0, 0, 0, 128}).data);
    ASSERT_EQ(page.size(), 8U + 22);
    EXPECT_EQ(page[1], 28U) << "bytes that follow";
    EXPECT_EQ(page[8], 0x2aU);
    EXPECT_EQ(page[9], 20U);
    EXPECT_EQ(page[14] & 0x2b, 0x29U) << "locks, is not locked, ejects, has a tray";
    (void)run({0x1e, 0, 0, 0, 1});
    EXPECT_EQ(run({0x5a, 0, 0x2a, 0, 0, 0, 0, 0, 128}).data[14] & 2, 2) << "locked";
    EXPECT_EQ(run({0x5a, 0, 0x6a, 0, 0, 0, 0, 0, 128}).data[10], 0) << "nothing can be changed";
    EXPECT_EQ(run({0x5a, 0, 0xea, 0, 0, 0, 0, 0, 128}).key, SenseKey::IllegalRequest) << "nothing is saved";
    EXPECT_EQ(run({0x5a, 0, 0x15, 0, 0, 0, 0, 0, 128}).key, SenseKey::IllegalRequest);
    const auto all = run({0x1a, 0, 0x3f, 0, 255}).data;
    EXPECT_EQ(all.size(), all[0] + 1U);
    EXPECT_EQ(all.size(), 4U + 12 + 16 + 12 + 10 + 22);
}

TEST_F(MmcDriveTest, Features) {
    const auto all = bytes(run({0x46, 0, 0, 0, 0, 0, 0, 0, 255}).data);
    EXPECT_EQ(all[3], all.size() - 4);
    EXPECT_EQ(all[7], 8U) << "a CD is in it";
    EXPECT_EQ(all[9], 0U) << "the list of profiles comes first";
    const auto one = bytes(run({0x46, 2, 0, 0x10, 0, 0, 0, 0, 255}).data);
    ASSERT_EQ(one.size(), 8U + 12);
    EXPECT_EQ(one[14], 8U) << "blocks of 2048 bytes";
    const auto current = bytes(run({0x46, 1, 0, 0x1e, 0, 0, 0, 0, 255}).data);
    EXPECT_EQ(current[9], 0x1eU) << "reads CDs";
    EXPECT_NE(current[8 + 8 + 1], 0x1fU) << "and no DVD now";
    EXPECT_EQ(run({0x46, 3, 0, 0, 0, 0, 0, 0, 255}).key, SenseKey::IllegalRequest);
    MmcDrive dvd{{.serial = "d", .disc = Disc::Inserted, .blocks = 2'000'000}};
    EXPECT_EQ(on(dvd, {0x46, 0, 0, 0, 0, 0, 0, 0, 255}).data[7], 0x10);
    EXPECT_EQ(on(empty, {0x46, 0, 0, 0, 0, 0, 0, 0, 255}).data[7], 0) << "nothing is in it";
}

TEST_F(MmcDriveTest, TheTrayOpensAndCloses) {
    (void)run({0x1e, 0, 0, 0, 1});
    EXPECT_EQ(run({0x1b, 0, 0, 0, 2}).key, SenseKey::IllegalRequest);
    EXPECT_EQ(sense(drive), (Codes{5, 0x53, 2})) << "removal prevented";
    (void)run({0x1e, 0, 0, 0, 0});
    EXPECT_EQ(run({0x1b, 0, 0, 0, 2}).key, SenseKey::None);
    EXPECT_EQ(run({0x00}).key, SenseKey::NotReady);
    EXPECT_EQ(sense(drive), (Codes{2, 0x3a, 2})) << "no medium, tray open";
    const auto gone = bytes(run({0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8}).data);
    EXPECT_EQ(gone, (std::vector<unsigned>{0, 6, 4, 0x10, 3, 1, 0, 0})) << "removed, tray open";
    EXPECT_EQ(bytes(run({0xbd, 0, 0, 0, 0, 0, 0, 0, 0, 8}).data)[1], 0x10U) << "door open";
    EXPECT_EQ(run({0x1b, 0, 0, 0, 3}).key, SenseKey::None);
    EXPECT_EQ(run({0x00}).key, SenseKey::UnitAttention);
    EXPECT_EQ(sense(drive), (Codes{6, 0x28, 0})) << "may be another medium";
    const auto there = bytes(run({0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8}).data);
    EXPECT_EQ(there, (std::vector<unsigned>{0, 6, 4, 0x10, 2, 2, 0, 0}));
    EXPECT_EQ(bytes(run({0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8}).data)[4], 0U) << "told once";
    EXPECT_EQ(run({0x00}).key, SenseKey::None);
}

TEST_F(MmcDriveTest, EventsAreAskedForOnly) {
    EXPECT_EQ(run({0x4a, 0, 0, 0, 0x10, 0, 0, 0, 8}).key, SenseKey::IllegalRequest);
    EXPECT_EQ(bytes(run({0x4a, 1, 0, 0, 2, 0, 0, 0, 8}).data), (std::vector<unsigned>{0, 2, 0x80, 0x10}));
}

TEST_F(MmcDriveTest, AnEmptyDriveSaysSo) {
    (void)on(empty, {0x00});
    for (const unsigned opcode : {0x00, 0x25, 0x28, 0x43, 0x51, 0x52, 0xa8, 0xbe}) {
        EXPECT_EQ(on(empty, {opcode, 0, 0, 0, 0, 0, 0, 0, 1}).key, SenseKey::NotReady) << opcode;
        EXPECT_EQ(sense(empty), (Codes{2, 0x3a, 1}));
    }
    EXPECT_EQ(on(empty, {0x12, 0, 0, 0, 36}).data.size(), 36U);
    EXPECT_EQ(on(empty, {0x5a, 0, 0x2a, 0, 0, 0, 0, 0, 128}).key, SenseKey::None);
    EXPECT_EQ(bytes(on(empty, {0x23, 0, 0, 0, 0, 0, 0, 0, 12}).data)[8], 3U) << "no medium";
}

TEST_F(MmcDriveTest, DiscAndTrack) {
    const auto disc = bytes(run({0x51, 0, 0, 0, 0, 0, 0, 0, 64}).data);
    ASSERT_EQ(disc.size(), 34U);
    EXPECT_EQ(disc[1], 32U);
    EXPECT_EQ(disc[2], 0x0eU) << "complete";
    const auto track = bytes(run({0x52, 1, 0, 0, 0, 1, 0, 0, 64}).data);
    ASSERT_EQ(track.size(), 36U);
    EXPECT_EQ(track[26] << 8 | track[27], 1000U) << "blocks";
    EXPECT_EQ(run({0x52, 1, 0, 0, 0, 2, 0, 0, 64}).key, SenseKey::IllegalRequest);
    EXPECT_EQ(run({0x52, 0, 0, 0, 0x10, 0, 0, 0, 64}).key, SenseKey::IllegalRequest) << "beyond the end";
    const auto units = bytes(run({0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64}).data);
    ASSERT_EQ(units.size(), 16U);
    EXPECT_EQ(units[3], 8U) << "one unit";
}

TEST_F(MmcDriveTest, WhatThereIsNotIsRefused) {
    for (const unsigned opcode : {0x04, 0x2a, 0x2e, 0x15, 0x55, 0xa1, 0xad, 0xb9, 0xff}) {
        EXPECT_EQ(run({opcode}).key, SenseKey::IllegalRequest) << opcode;
        EXPECT_EQ(sense(drive), (Codes{5, 0x20, 0}));
    }
}

// Whatever comes: replies are within what was asked for, reads on the disc.
TEST_F(MmcDriveTest, HostileCommands) {
    testing_rig::SeededChoices choices(7);
    for (unsigned n = 0; n < 200'000; ++n) {
        std::array<u8, 12> cdb{};
        for (u8& byte : cdb) byte = static_cast<u8>(choices.below(3) == 0 ? choices.bits() : 0);
        const auto answer = drive.execute(cdb);
        ASSERT_LE(answer.data.size(), 512U);
        ASSERT_LE(answer.first_block + answer.blocks, 1000U);
        ASSERT_TRUE(answer.key == SenseKey::None || (answer.data.empty() && answer.blocks == 0));
    }
}

}  // namespace
}  // namespace tessera::ata
