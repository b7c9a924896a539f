#include "vm/guest_ram.h"

#include <algorithm>
#include <gtest/gtest.h>
#include <sys/mman.h>

namespace tessera {
namespace {

constexpr u64 kSize = 2 * kMiB;

class GuestRamSharingTest : public testing::TestWithParam<RamSharing> {};
INSTANTIATE_TEST_SUITE_P(Both, GuestRamSharingTest, testing::Values(RamSharing::Private, RamSharing::Shared));

TEST_P(GuestRamSharingTest, IsZeroAtFirstAndAfterClear) {
    const auto ram = GuestRam::create("ram", kSize, GetParam());
    ASSERT_TRUE(ram.has_value());
    const auto bytes = (*ram)->bytes();
    ASSERT_EQ(bytes.size(), kSize);
    const auto is_zero = [](std::byte b) { return b == std::byte{0}; };
    EXPECT_TRUE(std::ranges::all_of(bytes, is_zero));
    bytes.front() = std::byte{1};
    bytes.back() = std::byte{2};
    ASSERT_TRUE((*ram)->clear().has_value());
    EXPECT_TRUE(std::ranges::all_of(bytes, is_zero));
}

TEST_P(GuestRamSharingTest, BeginsAtAHugePageWhateverItsSize) {
    for (const u64 size : {u64{4096}, kSize - 4096, kSize + 4096, 5 * kMiB}) {
        const auto ram = GuestRam::create("ram", size, GetParam());
        ASSERT_TRUE(ram.has_value());
        EXPECT_EQ((*ram)->bytes().size(), size);
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>((*ram)->bytes().data()) % (2 * kMiB), 0U);
        (*ram)->bytes().front() = (*ram)->bytes().back() = std::byte{1};
    }
}

TEST(GuestRamTest, PrivateMemoryHasNoDescriptor) {
    EXPECT_EQ((*GuestRam::create("ram", kSize))->fd(), -1);
}

TEST(GuestRamTest, AnotherMappingOfItsDescriptorSeesTheSameBytes) {
    const auto ram = GuestRam::create("ram", kSize, RamSharing::Shared);
    ASSERT_TRUE(ram.has_value());
    void* other = mmap(nullptr, kSize, PROT_READ, MAP_SHARED, (*ram)->fd(), 0);
    ASSERT_NE(other, MAP_FAILED);
    (*ram)->bytes()[4096] = std::byte{0x5a};
    EXPECT_EQ(static_cast<const std::byte*>(other)[4096], std::byte{0x5a});
    (void)munmap(other, kSize);
}

TEST(GuestRamTest, RefusesMoreThanTheHostHasAndSaysHowMuchThatIs) {
    const auto ram = GuestRam::create("ram", u64{1} << 50);
    ASSERT_FALSE(ram.has_value());
    EXPECT_EQ(ram.error().code, Errc::HostFailure);
    EXPECT_NE(ram.error().message.find("1073741824 MiB"), std::string::npos) << ram.error().message;
    EXPECT_NE(ram.error().message.find("--memory"), std::string::npos);
}

}  // namespace
}  // namespace tessera
