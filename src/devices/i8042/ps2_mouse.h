// A PS/2 mouse [PS2-TRM "Mouse"] with the IntelliMouse extensions [MS-WHEEL]: a wheel, and five buttons. It
// answers every command at once and sends a movement packet as soon as the one before has been read.
#pragma once

#include <array>
#include <optional>

#include "base/types.h"
#include "devices/i8042/byte_queue.h"

namespace tessera::i8042 {

enum class MouseButton : u8 {
    Left = 1 << 0,
    Right = 1 << 1,
    Middle = 1 << 2,
    Back = 1 << 3,
    Forward = 1 << 4
};

class Ps2Mouse {
public:
    // The field ids a mouse's state takes in its controller's snapshot.
    static constexpr unsigned kFirstFieldId = 200;

    // A byte from the controller.
    void command(u8 byte);
    // The next byte for the controller.
    std::optional<u8> take();
    [[nodiscard]] bool has_output() const { return !state_.output.empty() || packet_due(); }

    // Counts since the last call: x to the right, y down, wheel away from the user.
    void move(s32 x, s32 y, s32 wheel);
    // All buttons that are down now (MouseButton bits).
    void buttons(u8 down);

    void reset() { state_ = State{}; }
    // False: a field holds what no mouse could.
    bool visit_state(StateVisitor& v) { return visit(v, state_); }
    [[nodiscard]] bool plausible() const;

private:
    enum class Mode : u8 { Stream, Remote };

    struct State {
        u8 mode = static_cast<u8>(Mode::Stream);
        u8 wrap = 0;
        u8 reporting = 0;
        u8 scaling_2to1 = 0;
        u8 resolution = 2;  // 4 counts a millimetre
        u8 sample_rate = 100;
        u8 id = 0;                         // 3 with a wheel, 4 with five buttons
        std::array<u8, 2> rates_before{};  // the sample rates set before this one, newest first
        u8 pending = 0;                    // a command that waits for its argument
        u8 bad_commands = 0;               // in a row
        u8 buttons = 0;
        u8 buttons_sent = 0;
        u32 dx = 0;  // two's complement; what moved since the last packet
        u32 dy = 0;  // up is positive
        u32 dz = 0;  // towards the user is positive
        ByteQueue<8> output;
        ByteQueue<8> last;  // what Resend repeats
    };

    static bool visit(StateVisitor& v, State& s);
    void start_command(u8 byte);
    void take_argument(u8 command, u8 byte);
    void set_default();
    void set_sample_rate(u8 rate);
    void answer(std::span<const u8> bytes);
    void answer(u8 byte) { answer(std::span(&byte, 1)); }
    void send_status();
    [[nodiscard]] bool packet_due() const;
    void send_packet();
    void forget_movement();

    State state_;
};

}  // namespace tessera::i8042
