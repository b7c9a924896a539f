#include "app/engine_option.h"

#include <gtest/gtest.h>

namespace tessera::app {
namespace {

EngineOption accepted(std::string_view text) {
    const auto option = parse_engine(text);
    if (!option) ADD_FAILURE() << option.error();
    return option.value_or(EngineOption{});
}

TEST(EngineOptionTest, NamesAlone) {
    EXPECT_EQ(accepted("auto").engine, EngineChoice::Auto);
    EXPECT_EQ(accepted("kvm").engine, EngineChoice::Kvm);
    const EngineOption soft = accepted("soft");
    EXPECT_EQ(soft.engine, EngineChoice::Soft);
    EXPECT_TRUE(soft.soft.jit);
    EXPECT_EQ(soft.soft.code_cache, u64{128} << 20);
    EXPECT_EQ(soft.soft.check, 0U);
    EXPECT_FALSE(soft.soft.strict_flags);
    EXPECT_EQ(soft.soft.count, std::nullopt);
}

TEST(EngineOptionTest, SettingsInAnyOrder) {
    EXPECT_FALSE(accepted("soft,jit=off").soft.jit);
    EXPECT_TRUE(accepted("soft,jit=on").soft.jit);
    EXPECT_EQ(accepted("soft,check").soft.check, 1U);
    const EngineOption all = accepted("soft,strict-flags,check=1000,cache=256M,jit=on,count=off");
    EXPECT_EQ(all.soft.count, false);
    EXPECT_TRUE(all.soft.strict_flags);
    EXPECT_EQ(all.soft.check, 1000U);
    EXPECT_EQ(all.soft.code_cache, u64{256} << 20);
    EXPECT_TRUE(all.soft.jit);
}

TEST(EngineOptionTest, CacheSizesHaveBounds) {
    EXPECT_EQ(accepted("soft,cache=1M").soft.code_cache, u64{1} << 20);
    EXPECT_EQ(accepted("soft,cache=1G").soft.code_cache, u64{1} << 30);
    for (const char* text : {"soft,cache=1023K", "soft,cache=1025M", "soft,cache=2G"}) {
        const auto option = parse_engine(text);
        ASSERT_FALSE(option) << text;
        EXPECT_NE(option.error().find("from 1M to 1G"), std::string::npos) << option.error();
    }
}

TEST(EngineOptionTest, RefusalsNameTheOptionThePartAndWhatIsPossible) {
    struct Case {
        const char* text;
        const char* part;
        const char* possible;
    };
    for (const Case& c :
         std::initializer_list<Case>{{"", "", "auto, kvm, soft"},
                                     {"steam", "steam", "auto, kvm, soft"},
                                     {"steam,jit=on", "steam", "auto, kvm, soft"},
                                     {"Soft", "Soft", "auto, kvm, soft"},
                                     {"auto,jit=off", "jit=off", "soft has jit=on|off"},
                                     {"kvm,", "empty setting", "irqchip=kernel|split|user"},
                                     {"kvm,irqchip", "irqchip", "kernel, split, user"},
                                     {"kvm,irqchip=none", "irqchip=none", "kernel, split, user"},
                                     {"soft,", "empty setting", "jit=on|off"},
                                     {"soft,,check", "empty setting", "jit=on|off"},
                                     {"soft,turbo", "turbo", "strict-flags"},
                                     {"soft,jit", "jit", "jit=on or jit=off"},
                                     {"soft,jit=", "jit=", "jit=on or jit=off"},
                                     {"soft,jit=yes", "jit=yes", "jit=on or jit=off"},
                                     {"soft,jit=on,jit=off", "jit=off", "twice"},
                                     {"soft,cache", "cache", "cache=64M"},
                                     {"soft,cache=much", "cache=much", "cache=64M"},
                                     {"soft,check=0", "check=0", "N from 1"},
                                     {"soft,check=-1", "check=-1", "N from 1"},
                                     {"soft,check=5x", "check=5x", "N from 1"},
                                     {"soft,check=99999999999999999999", "check=9", "N from 1"},
                                     {"soft,strict-flags=on", "strict-flags=on", "no value"},
                                     {"soft,jit=off,check", "check", "needs jit=on"}}) {
        const auto option = parse_engine(c.text);
        ASSERT_FALSE(option) << c.text;
        EXPECT_TRUE(option.error().starts_with("--engine ")) << option.error();
        EXPECT_NE(option.error().find(c.part), std::string::npos) << option.error();
        EXPECT_NE(option.error().find(c.possible), std::string::npos) << option.error();
    }
}

}  // namespace
}  // namespace tessera::app
