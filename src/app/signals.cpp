#include "app/signals.h"

#include <csignal>
#include <initializer_list>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "backends/char/terminal.h"

namespace tessera::app {

namespace {

sigset_t watched() {
    sigset_t set;
    (void)sigemptyset(&set);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGCONT, SIGWINCH})
        (void)sigaddset(&set, signal);
    return set;
}

}  // namespace

void block_signals() {
    const sigset_t set = watched();
    (void)pthread_sigmask(SIG_BLOCK, &set, nullptr);
    (void)std::signal(SIGPIPE, SIG_IGN);
}

Result<std::unique_ptr<Signals>> Signals::watch(EventLoop& loop, std::function<void(int)> on_end,
                                                std::function<void()> on_size) {
    const sigset_t set = watched();
    const int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0) return fail(Errc::HostFailure, "cannot watch for signals: no descriptor left (ulimit -n)");
    std::unique_ptr<Signals> signals(new Signals(loop, fd, std::move(on_end), std::move(on_size)));
    Status status;
    (void)loop.run(
        [&] { status = loop.watch(fd, EPOLLIN, [self = signals.get()](u32) { self->on_ready(); }); });
    if (!status) return std::unexpected(std::move(status.error()));
    return signals;
}

Signals::~Signals() {
    (void)loop_.run([this] { loop_.forget(fd_); });
    (void)close(fd_);
}

void Signals::on_ready() {
    signalfd_siginfo info{};
    while (read(fd_, &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
        switch (info.ssi_signo) {
            case SIGTSTP:
                RawTerminal::suspend();
                (void)kill(getpid(), SIGSTOP);
                break;
            case SIGCONT: RawTerminal::resume(); [[fallthrough]];
            case SIGWINCH: on_size_(); break;
            default: on_end_(static_cast<int>(info.ssi_signo)); break;
        }
    }
}

}  // namespace tessera::app
