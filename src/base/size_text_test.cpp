#include "base/size_text.h"

#include <gtest/gtest.h>

namespace tessera {
namespace {

TEST(SizeTextTest, HasTheLargestUnitOfWhichThereIsOne) {
    EXPECT_EQ(size_text(0), "0 bytes");
    EXPECT_EQ(size_text(1023), "1023 bytes");
    EXPECT_EQ(size_text(640 * kKiB), "640 KiB");
    EXPECT_EQ(size_text(12 * kMiB + 512 * kKiB), "12.5 MiB");
    EXPECT_EQ(size_text(kGiB + kGiB / 3), "1.333 GiB");
    EXPECT_EQ(size_text(~u64{0}), "16 EiB");
}

}  // namespace
}  // namespace tessera
