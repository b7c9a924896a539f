// How far a long command is: a bar on a terminal, or lines of JSON for programs.
#pragma once

#include <chrono>
#include <string>

#include "base/types.h"

namespace tessera::app {

enum class ProgressKind : u8 {
    Auto,  // a bar if standard error is a terminal
    Json,  // lines on standard output
    None,
};

class ProgressBar {
public:
    using Clock = std::chrono::steady_clock;

    ProgressBar(ProgressKind kind, std::string what);
    void update(u64 done, u64 total);
    void finish();

    // The text of a bar and of a line of JSON, after so many seconds.
    [[nodiscard]] static std::string bar(const std::string& what, u64 done, u64 total, double seconds);
    [[nodiscard]] static std::string json(const std::string& what, u64 done, u64 total, double seconds);

private:
    const ProgressKind kind_;
    const std::string what_;
    const Clock::time_point begin_ = Clock::now();
    Clock::time_point shown_;  // 0: not yet
    bool drawn_ = false;
    u64 total_ = 0;
};

}  // namespace tessera::app
