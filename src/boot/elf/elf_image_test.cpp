#include "boot/elf/elf_image.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "boot/testing/kernel_files.h"

namespace tessera::boot {
namespace {

using testing::HasSubstr;

std::string refusal(const Bytes& file) {
    const auto image = parse_elf("vmlinux", file);
    return image ? "accepted" : image.error().message;
}

TEST(ElfImageTest, ReadsBothClassesByPhysicalAddress) {
    for (const bool is64 : {true, false}) {
        const Bytes file = make_elf({.is64 = is64});
        const auto image = parse_elf("vmlinux", file);
        ASSERT_TRUE(image) << image.error().message;
        EXPECT_EQ(image->elf_class, is64 ? ElfClass::Elf64 : ElfClass::Elf32);
        EXPECT_EQ(image->entry, 0x100010U);
        ASSERT_EQ(image->segments.size(), 1U);
        EXPECT_EQ(image->segments[0].address, 0x100000U);
        EXPECT_EQ(image->segments[0].bytes.data(), file.data() + 0x1000);
        EXPECT_EQ(image->segments[0].bytes.size(), 0x1000U);
        EXPECT_EQ(image->segments[0].memory_size, 0x3000U);
        EXPECT_FALSE(image->pvh_entry);
    }
}

TEST(ElfImageTest, FindsThePvhNoteBehindOtherNotes) {
    for (const bool is64 : {true, false})
        EXPECT_EQ(parse_elf("vmlinux", make_elf({.is64 = is64, .pvh = true}))->pvh_entry, 0x100020U);
}

TEST(ElfImageTest, BrokenNotesAreNoNotes) {
    for (const u32 size : {5U, 12U, 0xfffffff0U, 0xffffffffU})
        for (const std::size_t field : {0x400U, 0x404U, 0x410U, 0x414U}) {
            Bytes file = make_elf({.pvh = true});
            poke<u32>(file, field, size);
            const auto image = parse_elf("vmlinux", file);
            ASSERT_TRUE(image);
            EXPECT_FALSE(image->pvh_entry) << field << " " << size;
        }
}

TEST(ElfImageTest, SegmentsAreSortedAndMustNotOverlap) {
    Bytes file = make_elf();
    poke<u16>(file, 56, 2);
    std::memcpy(file.data() + 120, file.data() + 64, 56);
    poke<u64>(file, 120 + 24, 0x80000000);
    ASSERT_TRUE(parse_elf("vmlinux", file));
    poke<u64>(file, 64 + 24, 0x90000000);
    EXPECT_EQ(parse_elf("vmlinux", file)->begin(), 0x80000000U);
    EXPECT_EQ(parse_elf("vmlinux", file)->end(), 0x90003000U);
    poke<u64>(file, 64 + 24, 0x80002fff);
    EXPECT_THAT(refusal(file), HasSubstr("overlap at 0x80002fff"));
}

TEST(ElfImageTest, EveryTruncationIsRefused) {
    const Bytes whole = make_elf({.pvh = true});
    for (std::size_t size = 0; size < whole.size(); ++size)
        ASSERT_FALSE(parse_elf("vmlinux", std::span(whole).first(size))) << size;
    EXPECT_THAT(refusal(Bytes(whole.begin(), whole.begin() + 0x1800)), HasSubstr("vmlinux: truncated"));
}

TEST(ElfImageTest, RefusesAbsurdNumbers) {
    for (const u64 value : {~u64{0}, ~u64{0} - 0xfff, u64{1} << 63, u64{0x2001}}) {
        for (const std::size_t field : {32, 64 + 8, 64 + 32}) {  // phoff, p_offset, p_filesz
            Bytes file = make_elf();
            poke<u64>(file, field, value);
            EXPECT_NE(refusal(file), "accepted") << field << " " << value;
        }
    }
    Bytes file = make_elf();
    poke<u64>(file, 64 + 24, ~u64{0} - 0xfff);  // wraps
    EXPECT_THAT(refusal(file), HasSubstr("wraps"));
    file = make_elf();
    poke<u64>(file, 64 + 40, 0x100);
    EXPECT_THAT(refusal(file), HasSubstr("smaller in memory"));
    file = make_elf();
    poke<u16>(file, 56, 0xffff);
    EXPECT_THAT(refusal(file), HasSubstr("65535 program headers"));
    file = make_elf();
    poke<u16>(file, 54, 8);
    EXPECT_THAT(refusal(file), HasSubstr("of 8 bytes"));
}

TEST(ElfImageTest, RefusesOtherMachinesAndTypes) {
    Bytes file = make_elf();
    poke<u16>(file, 18, 183);  // AArch64
    EXPECT_THAT(refusal(file), HasSubstr("another processor"));
    file = make_elf();
    poke<u8>(file, 5, 2);  // big-endian
    EXPECT_THAT(refusal(file), HasSubstr("another processor"));
    file = make_elf();
    poke<u16>(file, 16, 1);
    EXPECT_THAT(refusal(file), HasSubstr("not an executable"));
    file = make_elf();
    poke<u16>(file, 56, 0);
    EXPECT_THAT(refusal(file), HasSubstr("without program headers"));
    file = make_elf();
    poke<u32>(file, 64, 7);
    EXPECT_THAT(refusal(file), HasSubstr("nothing to load"));
    EXPECT_THAT(refusal(Bytes(100)), HasSubstr("not an ELF file"));
}

}  // namespace
}  // namespace tessera::boot
