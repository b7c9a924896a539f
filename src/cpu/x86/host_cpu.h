// What the processor under us can do: the software CPU computes with its instructions (docs/adr/0010).
#pragma once

#include <string>

namespace tessera {

// Names of features of x86-64-v3 that this processor, or its operating system, lacks; empty if it has all.
// Without them the software CPU cannot run.
[[nodiscard]] std::string missing_host_features();
// Names of those beyond x86-64-v3 that it has, and that guests get only then.
[[nodiscard]] std::string optional_host_features();

}  // namespace tessera
