// The `tessera` command: a thin front over the library.
#include <cstdio>
#include <fmt/format.h>
#include <optional>
#include <span>
#include <string_view>
#include <variant>

#include "app/disk_command.h"
#include "app/doctor.h"
#include "app/options.h"
#include "app/run.h"
#include "app/statistics.h"
#include "backends/net/helper/net_helper.h"
#include "backends/net/open/net_options.h"
#include "backends/net/switch/switch_server.h"

namespace {

using namespace tessera::app;  // NOLINT(google-build-using-namespace): the command is this namespace

ExitCode answer(const Answer& text) {
    fmt::print(text.code == ExitCode::PoweredOff ? stdout : stderr, "{}", text.text);
    return text.code;
}

// What this program also is: processes that it starts itself, under commands nobody types.
std::optional<int> helper(std::span<const char* const> arguments) {
    if (arguments.size() != 1) return std::nullopt;
    const std::string_view name = arguments[0];
    if (name == tessera::net::kNetHelperCommand) return tessera::net::net_helper_main();
    if (name == tessera::net::kNetSwitchCommand) return tessera::net::net_switch_main();
    return std::nullopt;
}

}  // namespace

int main(int argc, char** argv) {
    const auto begin = process_begin();
    const std::span<const char* const> arguments(argv + (argc > 0 ? 1 : 0), argv + argc);
    if (const auto code = helper(arguments)) return *code;
    const Command command = parse_command_line(arguments);
    ExitCode code = ExitCode::PoweredOff;
    if (const auto* text = std::get_if<Answer>(&command))
        code = answer(*text);
    else if (const auto* options = std::get_if<RunOptions>(&command))
        code = run(*options, begin);
    else if (const auto* disk = std::get_if<DiskCommand>(&command))
        code = run_disk(*disk);
    else
        fmt::print("{}", doctor_report(tessera::net::kThisProgram));
    return static_cast<int>(code);
}
