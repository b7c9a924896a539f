// Sizes as they are typed on the command line.
#pragma once

#include <optional>
#include <string_view>

#include "base/types.h"

namespace tessera::app {

// "512M", "1G", "65536K"; a number alone counts MiB. Nothing if it is no size, 0, or beyond 2^63.
[[nodiscard]] std::optional<u64> parse_size(std::string_view text);

}  // namespace tessera::app
