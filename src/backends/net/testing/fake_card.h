// A network card without a machine: keeps what the backend tells it, and passes frames on.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <vector>

#include "backends/net/net_backend.h"

namespace tessera::net::testing {

class FakeCard final : public NetPeer {
public:
    explicit FakeCard(NetBackend& net) : net_(net) { net_.connect(this); }
    FakeCard(const FakeCard&) = delete;
    FakeCard& operator=(const FakeCard&) = delete;
    ~FakeCard() override { net_.connect(nullptr); }

    void frames_waiting() override { tell(waiting_); }
    void transmit_ready() override { tell(ready_); }
    void link_changed(bool up) override { tell(up ? ups_ : downs_); }

    // False if there was no room.
    bool send(const std::vector<u8>& frame) {
        // In two pieces, as guests have it.
        std::vector<u8> copy(frame);
        const std::array<iovec, 2> pieces{
            iovec{.iov_base = copy.data(), .iov_len = sizeof(NetHeader)},
            iovec{.iov_base = copy.data() + sizeof(NetHeader), .iov_len = copy.size() - sizeof(NetHeader)}};
        const std::array<NetBackend::Frame, 1> frames{NetBackend::Frame{.pieces = pieces}};
        return net_.transmit(0, frames) == 1;
    }
    // The next frame, empty if none comes in time.
    std::vector<u8> take(std::chrono::milliseconds patience = std::chrono::seconds(10)) {
        const auto end = std::chrono::steady_clock::now() + patience;
        for (;;) {
            const unsigned before = count(waiting_);
            if (const std::size_t size = net_.next_size(0); size != 0) {
                std::vector<u8> frame(size);
                const std::size_t half = size / 2;
                const std::array<iovec, 2> pieces{
                    iovec{.iov_base = frame.data(), .iov_len = half},
                    iovec{.iov_base = frame.data() + half, .iov_len = size - half}};
                frame.resize(net_.receive(0, pieces));
                return frame;
            }
            std::unique_lock guard(mutex_);
            if (!changed_.wait_until(guard, end, [&] { return waiting_ != before; })) return {};
        }
    }
    // Waits until link_changed(up) has been called `times` times.
    bool wait_for_link(bool up, unsigned times) {
        std::unique_lock guard(mutex_);
        return changed_.wait_for(guard, std::chrono::seconds(60),
                                 [&] { return (up ? ups_ : downs_) >= times; });
    }
    bool wait_for_room(unsigned before) {
        std::unique_lock guard(mutex_);
        return changed_.wait_for(guard, std::chrono::seconds(60), [&] { return ready_ != before; });
    }
    unsigned rooms() { return count(ready_); }
    unsigned link_changes() { return count(ups_) + count(downs_); }

private:
    void tell(unsigned& counter) {
        const std::scoped_lock guard(mutex_);
        ++counter;
        changed_.notify_all();
    }
    unsigned count(const unsigned& counter) {
        const std::scoped_lock guard(mutex_);
        return counter;
    }

    NetBackend& net_;
    std::mutex mutex_;
    std::condition_variable changed_;
    unsigned waiting_ = 0;
    unsigned ready_ = 0;
    unsigned ups_ = 0;
    unsigned downs_ = 0;
};

}  // namespace tessera::net::testing
