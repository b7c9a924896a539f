#include "app/size.h"

#include <charconv>
#include <system_error>

namespace tessera::app {

std::optional<u64> parse_size(std::string_view text) {
    u64 value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || value == 0) return std::nullopt;
    std::string_view suffix = text.substr(static_cast<std::size_t>(end - text.data()));
    if (suffix.ends_with("iB")) suffix.remove_suffix(2);
    unsigned shift = 20;
    if (suffix == "K" || suffix == "k") {
        shift = 10;
    } else if (suffix == "G" || suffix == "g") {
        shift = 30;
    } else if (suffix == "T" || suffix == "t") {
        shift = 40;
    } else if (!suffix.empty() && suffix != "M" && suffix != "m") {
        return std::nullopt;
    }
    if (value > (u64{1} << 63) >> shift) return std::nullopt;
    return value << shift;
}

}  // namespace tessera::app
