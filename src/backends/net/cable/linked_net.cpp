#include "backends/net/cable/linked_net.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <fmt/format.h>
#include <poll.h>
#include <sys/epoll.h>

namespace tessera::net {

namespace {

constexpr u64 kNsPerMs = 1'000'000;
constexpr int kMessagesAtOnce = 32;
constexpr int kDropsAtOnce = 256;
constexpr const char* kSilent = "network: the helper process does not answer";
constexpr const char* kEnded = "network: the helper process has ended; is this program the tessera command?";
constexpr NetOffloads kAll{
    .checksum = true, .tso4 = true, .tso6 = true, .ecn = true, .ufo = true, .uso = true};

u64 now_ns() {
    timespec now{};
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<u64>(now.tv_sec) * 1'000'000'000 + static_cast<u64>(now.tv_nsec);
}

std::size_t size_of(std::span<const iovec> pieces) {
    std::size_t size = 0;
    for (const iovec& piece : pieces) size += piece.iov_len;
    return size;
}

}  // namespace

// --- Beginning and end ---

Result<std::unique_ptr<LinkedNet>> LinkedNet::create(EventLoop& loop, Peer peer) {
    std::unique_ptr<LinkedNet> net(new LinkedNet(loop, std::move(peer)));
    // Nothing of it is the loop's until the guest sends.
    if (net->peer_process_.start == Start::WhenUsed) return net;
    if (auto reached = net->reach(); !reached) return std::unexpected(std::move(reached.error()));
    if (auto ready = net->wait_until_ready(); !ready) return std::unexpected(std::move(ready.error()));
    const bool alive = loop.run([&net] {
        net->loop_.add(*net);
        net->watch();
    });
    if (!alive) return fail(Errc::HostFailure, "network: the event loop has ended");
    return net;
}

LinkedNet::~LinkedNet() {
    (void)loop_.run([this] {
        loop_.remove(*this);
        if (far_.socket.is_open()) loop_.forget(far_.socket.get());
    });
    far_.socket = File();  // which ends the helper
    end_process(far_.process);
}

Status LinkedNet::reach() {
    auto far = peer_process_.reach();
    if (!far) return std::unexpected(std::move(far.error()));
    auto link = Link::create(far->socket.get());
    if (!link) {
        end_process(far->process);
        return std::unexpected(std::move(link.error()));
    }
    std::vector<int> files{(*link)->memory()};
    for (const File& file : peer_process_.files) files.push_back(file.get());
    if (!send_message(far->socket.get(), MessageType::Hello, peer_process_.hello, files)) {
        end_process(far->process);
        return fail(Errc::HostFailure, "network: the helper process ended at once");
    }
    const std::scoped_lock guard(mutex_);
    (void)send_message(far->socket.get(), MessageType::Offloads, std::array{pack(guest_takes_)});
    far_ = std::move(*far);
    link_ = std::move(*link);
    header_checked_ = false;
    giving_up_ = false;
    unstarted_ = false;
    reached_at_ns_ = now_ns();
    return {};
}

Status LinkedNet::wait_until_ready() {
    const u64 end = now_ns() + u64{kPatienceMs} * kNsPerMs;
    while (!ready_) {
        const u64 now = now_ns();
        pollfd ready{.fd = far_.socket.get(), .events = POLLIN, .revents = 0};
        const int left_ms = now >= end ? 0 : static_cast<int>((end - now) / kNsPerMs);
        if (poll(&ready, 1, left_ms) == 0) return fail(Errc::HostFailure, kSilent);
        Message message;
        const Receipt receipt = receive_message(far_.socket.get(), message);
        if (receipt == Receipt::Gone || (receipt == Receipt::Message && !handle(message)))
            return fail(Errc::HostFailure, kEnded);
    }
    return {};
}

void LinkedNet::connect(NetPeer* card) {
    {
        const std::scoped_lock guard(mutex_);
        if (unstarted_ && !start_asked_) {
            card_ = card;  // nobody calls it yet
            return;
        }
    }
    (void)loop_.run([this, card] { card_ = card; });
}

std::string LinkedNet::report() const {
    const std::scoped_lock guard(mutex_);
    return report_;
}

pid_t LinkedNet::process() const {
    const std::scoped_lock guard(mutex_);
    return far_.process;
}

// --- The loop's thread ---

void LinkedNet::watch() {
    if (!loop_.watch(far_.socket.get(), EPOLLIN, [this](u32) { on_socket(); })) lost(kEnded);
}

void LinkedNet::on_socket() {
    Message message;
    for (int i = 0; i < kMessagesAtOnce; ++i) {
        const Receipt receipt = receive_message(far_.socket.get(), message);
        if (receipt == Receipt::Nothing) return;
        if (receipt == Receipt::Gone || !handle(message)) {
            lost(kEnded);
            return;
        }
        if (message.type == MessageType::Wake) return;  // mostly the only one; others come again
    }
}

// False if the other end says what it must not.
bool LinkedNet::handle(const Message& message) {
    switch (message.type) {
        case MessageType::Wake: wake_card(); return true;
        case MessageType::Ready: {
            if (std::exchange(ready_, true)) return false;
            ever_ready_ = true;
            {
                const std::scoped_lock guard(mutex_);
                report_.assign(message.content.begin(), message.content.end());
            }
            again_at_ns_ = kNothingDue;
            if (!up_.exchange(true) && card_ != nullptr) card_->link_changed(true);
            wake_card();
            return true;
        }
        case MessageType::Hello:
        case MessageType::Offloads: break;
    }
    return false;
}

void LinkedNet::wake_card() {
    bool frames = false;
    bool room = false;
    {
        const std::scoped_lock guard(mutex_);
        std::swap(frames, card_waits_);
        std::swap(room, card_blocked_);
    }
    if (card_ == nullptr) return;
    if (frames) card_->frames_waiting();
    if (room) card_->transmit_ready();
}

// `why`, if it has never been ready.
void LinkedNet::lost(std::string_view why) {
    pid_t process = -1;
    {
        const std::scoped_lock guard(mutex_);
        if (!far_.socket.is_open()) return;
        loop_.forget(far_.socket.get());
        link_.reset();
        header_checked_ = false;
        far_.socket = File();
        process = std::exchange(far_.process, -1);
    }
    end_process(process);
    ready_ = false;
    if (now_ns() - reached_at_ns_ > kSettledMs * kNsPerMs) pause_ms_ = peer_process_.first_pause_ms;
    unplug(why);
}

// Until the other end is tried again.
void LinkedNet::unplug(std::string_view why) {
    if (!std::exchange(ever_ready_, true) && peer_process_.on_trouble) peer_process_.on_trouble(why);
    const u64 pause_ns = next_pause();
    again_at_ns_ = now_ns() + pause_ns;
    loop_.wake_in(pause_ns);
    if (up_.exchange(false) && card_ != nullptr) card_->link_changed(false);
    wake_card();  // what it sends from now on is thrown away, which is also room
}

void LinkedNet::try_again() {
    if (const auto reached = reach(); !reached) {
        {
            const std::scoped_lock guard(mutex_);
            unstarted_ = false;
        }
        unplug(reached.error().message);
        return;
    }
    const u64 patience_ns = u64{kPatienceMs} * kNsPerMs;
    again_at_ns_ = now_ns() + patience_ns;
    loop_.wake_in(patience_ns);
    watch();
    wake_card();  // what waited for the first start has a cable now
}

// In nanoseconds; the one after it is longer.
u64 LinkedNet::next_pause() {
    const u64 pause_ms = pause_ms_;
    pause_ms_ = std::min(pause_ms_ * 2, peer_process_.first_pause_ms * 100);
    return pause_ms * kNsPerMs;
}

u64 LinkedNet::run_due() {
    const u64 now = now_ns();
    if (again_at_ns_ > now) return again_at_ns_ == kNothingDue ? kNothingDue : again_at_ns_ - now;
    again_at_ns_ = kNothingDue;
    if (far_.socket.is_open())
        lost(kSilent);  // it was started, but has not become ready
    else
        try_again();
    return kNothingDue;  // both have said when to be back
}

// The other end wrote nonsense into the rings; noticed on another thread, with the lock held.
void LinkedNet::give_up_soon() {
    if (std::exchange(giving_up_, true)) return;
    loop_.post([this] { lost(kEnded); });
}

// The card sends for the first time; noticed on another thread, with the lock held.
void LinkedNet::start_soon() {
    if (std::exchange(start_asked_, true)) return;
    loop_.post([this] {
        loop_.add(*this);
        try_again();
    });
}

// --- The card's threads ---

// False if there is no room for it.
bool LinkedNet::write_frame(const Frame& frame, bool& wake) {
    const std::size_t size = size_of(frame.pieces);
    if (size < sizeof(NetHeader) + 14 || size > sizeof(NetHeader) + kMaxFrame) return true;  // not a frame
    std::array<std::span<u8>, 1> room;
    while (link_->out().reserve(size, room) == 0) {
        if (link_->out().broken()) {
            give_up_soon();
            return true;
        }
        if (link_->out().want_room(size)) return false;
    }
    std::size_t at = 0;
    for (const iovec& piece : frame.pieces) {
        if (piece.iov_len == 0) continue;
        std::memcpy(room[0].subspan(at, piece.iov_len).data(), piece.iov_base, piece.iov_len);
        at += piece.iov_len;
    }
    if (link_->out().commit(std::array{size})) wake = true;
    return true;
}

std::size_t LinkedNet::transmit(unsigned /*queue*/, std::span<const Frame> frames) {
    const std::scoped_lock guard(mutex_);
    if (unstarted_) {
        card_blocked_ = true;
        start_soon();
        return 0;
    }
    if (!link_) return frames.size();  // no cable
    bool wake = false;
    std::size_t taken = 0;
    while (taken < frames.size() && write_frame(frames[taken], wake)) ++taken;
    card_blocked_ = taken < frames.size();
    if (wake) link_->wake_peer();
    return taken;
}

// The next frame that may be passed on, its header in header_; empty if there is none now.
std::span<const u8> LinkedNet::next_frame() {
    for (int dropped = 0; link_ && dropped < kDropsAtOnce; ++dropped) {
        std::span<const u8> frame = link_->in().next();
        if (frame.empty()) {
            if (link_->in().broken()) {
                give_up_soon();
                return {};
            }
            if (link_->in().sleep()) break;
            frame = link_->in().next();
            if (frame.empty()) continue;
        }
        if (header_checked_) return frame;
        NetHeader header;
        std::memcpy(&header, frame.data(), sizeof header);
        const std::size_t size = frame.size() - sizeof header;
        if (header_is_sane(header, size, guest_takes_)) {
            header.buffers = 0;
            header_ = header;
            header_checked_ = true;
            return frame;
        }
        // Made for what the guest took before it changed its mind; or by somebody who is up to something.
        if (!header_is_sane(header, size, kAll)) {
            give_up_soon();
            return {};
        }
        if (link_->in().pop()) link_->wake_peer();
        if (dropped + 1 == kDropsAtOnce) loop_.post([this] { wake_card(); });
    }
    card_waits_ = true;
    return {};
}

std::size_t LinkedNet::next_size(unsigned /*queue*/) {
    const std::scoped_lock guard(mutex_);
    if (!link_) {
        card_waits_ = true;
        return 0;
    }
    return next_frame().size();
}

std::size_t LinkedNet::receive(unsigned /*queue*/, std::span<const iovec> pieces) {
    const std::scoped_lock guard(mutex_);
    const std::span<const u8> frame = next_frame();
    if (frame.empty()) return 0;
    // The header is the copy that was checked.
    std::array<u8, sizeof(NetHeader)> header;  // NOLINT(cppcoreguidelines-pro-type-member-init): filled next
    std::memcpy(header.data(), &header_, header.size());
    std::span<const u8> part = header;
    std::size_t done = 0;
    for (const iovec& piece : pieces) {
        std::span<u8> room(static_cast<u8*>(piece.iov_base), piece.iov_len);
        while (!room.empty() && done < frame.size()) {
            if (part.empty()) part = frame.subspan(sizeof(NetHeader));
            const std::size_t size = std::min(room.size(), part.size());
            std::memcpy(room.data(), part.data(), size);
            room = room.subspan(size);
            part = part.subspan(size);
            done += size;
        }
    }
    header_checked_ = false;
    if (link_->in().pop()) link_->wake_peer();
    return done;
}

void LinkedNet::drop(unsigned /*queue*/) {
    const std::scoped_lock guard(mutex_);
    if (next_frame().empty()) return;
    header_checked_ = false;
    if (link_->in().pop()) link_->wake_peer();
}

void LinkedNet::guest_takes(const NetOffloads& offloads) {
    const std::scoped_lock guard(mutex_);
    if (guest_takes_ == offloads) return;
    guest_takes_ = offloads;
    header_checked_ = false;
    if (link_) (void)send_message(far_.socket.get(), MessageType::Offloads, std::array{pack(offloads)});
}

}  // namespace tessera::net
