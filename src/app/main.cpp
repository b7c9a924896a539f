// The `tessera` command: a thin front over the library.
#include <cstdio>
#include <fmt/format.h>
#include <span>
#include <variant>

#include "app/doctor.h"
#include "app/options.h"
#include "app/run.h"
#include "app/statistics.h"

namespace {

using namespace tessera::app;  // NOLINT(google-build-using-namespace): the command is this namespace

ExitCode answer(const Answer& text) {
    fmt::print(text.code == ExitCode::PoweredOff ? stdout : stderr, "{}", text.text);
    return text.code;
}

}  // namespace

int main(int argc, char** argv) {
    const auto begin = process_begin();
    const std::span<const char* const> arguments(argv + (argc > 0 ? 1 : 0), argv + argc);
    const Command command = parse_command_line(arguments);
    ExitCode code = ExitCode::PoweredOff;
    if (const auto* text = std::get_if<Answer>(&command))
        code = answer(*text);
    else if (const auto* options = std::get_if<RunOptions>(&command))
        code = run(*options, begin);
    else
        fmt::print("{}", doctor_report());
    return static_cast<int>(code);
}
