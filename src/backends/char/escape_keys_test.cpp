#include "backends/char/escape_keys.h"

#include <gtest/gtest.h>

namespace tessera {
namespace {

using Action = EscapeKeys::Action;

Action after_ctrl_a(u8 key) {
    EscapeKeys keys;
    EXPECT_EQ(keys.feed(1).action, Action::Wait);
    return keys.feed(key).action;
}

TEST(EscapeKeysTest, EveryOtherByteIsTheGuests) {
    EscapeKeys keys;
    for (unsigned key = 0; key < 256; ++key) {
        if (key == 1) continue;
        const auto step = keys.feed(static_cast<u8>(key));
        EXPECT_EQ(step.action, Action::Send);
        EXPECT_EQ(step.byte, key);
    }
}

TEST(EscapeKeysTest, HasTheLettersOfQemu) {
    EXPECT_EQ(after_ctrl_a('h'), Action::Help);
    EXPECT_EQ(after_ctrl_a('x'), Action::Quit);
    EXPECT_EQ(after_ctrl_a('b'), Action::Break);
    EXPECT_EQ(after_ctrl_a('t'), Action::TimeStamps);
    EXPECT_EQ(after_ctrl_a('c'), Action::Monitor);
    EXPECT_EQ(after_ctrl_a('s'), Action::Statistics);
    EXPECT_EQ(after_ctrl_a('q'), Action::Ignore);
}

TEST(EscapeKeysTest, CtrlATwiceSendsOne) {
    EscapeKeys keys;
    keys.feed(1);
    const auto step = keys.feed(1);
    EXPECT_EQ(step.action, Action::Send);
    EXPECT_EQ(step.byte, 1);
    EXPECT_EQ(keys.feed('x').action, Action::Send) << "the escape is over after one key";
}

}  // namespace
}  // namespace tessera
