#include "app/progress.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <fmt/format.h>
#include <unistd.h>

#include "app/json_text.h"
#include "base/size_text.h"

namespace tessera::app {

namespace {

constexpr auto kInterval = std::chrono::milliseconds(100);
constexpr u64 kWidth = 24;

double fraction_of(u64 done, u64 total) {
    return total == 0 ? 1.0 : static_cast<double>(done) / static_cast<double>(total);
}
double rate_of(u64 done, double seconds) {
    return seconds > 0 ? static_cast<double>(done) / seconds : 0;
}
double seconds_left(u64 done, u64 total, double seconds) {
    const double rate = rate_of(done, seconds);
    return rate > 0 ? static_cast<double>(total - std::min(done, total)) / rate : 0;
}

}  // namespace

std::string ProgressBar::bar(const std::string& what, u64 done, u64 total, double seconds) {
    const double fraction = fraction_of(done, total);
    const auto full = static_cast<std::size_t>(fraction * static_cast<double>(kWidth));
    const auto left = std::chrono::round<std::chrono::seconds>(
                          std::chrono::duration<double>(seconds_left(done, total, seconds)))
                          .count();
    return fmt::format("{} [{}{}] {:3.0f}%  {} of {}, {}/s, {}:{:02} left", what, std::string(full, '#'),
                       std::string(kWidth - full, '-'), fraction * 100, size_text(done), size_text(total),
                       size_text(static_cast<u64>(rate_of(done, seconds))), left / 60, left % 60);
}

std::string ProgressBar::json(const std::string& what, u64 done, u64 total, double seconds) {
    return fmt::format(
        R"({{"command":{},"done":{},"total":{},"bytes_per_second":{:.0f},"seconds_left":{:.1f}}})",
        json_string(what), done, total, rate_of(done, seconds), seconds_left(done, total, seconds));
}

ProgressBar::ProgressBar(ProgressKind kind, std::string what)
    : kind_(kind == ProgressKind::Auto && isatty(STDERR_FILENO) == 0 ? ProgressKind::None : kind),
      what_(std::move(what)) {}

void ProgressBar::update(u64 done, u64 total) {
    const auto now = Clock::now();
    total_ = total;
    if (kind_ == ProgressKind::None || (now - shown_ < kInterval && done < total)) return;
    shown_ = now;
    const double seconds = std::chrono::duration<double>(now - begin_).count();
    if (kind_ == ProgressKind::Json) {
        fmt::print("{}\n", json(what_, done, total, seconds));
        (void)std::fflush(stdout);
        return;
    }
    fmt::print(stderr, "\r{}\033[K", bar(what_, done, total, seconds));
    drawn_ = true;
}

void ProgressBar::finish() {
    if (drawn_) fmt::print(stderr, "\n");
    drawn_ = false;
}

}  // namespace tessera::app
