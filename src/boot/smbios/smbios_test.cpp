#include "boot/smbios/smbios.h"

#include <cstring>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <map>
#include <span>
#include <string>

namespace tessera::boot {
namespace {

constexpr u64 kAddress = 0xf0000;
constexpr u64 kM = 1 << 20;

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

struct Structure {
    u16 handle;
    std::span<const std::byte> fixed;
    std::vector<std::string> strings;

    [[nodiscard]] std::string string(std::size_t offset) const {
        const u8 number = at<u8>(fixed, offset);
        return number == 0 ? "" : strings.at(number - 1U);
    }
};

// Reads structures as [SMBIOS 3.6 6.1] says: a fixed part, strings, an empty string.
std::multimap<u8, Structure> read_structures(std::span<const std::byte> table) {
    std::multimap<u8, Structure> out;
    while (!table.empty()) {
        const u8 type = at<u8>(table, 0);
        const u8 size = at<u8>(table, 1);
        Structure s{.handle = at<u16>(table, 2), .fixed = table.first(size), .strings = {}};
        std::size_t end = size;
        if (at<u8>(table, end) == 0) ++end;
        while (at<u8>(table, end) != 0) {
            s.strings.emplace_back(reinterpret_cast<const char*>(table.data() + end));
            end += s.strings.back().size() + 1;
        }
        out.emplace(type, s);
        table = table.subspan(end + 1);
    }
    return out;
}

class SmbiosTest : public testing::Test {
protected:
    const Structure& only(u8 type) {
        EXPECT_EQ(structures.count(type), 1U) << unsigned{type};
        return structures.find(type)->second;
    }
    void make(u64 total) {
        auto made = make_smbios(board, split_ram(total), kAddress);
        ASSERT_TRUE(made) << made.error().message;
        bytes = *std::move(made);
        const auto entry = std::span(bytes).subspan(32);
        const u64 table = at<u64>(entry, 16) - kAddress;
        structures = read_structures(std::span(bytes).subspan(table, at<u32>(entry, 12)));
    }

    BoardDescription board = pc_board(2);
    std::vector<std::byte> bytes;
    std::multimap<u8, Structure> structures;
};

TEST_F(SmbiosTest, BothEntryPointsLeadToTheSameStructures) {
    make(512 * kM);
    const auto old_entry = std::span(bytes).first(0x1f);
    EXPECT_EQ(text(old_entry, 0, 4), "_SM_");
    EXPECT_EQ(at<u8>(old_entry, 5), 0x1f);
    EXPECT_EQ(sum(old_entry), 0U);
    EXPECT_EQ(text(old_entry, 0x10, 5), "_DMI_");
    EXPECT_EQ(sum(old_entry.subspan(0x10)), 0U);
    const auto entry = std::span(bytes).subspan(32, 0x18);
    EXPECT_EQ(text(entry, 0, 5), "_SM3_");
    EXPECT_EQ(sum(entry), 0U);
    EXPECT_EQ(at<u32>(old_entry, 0x18), at<u64>(entry, 16));
    EXPECT_EQ(at<u16>(old_entry, 0x16), at<u32>(entry, 12));
    EXPECT_EQ(at<u16>(old_entry, 0x1c), structures.size());
    EXPECT_EQ(at<u64>(entry, 16) % 16, 0U);
}

TEST_F(SmbiosTest, HandlesAreUniqueAndTheEndIsLast) {
    make(512 * kM);
    std::map<u16, u8> handles;
    for (const auto& [type, s] : structures) handles[s.handle] = type;
    EXPECT_EQ(handles.size(), structures.size());
    EXPECT_EQ(handles.rbegin()->second, 127);
}

TEST_F(SmbiosTest, NamesTheSystem) {
    board.identity.serial = "0815";
    for (u8 n = 0; n < 16; ++n) board.identity.uuid[n] = n;
    make(512 * kM);
    EXPECT_EQ(only(0).string(4), "Tessera");
    EXPECT_EQ(only(0).string(8), "01/01/2026");
    EXPECT_EQ(only(0).fixed.size(), 0x1aU);
    const Structure& system = only(1);
    EXPECT_EQ(system.fixed.size(), 0x1bU);
    EXPECT_EQ(system.string(4), "Tessera");
    EXPECT_EQ(system.string(5), "PC");
    EXPECT_EQ(system.string(7), "0815");
    EXPECT_EQ(at<u32>(system.fixed, 8), 0x00010203U);
    EXPECT_EQ(at<u16>(system.fixed, 12), 0x0405);
    EXPECT_EQ(at<u16>(system.fixed, 14), 0x0607);
    EXPECT_EQ(at<u8>(system.fixed, 16), 8);
    EXPECT_EQ(at<u8>(system.fixed, 23), 15);
}

TEST_F(SmbiosTest, CountsCores) {
    board = pc_board(300);
    board.cpu_signature = 0x00a20f10;
    board.cpu_features = 0x178bfbff;
    make(512 * kM);
    const Structure& cpu = only(4);
    EXPECT_EQ(cpu.fixed.size(), 0x32U);
    EXPECT_EQ(cpu.string(4), "CPU 0");
    EXPECT_EQ(at<u32>(cpu.fixed, 8), 0x00a20f10U);
    EXPECT_EQ(at<u32>(cpu.fixed, 12), 0x178bfbffU);
    EXPECT_EQ(at<u8>(cpu.fixed, 0x23), 0xff);
    EXPECT_EQ(at<u16>(cpu.fixed, 0x2a), 300);
    EXPECT_EQ(at<u16>(cpu.fixed, 0x2e), 300);
}

TEST_F(SmbiosTest, DescribesMemoryBelowAndAboveTheHole) {
    make(u64{5} * 1024 * kM);
    EXPECT_EQ(at<u32>(only(16).fixed, 7), 5U * 1024 * 1024);  // KiB
    EXPECT_EQ(only(17).fixed.size(), 0x5cU);
    EXPECT_EQ(at<u16>(only(17).fixed, 4), only(16).handle);
    EXPECT_EQ(at<u16>(only(17).fixed, 0x0c), 5 * 1024);  // MiB
    std::map<u32, u32> ranges;
    for (const auto& [type, s] : structures)
        if (type == 19) ranges[at<u32>(s.fixed, 4)] = at<u32>(s.fixed, 8);
    EXPECT_EQ(ranges, (std::map<u32, u32>{{0, 0x2fffff}, {0x400000, 0x5fffff}}));
}

TEST_F(SmbiosTest, HugeMemoryUsesTheExtendedFields) {
    make(u64{5} << 40);
    EXPECT_EQ(at<u32>(only(16).fixed, 7), 0x80000000U);
    EXPECT_EQ(at<u64>(only(16).fixed, 15), u64{5} << 40);
    EXPECT_EQ(at<u16>(only(17).fixed, 0x0c), 0x7fff);
    EXPECT_EQ(at<u32>(only(17).fixed, 0x1c), 5U << 20);
    bool found = false;
    for (const auto& [type, s] : structures)
        if (type == 19 && at<u32>(s.fixed, 4) == 0xffffffff) {
            found = true;
            EXPECT_EQ(at<u64>(s.fixed, 15), 0x1'0000'0000U);
            EXPECT_EQ(at<u64>(s.fixed, 23), (u64{5} << 40) + 0x4000'0000 - 1);
        }
    EXPECT_TRUE(found);
}

TEST_F(SmbiosTest, TextsThatDoNotFitAreRefused) {
    for (const std::string& bad : {std::string(65, 'x'), std::string("a\0b", 3), std::string("line\n")}) {
        board.identity.product = bad;
        const auto made = make_smbios(board, split_ram(kM), kAddress);
        ASSERT_FALSE(made);
        EXPECT_THAT(made.error().message, testing::HasSubstr("product name"));
    }
}

}  // namespace
}  // namespace tessera::boot
