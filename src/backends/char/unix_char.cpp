#include "backends/char/unix_char.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <utility>

namespace tessera {

namespace {

constexpr std::size_t kOutputRoom = 64 * kKiB;
constexpr std::size_t kInputChunk = 4096;

}  // namespace

Result<std::unique_ptr<UnixChar>> UnixChar::create(EventLoop& loop, const std::string& option,
                                                   const std::string& path) {
    auto listener = UnixListener::open(option, path);
    if (!listener) return std::unexpected(std::move(listener.error()));
    std::unique_ptr<UnixChar> made(new UnixChar(loop, *std::move(listener)));
    Status status;
    if (!loop.run([&] {
            status =
                loop.watch(made->listener_.get(), 0, [socket = made.get()](u32) { socket->on_connection(); });
        }))
        return fail(Errc::HostFailure, "the event loop has ended before its sockets");
    if (!status) return std::unexpected(std::move(status.error()));
    return made;
}

UnixChar::~UnixChar() {
    (void)loop_.run([this] {
        peer_ = nullptr;
        write_out();  // the guest's last words, as far as there is room
        if (client_.is_open()) loop_.forget(client_.get());
        loop_.forget(listener_.get());
    });
}

void UnixChar::connect(CharPeer* peer) {
    (void)loop_.run([this, peer] {
        peer_ = peer;
        if (peer == nullptr) return;
        peer->attended(client_.is_open());
        if (!client_.is_open()) (void)loop_.change(listener_.get(), EPOLLIN);
    });
}

// --- Programs come and go ---

void UnixChar::on_connection() {
    if (client_.is_open()) return;
    client_ = listener_.accept();
    if (!client_.is_open()) return;
    watched_ = EPOLLIN;
    if (!loop_.watch(client_.get(), watched_, [this](u32 events) { on_client(events); })) {
        client_ = File();
        return;
    }
    (void)loop_.change(listener_.get(), 0);
    {
        const std::scoped_lock guard(mutex_);
        attended_ = true;
    }
    if (peer_ != nullptr) peer_->attended(true);
}

void UnixChar::leave() {
    loop_.forget(client_.get());
    client_ = File();
    for_guest_.clear();
    writing_.clear();
    bool ready = false;
    {
        const std::scoped_lock guard(mutex_);
        attended_ = false;
        output_.clear();
        ready = std::exchange(guest_waits_, false);
    }
    if (peer_ != nullptr) {
        peer_->attended(false);
        if (ready) peer_->transmit_ready();
    }
    (void)loop_.change(listener_.get(), EPOLLIN);
}

// A hang-up is reported whether it is wanted or not: edge-triggered while nothing is.
void UnixChar::watch_client() {
    if (!client_.is_open()) return;
    u32 wanted = 0;
    if (for_guest_.empty()) wanted |= EPOLLIN;
    if (!writing_.empty()) wanted |= EPOLLOUT;
    if (wanted == 0) wanted = static_cast<u32>(EPOLLET);
    if (wanted == watched_) return;
    watched_ = wanted;
    (void)loop_.change(client_.get(), wanted);
}

void UnixChar::on_client(u32 events) {
    if ((events & EPOLLOUT) != 0) write_out();
    if (client_.is_open() && (events & ~u32{EPOLLOUT}) != 0 && for_guest_.empty()) read_some();
    // Nobody is left to write to, and what is left of the input nobody may ever take.
    if (client_.is_open() && (events & EPOLLERR) != 0) leave();
    watch_client();
}

// --- Host to guest ---

void UnixChar::receive_ready() {
    loop_.post([this] {
        deliver();
        watch_client();
    });
}

void UnixChar::deliver() {
    if (peer_ == nullptr || for_guest_.empty()) return;
    const std::size_t took = peer_->receive(for_guest_);
    for_guest_.erase(for_guest_.begin(), for_guest_.begin() + static_cast<std::ptrdiff_t>(took));
}

void UnixChar::read_some() {
    std::array<u8, kInputChunk> buffer{};
    const ssize_t got = recv(client_.get(), buffer.data(), buffer.size(), 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) {
        leave();
        return;
    }
    for_guest_.assign(buffer.begin(), buffer.begin() + got);
    deliver();
}

// --- Guest to host ---

std::size_t UnixChar::put_some(std::span<const u8> bytes) {
    std::size_t took = 0;
    bool first = false;
    {
        const std::scoped_lock guard(mutex_);
        if (!attended_) return bytes.size();
        first = output_.empty();
        took = std::min(bytes.size(), kOutputRoom - output_.size());
        output_.append(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(took));
        if (took < bytes.size()) guest_waits_ = true;
    }
    // Otherwise the loop knows.
    if (first && took != 0)
        loop_.post([this] {
            write_out();
            watch_client();
        });
    return took;
}

void UnixChar::write_out() {
    if (!client_.is_open()) return;
    for (;;) {
        if (writing_.empty()) {
            const std::scoped_lock guard(mutex_);
            writing_.swap(output_);
        }
        if (writing_.empty()) break;
        const ssize_t wrote = send(client_.get(), writing_.data(), writing_.size(), MSG_NOSIGNAL);
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote < 0 && errno == EAGAIN) break;
        if (wrote < 0) {
            leave();
            return;
        }
        writing_.erase(0, static_cast<std::size_t>(wrote));
    }
    bool ready = false;
    {
        const std::scoped_lock guard(mutex_);
        ready = guest_waits_ && output_.size() < kOutputRoom / 2;
        if (ready) guest_waits_ = false;
    }
    if (ready && peer_ != nullptr) peer_->transmit_ready();
}

}  // namespace tessera
