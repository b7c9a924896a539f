// How long to look for work before sleeping. Waking a sleeping thread takes longer than much of what threads
// wait for: a while of looking pays if that is how work has come lately, and is wasted if it has not.
#pragma once

#include <algorithm>

#include "base/types.h"

namespace tessera {

class LookWindow {
public:
    static constexpr u64 kMostNs = 50'000;
    // A wait with sleep that was no longer might have been one without.
    static constexpr u64 kShortWaitNs = 250'000;
    // After looking in vain so many short waits pass before the next try at most.
    static constexpr u32 kLongestPause = 256;

    // For the next wait.
    [[nodiscard]] u64 ns() const { return window_ns_; }
    // It is over, and lasted so long; `found` if the work came while it was looked for.
    enum class Came : u8 { WhileLooking, WhileAsleep };
    void waited(u64 ns, Came came) {
        if (came == Came::WhileLooking) {
            window_ns_ = kMostNs;
            pause_ = 1;
        } else if (window_ns_ != 0) {
            window_ns_ /= 2;
            if (window_ns_ >= kLeastNs) return;
            window_ns_ = 0;
            left_ = pause_;
            pause_ = std::min(pause_ * 2, kLongestPause);
        } else if (ns <= kShortWaitNs && --left_ == 0) {
            window_ns_ = kMostNs;
        }
    }

private:
    static constexpr u64 kLeastNs = 10'000;
    u64 window_ns_ = 0;
    u32 pause_ = 1;
    u32 left_ = 1;  // short waits until the next try
};

}  // namespace tessera
