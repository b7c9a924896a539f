// Which engine a machine runs on.
#pragma once

#include "base/result.h"
#include "machines/machine.h"

namespace tessera {

// What the configuration asks for; with EngineChoice::Auto KVM where it is hardware, else the software CPU.
// Where that KVM is no hardware, `config` goes without what does not work there. Tells config.on_note where a
// choice may surprise. The error says why there is no KVM, and what to do.
[[nodiscard]] Result<EngineKind> choose_engine(MachineConfig& config);

}  // namespace tessera
