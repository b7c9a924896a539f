// Joins a virtual switch, and starts it if nobody has.
#pragma once

#include "backends/net/cable/linked_net.h"

namespace tessera::net {

struct SwitchOptions {
    std::string name;       // a file's name
    std::string directory;  // of the switches' sockets; this user's run-time directory if empty
    std::string helper_program;
    u64 restart_pause_ms = 100;
};

[[nodiscard]] Result<std::unique_ptr<LinkedNet>> open_switch(const SwitchOptions& options, EventLoop& loop);

}  // namespace tessera::net
