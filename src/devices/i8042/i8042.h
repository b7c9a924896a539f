// The PS/2 keyboard controller (8042) with a keyboard and a mouse behind it [PS2-TRM]. It and they answer
// every command at once. Leaves out the password lock and the controller's diagnostic dump.
#pragma once

#include <array>
#include <span>
#include <utility>

#include "base/clock.h"
#include "base/flags.h"
#include "base/result.h"
#include "bus/io_device.h"
#include "bus/irq_line.h"
#include "devices/i8042/i8042_regs.h"
#include "devices/i8042/ps2_keyboard.h"
#include "devices/i8042/ps2_mouse.h"
#include "devices/reset_control/a20_gate.h"
#include "devices/reset_control/machine_events.h"
#include "snapshot/state_visitor.h"

namespace tessera::i8042 {

class I8042 final {
public:
    I8042(IrqLine keyboard_irq, IrqLine mouse_irq, MachineEvents& machine, A20Gate& a20, Clock& clock,
          TimerQueue& timers)
        : keyboard_irq_(std::move(keyboard_irq)),
          mouse_irq_(std::move(mouse_irq)),
          machine_(machine),
          a20_(a20),
          clock_(clock),
          repeat_timer_(timers, *this),
          data_port_(*this),
          command_port_(*this) {}

    // Ports 0x60 and 0x64, one byte each; to be put on the bus under one lock.
    IoDevice& data_port() { return data_port_; }
    IoDevice& command_port() { return command_port_; }
    // What firmware leaves behind: tested, translating, keyboard on, mouse off.
    void reset();

    // --- Host side; call with the device's lock held. ---

    // A key by its USB HID usage (page 7). False: there is no such key on this keyboard.
    bool key(u8 usage, KeyAction action);
    // Counts: x to the right, y down, wheel away from the user.
    void mouse_move(s32 x, s32 y, s32 wheel);
    // All buttons that are down now (MouseButton bits).
    void mouse_buttons(u8 down);
    [[nodiscard]] u8 leds() const { return keyboard_.leds(); }

    void visit_state(StateVisitor& v);
    Status load(StateVisitor& v);

private:
    enum class Source : u8 { None, Controller, Keyboard, Mouse };

    struct State {
        std::array<u8, 32> ram{};  // byte 0 is the command byte
        u8 output = 0;
        u8 output_source = static_cast<u8>(Source::None);  // None: the output buffer is empty
        u8 reply = 0;                                      // waits for the output buffer
        u8 reply_source = static_cast<u8>(Source::None);   // as which device's byte it is to appear
        u8 pending = 0;                                    // a command that waits for its data byte
        u8 command_last = 0;
        u8 poll_bits = 0;  // status bits 4-7 instead of their own meaning, while polling the input port
        u8 polling = 0;
        u8 break_prefix = 0;  // translation has seen F0
        u8 a20 = 1;
        State() { ram[0] = kPowerOnCommandByte; }
    };
    static constexpr u8 kPowerOnCommandByte =
        static_cast<u8>(CommandByte::KeyboardInterrupt) | static_cast<u8>(CommandByte::SystemFlag) |
        static_cast<u8>(CommandByte::DisableAux) | static_cast<u8>(CommandByte::Translate);

    enum class Port : u8 { Data, Command };
    template <Port P>
    class PortDevice final : public IoDevice {
    public:
        explicit PortDevice(I8042& owner) : owner_(owner) {}
        IoStatus read(u64 offset, std::span<std::byte> out) override {
            if (out.size() != 1) return IoStatus::BadWidth;
            if (offset != 0) return IoStatus::NoRegister;
            out[0] = std::byte{P == Port::Data ? owner_.read_output() : owner_.read_status()};
            return IoStatus::Ok;
        }
        IoStatus write(u64 offset, std::span<const std::byte> in) override {
            if (in.size() != 1) return IoStatus::BadWidth;
            if (offset != 0) return IoStatus::NoRegister;
            const auto value = std::to_integer<u8>(in[0]);
            P == Port::Data ? owner_.write_data(value) : owner_.write_command(value);
            return IoStatus::Ok;
        }

    private:
        I8042& owner_;
    };

    struct Parts {
        State& controller;
        Ps2Keyboard& keyboard;
        Ps2Mouse& mouse;
    };
    static bool visit(StateVisitor& v, const Parts& parts);
    [[nodiscard]] static bool plausible(const State& s);

    u8 read_output();
    u8 read_status();
    void write_data(u8 value);
    void write_command(u8 value);
    void take_argument(u8 command, u8 value);
    void write_output_port(u8 value);
    [[nodiscard]] u8 output_port() const;
    void set_a20(bool on);

    [[nodiscard]] Flags<CommandByte> command_byte() const { return Flags<CommandByte>(state_.ram[0]); }
    void set_command_byte(CommandByte bit, bool on);
    void reply(u8 value, Source as = Source::Controller);
    void fill_output();
    // Nothing when the byte is only the first half of something.
    std::optional<u8> translated(u8 byte);
    [[nodiscard]] bool keyboard_level() const;
    [[nodiscard]] bool mouse_level() const;
    void on_repeat();
    void arm_repeat();
    void sync();

    State state_;
    Ps2Keyboard keyboard_;
    Ps2Mouse mouse_;
    IrqLine keyboard_irq_;
    IrqLine mouse_irq_;
    MachineEvents& machine_;
    A20Gate& a20_;
    Clock& clock_;
    MemberTimer<I8042, &I8042::on_repeat> repeat_timer_;
    PortDevice<Port::Data> data_port_;
    PortDevice<Port::Command> command_port_;
};

static_assert(Snapshotable<I8042>);

}  // namespace tessera::i8042
