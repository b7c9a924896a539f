#include "app/settings.h"

#include <gtest/gtest.h>

namespace tessera::app {
namespace {

std::vector<std::string> wholes(std::string_view text, Commas commas) {
    std::vector<std::string> all;
    for (const Setting& setting : split_settings(text, commas)) all.push_back(setting.whole);
    return all;
}

TEST(SettingsTest, CommasSeparateAndDoubledOnesMayBeText) {
    using All = std::vector<std::string>;
    EXPECT_EQ(wholes("", Commas::Separate), All{""});
    EXPECT_EQ(wholes("a,b=1", Commas::Separate), (All{"a", "b=1"}));
    EXPECT_EQ(wholes("a,,b", Commas::Separate), (All{"a", "", "b"}));
    EXPECT_EQ(wholes("a,", Commas::Separate), (All{"a", ""}));
    EXPECT_EQ(wholes("a,,b", Commas::DoubledAreText), (All{"a,b"}));
    EXPECT_EQ(wholes("a,,,b", Commas::DoubledAreText), (All{"a,", "b"}));
    EXPECT_EQ(wholes("a,", Commas::DoubledAreText), (All{"a", ""}));
}

TEST(SettingsTest, AValueIsWhatFollowsTheFirstEqualsSign) {
    const auto settings = split_settings("flag,empty=,path=/a=b", Commas::Separate);
    EXPECT_EQ(settings[0].name, "flag");
    EXPECT_EQ(settings[0].value, std::nullopt);
    EXPECT_EQ(settings[1].name, "empty");
    EXPECT_EQ(settings[1].value, "");
    EXPECT_EQ(settings[2].name, "path");
    EXPECT_EQ(settings[2].value, "/a=b");
}

TEST(SettingsTest, NumbersAreWholeWordsWithinTheirLimits) {
    EXPECT_EQ(number_of("7", 1U, 9), 7U);
    EXPECT_EQ(number_of<u8>("ff", 0, 255, 16), 255);
    for (const char* wrong : {"", "0", "10", "-1", "+1", "1x", " 1", "0x1", "99999999999999999999"})
        EXPECT_EQ(number_of(wrong, 1U, 9), std::nullopt) << wrong;
}

struct Target {
    unsigned number = 0;
    bool on = false;
    unsigned times = 0;
};

std::string take(std::string_view text, Target& target) {
    static constexpr std::array<KnownSetting<Target>, 3> kKnown{
        {{.name = "number",
          .take = [](const Setting& s,
                     Target& t) { return take_number(s.value.value_or(""), 1, 9, t.number); }},
         {.name = "on", .take = [](const Setting& s, Target& t) { return take_on_off(s, t.on); }},
         {.name = "often",
          .take = [](const Setting&, Target& t) { return ++t.times, std::string(); },
          .times = Times::Any}}};
    return take_settings<Target>("--it", text, split_settings(text, Commas::Separate), kKnown,
                                 "there are some", target);
}

TEST(SettingsTest, EachIsTakenByItsName) {
    Target target;
    EXPECT_EQ(take("often,number=3,on=on,often", target), "");
    EXPECT_EQ(target.number, 3U);
    EXPECT_TRUE(target.on);
    EXPECT_EQ(target.times, 2U);
}

TEST(SettingsTest, RefusalsNameTheOptionAndThePart) {
    Target target;
    EXPECT_EQ(take("on=on,what", target), "--it on=on,what: what: there are some");
    EXPECT_EQ(take("what", target), "--it what: there are some");
    EXPECT_EQ(take("on=on,", target), "--it on=on,: an empty setting: there are some");
    EXPECT_EQ(take("on=on,on=off", target), "--it on=on,on=off: on=off: given twice");
    EXPECT_EQ(take("often,number=10", target), "--it often,number=10: number=10: give a number from 1 to 9");
    EXPECT_EQ(take("often,on", target), "--it often,on: on: give on=on or on=off");
}

}  // namespace
}  // namespace tessera::app
