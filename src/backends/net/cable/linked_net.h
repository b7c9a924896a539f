// A network whose other end is another process: the user-mode network's helper, or a switch. That process is
// not trusted, and may die: then the link is down until it has been started again. It may also be started
// only when the guest sends its first frame: until then the link is up, with nobody at the other end.
#pragma once

#include <functional>
#include <mutex>
#include <string>
#include <string_view>

#include "backends/event_loop/event_loop.h"
#include "backends/net/cable/spawn.h"
#include "backends/net/net_backend.h"
#include "backends/net/ring/link.h"

namespace tessera::net {

// When the process at the other end is started; WhenUsed is with the guest's first frame.
enum class Start : u8 { AtOnce, WhenUsed };

class LinkedNet final : public NetBackend, private DeadlineHandler {
public:
    struct Peer {
        std::function<Result<Far>()> reach;  // starts or finds the process; on any thread
        std::vector<u8> hello;               // what it is told first
        std::vector<File> files;             // and given, after the cable's memory
        NetOffloads can_take;
        u64 first_pause_ms = 100;  // before it is started again; doubled each time, up to the hundredfold
        Start start = Start::AtOnce;
        // Told once if a process that is started when used never becomes ready; on the loop's thread.
        std::function<void(std::string_view)> on_trouble;
    };
    static constexpr u64 kSettledMs = 10'000;   // one that has lasted so long starts the pauses anew
    static constexpr int kPatienceMs = 10'000;  // until it is ready

    // Returns when the other end is ready; if it is to be started when used, at once.
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
        : loop_(loop),
          peer_process_(std::move(peer)),
          pause_ms_(peer_process_.first_pause_ms),
          up_(peer_process_.start == Start::WhenUsed),
          unstarted_(up_) {}

    Status reach();
    Status wait_until_ready();
    void watch();
    void on_socket();
    bool handle(const Message& message);
    void wake_card();
    void try_again();
    void lost(std::string_view why);
    void unplug(std::string_view why);
    u64 next_pause();
    u64 run_due() override;
    void give_up_soon();
    void start_soon();
    bool write_frame(const Frame& frame, bool& wake);
    [[nodiscard]] std::span<const u8> next_frame();

    EventLoop& loop_;
    Peer peer_process_;

    // The loop's thread only, once the other end has been started or is about to be.
    NetPeer* card_ = nullptr;
    u64 again_at_ns_ = kNothingDue;
    u64 pause_ms_;
    u64 reached_at_ns_ = 0;
    bool ready_ = false;       // the other end has said so
    bool ever_ready_ = false;  // or one before it, or its trouble is told

    std::atomic<bool> up_;  // what the guest sees
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
    bool unstarted_;  // never started so far: what the card sends waits
    bool start_asked_ = false;
};

}  // namespace tessera::net
