#include "devices/i8042/i8042.h"

namespace tessera::i8042 {

namespace {

constexpr u8 kBreakPrefix = 0xf0;
constexpr u8 kSet1Break = 0x80;
constexpr u8 kPollMask = 0xf0;

}  // namespace

void I8042::set_command_byte(CommandByte bit, bool on) {
    Flags<CommandByte> next = command_byte();
    next.set(bit, on);
    state_.ram[0] = next.raw();
}

void I8042::reply(u8 value, Source as) {
    state_.reply = value;
    state_.reply_source = static_cast<u8>(as);
}

// [PS2-TRM] "Scan code translation": F0 and the code after it become one byte.
std::optional<u8> I8042::translated(u8 byte) {
    State& s = state_;
    if (!command_byte().has(CommandByte::Translate)) {
        s.break_prefix = 0;
        return byte;
    }
    if (byte == kBreakPrefix) {
        s.break_prefix = 1;
        return std::nullopt;
    }
    const u8 code = translate_to_set1(byte);
    return static_cast<u8>(std::exchange(s.break_prefix, u8{0}) != 0 ? code | kSet1Break : code);
}

// The controller's own answer goes first; a device whose clock is held low keeps its bytes.
void I8042::fill_output() {
    State& s = state_;
    const auto fill = [&](u8 byte, Source source) {
        s.output = byte;
        s.output_source = static_cast<u8>(source);
    };
    if (s.output_source != static_cast<u8>(Source::None)) return;
    if (s.reply_source != static_cast<u8>(Source::None)) {
        fill(s.reply, static_cast<Source>(std::exchange(s.reply_source, static_cast<u8>(Source::None))));
        return;
    }
    while (!command_byte().has(CommandByte::DisableKeyboard) && keyboard_.has_output()) {
        const auto byte = keyboard_.take();
        if (!byte) break;
        if (const auto shown = translated(*byte)) {
            fill(*shown, Source::Keyboard);
            return;
        }
    }
    if (!command_byte().has(CommandByte::DisableAux) && mouse_.has_output())
        if (const auto byte = mouse_.take()) fill(*byte, Source::Mouse);
}

// [PS2-TRM] The interrupts follow the output buffer being full.
bool I8042::keyboard_level() const {
    const auto source = static_cast<Source>(state_.output_source);
    return (source == Source::Controller || source == Source::Keyboard) &&
           command_byte().has(CommandByte::KeyboardInterrupt);
}

bool I8042::mouse_level() const {
    return static_cast<Source>(state_.output_source) == Source::Mouse &&
           command_byte().has(CommandByte::AuxInterrupt);
}

void I8042::arm_repeat() {
    const u64 deadline = keyboard_.next_repeat_ns();
    if (deadline == Timer::kIdle)
        repeat_timer_.cancel();
    else if (deadline != repeat_timer_.queue_deadline_ns)
        repeat_timer_.arm(deadline);
}

void I8042::on_repeat() {
    keyboard_.repeat(clock_.now_ns());
    sync();
}

void I8042::sync() {
    fill_output();
    keyboard_irq_.set(keyboard_level());
    mouse_irq_.set(mouse_level());
    arm_repeat();
}

// Both lines fall before the next byte raises one again: a controller that senses edges must see each byte.
u8 I8042::read_output() {
    State& s = state_;
    const u8 value = s.output;  // an empty buffer shows its last byte
    s.output_source = static_cast<u8>(Source::None);
    keyboard_irq_.set(false);
    mouse_irq_.set(false);
    sync();
    return value;
}

u8 I8042::read_status() {
    const State& s = state_;
    const auto source = static_cast<Source>(s.output_source);
    Flags<StatusBit> status;
    status.set(StatusBit::OutputFull, source != Source::None);
    status.set(StatusBit::AuxOutputFull, source == Source::Mouse);
    status.set(StatusBit::SystemFlag, command_byte().has(CommandByte::SystemFlag));
    status.set(StatusBit::CommandLast, s.command_last != 0);
    status.set(StatusBit::NotLocked);
    if (s.polling != 0) return static_cast<u8>((status.raw() & ~kPollMask) | s.poll_bits);
    return status.raw();
}

void I8042::write_data(u8 value) {
    State& s = state_;
    s.command_last = 0;
    s.polling = 0;
    if (const u8 command = std::exchange(s.pending, u8{0}); command != 0) {
        take_argument(command, value);
    } else {
        // [PS2-TRM] Sending to the keyboard lets its clock go.
        set_command_byte(CommandByte::DisableKeyboard, false);
        keyboard_.command(value);
    }
    sync();
}

void I8042::take_argument(u8 command, u8 value) {
    State& s = state_;
    switch (command) {
        case kLoadPassword:
            // GAP: the password is not kept, so it never locks. A zero ends it.
            if (value != 0) s.pending = command;
            break;
        case kWriteOutputPort: write_output_port(value); break;
        case kWriteKeyboardOutput: reply(value, Source::Keyboard); break;
        case kWriteAuxOutput: reply(value, Source::Mouse); break;
        case kWriteAuxDevice:
            set_command_byte(CommandByte::DisableAux, false);
            mouse_.command(value);
            break;
        default:
            // Write to RAM.
            s.ram[command & kRamMask] = (command & kRamMask) == 0 ? value & kCommandByteMask : value;
            break;
    }
}

void I8042::set_a20(bool on) {
    state_.a20 = on ? 1 : 0;
    a20_.set_a20(A20Driver::KeyboardController, on);
}

u8 I8042::output_port() const {
    const auto source = static_cast<Source>(state_.output_source);
    Flags<OutputPort> port =
        Flags(OutputPort::NotReset) | OutputPort::KeyboardClock | OutputPort::KeyboardData;
    port.set(OutputPort::A20, state_.a20 != 0);
    port.set(OutputPort::KeyboardInterrupt, source == Source::Controller || source == Source::Keyboard);
    port.set(OutputPort::AuxInterrupt, source == Source::Mouse);
    return port.raw();
}

void I8042::write_output_port(u8 value) {
    const Flags<OutputPort> next(value);
    set_a20(next.has(OutputPort::A20));
    if (!next.has(OutputPort::NotReset)) machine_.request_reset(ResetSource::KeyboardController);
}

void I8042::write_command(u8 value) {
    State& s = state_;
    s.command_last = 1;
    s.polling = 0;
    s.pending = 0;
    if (value >= kPulseOutput) {
        if ((value & static_cast<u8>(OutputPort::NotReset)) == 0)
            machine_.request_reset(ResetSource::KeyboardController);
        // The other three lines go nowhere: pulsing A20 low for 6 microseconds is not seen by anyone.
    } else if (value >= kWriteRam && value <= (kWriteRam | kRamMask)) {
        s.pending = value;
    } else if (value >= kReadRam && value <= (kReadRam | kRamMask)) {
        reply(s.ram[value & kRamMask]);
    } else {
        switch (value) {
            case kTestPassword: reply(kNoPassword); break;
            case kLoadPassword:
            case kWriteOutputPort:
            case kWriteKeyboardOutput:
            case kWriteAuxOutput:
            case kWriteAuxDevice: s.pending = value; break;
            case kDisableAux: set_command_byte(CommandByte::DisableAux, true); break;
            case kEnableAux: set_command_byte(CommandByte::DisableAux, false); break;
            case kTestAux: reply(kInterfaceTestPassed); break;
            case kSelfTest:
                set_command_byte(CommandByte::SystemFlag, true);
                reply(kSelfTestPassed);
                break;
            case kTestKeyboard: reply(kInterfaceTestPassed); break;
            case kDisableKeyboard: set_command_byte(CommandByte::DisableKeyboard, true); break;
            case kEnableKeyboard: set_command_byte(CommandByte::DisableKeyboard, false); break;
            case kReadInputPort: reply(kInputPort); break;
            case kPollInputLow:
            case kPollInputHigh:
                s.polling = 1;
                s.poll_bits =
                    value == kPollInputLow ? static_cast<u8>(kInputPort << 4) : kInputPort & kPollMask;
                break;
            case kReadOutputPort: reply(output_port()); break;
            case kDisableA20: set_a20(false); break;
            case kEnableA20: set_a20(true); break;
            // Both clock inputs are high unless their device is disabled.
            case kReadTestInputs:
                reply(static_cast<u8>((command_byte().has(CommandByte::DisableKeyboard) ? 0 : 1) |
                                      (command_byte().has(CommandByte::DisableAux) ? 0 : 2)));
                break;
            default: break;  // GAP: the diagnostic dump (0xAC); other values have no meaning
        }
    }
    sync();
}

bool I8042::key(u8 usage, KeyAction action) {
    const bool known = keyboard_.key(usage, action, clock_.now_ns());
    sync();
    return known;
}

void I8042::mouse_move(s32 x, s32 y, s32 wheel) {
    mouse_.move(x, y, wheel);
    sync();
}

void I8042::mouse_buttons(u8 down) {
    mouse_.buttons(down);
    sync();
}

void I8042::reset() {
    state_ = State{};
    keyboard_.reset();
    mouse_.reset();
    a20_.set_a20(A20Driver::KeyboardController, true);
    sync();
}

void I8042::visit_state(StateVisitor& v) {
    (void)visit(v, Parts{.controller = state_, .keyboard = keyboard_, .mouse = mouse_});
}

bool I8042::visit(StateVisitor& v, const Parts& parts) {
    auto& [ram, output, output_source, reply, reply_source, pending, command_last, poll_bits, polling,
           break_prefix, a20] = parts.controller;
    bool good = visit_array(v, 1, "ram", ram);
    v.field(2, "output", output);
    v.field(3, "output_source", output_source);
    v.field(4, "reply", reply);
    v.field(5, "reply_source", reply_source);
    v.field(6, "pending", pending);
    v.field(7, "command_last", command_last);
    v.field(8, "poll_bits", poll_bits);
    v.field(9, "polling", polling);
    v.field(10, "break_prefix", break_prefix);
    v.field(11, "a20", a20);
    good = parts.keyboard.visit_state(v) && good;
    return parts.mouse.visit_state(v) && good;
}

bool I8042::plausible(const State& s) {
    constexpr u8 kLastSource = static_cast<u8>(Source::Mouse);
    return (s.ram[0] & ~kCommandByteMask) == 0 && s.output_source <= kLastSource &&
           s.reply_source <= kLastSource && s.command_last <= 1 && s.polling <= 1 &&
           (s.poll_bits & ~kPollMask) == 0 && s.break_prefix <= 1 && s.a20 <= 1;
}

Status I8042::load(StateVisitor& v) {
    State next;
    Ps2Keyboard keyboard;
    Ps2Mouse mouse;
    const bool sizes_fit = visit(v, Parts{.controller = next, .keyboard = keyboard, .mouse = mouse});
    if (!sizes_fit || v.corrupt()) return fail(Errc::CorruptState, "i8042: a field does not fit its size");
    if (!plausible(next) || !keyboard.plausible() || !mouse.plausible())
        return fail(Errc::CorruptState, "i8042: a register has a value that cannot be set");
    state_ = next;
    keyboard_ = keyboard;
    mouse_ = mouse;
    a20_.set_a20(A20Driver::KeyboardController, state_.a20 != 0);
    arm_repeat();
    keyboard_irq_.restore_level(keyboard_level());
    mouse_irq_.restore_level(mouse_level());
    return {};
}

}  // namespace tessera::i8042
