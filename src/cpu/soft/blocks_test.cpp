// The cache of decoded code: nothing that is in it is decoded again.
#include "cpu/soft/blocks.h"

#include <gtest/gtest.h>

namespace tessera::soft {
namespace {

class BlockCacheTest : public ::testing::Test {
protected:
    // A block of one op at a physical address.
    const Op* add(u64 physical, u64 second_page = kNoPage) {
        Op* ops = cache_.reserve(4);
        *ops = Op{};
        const Block block{.key = BlockCache::key_of(physical, 2),
                          .ops = ops,
                          .op_count = 1,
                          .next_of_hash = 0,
                          .page = {physical & ~kPageMask, second_page},
                          .next = {}};
        return cache_.insert(block);
    }
    const Op* look(u64 physical) {
        const u64 key = BlockCache::key_of(physical, 2);
        const Op* found = cache_.find(key);
        return found != nullptr ? found : cache_.find_displaced(key);
    }

    BlockCache cache_{BlockCacheBounds{.ops = 1 << 20, .blocks = 1 << 17}};
};

TEST_F(BlockCacheTest, EveryBlockIsFoundHoweverManyThereAre) {
    std::vector<std::pair<u64, const Op*>> all;
    for (u64 i = 0; i < 60000; ++i) all.emplace_back(i * 67, add(i * 67));
    for (const auto& [physical, ops] : all) EXPECT_EQ(look(physical), ops);
    EXPECT_EQ(look(60000 * 67), nullptr);
}

TEST_F(BlockCacheTest, WhatWasDisplacedGetsItsPlaceBack) {
    // More blocks than a place of the hash has ways, all in the same place; so few that the hash does not
    // grow.
    const auto* place = &cache_.set_of(BlockCache::key_of(0, 2));
    std::vector<u64> same;
    for (u64 physical = 0; same.size() < 2 * BlockCache::kWays; ++physical)
        if (&cache_.set_of(BlockCache::key_of(physical, 2)) == place) same.push_back(physical);
    std::vector<const Op*> ops;
    for (const u64 physical : same) ops.push_back(add(physical));
    for (unsigned i = 0; i < same.size(); ++i) {
        EXPECT_EQ(look(same[i]), ops[i]);
        EXPECT_EQ(cache_.find(BlockCache::key_of(same[i], 2)), ops[i]);
    }
}

TEST_F(BlockCacheTest, DroppedPagesAreNotFoundAgain) {
    const Op* kept = add(0x1010);
    add(0x2020);
    add(0x2ffe, 0x3000);
    add(0x3030);
    add(0x4ffe, 0x2000);
    cache_.drop_page(0x2000);
    EXPECT_EQ(look(0x2020), nullptr);
    EXPECT_EQ(look(0x2ffe), nullptr);
    EXPECT_EQ(look(0x4ffe), nullptr) << "its last bytes are in the page";
    EXPECT_EQ(look(0x1010), kept);
    EXPECT_NE(look(0x3030), nullptr);
    cache_.drop_page(0x3000);
    EXPECT_EQ(look(0x3030), nullptr);
    cache_.drop_all();
    EXPECT_EQ(look(0x1010), nullptr);
}

TEST_F(BlockCacheTest, ANewBlockOfTheSameAddressCounts) {
    add(0x1ffe, 0x5000);
    const Op* again = add(0x1ffe, 0x6000);
    EXPECT_EQ(look(0x1ffe), again);
}

TEST_F(BlockCacheTest, WhatWasDroppedIsNotFoundAfterTheHashHasGrown) {
    add(0x2020);
    const Op* again = add(0x1ffe, 0x6000);
    cache_.drop_page(0x2000);
    for (u64 i = 0; i < 10000; ++i) add(0x10000 + i * 16);
    EXPECT_EQ(look(0x2020), nullptr);
    EXPECT_EQ(look(0x1ffe), again);
    cache_.drop_page(0x6000);
    EXPECT_EQ(look(0x1ffe), nullptr);
    for (u64 i = 0; i < 10000; ++i) EXPECT_NE(look(0x10000 + i * 16), nullptr);
    EXPECT_EQ(cache_.live(), 10000U);
}

TEST_F(BlockCacheTest, TheRoomOfDroppedBlocksIsUsedAgain) {
    cache_ = BlockCache(BlockCacheBounds{.ops = 256, .blocks = 100});
    const Op* kept = add(0x10'0000);
    for (u64 round = 0; round < 100; ++round) {
        for (u64 i = 0; i < 50; ++i) add(round % 3 * kPageSize + i * 64);
        for (u64 i = 0; i < 50; ++i) EXPECT_NE(look(round % 3 * kPageSize + i * 64), nullptr);
        cache_.drop_page(round % 3 * kPageSize);
        EXPECT_EQ(look(round % 3 * kPageSize), nullptr);
    }
    EXPECT_EQ(cache_.drops(), 100U) << "never full";
    EXPECT_EQ(look(0x10'0000), kept);
}

TEST_F(BlockCacheTest, AFullCacheStartsAnew) {
    for (const BlockCacheBounds& bounds :
         {BlockCacheBounds{.ops = 256, .blocks = 1000}, BlockCacheBounds{.ops = 4096, .blocks = 100}}) {
        cache_ = BlockCache(bounds);
        for (u64 i = 0; i < 1000; ++i) {
            const u64 drops = cache_.drops();
            const Op* ops = add(i * 64);
            EXPECT_EQ(look(i * 64), ops);
            EXPECT_EQ(look(0) != nullptr, cache_.drops() == 0);
            EXPECT_LE(cache_.drops() - drops, 1U);
        }
        EXPECT_GT(cache_.drops(), 2U);
        EXPECT_LE(cache_.live(), 252U);
    }
}

}  // namespace
}  // namespace tessera::soft
