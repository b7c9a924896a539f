#include "backends/net/helper/net_helper.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <ctime>
#include <fcntl.h>
#include <memory>
#include <poll.h>
#include <sys/random.h>

#include "backends/net/confine/confine.h"
#include "backends/net/helper/helper_config.h"
#include "backends/net/helper/host_sockets.h"
#include "backends/net/ring/link.h"

namespace tessera::net {

namespace {

constexpr int kFramesAtOnce = 64;
constexpr int kHelloPatienceMs = 10'000;

u64 now_ms() {
    timespec now{};
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<u64>(now.tv_sec) * 1000 + static_cast<u64>(now.tv_nsec) / 1'000'000;
}

// The engine's way to the card: the link's ring.
class LinkWire final : public usernet::Wire {
public:
    explicit LinkWire(Link& link) : link_(link) {}
    std::size_t reserve(std::size_t size, std::span<usernet::Room> frames) override {
        std::size_t count = link_.out().reserve(size, frames);
        if (count == 0 && !link_.out().want_room(size)) count = link_.out().reserve(size, frames);
        return count;
    }
    void commit(std::span<const std::size_t> sizes) override {
        if (link_.out().commit(sizes)) wake_ = true;
    }
    [[nodiscard]] bool drained() const override { return link_.out().drained(); }
    // One wake-up for all that was sent since the last.
    void wake() {
        if (!wake_) return;
        wake_ = false;
        link_.wake_peer();
    }

private:
    Link& link_;
    bool wake_ = false;
};

class Helper {
public:
    Helper(std::unique_ptr<Link> link, usernet::Config config, std::vector<File> forwards)
        : link_(std::move(link)),
          wire_(*link_),
          sockets_(std::move(forwards), config),
          stack_(std::move(config), sockets_, wire_) {}

    int run(const std::vector<Layer>& layers) {
        if (!sockets_.open(kHelperSocket)) return 1;
        const std::string report = describe(layers);
        (void)send_message(
            kHelperSocket, MessageType::Ready,
            {reinterpret_cast<const u8*>(report.data()), std::min(report.size(), kMostContent)});
        while (!link_->broken()) {
            const bool more_frames = take_frames();
            const u64 now = now_ms();
            (void)stack_.run_due(now);
            const bool more_output = stack_.flush(now);
            wire_.wake();
            int timeout_ms = 0;
            if (!more_frames && !more_output && link_->in().sleep())
                timeout_ms = until(stack_.run_due(now), now);
            if (sockets_.wait(timeout_ms, stack_, now_ms) && !take_messages()) return 0;
        }
        return 1;
    }

private:
    bool take_frames() {
        const u64 now = now_ms();
        bool wake = false;
        for (int i = 0; i < kFramesAtOnce; ++i) {
            const usernet::Bytes frame = link_->in().next();
            if (frame.empty()) {
                if (wake) link_->wake_peer();
                return false;
            }
            stack_.input(frame, now);
            if (link_->in().pop()) wake = true;
        }
        if (wake) link_->wake_peer();
        return true;
    }
    static int until(u64 due, u64 now) {
        constexpr u64 kLongest = 3'600'000;
        return static_cast<int>(due <= now ? 0 : std::min(due - now, kLongest));
    }
    // False when the other side is gone.
    bool take_messages() {
        constexpr int kMessagesAtOnce = 32;
        Message message;
        for (int i = 0; i < kMessagesAtOnce; ++i) {
            switch (receive_message(kHelperSocket, message)) {
                case Receipt::Nothing: return true;
                case Receipt::Gone: return false;
                case Receipt::Message:
                    if (message.type == MessageType::Wake)
                        return true;  // mostly the only one; others come again
                    if (message.type == MessageType::Offloads && message.content.size() == 1)
                        stack_.guest_takes(unpack_offloads(message.content[0]));
                    break;
            }
        }
        return true;
    }

    std::unique_ptr<Link> link_;
    LinkWire wire_;
    HostSockets sockets_;
    usernet::Stack stack_;
};

}  // namespace

int net_helper_main() {
    pollfd ready{.fd = kHelperSocket, .events = POLLIN, .revents = 0};
    Message hello;
    if (poll(&ready, 1, kHelloPatienceMs) != 1 || receive_message(kHelperSocket, hello) != Receipt::Message ||
        hello.type != MessageType::Hello || hello.files.empty())
        return 1;
    auto config = from_bytes(hello.content);
    if (!config || hello.files.size() != 1 + config->forwards.size()) return 1;
    (void)getrandom(&config->seed, sizeof config->seed, 0);
    auto link = Link::adopt(kHelperSocket, std::move(hello.files[0]));
    if (!link) return 1;
    hello.files.erase(hello.files.begin());
    const std::vector<Layer> layers = confine(config->restricted ? Needs::NoSockets : Needs::Sockets);
    return std::make_unique<Helper>(std::move(*link), std::move(*config), std::move(hello.files))
        ->run(layers);
}

}  // namespace tessera::net
