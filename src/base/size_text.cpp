#include "base/size_text.h"

#include <array>
#include <fmt/format.h>

namespace tessera {

std::string size_text(u64 bytes) {
    constexpr std::array kUnits{"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    std::size_t unit = 0;
    auto value = static_cast<double>(bytes);
    for (; value >= 1024 && unit + 1 < kUnits.size(); ++unit) value /= 1024;
    return fmt::format("{:.4g} {}", value, kUnits[unit]);
}

}  // namespace tessera
