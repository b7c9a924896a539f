#include "backends/char/stdio_char.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace tessera {

namespace {

constexpr std::size_t kOutputRoom = 64 * kKiB;
constexpr std::size_t kInputChunk = 4096;
constexpr std::size_t kReadAhead = 64 * kKiB;
// What a pipe that polls as writable takes without blocking [POSIX write, PIPE_BUF].
constexpr std::size_t kSafeWrite = 4096;

}  // namespace

Result<std::unique_ptr<StdioChar>> StdioChar::create(EventLoop& loop, Config config) {
    std::unique_ptr<StdioChar> made(new StdioChar(loop, std::move(config)));
    if (auto opened = made->open(); !opened) return std::unexpected(std::move(opened.error()));
    return made;
}

// Standard descriptors are shared with the shell that started us, so they must not become non-blocking.
// Terminals and pipes can be opened a second time, which gives a description of our own.
StdioChar::Descriptor StdioChar::adopt(int fd, int access) {
    struct stat info{};
    if (fstat(fd, &info) < 0) return {};
    if (S_ISCHR(info.st_mode) || S_ISFIFO(info.st_mode)) {
        const std::string path = fmt::format("/proc/self/fd/{}", fd);
        const int again = ::open(path.c_str(), access | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        if (again >= 0) return {.fd = again, .ours = true, .watch = Watch::Epoll};
    }
    return {.fd = fd, .ours = false, .watch = Watch::Epoll};
}

Status StdioChar::open() {
    in_ = adopt(config_.in, O_RDONLY);
    out_ = adopt(config_.out, O_WRONLY);
    has_keys_ = isatty(config_.in) != 0;
    if (has_keys_) {
        auto terminal = RawTerminal::enter(config_.in);
        if (!terminal) return std::unexpected(std::move(terminal.error()));
        terminal_ = std::move(*terminal);
    }
    Status status;
    if (!loop_.run([&] { status = start_watching(); }))
        return fail(Errc::HostFailure, "the event loop has ended before its terminal");
    return status;
}

Status StdioChar::start_watching() {
    const auto watch = [&](Descriptor& descriptor, void (StdioChar::*handler)()) -> Status {
        if (descriptor.fd < 0) {
            descriptor.watch = Watch::None;
            return {};
        }
        // Edge-triggered until something is wanted: a hang-up is reported whether wanted or not.
        auto status = loop_.watch(descriptor.fd, EPOLLET, [this, handler](u32) { (this->*handler)(); });
        if (!status && status.error().code == Errc::Unsupported) {
            descriptor.watch = Watch::AlwaysReady;
            return {};
        }
        return status;
    };
    if (auto status = watch(out_, &StdioChar::on_output); !status) return status;
    // A terminal may be both: then `in` and `out` are two descriptors, unless opening it again failed.
    if (in_.fd == out_.fd && in_.fd >= 0)
        in_ = {.fd = fcntl(in_.fd, F_DUPFD_CLOEXEC, 3), .ours = true, .watch = Watch::Epoll};
    return watch(in_, &StdioChar::on_input);
}

StdioChar::~StdioChar() {
    drain(std::chrono::milliseconds(500));
    (void)loop_.run([this] {
        for (const Descriptor* descriptor : {&in_, &out_}) loop_.forget(descriptor->fd);
    });
    for (const Descriptor* descriptor : {&in_, &out_})
        if (descriptor->ours) (void)close(descriptor->fd);
}

void StdioChar::connect(CharPeer* peer) {
    (void)loop_.run([this, peer] {
        peer_ = peer;
        if (peer != nullptr && !input_ended_) want(in_, EPOLLIN);
        if (peer == nullptr) want(in_, 0);
        if (peer != nullptr) tell_size();
    });
}

void StdioChar::look_at_size() {
    loop_.post([this] { tell_size(); });
}

void StdioChar::tell_size() {
    winsize size{};
    if (peer_ != nullptr && has_keys_ && ioctl(in_.fd, TIOCGWINSZ, &size) == 0 && size.ws_col != 0)
        peer_->resized(size.ws_col, size.ws_row);
}

void StdioChar::want(Descriptor& descriptor, u32 events) {
    if (descriptor.watch == Watch::Epoll) {
        if (descriptor.events == events) return;
        descriptor.events = events;
        (void)loop_.change(descriptor.fd, events == 0 ? static_cast<u32>(EPOLLET) : events);
    } else if (descriptor.watch == Watch::AlwaysReady && events != 0) {
        loop_.post([this, events] { events == EPOLLIN ? on_input() : on_output(); });
    }
}

// --- Host to guest ---

void StdioChar::receive_ready() {
    loop_.post([this] { deliver(); });
}

// As much as the guest takes; asks for more input only when nothing is left over.
void StdioChar::deliver() {
    if (peer_ == nullptr) return;
    if (!for_guest_.empty()) {
        const std::size_t took = peer_->receive(for_guest_);
        for_guest_.erase(for_guest_.begin(), for_guest_.begin() + static_cast<std::ptrdiff_t>(took));
    }
    want(in_, may_read() ? EPOLLIN : 0U);
}

// A pipe waits until the guest has taken what was read. A terminal is read ahead, or a guest that has stopped
// reading would stop the escape keys as well.
bool StdioChar::may_read() const {
    return !input_ended_ && (has_keys_ ? for_guest_.size() < kReadAhead : for_guest_.empty());
}

void StdioChar::on_input() {
    if (peer_ == nullptr || input_ended_) return;
    if (may_read() && !read_some()) return;
    deliver();
}

bool StdioChar::read_some() {
    std::array<u8, kInputChunk> buffer{};
    const ssize_t got = read(in_.fd, buffer.data(), buffer.size());
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return false;
    if (got <= 0) {
        input_ended_ = true;
        want(in_, 0);
        return false;
    }
    feed(std::span(buffer).first(static_cast<std::size_t>(got)));
    return true;
}

void StdioChar::feed(std::span<const u8> bytes) {
    if (!has_keys_) {
        for_guest_.insert(for_guest_.end(), bytes.begin(), bytes.end());
        return;
    }
    for (const u8 byte : bytes) {
        const EscapeKeys::Step step = keys_.feed(byte);
        if (step.action == EscapeKeys::Action::Send)
            for_guest_.push_back(step.byte);
        else
            do_action(step.action);
    }
}

void StdioChar::do_action(EscapeKeys::Action action) {
    switch (action) {
        case EscapeKeys::Action::Help: print(EscapeKeys::help()); break;
        case EscapeKeys::Action::Monitor:
            print("\r\n[tessera: there is no monitor in this version]\r\n");
            break;
        case EscapeKeys::Action::TimeStamps:
            time_stamps_ = !time_stamps_;
            print(fmt::format("\r\n[tessera: time stamps {}]\r\n", time_stamps_ ? "on" : "off"));
            break;
        case EscapeKeys::Action::Break:
            deliver();  // what was typed before it comes first, as far as there is room
            if (peer_ != nullptr) peer_->receive_break();
            break;
        case EscapeKeys::Action::Quit:
            if (config_.on_quit) config_.on_quit();
            break;
        case EscapeKeys::Action::Statistics:
            if (config_.on_statistics) config_.on_statistics();
            break;
        case EscapeKeys::Action::Send:
        case EscapeKeys::Action::Wait:
        case EscapeKeys::Action::Ignore: break;
    }
}

// --- Guest to host ---

std::size_t StdioChar::put_some(std::span<const u8> bytes) {
    std::size_t took = 0;
    bool first = false;
    {
        const std::scoped_lock guard(mutex_);
        first = output_.empty();
        took = std::min(bytes.size(), kOutputRoom - std::min(kOutputRoom, output_.size()));
        output_.append(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(took));
        if (took < bytes.size()) guest_waits_ = true;
    }
    // Otherwise the loop knows.
    if (first && took != 0) loop_.post([this] { on_output(); });
    return took;
}

void StdioChar::print(std::string_view text) {
    writing_ += take_output();
    writing_ += text;
    on_output();
}

std::string StdioChar::take_output() {
    std::string taken;
    {
        const std::scoped_lock guard(mutex_);
        taken.swap(output_);
    }
    if (time_stamps_) stamp(taken);
    return taken;
}

void StdioChar::stamp(std::string& text) {
    const auto since = std::chrono::steady_clock::now() - begin_;
    const std::string mark = fmt::format("[{:10.4f}] ", std::chrono::duration<double>(since).count());
    std::string stamped;
    for (const char c : text) {
        if (line_begins_ && c != '\r' && c != '\n') stamped += mark;
        line_begins_ = c == '\n';
        stamped += c;
    }
    text.swap(stamped);
}

// False when the host takes no more now.
bool StdioChar::write_out() {
    std::size_t done = 0;
    while (done < writing_.size()) {
        if (!out_.ours && out_.watch == Watch::Epoll) {
            pollfd ready{.fd = out_.fd, .events = POLLOUT, .revents = 0};
            if (poll(&ready, 1, 0) == 0) break;
        }
        const std::size_t piece =
            out_.ours ? writing_.size() - done : std::min(kSafeWrite, writing_.size() - done);
        const ssize_t wrote =
            out_.fd < 0 ? static_cast<ssize_t>(piece) : write(out_.fd, writing_.data() + done, piece);
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote < 0 && errno == EAGAIN) break;
        // Nobody reads any more (EPIPE, EIO): the guest must not stop for that.
        done += wrote < 0 ? piece : static_cast<std::size_t>(wrote);
    }
    writing_.erase(0, done);
    return writing_.empty();
}

void StdioChar::on_output() {
    while (write_out()) {
        writing_ = take_output();
        if (writing_.empty()) {
            want(out_, 0);
            break;
        }
    }
    if (!writing_.empty()) want(out_, EPOLLOUT);
    bool ready = false;
    {
        const std::scoped_lock guard(mutex_);
        ready = guest_waits_ && output_.size() < kOutputRoom / 2;
        if (ready) guest_waits_ = false;
    }
    if (ready && peer_ != nullptr) peer_->transmit_ready();
}

void StdioChar::drain(std::chrono::milliseconds at_most) {
    const auto end = std::chrono::steady_clock::now() + at_most;
    for (;;) {
        bool empty = true;
        const bool alive = loop_.run([&] {
            on_output();
            const std::scoped_lock guard(mutex_);
            empty = writing_.empty() && output_.empty();
        });
        const auto now = std::chrono::steady_clock::now();
        if (empty || !alive || now >= end) return;
        pollfd ready{.fd = out_.fd, .events = POLLOUT, .revents = 0};
        (void)poll(
            &ready, 1,
            static_cast<int>(std::chrono::duration_cast<std::chrono::milliseconds>(end - now).count()));
    }
}

}  // namespace tessera
