// The keys that belong to us and not to the guest, as QEMU has them: Ctrl-a, then a letter.
// [QEMU system/mux-chardev]
#pragma once

#include <string_view>

#include "base/types.h"

namespace tessera {

class EscapeKeys {
public:
    enum class Action : u8 {
        Send,        // a byte for the guest
        Wait,        // the escape key itself: nothing yet
        Help,        // h
        Quit,        // x
        Break,       // b
        TimeStamps,  // t: switch time stamps on or off
        Statistics,  // s (a disk command in QEMU)
        Monitor,     // c
        Ignore,      // the escape key and something without a meaning
    };
    struct Step {
        Action action;
        u8 byte;
    };

    static constexpr u8 kCtrlA = 0x01;

    Step feed(u8 key);
    static std::string_view help();

private:
    bool escaped_ = false;
};

}  // namespace tessera
