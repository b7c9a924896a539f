// The doorbells of a device's queues while the engine answers them: where they hang, and what they ring. The
// bus still answers what this cannot: other widths, devices that share their addresses, engines without
// doorbells, too many of them. Knows no device.
//
// A doorbell is hung when its queue is first worked for, so that a guest that moves devices about before it
// uses them, as all do at start, costs nothing.
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <optional>
#include <vector>

#include "backends/event_loop/event_loop.h"
#include "base/file.h"
#include "bus/doorbell.h"
#include "bus/io_bus.h"

namespace tessera {

class QueueBells final : public PlaceWatcher {
public:
    // A queue's doorbell, its address counted from the beginning of the device's range.
    using DoorbellOf = Doorbell (*)(unsigned queue);
    // Called on the loop's thread.
    using Ring = std::function<void(unsigned queue)>;
    // Taking a doorbell down takes the host long, and the device waits meanwhile, with all that share its
    // thread: a guest that has done it so often stays with the bus until the next use().
    static constexpr unsigned kMostMoves = 64;

    QueueBells(EventLoop& loop, unsigned queues, DoorbellOf doorbell_of, Ring ring);
    QueueBells(const QueueBells&) = delete;
    QueueBells& operator=(const QueueBells&) = delete;
    ~QueueBells() override { end(); }

    // Who answers from now on; null: nobody, and what hangs is not heard because nothing rings it. There is
    // one host, which lives longer. Before CPUs run, each time.
    void use(DoorbellHost* host);
    // Also before the device's place is known to a bus. Afterwards nothing rings at the old place.
    void on_place(std::optional<u64> base) override;

    // Nothing rings any more, for good. Takes nothing down: no CPU will run.
    void end();

    // --- On the loop's thread.

    // A queue is about to be worked for.
    void hang_up(unsigned queue);
    // Rings what the guest has rung and nobody has heard yet.
    void listen();

private:
    struct Bell {
        File event;  // the loop thread's; while the doorbell hangs everybody's
        std::optional<Doorbell> hung = std::nullopt;
    };

    [[nodiscard]] bool open(unsigned queue);
    [[nodiscard]] bool try_to_hang(unsigned queue, bool opened);
    void listen(unsigned queue);
    void update_missing();
    [[nodiscard]] static u64 bit(unsigned queue) { return u64{1} << queue; }

    EventLoop& loop_;
    const DoorbellOf doorbell_of_;
    const Ring ring_;
    // Queues whose doorbells do not hang and could.
    std::atomic<u64> missing_ = 0;
    std::mutex mutex_;  // of what follows, and of writes to missing_. Nothing else is taken under it
    DoorbellHost* host_ = nullptr;
    bool in_use_ = false;
    unsigned moves_left_ = kMostMoves;
    std::optional<u64> base_;
    std::vector<Bell> bells_;
};

}  // namespace tessera
