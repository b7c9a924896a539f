// A network whose other end is another process: the user-mode network's helper, or a switch. That process is
// not trusted, and may die: then the link is down until it has been started again.
#pragma once

#include <functional>
#include <mutex>

#include "backends/event_loop/event_loop.h"
#include "backends/net/cable/spawn.h"
#include "backends/net/net_backend.h"
#include "backends/net/ring/link.h"

namespace tessera::net {

class LinkedNet final : public NetBackend, private DeadlineHandler {
public:
    struct Peer {
        std::function<Result<Far>()> reach;  // starts or finds the process; on any thread
        std::vector<u8> hello;               // what it is told first
        std::vector<File> files;             // and given, after the cable's memory
        NetOffloads can_take;
        u64 first_pause_ms = 100;  // before it is started again; doubled each time, up to the hundredfold
    };
    static constexpr u64 kSettledMs = 10'000;   // one that has lasted so long starts the pauses anew
    static constexpr int kPatienceMs = 10'000;  // until it is ready

    // Returns when the other end is ready.
    static Result<std::unique_ptr<LinkedNet>> create(EventLoop& loop, Peer peer);
    LinkedNet(const LinkedNet&) = delete;
    LinkedNet& operator=(const LinkedNet&) = delete;
    ~LinkedNet() override;

    std::size_t transmit(unsigned queue, std::span<const Frame> frames) override;
    std::size_t next_size(unsigned queue) override;
    std::size_t receive(unsigned queue, std::span<const iovec> pieces) override;
    void drop(unsigned queue) override;
    [[nodiscard]] NetOffloads can_take() const override { return peer_process_.can_take; }
    void guest_takes(const NetOffloads& offloads) override;
    [[nodiscard]] bool link_up() const override { return up_.load(std::memory_order_relaxed); }
    // Waits for the event loop: not with the card locked.
    void connect(NetPeer* card) override;

    // What the process has said about itself when it became ready.
    [[nodiscard]] std::string report() const;
    // The process, -1 if there is none of ours now.
    [[nodiscard]] pid_t process() const;

private:
    LinkedNet(EventLoop& loop, Peer peer)
        : loop_(loop), peer_process_(std::move(peer)), pause_ms_(peer_process_.first_pause_ms) {}

    Status reach();
    Status wait_until_ready();
    void watch();
    void on_socket();
    bool handle(const Message& message);
    void wake_card();
    void lost();
    u64 next_pause();
    u64 run_due() override;
    void give_up_soon();
    bool write_frame(const Frame& frame, bool& wake);
    [[nodiscard]] std::span<const u8> next_frame();

    EventLoop& loop_;
    Peer peer_process_;

    // The loop's thread only.
    NetPeer* card_ = nullptr;
    u64 again_at_ns_ = kNothingDue;
    u64 pause_ms_;
    u64 reached_at_ns_ = 0;

    std::atomic<bool> up_ = false;
    mutable std::mutex mutex_;
    std::string report_;
    Far far_;
    std::unique_ptr<Link> link_;
    NetOffloads guest_takes_;
    NetHeader header_;  // of the next frame, if it has been checked
    bool header_checked_ = false;
    bool card_waits_ = false;    // for frames
    bool card_blocked_ = false;  // for room
    bool giving_up_ = false;
};

}  // namespace tessera::net
