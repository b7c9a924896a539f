#include "bus/io_bus.h"

#include <array>
#include <atomic>
#include <gtest/gtest.h>
#include <map>
#include <optional>
#include <random>
#include <thread>
#include <utility>
#include <vector>

namespace tessera {
namespace {

// Answers reads with its own number and the offset's low bits, and counts.
struct NumberedDevice final : IoDevice {
    explicit NumberedDevice(u8 own) : number(own) {}
    IoStatus read(u64 offset, std::span<std::byte> out) override {
        ++reads;
        last_offset = offset;
        out[0] = std::byte{number};
        for (std::size_t n = 1; n < out.size(); ++n) out[n] = static_cast<std::byte>(offset + n);
        return IoStatus::Ok;
    }
    IoStatus write(u64 offset, std::span<const std::byte> /*in*/) override {
        ++writes;
        last_offset = offset;
        return IoStatus::Ok;
    }
    u8 number;
    std::atomic<u64> reads = 0;
    std::atomic<u64> writes = 0;
    std::atomic<u64> last_offset = 0;
};

constexpr u8 kNobody = 0xff;

struct IoBusTest : testing::Test {
    u8 at(u64 address, std::size_t width = 1) {
        std::array<std::byte, 8> data{};
        bus.read(address, std::span(data).first(width));
        return std::to_integer<u8>(data[0]);
    }
    IoBus bus;
    NullLock lock;
    NumberedDevice one{1}, two{2}, three{3};
};

TEST_F(IoBusTest, AccessesArriveAtOffsetsFromTheBase) {
    ASSERT_TRUE(bus.add("one", 0x60, 8, one, lock));
    EXPECT_EQ(at(0x63), 1);
    EXPECT_EQ(one.last_offset, 3U);
    EXPECT_EQ(at(0x5f), kNobody);
    EXPECT_EQ(at(0x68), kNobody);
    EXPECT_EQ(bus.refused(), 2U);
}

TEST_F(IoBusTest, AnAccessOverTheEndOfARangeIsNobodys) {
    ASSERT_TRUE(bus.add("one", 0x60, 8, one, lock));
    ASSERT_TRUE(bus.add("two", 0x68, 8, two, lock));
    EXPECT_EQ(at(0x64, 4), 1);
    EXPECT_EQ(at(0x65, 4), kNobody);
    std::array<std::byte, 4> data{};
    bus.write(0x65, data);
    EXPECT_EQ(one.writes + two.writes, 0U);
}

TEST_F(IoBusTest, ClashesAreRefusedWithBothNames) {
    ASSERT_TRUE(bus.add("the first", 0x60, 8, one, lock));
    const Status clash = bus.add("the second", 0x67, 8, two, lock);
    ASSERT_FALSE(clash);
    EXPECT_NE(clash.error().message.find("the first"), std::string::npos);
    EXPECT_NE(clash.error().message.find("the second"), std::string::npos);
    EXPECT_FALSE(bus.add("around", 0x50, 0x100, two, lock));
    EXPECT_FALSE(bus.add("inside", 0x62, 1, two, lock));
    EXPECT_TRUE(bus.add("behind", 0x68, 8, two, lock));
    EXPECT_TRUE(bus.add("before", 0x58, 8, two, lock));
}

TEST_F(IoBusTest, RangesThatWrapOrAreEmptyAreRefusedByName) {
    for (const auto& [base, size] : std::map<u64, u64>{{0x60, 0}, {~u64{0}, 2}, {8, ~u64{0}}}) {
        const Status status = bus.add("the range", base, size, one, lock);
        ASSERT_FALSE(status) << base;
        EXPECT_NE(status.error().message.find("the range"), std::string::npos);
    }
    EXPECT_TRUE(bus.add("the last byte", ~u64{0}, 1, one, lock));
    EXPECT_EQ(at(~u64{0}), 1);
}

TEST_F(IoBusTest, ReservedAddressesClashAndAnswerNothing) {
    ASSERT_TRUE(bus.reserve("memory", 0, 0x1000));
    const Status clash = bus.add("one", 0xfff, 1, one, lock);
    ASSERT_FALSE(clash);
    EXPECT_NE(clash.error().message.find("memory"), std::string::npos);
    EXPECT_EQ(at(0x10), kNobody);
}

TEST_F(IoBusTest, AMovableRangeIsWhereItWasPlaced) {
    const auto id = bus.add_movable("one", 0x10, one, lock);
    EXPECT_EQ(at(0), kNobody);
    bus.place(id, 0x100);
    EXPECT_EQ(at(0x10f), 1);
    EXPECT_EQ(one.last_offset, 0xfU);
    bus.place(id, 0x200);
    EXPECT_EQ(at(0x100), kNobody);
    EXPECT_EQ(at(0x200), 1);
    bus.place(id, std::nullopt);
    EXPECT_EQ(at(0x200), kNobody);
}

TEST_F(IoBusTest, FixedRangesWinAndTheRestStaysReachable) {
    ASSERT_TRUE(bus.add("one", 0x104, 4, one, lock));
    const auto id = bus.add_movable("two", 0x10, two, lock);
    bus.place(id, 0x100);
    EXPECT_EQ(at(0x103), 2);
    EXPECT_EQ(at(0x104), 1);
    EXPECT_EQ(one.last_offset, 0U);
    EXPECT_EQ(at(0x108), 2);
    EXPECT_EQ(two.last_offset, 8U);
    EXPECT_EQ(at(0x10f), 2);
    EXPECT_EQ(at(0x102, 4), kNobody) << "an access across the border";
    EXPECT_EQ(bus.overlaps(), 1U);
}

TEST_F(IoBusTest, ReservedAddressesWinOverAMovableRange) {
    ASSERT_TRUE(bus.reserve("memory", 0, 0x1000));
    const auto id = bus.add_movable("one", 0x1000, one, lock);
    bus.place(id, 0x800);
    EXPECT_EQ(at(0xfff), kNobody);
    EXPECT_EQ(at(0x1000), 1);
    EXPECT_EQ(one.last_offset, 0x800U);
    EXPECT_EQ(bus.overlaps(), 1U);
}

TEST_F(IoBusTest, OfTwoMovableRangesTheOneAddedFirstWins) {
    const auto first = bus.add_movable("one", 0x10, one, lock);
    const auto second = bus.add_movable("two", 0x20, two, lock);
    bus.place(second, 0x100);
    bus.place(first, 0x108);
    EXPECT_EQ(at(0x107), 2);
    EXPECT_EQ(at(0x108), 1);
    EXPECT_EQ(at(0x117), 1);
    EXPECT_EQ(at(0x118), 2);
    EXPECT_EQ(two.last_offset, 0x18U);
    bus.place(first, std::nullopt);
    EXPECT_EQ(at(0x108), 2);
}

TEST_F(IoBusTest, APlaceThatWrapsIsNowhere) {
    const auto id = bus.add_movable("one", 0x10, one, lock);
    bus.place(id, ~u64{0} - 0xf);
    EXPECT_EQ(at(~u64{0}), 1);
    bus.place(id, ~u64{0} - 0xe);
    EXPECT_EQ(at(~u64{0}), kNobody);
    EXPECT_EQ(at(0), kNobody);
}

// Against the definition, address by address.
TEST_F(IoBusTest, AnyArrangementAnswersAsTheRulesSay) {
    std::mt19937_64 random(1);
    for (int round = 0; round < 50; ++round) {
        struct Range {
            u64 base, size;
            bool placed;
            IoBus::RangeId id;
        };
        IoBus any;
        std::vector<std::unique_ptr<NumberedDevice>> devices;
        std::vector<Range> ranges;
        for (u8 n = 0; n < 12; ++n) {
            devices.push_back(std::make_unique<NumberedDevice>(n));
            const Range range{.base = random() % 200, .size = 1 + random() % 60, .placed = false, .id = 0};
            if (n < 4) {
                if (any.add("fixed", range.base, range.size, *devices.back(), lock))
                    ranges.push_back({range.base, range.size, true, 0});
                else
                    ranges.push_back(range);
            } else {
                ranges.push_back(range);
                ranges.back().id = any.add_movable("movable", range.size, *devices.back(), lock);
            }
        }
        for (int step = 0; step < 40; ++step) {
            Range& range = ranges[4 + random() % 8];
            range.placed = random() % 4 != 0;
            range.base = random() % 200;
            any.place(range.id, range.placed ? std::optional(range.base) : std::nullopt);
            for (u64 address = 0; address < 270; ++address) {
                u8 expected = kNobody;
                for (u8 n = 0; n < 12 && expected == kNobody; ++n)
                    if (ranges[n].placed && address >= ranges[n].base &&
                        address - ranges[n].base < ranges[n].size)
                        expected = n;
                std::array<std::byte, 1> data{};
                any.read(address, data);
                ASSERT_EQ(std::to_integer<u8>(data[0]), expected) << address;
                if (expected != kNobody)
                    ASSERT_EQ(devices[expected]->last_offset, address - ranges[expected].base);
            }
        }
    }
}

// What it was told, in order, together with what others were told.
struct Diary final : PlaceWatcher {
    using Entry = std::pair<char, std::optional<u64>>;
    Diary(char own, std::vector<Entry>& all) : name(own), entries(all) {}
    void on_place(std::optional<u64> base) override { entries.emplace_back(name, base); }
    char name;
    std::vector<Entry>& entries;
};

TEST_F(IoBusTest, WatchersHearWhereARangeIs) {
    const auto id = bus.add_movable("one", 0x100, one, lock);
    bus.place(id, 0x1000);
    std::vector<Diary::Entry> said;
    Diary diary('1', said);
    bus.watch(id, diary);
    bus.place(id, 0x1000);
    bus.place(id, 0x2000);
    bus.place(id, std::nullopt);
    const std::vector<Diary::Entry> expected = {
        {'1', 0x1000}, {'1', std::nullopt}, {'1', 0x2000}, {'1', std::nullopt}};
    EXPECT_EQ(said, expected);
}

TEST_F(IoBusTest, ARangeOfWhichOthersHaveAPartIsNowhereToItsWatcher) {
    ASSERT_TRUE(bus.add("fixed", 0x3080, 1, two, lock));
    const auto first = bus.add_movable("first", 0x100, three, lock);
    const auto id = bus.add_movable("one", 0x100, one, lock);
    std::vector<Diary::Entry> said;
    Diary diary('1', said);
    bus.watch(id, diary);
    bus.place(id, 0x3000);
    EXPECT_TRUE(said.empty()) << "the fixed one has a byte of it";
    bus.place(first, 0x40ff);
    bus.place(id, 0x4000);
    EXPECT_TRUE(said.empty()) << "the first one has a byte of it";
    bus.place(first, 0x4100);
    bus.place(first, 0x3fff);
    const std::vector<Diary::Entry> expected = {{'1', 0x4000}, {'1', std::nullopt}};
    EXPECT_EQ(said, expected);
}

TEST_F(IoBusTest, WhoLosesAPlaceHearsItBeforeWhoGetsIt) {
    const auto later = bus.add_movable("two", 0x100, two, lock);
    const auto first = bus.add_movable("one", 0x100, one, lock);
    std::vector<Diary::Entry> said;
    Diary of_later('2', said);
    Diary of_first('1', said);
    bus.watch(later, of_later);
    bus.watch(first, of_first);
    bus.place(first, 0x1000);
    bus.place(later, 0x1000);  // which was added before it, and wins
    bus.place(later, 0x2000);
    const std::vector<Diary::Entry> expected = {{'1', 0x1000},       {'1', std::nullopt}, {'2', 0x1000},
                                                {'2', std::nullopt}, {'2', 0x2000},       {'1', 0x1000}};
    EXPECT_EQ(said, expected);
}

// CPUs access what does not move while another one moves the rest: they always find it.
TEST_F(IoBusTest, AccessesFindTheirDeviceWhileRangesMove) {
    ASSERT_TRUE(bus.add("one", 0x1000, 0x10, one, lock));
    ASSERT_TRUE(bus.add("two", 0x3000, 0x10, two, lock));
    const auto id = bus.add_movable("three", 0x3000, three, lock);
    std::atomic<bool> stop = false;
    std::array<u64, 2> wrong{};
    std::array<std::thread, 2> readers;
    for (std::size_t n = 0; n < readers.size(); ++n)
        readers[n] = std::thread([&, n] {
            while (!stop.load()) {
                if (at(0x1004) != 1 || at(0x3004) != 2) ++wrong[n];
                const u8 moving = at(0x2000, 2);
                if (moving != 3 && moving != kNobody) ++wrong[n];
            }
        });
    for (u64 n = 0; n < 20'000; ++n)
        bus.place(id, n % 3 == 0 ? std::nullopt : std::optional(u64{0x800} + n % 0x2000));
    stop = true;
    for (std::thread& reader : readers) reader.join();
    EXPECT_EQ(wrong[0] + wrong[1], 0U);
}

}  // namespace
}  // namespace tessera
