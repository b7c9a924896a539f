// Signals that ask the command to end or to pause, delivered to the event loop instead of a handler.
#pragma once

#include <functional>
#include <memory>

#include "backends/event_loop/event_loop.h"
#include "base/result.h"

namespace tessera::app {

// Blocks SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGCONT and SIGWINCH in the calling thread, which threads
// made later inherit: call it before any. SIGPIPE is ignored.
void block_signals();

class Signals {
public:
    // `on_end` is called with the signal for each of the first four; a stop and continuation of the process
    // hands the terminal to the shell and takes it back. On the loop's thread.
    // `on_size` is called when the terminal may have another size.
    static Result<std::unique_ptr<Signals>> watch(EventLoop& loop, std::function<void(int)> on_end,
                                                  std::function<void()> on_size);
    Signals(const Signals&) = delete;
    Signals& operator=(const Signals&) = delete;
    ~Signals();

private:
    Signals(EventLoop& loop, int fd, std::function<void(int)> on_end, std::function<void()> on_size)
        : loop_(loop), fd_(fd), on_end_(std::move(on_end)), on_size_(std::move(on_size)) {}
    void on_ready();

    EventLoop& loop_;
    int fd_;
    std::function<void(int)> on_end_;
    std::function<void()> on_size_;
};

}  // namespace tessera::app
