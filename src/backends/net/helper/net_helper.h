// The network helper's process: `tessera net-helper`, hidden, started by UserNet with a socket as
// descriptor 3.
#pragma once

namespace tessera::net {

inline constexpr const char* kNetHelperCommand = "net-helper";
inline constexpr int kHelperSocket = 3;

// Serves one card until the other side of the socket is closed. Returns the process's exit code.
int net_helper_main();

}  // namespace tessera::net
