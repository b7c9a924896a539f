#include "backends/char/terminal.h"

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <fmt/format.h>
#include <mutex>
#include <system_error>
#include <termios.h>
#include <unistd.h>

namespace tessera {

namespace {

constexpr std::array kFatal{SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGSYS};

// Global because signal handlers and atexit have no other way to it. `active` guards the rest: the fields are
// written only while it is false.
struct Saved {
    std::atomic<bool> active = false;
    int fd = -1;
    termios before{};
    termios raw{};
    std::array<struct sigaction, kFatal.size()> handlers{};
};
Saved saved;  // NOLINT(cppcoreguidelines-avoid-non-const-global-variables)

// Async-signal-safe: tcsetattr is on POSIX's list.
void put_back() {
    if (saved.active.exchange(false)) (void)tcsetattr(saved.fd, TCSADRAIN, &saved.before);
}

void on_fatal_signal(int signal, siginfo_t* info, void* /*context*/) {
    const int error = errno;
    // Not TCSADRAIN: whatever the terminal has not printed must not hold up a crash.
    if (saved.active.exchange(false)) (void)tcsetattr(saved.fd, TCSANOW, &saved.before);
    for (std::size_t i = 0; i < kFatal.size(); ++i)
        if (kFatal[i] == signal) (void)sigaction(signal, &saved.handlers[i], nullptr);
    errno = error;
    // A fault happens again when we return, and meets the former handler then; a signal that was sent does
    // not.
    if (info == nullptr || info->si_code <= 0) (void)raise(signal);
}

termios make_raw(const termios& from) {
    termios raw = from;
    cfmakeraw(&raw);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    return raw;
}

}  // namespace

Result<std::unique_ptr<RawTerminal>> RawTerminal::enter(int fd) {
    if (saved.active.load()) return fail(Errc::InvalidArgument, "the terminal is in raw mode already");
    if (tcgetattr(fd, &saved.before) < 0)
        return fail(Errc::InvalidArgument,
                    fmt::format("not a terminal: {}", std::generic_category().message(errno)));
    saved.fd = fd;
    saved.raw = make_raw(saved.before);
    if (tcsetattr(fd, TCSADRAIN, &saved.raw) < 0)
        return fail(Errc::HostFailure,
                    fmt::format("cannot set up the terminal: {}", std::generic_category().message(errno)));
    static std::once_flag once;
    std::call_once(once, [] { (void)std::atexit(put_back); });
    struct sigaction action{};
    action.sa_sigaction = on_fatal_signal;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    (void)sigemptyset(&action.sa_mask);
    for (std::size_t i = 0; i < kFatal.size(); ++i) (void)sigaction(kFatal[i], &action, &saved.handlers[i]);
    saved.active.store(true);
    return std::unique_ptr<RawTerminal>(new RawTerminal);
}

RawTerminal::~RawTerminal() {
    put_back();
    for (std::size_t i = 0; i < kFatal.size(); ++i) {
        // Only where ours is still the handler: somebody may have put another before it.
        struct sigaction now{};
        if (sigaction(kFatal[i], nullptr, &now) == 0 && now.sa_sigaction == on_fatal_signal)
            (void)sigaction(kFatal[i], &saved.handlers[i], nullptr);
    }
}

void RawTerminal::suspend() {
    if (saved.active.load()) (void)tcsetattr(saved.fd, TCSADRAIN, &saved.before);
}

void RawTerminal::resume() {
    if (saved.active.load()) (void)tcsetattr(saved.fd, TCSADRAIN, &saved.raw);
}

}  // namespace tessera
