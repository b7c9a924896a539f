// Tells people what the host refused. A disk that fails does so for each request, so only the first few are
// told.
#pragma once

#include <cstdio>
#include <fmt/format.h>
#include <functional>
#include <mutex>
#include <string>

#include "base/types.h"

namespace tessera::block {

class BlockLog {
public:
    using Report = std::function<void(const std::string&)>;
    explicit BlockLog(Report report = nullptr) : report_(std::move(report)) {}

    void say(const std::string& line) {
        const std::scoped_lock lock(mutex_);
        last_ = line;
        if (told_ > kMostLines) return;
        const bool final = told_++ == kMostLines;
        const std::string text = final ? line + " (no more of this disk's failures are shown)" : line;
        if (report_)
            report_(text);
        else
            fmt::print(stderr, "tessera: {}\n", text);
    }
    // The latest line, for commands that end with it.
    [[nodiscard]] std::string last() const {
        const std::scoped_lock lock(mutex_);
        return last_;
    }

private:
    static constexpr u32 kMostLines = 16;
    mutable std::mutex mutex_;
    Report report_;
    std::string last_;
    u32 told_ = 0;
};

}  // namespace tessera::block
