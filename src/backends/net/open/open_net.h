// Opens the host's side of a network cable.
#pragma once

#include <memory>

#include "backends/event_loop/event_loop.h"
#include "backends/net/net_backend.h"
#include "backends/net/open/net_options.h"

namespace tessera::net {

// `loop` outlives what is returned, and calls the card. The message of an error says what to do about it.
[[nodiscard]] Result<std::unique_ptr<NetBackend>> open_net(const NetOptions& options, EventLoop& loop);

// Starts a network helper and gives what of its confinement this host permits, one line for each layer.
[[nodiscard]] Result<std::string> helper_report(const std::string& program);

}  // namespace tessera::net
