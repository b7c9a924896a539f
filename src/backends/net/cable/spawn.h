// Starts helper processes: this program once more, under a hidden command, with one socket and nothing else.
#pragma once

#include <string>
#include <sys/types.h>

#include "base/file.h"
#include "base/result.h"

namespace tessera::net {

// The program that knows the hidden commands; a library's user names the `tessera` command here.
inline constexpr const char* kThisProgram = "/proc/self/exe";

// The far end of a cable.
struct Far {
    File socket;
    pid_t process = -1;  // a child of ours, or -1
};

// A helper that has the other end of a new socket pair as descriptor 3.
[[nodiscard]] Result<Far> spawn_helper(const std::string& program, const char* command);
// One that has `socket` as descriptor 3.
[[nodiscard]] Result<pid_t> spawn_with(const std::string& program, const char* command, int socket);

// Ends it if it has not ended, and lets the host forget it.
void end_process(pid_t process);

}  // namespace tessera::net
