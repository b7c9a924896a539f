// `tessera doctor`: what this host offers, and what would be used.
#pragma once

#include <string>

namespace tessera::app {

[[nodiscard]] std::string doctor_report();

}  // namespace tessera::app
