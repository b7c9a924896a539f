// The process that a virtual switch is: `tessera net-switch`, hidden, started by the first VM that names it,
// with the switch's listening socket as descriptor 3. It ends with its last member.
#pragma once

namespace tessera::net {

inline constexpr const char* kNetSwitchCommand = "net-switch";

// Goes into the background, then serves. Returns the process's exit code.
int net_switch_main();
// Serves, confined, until the last member has gone.
int serve_switch();

}  // namespace tessera::net
