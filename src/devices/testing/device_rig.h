// A rig is a device on the bench: the chip and everything it touches (clock, wires, backends), built by a
// default constructor and poked by choices that come from a seed (unit tests) or from a fuzzer. It uses no
// test framework, so that one rig, kept beside the chip as `<chip>_rig.h`, serves the unit tests and the fuzz
// target.
//
//     struct PitRig {
//         FakeClock clock;
//         RecordingSink wires;
//         Pit device{clock, clock, IrqLine(wires, 0)};  // visit_state(), load(), reset()
//         u64 poke(Choices& choices) {
//             if (choices.below(8) == 0) return advance(clock, choices, 1'000'000);
//             return poke_io(device, Pit::kSize, choices);
//         }
//     };
//
// A poke is one access or outside event, and returns what a guest saw. Clock and wires may be left out; the
// suite keeps clocks in step, and a load must not move the wires. A rig may also have
//
//     void copy_surroundings(const PitRig& from);
//         What a snapshot of the chip does not hold, such as memory, for "continues like the original".
//     bool same_surroundings(const PitRig& other) const;
//         Whether both chips have done the same to it since.
//     void end_what_a_snapshot_ends();
//         What a snapshot cannot hold, and ends for the copy (say why), ends in the original as well.
//     static constexpr std::array<unsigned, 1> kKeptByReset = {9};
//         Field ids that reset() must not touch.
#pragma once

#include <algorithm>
#include <array>
#include <concepts>
#include <iterator>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "base/fake_clock.h"
#include "base/result.h"
#include "base/types.h"
#include "bus/io_device.h"
#include "bus/irq_line.h"
#include "snapshot/state_visitor.h"

namespace tessera::testing_rig {

// Where a poke takes its numbers from.
class Choices {
public:
    Choices() = default;
    Choices(const Choices&) = delete;
    Choices& operator=(const Choices&) = delete;
    virtual ~Choices() = default;
    virtual u64 bits() = 0;
    // In [0, bound); 0 when bound is 0.
    u64 below(u64 bound) { return bound == 0 ? 0 : bits() % bound; }
    bool coin() { return (bits() & 1) != 0; }

    // Cleared by poke_io when a device refused a read and still changed the bus's floating value.
    bool floating_bus_kept = true;
};

// SplitMix64: the same seed gives the same pokes on every machine.
class SeededChoices final : public Choices {
public:
    explicit SeededChoices(u64 seed) : state_(seed) {}
    u64 bits() override {
        state_ += 0x9e37'79b9'7f4a'7c15;
        u64 z = state_;
        z = (z ^ (z >> 30)) * 0xbf58'476d'1ce4'e5b9;
        z = (z ^ (z >> 27)) * 0x94d0'49bb'1331'11eb;
        return z ^ (z >> 31);
    }

private:
    u64 state_;
};

// Reads a fuzzer's input two bytes at a time (most choices are small); zeros when it is used up.
class FuzzedChoices final : public Choices {
public:
    explicit FuzzedChoices(std::span<const u8> input) : input_(input) {}
    [[nodiscard]] bool done() const { return input_.empty(); }
    u64 bits() override {
        const u64 low = take();
        const u64 high = take();
        const u64 word = low | high << 8;
        // The top values stand for "wide": six more bytes make it a full number.
        if (low < 0xf0) return word;
        u64 wide = word;
        for (unsigned i = 2; i < 8; ++i) wide |= u64{take()} << (8 * i);
        return wide;
    }

private:
    u8 take() {
        if (input_.empty()) return 0;
        const u8 first = input_.front();
        input_ = input_.subspan(1);
        return first;
    }
    std::span<const u8> input_;
};

// A wire's other end that remembers.
class RecordingSink final : public IrqSink {
public:
    struct Edge {
        unsigned pin;
        bool high;
        friend bool operator==(const Edge&, const Edge&) = default;
    };
    void set_level(unsigned pin, bool high) override {
        // Bounded: a fuzzer or a stress test may toggle a wire without end.
        if (edges.size() < 100'000) edges.push_back({pin, high});
        if (pin < levels.size()) levels[pin] = high;
    }
    std::vector<Edge> edges;
    std::array<bool, 64> levels{};
};

// One access to a region of `size` bytes: mostly registers at natural widths, sometimes odd widths and
// places. Returns the status and the data, for comparison.
inline u64 poke_io(IoDevice& device, u64 size, Choices& choices) {
    std::array<std::byte, 16> buffer{};
    const u64 kind = choices.below(16);
    const u64 offset = kind == 0 ? choices.bits() : choices.below(size);
    const std::size_t width =
        kind == 1 ? choices.below(buffer.size() + 1) : std::size_t{1} << choices.below(3);
    const auto data = std::span(buffer).first(width);
    u64 seen = 0;
    if (choices.coin()) {
        std::ranges::fill(data, std::byte{0xff});
        const IoStatus status = device.read(offset, data);
        const bool untouched = std::ranges::all_of(data, [](std::byte b) { return b == std::byte{0xff}; });
        if (status != IoStatus::Ok && !untouched) choices.floating_bus_kept = false;
        for (const std::byte b : data) seen = seen * 257 + std::to_integer<u64>(b);
        return seen * 8 + static_cast<u64>(status);
    }
    u64 value = choices.bits();
    for (std::byte& b : data) {
        b = static_cast<std::byte>(value);
        value >>= 8;
    }
    return static_cast<u64>(device.write(offset, data));
}

// Lets up to `most_ns` pass.
inline u64 advance(FakeClock& clock, Choices& choices, u64 most_ns) {
    clock.advance(choices.below(most_ns + 1));
    return 0;
}

template <typename R>
concept DeviceRig =
    std::default_initializable<R> && requires(R rig, StateVisitor& visitor, Choices& choices) {
        rig.device.visit_state(visitor);
        { rig.device.load(visitor) } -> std::same_as<Status>;
        rig.device.reset();
        { rig.poke(choices) } -> std::convertible_to<u64>;
    };

struct Saved {
    std::map<unsigned, u64> numbers;
    std::map<unsigned, std::vector<u8>> blobs;
    friend bool operator==(const Saved&, const Saved&) = default;
};

template <DeviceRig R>
Saved saved(R& rig) {
    Saver saver;
    rig.device.visit_state(saver);
    return {std::move(saver.numbers), std::move(saver.blobs)};
}

template <DeviceRig R>
Status load(R& rig, const Saved& from) {
    Saver saver;
    saver.numbers = from.numbers;
    saver.blobs = from.blobs;
    Loader loader(saver);
    return rig.device.load(loader);
}

// Replaces one field by hostile data.
inline void corrupt(Saved& saver, Choices& choices) {
    const u64 which = choices.below(saver.numbers.size() + saver.blobs.size());
    if (which < saver.numbers.size()) {
        auto& value = std::next(saver.numbers.begin(), static_cast<std::ptrdiff_t>(which))->second;
        value = choices.coin() ? choices.bits() : value ^ u64 { 1 } << choices.below(64);
        return;
    }
    if (saver.blobs.empty()) return;
    auto& blob =
        std::next(saver.blobs.begin(), static_cast<std::ptrdiff_t>(which - saver.numbers.size()))->second;
    blob.resize(choices.below(2 * blob.size() + 40));
    for (u8& byte : blob) byte = choices.coin() ? static_cast<u8>(choices.bits()) : byte;
}

}  // namespace tessera::testing_rig
