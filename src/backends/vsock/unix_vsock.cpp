#include "backends/vsock/unix_vsock.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <fmt/format.h>
#include <poll.h>
#include <string_view>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <utility>

#include "backends/vsock/connect_command.h"

namespace tessera {

namespace {

// Edges suffice: both sides go on until there is nothing more.
constexpr u32 kWatched = EPOLLIN | EPOLLOUT | EPOLLRDHUP | static_cast<u32>(EPOLLET);
constexpr std::size_t kMostPieces = 1024;  // IOV_MAX

bool has_left(const File& file) {
    pollfd state{.fd = file.get(), .events = 0, .revents = 0};
    return poll(&state, 1, 0) == 1 && (state.revents & (POLLHUP | POLLERR)) != 0;
}

}  // namespace

Result<std::unique_ptr<UnixVsock>> UnixVsock::create(EventLoop& loop, const std::string& path,
                                                     std::chrono::milliseconds patience) {
    auto listener = UnixListener::open("--vsock", path);
    if (!listener) return std::unexpected(std::move(listener.error()));
    std::unique_ptr<UnixVsock> made(new UnixVsock(loop, *std::move(listener), path, patience));
    Status status;
    if (!loop.run([&] {
            loop.add(*made);
            status = loop.watch(made->listener_.get(), EPOLLIN,
                                [vsock = made.get()](u32) { vsock->on_connection(); });
        }))
        return fail(Errc::HostFailure, "the event loop has ended before its sockets");
    if (!status) return std::unexpected(std::move(status.error()));
    return made;
}

UnixVsock::~UnixVsock() {
    (void)loop_.run([this] {
        loop_.remove(*this);
        loop_.forget(listener_.get());
        const std::lock_guard guard(mutex_);
        for (const auto& [id, socket] : sockets_) loop_.forget(socket.file.get());
        sockets_.clear();
    });
}

void UnixVsock::connect(VsockPeer* peer) {
    (void)loop_.run([this, peer] { peer_ = peer; });
}

// --- Sockets ---

UnixVsock::Socket* UnixVsock::find_open(VsockId id) {
    const auto found = sockets_.find(id);
    const bool open = found != sockets_.end() && found->second.phase == Phase::Open && !found->second.gone;
    return open ? &found->second : nullptr;
}

UnixVsock::Socket& UnixVsock::add(VsockId id, File file, Phase phase) {
    Socket& socket = sockets_[id];
    socket.file = std::move(file);
    socket.phase = phase;
    socket.since = Clock::now();
    loop_.post([this, id] { start_watching(id); });
    return socket;
}

// Its descriptor is closed when nobody watches it any more.
void UnixVsock::remove(Sockets::iterator where) {
    auto file = std::make_shared<File>(std::move(where->second.file));
    sockets_.erase(where);
    if (file->is_open()) loop_.post([&loop = loop_, file] { loop.forget(file->get()); });
}

void UnixVsock::list(VsockId id, Socket& socket) {
    if (!std::exchange(socket.listed, true)) ready_.push_back(id);
}

void UnixVsock::lose(VsockId id, Socket& socket) {
    socket.gone = true;
    socket.out = {};
    list(id, socket);
}

void UnixVsock::flush(VsockId id, Socket& socket) {
    std::size_t done = 0;
    while (done < socket.out.size()) {
        const std::string_view rest = std::string_view(socket.out).substr(done);
        const ssize_t sent = ::send(socket.file.get(), rest.data(), rest.size(), MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent < 0 && errno == EAGAIN) break;
        if (sent < 0) {
            lose(id, socket);
            return;
        }
        done += static_cast<std::size_t>(sent);
    }
    if (done != 0) {
        socket.out.erase(0, done);
        socket.forwarded += static_cast<u32>(done);
        list(id, socket);
    }
    if (socket.out.empty() && std::exchange(socket.end_due, false))
        (void)shutdown(socket.file.get(), SHUT_WR);
}

// --- Programs of the host ---

std::size_t UnixVsock::unanswered() const {
    return static_cast<std::size_t>(
        std::ranges::count_if(sockets_, [](const auto& entry) { return entry.second.phase != Phase::Open; }));
}

void UnixVsock::on_connection() {
    File file = listener_.accept();
    if (!file.is_open()) return;
    const std::lock_guard guard(mutex_);
    if (sockets_.size() >= kMostSockets || unanswered() >= kMostUnanswered) return;
    add(std::exchange(next_id_, next_id_ + 2), std::move(file), Phase::Asking);
    somebody_asks_ = true;
    loop_.wake_in(static_cast<u64>(std::chrono::nanoseconds(patience_).count()));
}

// Those who connect and say nothing do not keep others out.
u64 UnixVsock::run_due() {
    const std::lock_guard guard(mutex_);
    if (!somebody_asks_) return kNothingDue;
    const Clock::time_point now = Clock::now();
    u64 next = kNothingDue;
    for (auto at = sockets_.begin(); at != sockets_.end();) {
        const auto here = at++;
        if (here->second.phase != Phase::Asking) continue;
        const auto left = std::chrono::nanoseconds(here->second.since + patience_ - now).count();
        if (left <= 0)
            remove(here);
        else
            next = std::min(next, static_cast<u64>(left));
    }
    somebody_asks_ = next != kNothingDue;
    return next;
}

// What follows the command is the guest's, and stays where it is.
bool UnixVsock::read_command(VsockId id, Socket& socket) {
    using enum ConnectCommand::Verdict;
    std::array<char, ConnectCommand::kLongest> buffer{};
    const ssize_t got = recv(socket.file.get(), buffer.data(), buffer.size(), MSG_PEEK);
    if (got < 0) return errno == EAGAIN || errno == EINTR;
    if (got == 0) return false;
    const auto command = ConnectCommand::parse({buffer.data(), static_cast<std::size_t>(got)});
    if (command.verdict != Command) return command.verdict == Incomplete;
    if (recv(socket.file.get(), buffer.data(), command.size, 0) < 0) return false;
    socket.phase = Phase::Asked;
    socket.port = command.port;
    socket.request = true;
    list(id, socket);
    return true;
}

void UnixVsock::start_watching(VsockId id) {
    {
        const std::lock_guard guard(mutex_);
        const auto found = sockets_.find(id);
        if (found == sockets_.end() || loop_.watch(found->second.file.get(), kWatched,
                                                   [this, id](u32 events) { on_socket(id, events); }))
            return;
        lose(id, found->second);
    }
    notify();
}

void UnixVsock::on_socket(VsockId id, u32 events) {
    {
        const std::lock_guard guard(mutex_);
        const auto found = sockets_.find(id);
        if (found == sockets_.end() || found->second.gone) return;
        Socket& socket = found->second;
        const bool input = (events & ~u32{EPOLLOUT}) != 0;
        switch (socket.phase) {
            case Phase::Asking:
                if (!read_command(id, socket)) remove(found);
                break;
            case Phase::Asked:
                if ((events & (EPOLLHUP | EPOLLERR)) != 0) lose(id, socket);
                break;
            case Phase::Open:
                if ((events & EPOLLOUT) != 0) flush(id, socket);
                if (input && !socket.gone) {
                    socket.readable = true;
                    list(id, socket);
                }
                break;
        }
        if (ready_.empty()) return;
    }
    notify();
}

void UnixVsock::notify() {
    if (peer_ != nullptr) peer_->events_waiting();
}

// --- The device's calls ---

bool UnixVsock::next_event(VsockEvent& event) {
    using enum VsockEvent::Kind;
    const std::lock_guard guard(mutex_);
    while (!ready_.empty()) {
        const VsockId id = ready_.front();
        const auto found = sockets_.find(id);
        if (found == sockets_.end()) {
            ready_.pop_front();
            continue;
        }
        Socket& socket = found->second;
        event = {.kind = Gone, .id = id, .value = 0};
        if (std::exchange(socket.request, false)) {
            event.kind = Request;
            event.value = socket.port;
        } else if (std::exchange(socket.opened, false)) {
            event.kind = Opened;
        } else if (socket.forwarded != 0) {
            event.kind = Forwarded;
            event.value = std::exchange(socket.forwarded, 0);
        } else if (std::exchange(socket.readable, false)) {
            event.kind = Readable;
        } else {
            socket.listed = false;
            ready_.pop_front();
            if (!socket.gone) continue;
            remove(found);
        }
        return true;
    }
    return false;
}

void UnixVsock::open(VsockId id, u32 port) {
    const std::lock_guard guard(mutex_);
    File file = sockets_.size() < kMostSockets ? connect_unix(fmt::format("{}_{}", path_, port)) : File();
    if (!file.is_open()) {
        lose(id, sockets_[id]);
        return;
    }
    Socket& socket = add(id, std::move(file), Phase::Open);
    socket.opened = true;
    socket.readable = true;
    list(id, socket);
}

void UnixVsock::accepted(VsockId id, u32 host_port) {
    const std::lock_guard guard(mutex_);
    const auto found = sockets_.find(id);
    if (found == sockets_.end() || found->second.phase != Phase::Asked || found->second.gone) return;
    Socket& socket = found->second;
    socket.phase = Phase::Open;
    const std::string answer = fmt::format("OK {}\n", host_port);
    // Nothing was sent before: there is room, or nobody is there.
    if (::send(socket.file.get(), answer.data(), answer.size(), MSG_NOSIGNAL) != std::ssize(answer)) {
        lose(id, socket);
        return;
    }
    socket.readable = true;
    list(id, socket);
}

void UnixVsock::close(VsockId id) {
    const std::lock_guard guard(mutex_);
    if (const auto found = sockets_.find(id); found != sockets_.end()) remove(found);
}

void UnixVsock::close_all() {
    const std::lock_guard guard(mutex_);
    while (!sockets_.empty()) remove(sockets_.begin());
    ready_.clear();
}

std::size_t UnixVsock::send(VsockId id, std::span<const iovec> pieces) {
    const std::lock_guard guard(mutex_);
    Socket* const socket = find_open(id);
    if (socket == nullptr) return 0;
    std::size_t sent = 0;
    if (socket->out.empty()) {
        msghdr message{};
        message.msg_iov = const_cast<iovec*>(pieces.data());
        message.msg_iovlen = std::min(pieces.size(), kMostPieces);
        const ssize_t result = sendmsg(socket->file.get(), &message, MSG_NOSIGNAL);
        if (result < 0 && errno != EAGAIN && errno != EINTR) {
            lose(id, *socket);
            return 0;
        }
        sent = static_cast<std::size_t>(std::max<ssize_t>(result, 0));
    }
    std::size_t skip = sent;
    for (const iovec& piece : pieces) {
        const std::string_view bytes(static_cast<const char*>(piece.iov_base), piece.iov_len);
        const std::size_t skipped = std::min(skip, bytes.size());
        skip -= skipped;
        socket->out += bytes.substr(skipped);
    }
    // There is an edge to wait for only when the host has had enough.
    if (!socket->out.empty()) flush(id, *socket);
    return sent;
}

void UnixVsock::end_of_sending(VsockId id) {
    const std::lock_guard guard(mutex_);
    Socket* const socket = find_open(id);
    if (socket == nullptr) return;
    if (socket->out.empty())
        (void)shutdown(socket->file.get(), SHUT_WR);
    else
        socket->end_due = true;
}

void UnixVsock::end_of_receiving(VsockId id) {
    const std::lock_guard guard(mutex_);
    if (Socket* const socket = find_open(id); socket != nullptr) (void)shutdown(socket->file.get(), SHUT_RD);
}

VsockBackend::Received UnixVsock::receive(VsockId id, std::span<u8> out) {
    using enum Received::Then;
    const std::lock_guard guard(mutex_);
    Socket* const socket = find_open(id);
    if (socket == nullptr || out.empty()) return {};
    const ssize_t got = recv(socket->file.get(), out.data(), out.size(), 0);
    if (got > 0) return {.bytes = static_cast<std::size_t>(got), .then = More};
    if (got < 0 && errno == EAGAIN) return {.bytes = 0, .then = Later};
    return {.bytes = 0, .then = got == 0 && !has_left(socket->file) ? End : Closed};
}

}  // namespace tessera
