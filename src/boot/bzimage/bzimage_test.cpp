#include "boot/bzimage/bzimage.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "boot/testing/kernel_files.h"

namespace tessera::boot {
namespace {

using testing::HasSubstr;

std::string refusal(const Bytes& file) {
    const auto image = parse_bzimage("vmlinuz", file);
    return image ? "accepted" : image.error().message;
}

TEST(BzImageTest, ReadsWhatDebiansKernelSays) {
    const Bytes file = make_bzimage();
    const auto image = parse_bzimage("vmlinuz", file);
    ASSERT_TRUE(image) << image.error().message;
    EXPECT_EQ(image->version, 0x020f);
    EXPECT_TRUE(image->has_entry64);
    EXPECT_TRUE(image->initrd_above_4g);
    EXPECT_EQ(image->load_address, 0x1000000U);
    EXPECT_EQ(image->init_size, 0x300000U);
    EXPECT_EQ(image->initrd_address_max, 0x7fffffffU);
    EXPECT_EQ(image->cmdline_max, 2047U);
    EXPECT_EQ(image->protected_mode.data(), file.data() + 1024);
    EXPECT_EQ(image->protected_mode.size(), 4096U);
    EXPECT_EQ(image->setup_header.data(), file.data() + 0x1f1);
    EXPECT_EQ(image->setup_header.size(), 0x26cU - 0x1f1U);
}

TEST(BzImageTest, ZeroSetupSectorsMeanFour) {
    Bytes file = make_bzimage();
    poke<u8>(file, 0x1f1, 0);
    file.resize(5 * 512 + 4096);
    const auto image = parse_bzimage("vmlinuz", file);
    ASSERT_TRUE(image) << image.error().message;
    EXPECT_EQ(image->protected_mode.data(), file.data() + std::ptrdiff_t{5} * 512);
}

TEST(BzImageTest, SignatureAfterTheKernelIsNotLoaded) {
    Bytes file = make_bzimage();
    file.resize(file.size() + 1504);
    EXPECT_EQ(parse_bzimage("vmlinuz", file)->protected_mode.size(), 4096U);
}

TEST(BzImageTest, LastParagraphMayBeShort) {
    Bytes file = make_bzimage();
    file.resize(file.size() - 15);
    EXPECT_EQ(parse_bzimage("vmlinuz", file)->protected_mode.size(), 4096U - 15);
}

TEST(BzImageTest, FieldsOfNewerProtocolsAreIgnoredInOlderHeaders) {
    Bytes file = make_bzimage();
    poke<u16>(file, 0x206, 0x0202);
    const auto image = parse_bzimage("vmlinuz", file);
    ASSERT_TRUE(image) << image.error().message;
    EXPECT_FALSE(image->has_entry64);
    EXPECT_EQ(image->load_address, 0x100000U);
    EXPECT_EQ(image->initrd_address_max, 0x37ffffffU);
    EXPECT_EQ(image->cmdline_max, 255U);
    EXPECT_EQ(image->init_size, 4096U);
}

TEST(BzImageTest, FieldsBeyondTheHeadersEndAreIgnored) {
    Bytes file = make_bzimage();
    poke<u8>(file, 0x201, 0x36);  // ends at 0x238: cmdline_size, pref_address, init_size are code
    const auto image = parse_bzimage("vmlinuz", file);
    ASSERT_TRUE(image) << image.error().message;
    EXPECT_EQ(image->cmdline_max, 255U);
    EXPECT_EQ(image->load_address, 0x100000U);
}

TEST(BzImageTest, RelocatableKernelWithoutPreferenceIsAligned) {
    Bytes file = make_bzimage();
    poke<u16>(file, 0x206, 0x0205);
    EXPECT_EQ(parse_bzimage("vmlinuz", file)->load_address, 0x200000U);
    poke<u8>(file, 0x234, 0);
    EXPECT_EQ(parse_bzimage("vmlinuz", file)->load_address, 0x100000U);
}

TEST(BzImageTest, RefusesOtherFilesByName) {
    EXPECT_THAT(refusal(Bytes(4096)), HasSubstr("vmlinuz: not a bzImage"));
    Bytes file = make_bzimage();
    poke_text(file, 0x202, "HdrT");
    EXPECT_THAT(refusal(file), HasSubstr("not a bzImage"));
    file = make_bzimage();
    poke<u16>(file, 0x1fe, 0x55aa);
    EXPECT_THAT(refusal(file), HasSubstr("not a bzImage"));
}

TEST(BzImageTest, EveryTruncationIsRefused) {
    const Bytes whole = make_bzimage();
    for (std::size_t size = 0; size < whole.size() - 15; ++size) {
        const Bytes file(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
        const auto image = parse_bzimage("vmlinuz", file);
        ASSERT_FALSE(image) << size;
        ASSERT_THAT(image.error().message, HasSubstr("vmlinuz: ")) << size;
    }
    EXPECT_THAT(refusal(Bytes(whole.begin(), whole.begin() + 2000)),
                HasSubstr("truncated: the file has 2000 bytes, its header announces 5120"));
}

TEST(BzImageTest, RefusesWhatCannotBeStarted) {
    Bytes file = make_bzimage();
    poke<u16>(file, 0x206, 0x01ff);
    EXPECT_THAT(refusal(file), HasSubstr("boot protocol 1.255"));
    file = make_bzimage();
    poke<u8>(file, 0x211, 0);
    EXPECT_THAT(refusal(file), HasSubstr("zImage"));
    file = make_bzimage();
    poke<u8>(file, 0x201, 0x11);
    EXPECT_THAT(refusal(file), HasSubstr("header ends at 0x213"));
    file = make_bzimage();
    poke<u32>(file, 0x1f4, 0);
    EXPECT_THAT(refusal(file), HasSubstr("empty"));
}

TEST(BzImageTest, RefusesAbsurdNumbers) {
    for (const u32 alignment : {0U, 1U, 3U, 0x1800U, 0x80000000U}) {
        Bytes file = make_bzimage();
        poke<u32>(file, 0x230, alignment);
        EXPECT_THAT(refusal(file), HasSubstr("alignment")) << alignment;
    }
    for (const u64 address : {u64{0}, u64{0x1000}, u64{0xc0000000}, ~u64{0}, ~u64{0xfff}}) {
        Bytes file = make_bzimage();
        poke<u64>(file, 0x258, address);
        EXPECT_THAT(refusal(file), HasSubstr("outside")) << address;
    }
    Bytes file = make_bzimage();
    poke<u32>(file, 0x260, 0xffffffff);
    EXPECT_THAT(refusal(file), HasSubstr("outside"));
    file = make_bzimage();
    poke<u32>(file, 0x1f4, 0xffffffff);
    EXPECT_THAT(refusal(file), HasSubstr("truncated"));
}

TEST(BzImageTest, InitSizeIsAtLeastTheImage) {
    Bytes file = make_bzimage();
    poke<u32>(file, 0x260, 16);
    EXPECT_EQ(parse_bzimage("vmlinuz", file)->init_size, 4096U);
}

}  // namespace
}  // namespace tessera::boot
