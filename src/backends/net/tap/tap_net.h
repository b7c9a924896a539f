// A TAP interface of the host: frames go to and come from the host's own network stack, with their offload
// headers, through several queues if the interface has them.
#pragma once

#include <array>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "backends/event_loop/event_loop.h"
#include "backends/net/net_backend.h"
#include "base/file.h"
#include "base/result.h"

namespace tessera::net {

class TapNet final : public NetBackend {
public:
    static constexpr unsigned kMostQueues = 8;

    // The interface `name`: an existing one this user may use, or a new one if this user may make it, which
    // then lasts as long as this object.
    static Result<std::unique_ptr<TapNet>> open(EventLoop& loop, const std::string& name, unsigned queues);
    TapNet(const TapNet&) = delete;
    TapNet& operator=(const TapNet&) = delete;
    ~TapNet() override;

    std::size_t transmit(unsigned index, std::span<const Frame> frames) override;
    std::size_t next_size(unsigned index) override;
    std::size_t receive(unsigned index, std::span<const iovec> pieces) override;
    void drop(unsigned index) override;
    [[nodiscard]] unsigned max_queues() const override { return static_cast<unsigned>(queues_.size()); }
    // Only the first `count` get frames from now on.
    void use_queues(unsigned count) override;
    [[nodiscard]] NetOffloads can_take() const override { return can_take_; }
    void guest_takes(const NetOffloads& offloads) override;
    // Waits for the event loop: not with the card locked.
    void connect(NetPeer* card) override;

private:
    // Each is used by one thread at a time, and by the event loop.
    struct Queue {
        File file;
        bool attached = true;
        std::vector<u8> frame;  // read, not yet taken
        std::size_t size = 0;   // of it, 0 if there is none
        std::atomic<bool> card_waits = false;
        std::atomic<bool> card_blocked = false;
    };

    TapNet(EventLoop& loop, std::string name) : loop_(loop), name_(std::move(name)) {}
    Status open_queues(unsigned queues);
    Status open_queue(bool multi_queue);
    Status watch();
    void ready(unsigned index, u32 events);
    [[nodiscard]] Error refusal(int error, const char* what) const;

    EventLoop& loop_;
    std::string name_;
    std::vector<std::unique_ptr<Queue>> queues_;
    NetOffloads can_take_;
    NetPeer* card_ = nullptr;  // the loop's thread only
};

}  // namespace tessera::net
