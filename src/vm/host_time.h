// Guest time hosted on Linux: one counter, two views of it. HostTsc counts, HostClock is the same count in
// nanoseconds, so that a guest's time-stamp counter and its timers can never drift apart. Both stand still
// while the VM is paused.
#pragma once

#include <atomic>
#include <mutex>

#include "base/clock.h"

namespace tessera {

class HostTsc final : public TscSource {
public:
    // What counts underneath. Processor: the host's own TSC, where it is invariant [SDM 3B 18.17.1]; else
    // CLOCK_MONOTONIC, at 1 GHz. Auto picks. The processor's frequency is measured once per process, from the
    // first construction to the first use, but four milliseconds at least (to some 10 ppm): what is left of
    // them is waited for.
    enum class Source : u8 { Auto, Processor, Monotonic };
    // Starts frozen, at 0; thaw(), hz() and source() are uses.
    explicit HostTsc(Source source = Source::Auto);

    [[nodiscard]] u64 ticks() const override {
        const u64 frozen = frozen_at_.load(std::memory_order_acquire);
        return frozen != kRunning ? frozen : raw() - offset_.load(std::memory_order_relaxed);
    }
    [[nodiscard]] u64 hz() const override {
        settle();
        return hz_;
    }
    [[nodiscard]] std::optional<u64> processor_offset() const override;
    [[nodiscard]] Source source() const {
        settle();
        return source_;
    }

    // Stop and go. Idempotent; one thread at a time.
    void freeze();
    void thaw();
    // Back to 0, keeping frozen or running.
    void restart();

private:
    static constexpr u64 kRunning = ~u64{0};
    [[nodiscard]] u64 raw() const;  // once settled, as everything is that has been thawed
    void settle() const;

    mutable std::once_flag settled_;
    mutable Source source_;
    mutable u64 hz_ = 0;
    std::atomic<u64> frozen_at_ = 0;
    std::atomic<u64> offset_ = 0;
};

class HostClock final : public Clock {
public:
    explicit HostClock(const HostTsc& tsc) : tsc_(tsc) {}
    [[nodiscard]] u64 now_ns() const override {
        const u64 ticks = tsc_.ticks();
        // Before the start nobody needs the frequency.
        if (ticks == 0) return 0;
        u64 ns_per_tick = ns_per_tick_.load(std::memory_order_relaxed);
        if (ns_per_tick == 0) ns_per_tick = settle();
        return static_cast<u64>((static_cast<u128>(ticks) * ns_per_tick) >> kFractionBits);
    }
    // The host's CLOCK_REALTIME: a guest's real-time clock goes on while the VM is paused.
    [[nodiscard]] u64 wall_ns() const override;

private:
    static constexpr unsigned kFractionBits = 32;
    u64 settle() const;

    const HostTsc& tsc_;
    mutable std::atomic<u64> ns_per_tick_ = 0;  // fixed point; 0: not asked for yet
};

}  // namespace tessera
