#include "memory/memory_map.h"

#include <gtest/gtest.h>
#include <vector>

namespace tessera {
namespace {

// Two neighbours in one piece of the host, a third beside them that is somewhere else, and a ROM.
struct MemoryMapTest : testing::Test {
    MemoryMapTest() {
        const std::span all(host);
        EXPECT_TRUE(map.add("low", RegionKind::Ram, 0, all.first(kPageSize)));
        EXPECT_TRUE(map.add("next", RegionKind::Ram, kPageSize, all.subspan(kPageSize, kPageSize)));
        EXPECT_TRUE(map.add("apart", RegionKind::Ram, 2 * kPageSize, elsewhere));
        EXPECT_TRUE(map.add("rom", RegionKind::Rom, 3 * kPageSize, rom));
        EXPECT_TRUE(map.add("top", RegionKind::Ram, ~kPageMask, top));
    }
    std::vector<std::byte> host = std::vector<std::byte>(2 * kPageSize);
    std::vector<std::byte> elsewhere = std::vector<std::byte>(kPageSize);
    std::vector<std::byte> rom = std::vector<std::byte>(kPageSize);
    std::vector<std::byte> top = std::vector<std::byte>(kPageSize);
    MemoryMap map;
};

TEST_F(MemoryMapTest, RamAtGivesTheBytesOfTheRegion) {
    const auto bytes = map.ram_at(16, 32);
    EXPECT_EQ(bytes.data(), host.data() + 16);
    EXPECT_EQ(bytes.size(), 32U);
}

TEST_F(MemoryMapTest, RamAtGoesOnIntoANeighbourThatIsOneInTheHostToo) {
    const auto bytes = map.ram_at(kPageSize - 16, 64);
    EXPECT_EQ(bytes.data(), host.data() + kPageSize - 16);
    EXPECT_EQ(bytes.size(), 64U);
    EXPECT_EQ(map.ram_at(0, 2 * kPageSize).size(), 2 * kPageSize);
}

TEST_F(MemoryMapTest, RamAtEndsWhereTheHostsPieceEnds) {
    // "apart" may by chance follow in the host; then it is one piece.
    const u64 most = host.data() + 2 * kPageSize == elsewhere.data() ? 32 : 16;
    EXPECT_EQ(map.ram_at(2 * kPageSize - 16, 32).size(), most);
    EXPECT_EQ(map.ram_at(2 * kPageSize, 32).data(), elsewhere.data());
}

TEST_F(MemoryMapTest, RamAtRefusesRomHolesAndWraps) {
    EXPECT_TRUE(map.ram_at(3 * kPageSize, 16).empty());
    EXPECT_TRUE(map.ram_at(0x1000'0000, 16).empty());
    EXPECT_EQ(map.ram_at(3 * kPageSize - 8, 16).size(), 8U);
    EXPECT_EQ(map.ram_at(~u64{0} - 7, 16).size(), 8U);
    EXPECT_TRUE(map.ram_at(0, 0).empty());
}

}  // namespace
}  // namespace tessera
