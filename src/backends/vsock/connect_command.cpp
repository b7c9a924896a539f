#include "backends/vsock/connect_command.h"

#include <charconv>
#include <system_error>

namespace tessera {

ConnectCommand ConnectCommand::parse(std::string_view text) {
    constexpr std::string_view kConnect = "CONNECT ";
    constexpr ConnectCommand kNonsense{.verdict = Verdict::Nonsense};
    const auto end = text.find('\n');
    if (end == std::string_view::npos)
        return text.size() < kLongest ? ConnectCommand{.verdict = Verdict::Incomplete} : kNonsense;
    if (!text.starts_with(kConnect)) return kNonsense;
    ConnectCommand command{.verdict = Verdict::Command, .port = 0, .size = end + 1};
    const std::string_view number = text.substr(kConnect.size(), end - kConnect.size());
    const auto [stop, error] = std::from_chars(number.data(), number.data() + number.size(), command.port);
    if (error != std::errc{} || stop != number.data() + number.size()) return kNonsense;
    return command;
}

}  // namespace tessera
