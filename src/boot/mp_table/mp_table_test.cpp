#include "boot/mp_table/mp_table.h"

#include <cstring>
#include <gtest/gtest.h>
#include <map>
#include <span>
#include <string>

namespace tessera::boot {
namespace {

constexpr u64 kAddress = 0xf2000;

template <typename T>
T at(std::span<const std::byte> bytes, std::size_t offset) {
    T value{};
    std::memcpy(&value, bytes.subspan(offset, sizeof value).data(), sizeof value);
    return value;
}
std::string text(std::span<const std::byte> bytes, std::size_t offset, std::size_t size) {
    const auto part = bytes.subspan(offset, size);
    return {reinterpret_cast<const char*>(part.data()), part.size()};
}
unsigned sum(std::span<const std::byte> bytes) {
    unsigned total = 0;
    for (const std::byte b : bytes) total += std::to_integer<unsigned>(b);
    return total & 0xff;
}

// The configuration table the floating pointer leads to.
std::span<const std::byte> config_of(const std::vector<std::byte>& table) {
    return std::span(table).subspan(at<u32>(table, 4) - kAddress);
}
// [MP 1.4 table 4-3]: processors have 20 bytes, all others 8.
std::vector<std::span<const std::byte>> entries_of(std::span<const std::byte> config, unsigned type) {
    std::vector<std::span<const std::byte>> out;
    std::size_t offset = 44;
    for (unsigned n = 0; n < at<u16>(config, 34); ++n) {
        const auto entry = config.subspan(offset, at<u8>(config, offset) == 0 ? 20 : 8);
        if (at<u8>(entry, 0) == type) out.push_back(entry);
        offset += entry.size();
    }
    EXPECT_EQ(offset, at<u16>(config, 4));
    return out;
}

TEST(MpTableTest, FloatingPointerAndHeaderAreWhole) {
    const auto table = make_mp_table(pc_board(2), kAddress);
    EXPECT_EQ(text(table, 0, 4), "_MP_");
    EXPECT_EQ(at<u8>(table, 8), 1);   // one paragraph
    EXPECT_EQ(at<u8>(table, 9), 4);   // 1.4
    EXPECT_EQ(at<u8>(table, 11), 0);  // no default configuration
    EXPECT_EQ(at<u8>(table, 12), 0);  // no IMCR
    EXPECT_EQ(sum(std::span(table).first(16)), 0U);
    const auto config = config_of(table);
    EXPECT_EQ(text(config, 0, 4), "PCMP");
    EXPECT_EQ(at<u16>(config, 4), config.size());
    EXPECT_EQ(sum(config), 0U);
    EXPECT_EQ(at<u32>(config, 36), 0xfee00000U);
}

TEST(MpTableTest, ListsProcessorsBusAndIoApic) {
    const auto table = make_mp_table(pc_board(3), kAddress);
    const auto config = config_of(table);
    const auto processors = entries_of(config, 0);
    ASSERT_EQ(processors.size(), 3U);
    for (u8 n = 0; n < 3; ++n) {
        EXPECT_EQ(at<u8>(processors[n], 1), n);
        EXPECT_EQ(at<u8>(processors[n], 3), n == 0 ? 3 : 1);  // enabled, bootstrap
    }
    const auto buses = entries_of(config, 1);
    ASSERT_EQ(buses.size(), 2U);
    EXPECT_EQ(at<u8>(buses[0], 1), 0) << "PCI buses keep their numbers";
    EXPECT_EQ(text(buses[0], 2, 6), "PCI   ");
    EXPECT_EQ(at<u8>(buses[1], 1), 1);
    EXPECT_EQ(text(buses[1], 2, 6), "ISA   ");
    ASSERT_EQ(entries_of(config, 2).size(), 1U);
    EXPECT_EQ(at<u8>(entries_of(config, 2)[0], 1), 3);
    EXPECT_EQ(at<u32>(entries_of(config, 2)[0], 4), 0xfec00000U);
}

TEST(MpTableTest, RoutesIsaInterrupts) {
    const auto table = make_mp_table(pc_board(1), kAddress);
    std::map<u8, std::pair<u8, u16>> pins;  // IRQ -> pin, flags
    for (const auto& entry : entries_of(config_of(table), 3)) {
        EXPECT_EQ(at<u8>(entry, 1), 0);
        EXPECT_EQ(at<u8>(entry, 6), 1);
        if (at<u8>(entry, 4) == 0) continue;  // PCI
        pins[at<u8>(entry, 5)] = {at<u8>(entry, 7), at<u16>(entry, 2)};
    }
    EXPECT_EQ(pins.size(), 15U);
    EXPECT_FALSE(pins.contains(2));  // the cascade
    EXPECT_EQ(pins[0].first, 2);     // the timer
    EXPECT_EQ(pins[4].first, 4);
    EXPECT_EQ(pins[4].second, 0);
    EXPECT_EQ(pins[9].second, 0x0d);  // SCI: level, active high
    const auto local = entries_of(config_of(table), 4);
    ASSERT_EQ(local.size(), 2U);
    EXPECT_EQ(at<u8>(local[0], 1), 3);  // ExtINT at the bootstrap CPU's LINT0
    EXPECT_EQ(at<u8>(local[0], 6), 0);
    EXPECT_EQ(at<u8>(local[0], 7), 0);
    EXPECT_EQ(at<u8>(local[1], 1), 1);  // NMI at everybody's LINT1
    EXPECT_EQ(at<u8>(local[1], 6), 0xff);
    EXPECT_EQ(at<u8>(local[1], 7), 1);
}

// [MP 1.4 D.3]: the source is device * 4 + pin; polarity and trigger are the bus's.
TEST(MpTableTest, RoutesEveryPciPinToPins16To23) {
    const auto table = make_mp_table(pc_board(1), kAddress);
    std::map<u8, u8> pins;
    for (const auto& entry : entries_of(config_of(table), 3)) {
        if (at<u8>(entry, 4) != 0) continue;
        EXPECT_EQ(at<u16>(entry, 2), 0);
        pins[at<u8>(entry, 5)] = at<u8>(entry, 7);
    }
    ASSERT_EQ(pins.size(), 128U);
    EXPECT_EQ(pins[0], 16);
    EXPECT_EQ(pins[1 * 4 + 0], 17);
    EXPECT_EQ(pins[1 * 4 + 3], 20);
    EXPECT_EQ(pins[31 * 4 + 0], 23);
    EXPECT_EQ(pins[31 * 4 + 1], 16);
}

TEST(MpTableTest, WithoutPciTheIsaBusIsTheFirst) {
    const auto table = make_mp_table(microvm_board(1), kAddress);
    const auto buses = entries_of(config_of(table), 1);
    ASSERT_EQ(buses.size(), 1U);
    EXPECT_EQ(at<u8>(buses[0], 1), 0);
    EXPECT_EQ(entries_of(config_of(table), 3).size(), 15U);
}

TEST(MpTableTest, LeavesOutCpusWithWideIds) {
    const auto table = make_mp_table(pc_board(1024), kAddress);
    EXPECT_EQ(entries_of(config_of(table), 0).size(), 255U);
    EXPECT_EQ(sum(config_of(table)), 0U);
}

TEST(MpTableTest, NoIoApicNoTable) {
    BoardDescription board;
    board.io_apic.reset();
    EXPECT_TRUE(make_mp_table(board, kAddress).empty());
}

}  // namespace
}  // namespace tessera::boot
