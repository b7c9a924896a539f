// The terminal in raw mode, put back on every way out: destruction, exit(), a fatal signal.
#pragma once

#include <memory>

#include "base/result.h"

namespace tessera {

// At most one at a time: a process has one controlling terminal.
class RawTerminal {
public:
    // `fd` is a terminal and stays the caller's. While this object lives, SIGSEGV, SIGBUS, SIGILL, SIGFPE,
    // SIGABRT and SIGSYS put the terminal back before they do what they did before.
    static Result<std::unique_ptr<RawTerminal>> enter(int fd);
    RawTerminal(const RawTerminal&) = delete;
    RawTerminal& operator=(const RawTerminal&) = delete;
    ~RawTerminal();

    // For job control: the shell's mode before the process stops, ours again when it goes on.
    static void suspend();
    static void resume();

private:
    RawTerminal() = default;
};

}  // namespace tessera
