// `tessera doctor`: what this host offers, and what would be used.
#pragma once

#include <string>

#include "base/result.h"

namespace tessera::app {

[[nodiscard]] std::string doctor_report();

// What runs a guest, given the processor's missing features and whether the host grants memory for code.
[[nodiscard]] std::string engine_verdict(const std::string& missing_features, const Status& code_memory);

}  // namespace tessera::app
