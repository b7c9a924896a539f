#include "boot/relocation/relocation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "boot/bytes.h"
#include "boot/testing/packed_kernels.h"

namespace tessera::boot {
namespace {

using testing::HasSubstr;

// Finds the table and moves the kernel; what went wrong, or nothing.
std::string move(Bytes& file, u64 distance) {
    const auto image = parse_elf("vmlinux", file);
    if (!image) return image.error().message;
    const auto table = find_relocations("vmlinux", file, *image);
    if (!table) return table.error().message;
    const auto status = relocate("vmlinux", file, *image, *table, distance);
    return status ? "" : status.error().message;
}

TEST(RelocationTest, MovesEveryKindOfA64BitKernelsAddresses) {
    Bytes file = make_vmlinux();
    ASSERT_EQ(move(file, 0x0a40'0000), "");
    EXPECT_EQ(get_le<u64>(file, 0x1100), 0xffff'ffff'8b40'0010U);
    EXPECT_EQ(get_le<u32>(file, 0x1200), 0x7000'0000U - 0x0a40'0000U);
    EXPECT_EQ(get_le<u32>(file, 0x1300), 0x8b40'0020U);
}

TEST(RelocationTest, MovesA32BitKernel) {
    Bytes file = make_vmlinux(false);
    ASSERT_EQ(move(file, 0x0100'0000), "");
    EXPECT_EQ(get_le<u32>(file, 0x1300), 0xc200'0020U);
}

TEST(RelocationTest, NewerKernelsHaveNoNegatedOffsets) {
    Bytes file = make_vmlinux();
    file.resize(0x2000);
    for (const u32 word : {0U, 0x8100'0100U, 0U, 0x8100'0300U}) poke<u32>(file, file.size(), word);
    ASSERT_EQ(move(file, 0x0020'0000), "");
    EXPECT_EQ(get_le<u64>(file, 0x1100), 0xffff'ffff'8120'0010U);
    EXPECT_EQ(get_le<u32>(file, 0x1200), 0x7000'0000U);
    EXPECT_EQ(get_le<u32>(file, 0x1300), 0x8120'0020U);
}

TEST(RelocationTest, AnAddressMayStandAtTheEndOfTheKernelButNotBeyond) {
    Bytes file = make_vmlinux(false);
    poke<u32>(file, file.size() - 4, 0xc100'0ffc);
    EXPECT_EQ(move(file, 16), "");
    for (const u32 place : {0xc100'0ffdU, 0xc100'1000U, 0xc0ff'fffcU, 0xc0ff'ffffU, 1U, 0xffff'ffffU}) {
        poke<u32>(file, file.size() - 4, place);
        EXPECT_THAT(move(file, 16), HasSubstr("outside of the kernel")) << place;
    }
    file = make_vmlinux();
    for (const u32 place : {0x8100'0ff9U, 0x0100'0100U, 0x7fff'ffffU, 0xffff'ffffU}) {
        poke<u32>(file, 0x2004, place);
        EXPECT_THAT(move(file, 16), HasSubstr("outside of the kernel")) << place;
    }
}

TEST(RelocationTest, AKernelWithoutATableSaysSo) {
    const Bytes file = make_elf();
    const auto table = find_relocations("vmlinux", file, *parse_elf("vmlinux", file));
    ASSERT_FALSE(table);
    EXPECT_EQ(table.error().code, Errc::NotFound);
}

TEST(RelocationTest, SectionHeadersBelongToTheFile) {
    Bytes file = make_vmlinux();
    const Bytes table(file.begin() + 0x2000, file.end());
    file.resize(0x2000 + 3 * 64);
    poke<u64>(file, 0x28, 0x2000);  // e_shoff
    poke<u16>(file, 0x3a, 64);      // e_shentsize
    poke<u16>(file, 0x3c, 3);       // e_shnum
    file.insert(file.end(), table.begin(), table.end());
    EXPECT_EQ(move(file, 0x20'0000), "");
    EXPECT_EQ(get_le<u32>(file, 0x1300), 0x8120'0020U);
}

TEST(RelocationTest, OtherThingsBehindTheKernelAreRefused) {
    const auto with = [](std::initializer_list<u32> words, bool is64 = true) {
        Bytes file = make_vmlinux(is64);
        file.resize(0x2000);
        for (const u32 word : words) poke<u32>(file, file.size(), word);
        return move(file, 0x20'0000);
    };
    EXPECT_THAT(with({0x8100'0100U}), HasSubstr("does not begin"));
    EXPECT_THAT(with({0}), HasSubstr("two or three parts"));
    EXPECT_THAT(with({0, 0x8100'0100U}), HasSubstr("two or three parts"));
    EXPECT_THAT(with({0, 0, 0, 0, 0}), HasSubstr("too many parts"));
    EXPECT_THAT(with({0, 0}, false), HasSubstr("one part"));
    EXPECT_EQ(with({0, 0, 0}), "") << "nothing to move";
    Bytes odd = make_vmlinux();
    odd.resize(odd.size() + 1);
    EXPECT_THAT(move(odd, 16), HasSubstr("does not begin"));
}

}  // namespace
}  // namespace tessera::boot
