// `tessera doctor`: what this host offers, and what would be used.
#pragma once

#include <string>

#include "base/result.h"

namespace tessera::app {

// `helper_program` is the tessera command, which is started as a network helper to see how far it is
// confined.
[[nodiscard]] std::string doctor_report(const std::string& helper_program);

// How the user-mode network would be confined: the layers in one line, or those that the host refuses, one
// each.
[[nodiscard]] std::string network_verdict(const Result<std::string>& report);

// What runs a guest, given whether KVM is hardware, what the processor lacks for the software CPU, and
// whether the host grants memory for code.
[[nodiscard]] std::string engine_verdict(bool kvm, const std::string& missing_features,
                                         const Status& code_memory);

}  // namespace tessera::app
