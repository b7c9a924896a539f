#include "cpu/kvm/host.h"

#include <algorithm>
#include <gtest/gtest.h>

namespace tessera::kvm {
namespace {

TEST(KvmHostTest, NamesTheFileThatIsMissing) {
    const auto host = Host::open("/dev/no-such-device");
    ASSERT_FALSE(host);
    EXPECT_EQ(host.error().message, "cannot open /dev/no-such-device: No such file or directory");
}

TEST(KvmHostTest, AFileThatIsNotKvmIsRefused) {
    const auto host = Host::open("/dev/null");
    ASSERT_FALSE(host);
    EXPECT_NE(host.error().message.find("/dev/null"), std::string::npos);
}

// The calls whose structures end in an array of any length: see linux_kvm.h.
TEST(KvmHostTest, ListsWhatTheHostSupports) {
    const auto host = Host::open();
    if (!host) GTEST_SKIP() << host.error().message;
    EXPECT_TRUE(std::ranges::any_of(host->supported_cpuid(), [](const kvm_cpuid_entry2& leaf) {
        constexpr u32 kLongMode = 1u << 29;
        return leaf.function == 0x8000'0001 && (leaf.edx & kLongMode) != 0;
    }));
    const auto indices = host->msr_indices();
    ASSERT_TRUE(indices) << indices.error().message;
    for (const u32 index : {0x10u, 0x174u, 0x277u, 0xc000'0081u})
        EXPECT_NE(std::ranges::find(*indices, index), indices->end()) << index;
    EXPECT_GE(host->most_cpus(), 1u);
}

}  // namespace
}  // namespace tessera::kvm
