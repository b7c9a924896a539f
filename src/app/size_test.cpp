#include "app/size.h"

#include <gtest/gtest.h>

namespace tessera::app {
namespace {

TEST(SizeTest, KnowsSuffixesAndRefusesTheRest) {
    EXPECT_EQ(parse_size("1"), u64{1} << 20);
    EXPECT_EQ(parse_size("64K"), u64{64} << 10);
    EXPECT_EQ(parse_size("3m"), u64{3} << 20);
    EXPECT_EQ(parse_size("5GiB"), u64{5} << 30);
    EXPECT_EQ(parse_size("1T"), u64{1} << 40);
    EXPECT_EQ(parse_size("8388608T"), u64{1} << 63);
    for (const char* wrong : {"", "0", "M", "-1", "1.5G", "1X", "8388609T", "1 G", "0x10"})
        EXPECT_EQ(parse_size(wrong), std::nullopt) << wrong;
}

}  // namespace
}  // namespace tessera::app
