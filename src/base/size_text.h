// Sizes for messages.
#pragma once

#include <string>

#include "base/types.h"

namespace tessera {

// "12.5 MiB", "640 KiB", "3 bytes": four digits, the largest unit of which there is one.
[[nodiscard]] std::string size_text(u64 bytes);

}  // namespace tessera
