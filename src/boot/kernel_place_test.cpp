#include "boot/kernel_place.h"

#include <gtest/gtest.h>
#include <set>

namespace tessera::boot {
namespace {

constexpr u64 kM = 1 << 20;
constexpr KernelShape kShape64{.elf_class = ElfClass::Elf64,
                               .begin = 16 * kM,
                               .size = 50 * kM,
                               .alignment = 2 * kM,
                               .relocations = true};

TEST(KernelPlaceTest, WithoutRandomNumbersItStays) {
    const KernelPlace place = place_kernel(kShape64, std::nullopt, 512 * kM);
    EXPECT_EQ(place.begin, 16 * kM);
    EXPECT_EQ(place.virtual_offset, 0U);
    EXPECT_FALSE(place.random);
}

TEST(KernelPlaceTest, EveryPlaceIsAlignedInBoundsAndReached) {
    std::set<u64> physical;
    std::set<u64> virtual_offsets;
    for (u64 n = 0; n < 2000; ++n) {
        const KernelPlace place = place_kernel(kShape64, std::array{n, n}, 512 * kM);
        EXPECT_TRUE(place.random);
        EXPECT_EQ(place.begin % (2 * kM), 0U);
        EXPECT_GE(place.begin, 16 * kM);
        EXPECT_LE(place.begin + 50 * kM, 512 * kM);
        EXPECT_EQ(place.virtual_offset % (2 * kM), 0U);
        EXPECT_LE(16 * kM + place.virtual_offset + 50 * kM, 1024 * kM);
        physical.insert(place.begin);
        virtual_offsets.insert(place.virtual_offset);
    }
    EXPECT_EQ(physical.size(), (512 - 50 - 16) / 2 + 1U);
    EXPECT_EQ(virtual_offsets.size(), (1024 - 50 - 16) / 2 + 1U);
}

TEST(KernelPlaceTest, TheTwoNumbersChooseIndependently) {
    const KernelPlace place = place_kernel(kShape64, std::array<u64, 2>{3, 5}, 512 * kM);
    EXPECT_EQ(place.virtual_offset, 6 * kM);
    EXPECT_EQ(place.begin, 26 * kM);
}

TEST(KernelPlaceTest, WithoutRoomItStaysButItsVirtualAddressMoves) {
    for (const u64 limit : {u64{0}, 16 * kM, 65 * kM, 66 * kM, 67 * kM}) {
        const KernelPlace place = place_kernel(kShape64, std::array<u64, 2>{7, 7}, limit);
        EXPECT_EQ(place.begin, 16 * kM) << limit;
        EXPECT_EQ(place.virtual_offset, 14 * kM);
    }
}

TEST(KernelPlaceTest, A64BitKernelMovesByPagesOf2MiBAtLeast) {
    KernelShape shape = kShape64;
    shape.alignment = 4096;
    for (u64 n = 0; n < 100; ++n) {
        const KernelPlace place = place_kernel(shape, std::array{n, n}, 512 * kM);
        EXPECT_EQ(place.begin % (2 * kM), 0U);
        EXPECT_EQ(place.virtual_offset % (2 * kM), 0U);
    }
}

TEST(KernelPlaceTest, A32BitKernelMovesAsAWholeBelow512MiB) {
    KernelShape shape = kShape64;
    shape.elf_class = ElfClass::Elf32;
    shape.alignment = 16 * kM;
    std::set<u64> places;
    for (u64 n = 0; n < 100; ++n) {
        const KernelPlace place = place_kernel(shape, std::array<u64, 2>{99, n}, 3072 * kM);
        EXPECT_EQ(place.begin - 16 * kM, place.virtual_offset);
        EXPECT_LE(place.begin + 50 * kM, 512 * kM);
        places.insert(place.begin);
    }
    EXPECT_EQ(places.size(), (512 - 50 - 16) / 16 + 1U);
}

TEST(KernelPlaceTest, WhatCannotBeMovedStays) {
    KernelShape shape = kShape64;
    shape.alignment = 0;
    EXPECT_FALSE(place_kernel(shape, std::array<u64, 2>{9, 9}, 512 * kM).random);
    shape = kShape64;
    shape.relocations = false;
    EXPECT_FALSE(place_kernel(shape, std::array<u64, 2>{9, 9}, 512 * kM).random);
    EXPECT_EQ(place_kernel(shape, std::array<u64, 2>{9, 9}, 512 * kM).begin, 16 * kM);
}

TEST(KernelPlaceTest, TheCommandLineIsReadByWords) {
    EXPECT_FALSE(place_wishes("console=ttyS0 quiet").fixed);
    EXPECT_TRUE(place_wishes("nokaslr").fixed);
    EXPECT_TRUE(place_wishes("a  nokaslr\tb").fixed);
    EXPECT_FALSE(place_wishes("nokaslr=1 xnokaslr nokaslrx").fixed);
    EXPECT_TRUE(place_wishes("quiet mem=100M").fixed_physical);
    EXPECT_TRUE(place_wishes("memmap=1M$2M").fixed_physical);
    EXPECT_FALSE(place_wishes("amem=1 memtest=2 nokaslr").fixed_physical);
}

}  // namespace
}  // namespace tessera::boot
