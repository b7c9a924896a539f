#include "vm/host_time.h"

#include <algorithm>
#include <cpuid.h>
#include <ctime>
#include <x86intrin.h>

namespace tessera {

namespace {

constexpr u64 kNsPerSecond = 1'000'000'000;

u64 clock_ns(clockid_t clock) {
    timespec now{};
    (void)clock_gettime(clock, &now);
    return static_cast<u64>(now.tv_sec) * kNsPerSecond + static_cast<u64>(now.tv_nsec);
}

// [SDM 3B 18.17.1], [APM 3 E.4.6] CPUID 8000_0007h EDX bit 8: the TSC runs at one rate in every power state.
bool tsc_is_invariant() {
    constexpr unsigned kInvariantTsc = 1U << 8;
    unsigned eax = 0;
    unsigned ebx = 0;
    unsigned ecx = 0;
    unsigned edx = 0;
    return __get_cpuid(0x8000'0007, &eax, &ebx, &ecx, &edx) != 0 && (edx & kInvariantTsc) != 0;
}

struct Sample {
    u64 ns;
    u64 ticks;
};

// One reading of both clocks, the closest together of several: an interrupt between them would spoil one.
Sample sample() {
    Sample best{};
    u64 best_gap = ~u64{0};
    for (int i = 0; i < 16; ++i) {
        const u64 before = __rdtsc();
        const u64 ns = clock_ns(CLOCK_MONOTONIC);
        const u64 after = __rdtsc();
        if (after - before < best_gap) {
            best_gap = after - before;
            best = {.ns = ns, .ticks = before + (after - before) / 2};
        }
    }
    return best;
}

// The processor's counter against the clock: as long a window as the process gives, from when it first asks.
class Calibration {
public:
    Calibration() = default;

    // Ticks per second, or 0 when the measurement makes no sense.
    [[nodiscard]] u64 hz() const {
        constexpr u64 kLeastWindowNs = 4'000'000;
        const u64 elapsed = clock_ns(CLOCK_MONOTONIC) - begin_.ns;
        if (elapsed < kLeastWindowNs) {
            const timespec wait{.tv_sec = 0, .tv_nsec = static_cast<long>(kLeastWindowNs - elapsed)};
            (void)nanosleep(&wait, nullptr);
        }
        const Sample end = sample();
        if (end.ns <= begin_.ns || end.ticks <= begin_.ticks) return 0;
        const u128 hz = static_cast<u128>(end.ticks - begin_.ticks) * kNsPerSecond / (end.ns - begin_.ns);
        constexpr u64 kLeast = 100'000'000;
        constexpr u64 kMost = 20'000'000'000;
        return hz >= kLeast && hz <= kMost ? static_cast<u64>(hz) : 0;
    }

private:
    Sample begin_ = sample();
};

const Calibration& calibration() {
    static const Calibration begun_with_the_first_call;
    return begun_with_the_first_call;
}

u64 processor_hz() {
    static const u64 hz = calibration().hz();
    return hz;
}

}  // namespace

HostTsc::HostTsc(Source source)
    : source_(source != Source::Monotonic && tsc_is_invariant() ? Source::Processor : Source::Monotonic) {
    if (source_ == Source::Processor) (void)calibration();
}

void HostTsc::settle() const {
    std::call_once(settled_, [this] {
        hz_ = source_ == Source::Processor ? processor_hz() : 0;
        if (hz_ != 0) return;
        source_ = Source::Monotonic;
        hz_ = kNsPerSecond;
    });
}

u64 HostTsc::raw() const {
    return source_ == Source::Processor ? __rdtsc() : clock_ns(CLOCK_MONOTONIC);
}

std::optional<u64> HostTsc::processor_offset() const {
    if (frozen_at_.load(std::memory_order_acquire) != kRunning || source() != Source::Processor)
        return std::nullopt;
    return offset_.load(std::memory_order_relaxed);
}

void HostTsc::freeze() {
    if (frozen_at_.load(std::memory_order_relaxed) != kRunning) return;
    frozen_at_.store(raw() - offset_.load(std::memory_order_relaxed), std::memory_order_release);
}

void HostTsc::thaw() {
    settle();
    const u64 at = frozen_at_.load(std::memory_order_relaxed);
    if (at == kRunning) return;
    offset_.store(raw() - at, std::memory_order_relaxed);
    frozen_at_.store(kRunning, std::memory_order_release);
}

void HostTsc::restart() {
    if (frozen_at_.load(std::memory_order_relaxed) == kRunning)
        offset_.store(raw(), std::memory_order_release);
    else
        frozen_at_.store(0, std::memory_order_release);
}

u64 HostClock::settle() const {
    const u64 ns_per_tick = (kNsPerSecond << kFractionBits) / tsc_.hz();
    ns_per_tick_.store(ns_per_tick, std::memory_order_relaxed);
    return ns_per_tick;
}

u64 HostClock::wall_ns() const {
    return clock_ns(CLOCK_REALTIME);
}

}  // namespace tessera
