// Where other threads leave interrupts for a CPU: I/O APIC messages, inter-processor interrupts, the timer,
// the pins.
//
// Any number of threads post; the CPU's own thread takes. There is no lock. A poster first sets what it has
// to say (a vector's bit), then a bit of the summary word with release order; the taker clears the summary
// with acquire order and only then collects. So whatever a summary bit announced is there to be collected,
// and what is posted later sets the summary again: nothing is lost, and looking at an empty inbox is one
// load.
#pragma once

#include <array>
#include <atomic>
#include <optional>

#include "base/types.h"
#include "devices/lapic/vector_set.h"

namespace tessera::lapic {

// Bits 15:0 of the summary; bits 23:16 are the start-up vector.
enum class Post : u32 {
    Vectors = 1 << 0,
    Nmi = 1 << 1,
    Smi = 1 << 2,
    Init = 1 << 3,
    StartUp = 1 << 4,
    ExtInt = 1 << 5,
    Timer = 1 << 6,
    IllegalVector = 1 << 7,
    Lint0Rise = 1 << 8,
    Lint0Fall = 1 << 9,
    Lint1Rise = 1 << 10,
    Lint1Fall = 1 << 11,
};

class Inbox {
public:
    void post(Post what) { summary_.fetch_or(static_cast<u32>(what), std::memory_order_release); }

    void post_vector(u8 vector, bool level) {
        auto& words = level ? level_ : edge_;
        words[vector / 64].fetch_or(u64{1} << (vector % 64), std::memory_order_release);
        post(Post::Vectors);
    }

    // INIT makes start-up requests before it void; of several start-up requests the first one counts
    // [SDM 3A 9.4.1]: they are latched by a CPU that waits for one, ignored by one that runs.
    void post_init() {
        u32 old = summary_.load(std::memory_order_relaxed);
        while (!summary_.compare_exchange_weak(old, (old & ~kStartUpBits) | static_cast<u32>(Post::Init),
                                               std::memory_order_release, std::memory_order_relaxed)) {
        }
    }
    void post_start_up(u8 vector) {
        u32 old = summary_.load(std::memory_order_relaxed);
        do {
            if ((old & static_cast<u32>(Post::StartUp)) != 0) return;
        } while (!summary_.compare_exchange_weak(
            old, old | static_cast<u32>(Post::StartUp) | u32{vector} << kStartUpShift,
            std::memory_order_release, std::memory_order_relaxed));
    }

    void set_pin(unsigned pin, bool high) {
        const u32 bit = u32{1} << pin;
        const u32 old = high ? pins_.fetch_or(bit, std::memory_order_relaxed)
                             : pins_.fetch_and(~bit, std::memory_order_relaxed);
        if (((old & bit) != 0) == high) return;
        const u32 edge = static_cast<u32>(high ? Post::Lint0Rise : Post::Lint0Fall) << (2 * pin);
        summary_.fetch_or(edge, std::memory_order_release);
    }
    [[nodiscard]] u8 pins() const { return static_cast<u8>(pins_.load(std::memory_order_relaxed)); }

    [[nodiscard]] bool empty() const { return summary_.load(std::memory_order_acquire) == 0; }

    // Owner's thread from here on.
    struct Taken {
        u32 summary = 0;
        [[nodiscard]] bool has(Post what) const { return (summary & static_cast<u32>(what)) != 0; }
        [[nodiscard]] u8 start_up_vector() const { return static_cast<u8>(summary >> kStartUpShift); }
    };
    Taken take() { return {summary_.exchange(0, std::memory_order_acq_rel)}; }
    // The vectors' bits, when the summary announced them.
    void take_vectors(VectorSet& edge, VectorSet& level) {
        for (unsigned i = 0; i < VectorSet::kWords; ++i) {
            if (edge_[i].load(std::memory_order_relaxed) != 0)
                edge.words[i] = edge_[i].exchange(0, std::memory_order_acquire);
            if (level_[i].load(std::memory_order_relaxed) != 0)
                level.words[i] = level_[i].exchange(0, std::memory_order_acquire);
        }
    }
    // While nobody posts. The pins' levels come from outside and stay.
    void clear() {
        (void)take();
        VectorSet drop;
        take_vectors(drop, drop);
    }
    void restore_pins(u8 pins) { pins_.store(pins, std::memory_order_relaxed); }

private:
    static constexpr u32 kStartUpShift = 16;
    static constexpr u32 kStartUpBits = 0xff0000 | static_cast<u32>(Post::StartUp);

    // On a cache line of its own: other CPUs write it while the owner works on its registers.
    alignas(64) std::atomic<u32> summary_ = 0;
    std::atomic<u32> pins_ = 0;  // levels of LINT0 and LINT1
    std::array<std::atomic<u64>, VectorSet::kWords> edge_{};
    std::array<std::atomic<u64>, VectorSet::kWords> level_{};
};

}  // namespace tessera::lapic
