// A PS/2 keyboard [PS2-TRM "101/102-key keyboard"]: the commands it obeys and the bytes it sends. It answers
// every command at once. Leaves out the shift codes that old keyboards wrap around cursor keys when Num Lock
// is on.
#pragma once

#include <array>
#include <optional>

#include "base/clock.h"
#include "base/types.h"
#include "devices/i8042/byte_queue.h"
#include "devices/i8042/scan_codes.h"

namespace tessera::i8042 {

enum class KeyAction : u8 { Release, Press };

enum class Led : u8 { ScrollLock = 1 << 0, NumLock = 1 << 1, CapsLock = 1 << 2 };

class Ps2Keyboard {
public:
    // The field ids a keyboard's state takes in its controller's snapshot.
    static constexpr unsigned kFirstFieldId = 100;

    // A byte from the controller.
    void command(u8 byte);
    // The next byte for the controller.
    std::optional<u8> take();
    [[nodiscard]] bool has_output() const { return !state_.replies.empty() || !state_.codes.empty(); }

    // A key moves. False: the keyboard has no such key.
    bool key(u8 usage, KeyAction action, u64 now_ns);
    // When a held key next repeats; Timer::kIdle when none does.
    [[nodiscard]] u64 next_repeat_ns() const { return state_.repeat_ns; }
    void repeat(u64 now_ns);
    // Led bits, as the guest last set them.
    [[nodiscard]] u8 leds() const { return state_.leds; }

    void reset() { state_ = State{}; }
    // False: a field holds what no keyboard could.
    bool visit_state(StateVisitor& v) { return visit(v, state_); }
    [[nodiscard]] bool plausible() const;

private:
    struct State {
        u8 leds = 0;
        u8 scan_set = static_cast<u8>(ScanSet::Two);
        u8 typematic = kDefaultTypematic;
        u8 scanning = 1;
        u8 pending = 0;    // a command that waits for its argument
        u8 last_sent = 0;  // for Resend
        u8 repeat_usage = 0;
        u8 overrun_queued = 0;  // the 17th place is taken
        u64 repeat_ns = Timer::kIdle;
        ByteQueue<8> replies;          // go out before scan codes
        ByteQueue<17> codes;           // 16 and the overrun mark
        std::array<u8, 32> pressed{};  // by usage, one bit each
        std::array<u8, kSet3Codes> types3 = default_set3_types();
    };
    static constexpr u8 kDefaultTypematic = 0x2b;  // 500 ms, then 10.9 a second
    static constexpr std::size_t kCodeDepth = 16;

    static bool visit(StateVisitor& v, State& s);
    void start_command(u8 byte);
    bool take_argument(u8 command, u8 byte);
    void set_default();
    void clear_codes();
    void stop_repeat();
    [[nodiscard]] bool is_pressed(u8 usage) const;
    void set_pressed(u8 usage, bool on);
    [[nodiscard]] Modifiers modifiers() const;
    void send(std::span<const u8> codes);
    void send_make(const Key& key);
    void send_break(const Key& key);
    [[nodiscard]] KeyType type3(const Key& key) const {
        return static_cast<KeyType>(state_.types3[key.set3]);
    }
    [[nodiscard]] bool repeats(const Key& key) const;
    [[nodiscard]] u64 repeat_delay_ns() const;
    [[nodiscard]] u64 repeat_period_ns() const;

    State state_;
};

}  // namespace tessera::i8042
