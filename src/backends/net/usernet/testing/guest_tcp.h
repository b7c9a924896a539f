// A guest's TCP, small: it connects, sends in segments as large as it is told, takes what is in order, and
// sends again what is not acknowledged. Frames go through functions, so it talks to a stack or to a cable.
#pragma once

#include <functional>

#include "backends/net/usernet/testing/frames.h"

namespace tessera::usernet::testing {

class GuestTcp {
public:
    using Send = std::function<void(const Buffer& frame)>;
    GuestTcp(Send send, Buffer remote, u32 port, u32 own_port)
        : send_(std::move(send)), remote_(std::move(remote)), port_(port), own_port_(own_port) {}

    void connect(u32 sequence = 0x10000000) {
        una_ = next_ = sequence;
        emit(kSyn, next_, {}, Buffer{2, 4, 5, 0xb4, 1, 3, 3, scale});
        ++next_;
    }
    // A frame from the network; false if it was not for this connection.
    bool take(const Buffer& bytes) {
        const Received r = receive(bytes);
        if (r.protocol != 6 || r.from != remote_) return false;
        const ReceivedTcp t = as_tcp(r);
        if (t.source != port_ || t.target != own_port_) return false;
        if (r.net.flags == 0) {
            EXPECT_TRUE(sum_is_right(r));
        }
        take_segment(t);
        return true;
    }
    void send(std::string_view data) { unsent_.append(data); }
    void close() { closing_ = true; }
    void reset() { emit(kRst, next_, {}); }
    // Sends what windows allow, in segments of at most `most` bytes.
    void push(std::size_t most) {
        while (connected && next_ - una_ < window_) {
            const std::size_t in_flight = next_ - una_;
            if (fin_sent_ || in_flight > unsent_.size()) break;
            const std::size_t size =
                std::min({most, unsent_.size() - in_flight, std::size_t{window_ - (next_ - una_)}});
            if (size == 0) break;
            emit(kAck | kPsh, next_, text(std::string_view(unsent_).substr(in_flight, size)));
            next_ += static_cast<u32>(size);
        }
        if (connected && closing_ && !fin_sent_ && next_ - una_ == unsent_.size()) {
            emit(kFin | kAck, next_, {});
            fin_sent_ = true;
            ++next_;
        }
    }
    // As after a timeout: all that is not acknowledged, again.
    void again(std::size_t most) {
        if (was_reset) return;
        if (!connected) {
            if (next_ != una_) emit(kSyn, una_, {}, Buffer{2, 4, 5, 0xb4, 1, 3, 3, scale});
            return;
        }
        next_ = una_;
        fin_sent_ = false;
        push(most);
    }
    void acknowledge() { emit(kAck, next_, {}); }

    [[nodiscard]] bool all_acknowledged() const { return una_ == next_ && unsent_.empty(); }
    [[nodiscard]] bool fin_acknowledged() const { return fin_acknowledged_; }
    [[nodiscard]] u32 next_sequence() const { return next_; }
    [[nodiscard]] u32 expects() const { return expects_; }
    [[nodiscard]] u32 peer_window() const { return window_; }

    bool connected = false;
    bool was_reset = false;
    bool remote_finished = false;
    bool acknowledges = true;  // by itself
    u32 window = 60'000;       // what it offers, scaled
    u8 scale = 0;
    std::string received;

private:
    void take_segment(const ReceivedTcp& t) {
        if ((t.flags & kRst) != 0) {
            was_reset = true;
            connected = false;
            return;
        }
        if ((t.flags & kSyn) != 0) {
            if (connected) return acknowledge();
            connected = true;
            expects_ = t.sequence + 1;
            una_ = t.acknowledged;
            peer_scale_ = 0;
            for (std::size_t at = 0; at + 2 < t.options.size();) {
                if (t.options[at] == 3) peer_scale_ = t.options[at + 2];
                at += t.options[at] == 1 ? 1 : std::max<std::size_t>(t.options[at + 1], 2);
            }
            window_ = t.window;
            return acknowledge();
        }
        take_acknowledgement(t);
        take_data(t);
    }
    void take_acknowledgement(const ReceivedTcp& t) {
        window_ = t.window << peer_scale_;
        u32 newly = t.acknowledged - una_;
        if (newly == 0 || newly > 0x7fffffff) return;
        EXPECT_LE(newly, next_ - una_ + (unsent_.size())) << "it acknowledges what was never sent";
        if (newly > unsent_.size()) {
            fin_acknowledged_ = true;
            fin_sent_ = true;
        }
        unsent_.erase(0, newly);
        una_ = t.acknowledged;
        if (static_cast<s32>(next_ - una_) < 0) next_ = una_;
    }
    void take_data(const ReceivedTcp& t) {
        const u32 known = expects_ - t.sequence;
        const bool fin = (t.flags & kFin) != 0;
        if (t.data.empty() && !fin) return;
        if (known < t.data.size()) {
            received.append(t.data.begin() + known, t.data.end());
            expects_ += static_cast<u32>(t.data.size() - known);
        }
        if (fin && expects_ == t.sequence + t.data.size() && !remote_finished) {
            remote_finished = true;
            ++expects_;
        }
        if (acknowledges) acknowledge();
    }
    void emit(u8 flags, u32 sequence, const Buffer& data, const Buffer& options = {}) {
        const Buffer from = remote_.size() == 4 ? kGuest : kGuest6;
        send_(ip_frame(ip(from, remote_, 6,
                          tcp(from, remote_,
                              {.source = own_port_,
                               .target = port_,
                               .sequence = sequence,
                               .acknowledged = (flags & kAck) != 0 ? expects_ : 0,
                               .flags = flags,
                               .window = (flags & kSyn) != 0 ? std::min(window, 65535U) : window >> scale,
                               .options = options,
                               .data = data}))));
    }

    Send send_;
    Buffer remote_;
    u32 port_;
    u32 own_port_;
    u32 una_ = 0;
    u32 next_ = 0;
    u32 expects_ = 0;
    u32 window_ = 0;
    u8 peer_scale_ = 0;
    bool closing_ = false;
    bool fin_sent_ = false;
    bool fin_acknowledged_ = false;
    std::string unsent_;  // from una_ on
};

}  // namespace tessera::usernet::testing
